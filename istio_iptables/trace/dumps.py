"""dumps: what programs have printed about a network namespace, and what was read of it.

A text tells what it is: a dump of iptables-save or ip6tables-save, the JSON of `nft -j list ruleset`, what
ip(8) prints, or `ipset save`, also several of them one after the other (texts.py). What cannot be read is
kept, with the line and the reason; a text of which nothing can be read is an error.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY
from ..errors import DumpError
from ..formats import NFT_FAMILIES, ip_dump, iptables_compiled, iptables_dump, nft_dump
from ..interpreter import iptables_sets, nft_expressions
from ..interpreter.known import Known
from ..interpreter.program import Program
from ..rules.model import IPV4
from ..settings.texts import shown
from ..startup.record import Record
from . import texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..formats.iptables_dump import Dump
    from ..formats.nft_dump import NftDump, Object
    from ..interpreter.program import Table
    from ..interpreter.routing import Network
    from ..rules.model import Family


class Source(Record):
    """A text, and what it is called in messages: the name of a file, or the command that printed it.

    `family` is that of a dump of iptables which does not tell it. `rule_texts` is what `nft -a` prints, for a
    text of `nft -j`. `may_be_empty`: it is not wrong if there is nothing in it that can be read.
    """

    name: str
    text: str
    family: Family | None = None
    rule_texts: str = ""
    may_be_empty: bool = False


class Rules(Record):
    """The tables of all dumps, the network that they tell of, and what was read and what was not.

    `network` is None if nothing tells of addresses, routes or routing rules. `read` and `unread` have a line
    for each text or thing, for people; `assumed` is what had to be guessed, and `settings` where those are
    from by which the rules are understood. `dumps` and `objects` are what iptables and nft have printed.
    """

    program: Program
    network: Network | None
    read: tuple[str, ...]
    unread: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    dumps: tuple[tuple[Source, Dump], ...] = ()
    objects: tuple[Object, ...] = ()

    @property
    def handles(self) -> Mapping[tuple[str, str, str], Mapping[int, int]]:
        """The numbers of nftables' rules in their chains by handles, for each family, table and chain."""
        found: dict[tuple[str, str, str], dict[int, int]] = {}
        for rule in (each["rule"] for each in self.objects if "rule" in each):
            numbers = found.setdefault((rule["family"], rule["table"], rule["chain"]), {})
            if "handle" in rule:
                numbers[rule["handle"]] = len(numbers) + 1
        return found


def read(sources: Iterable[Source], network: Network | None = None) -> Rules:
    """Read dumps. `network` is the namespace's, if it is known from elsewhere.

    Raises DumpError with a line for each text that cannot be read, or of which nothing can be read.
    """
    reading = _Reading()
    mistakes = []
    for source in sources:
        try:
            reading.take(source)
        except (DumpError, ValueError) as error:
            mistakes.append(_line(f"{source.name}: {error}"))
    if mistakes:
        raise DumpError("\n".join(mistakes))
    return reading.rules(network)


#: Said of what iptables cannot read and nft can: it is read after all.
TELLS_LESS = "read with nft, which tells less of them"


def caveat(rules: Rules | None) -> str:
    """Return what an answer from rules has to add if not all of their texts was read, else nothing."""
    if not rules or all(each.endswith(TELLS_LESS) for each in rules.unread):
        return ""
    return " Not all of the rules were read, and what was not could change this: see `not read`."


class _Reading:
    """What has been read so far."""

    def __init__(self) -> None:
        self._dumps: list[tuple[Source, Dump]] = []
        self._native: list[tuple[Source, NftDump]] = []
        self._network: list[ip_dump.Dump] = []
        self._sets: dict[str, tuple[str, ...]] = {}
        self._read: list[str] = []
        self._unread: list[str] = []
        self._assumed: list[str] = []
        #: Tables of nftables that may be dormant, as only nft says.
        self._may_sleep: set[tuple[str, str]] = set()
        #: What iptables cannot show but nft can: not read only if there is no dump of nft.
        self._left_to_nft: list[str] = []

    def take(self, source: Source) -> None:
        """Read a text. Raises DumpError or ValueError if that cannot be done, or nothing is in it."""
        if not source.text.strip() and not source.may_be_empty:
            raise DumpError(f"nothing is in it: {_WANTED}")
        said: list[str] = []  #: what was read of it
        unread: list[_Unread] = []
        for part in texts.parts(source.text):
            said += _READERS[part.program](self, source.replace(text=part.text), unread)
        if not said and not source.may_be_empty:
            raise DumpError(f"none of it can be read: {_summary(unread)}: {_WANTED}")
        if unread:
            said.append(f"{_count(len(unread), 'line')} not read")
        self._read.append(f"{source.name}: {'; '.join(said) or 'nothing'}")
        for each in sorted(unread, key=lambda each: each.line):
            (self._left_to_nft if each.by_nft else self._unread).append(f"{source.name} {each}")

    def _take_iptables(self, source: Source, unread: list[_Unread]) -> list[str]:
        dump = iptables_dump.read(source.text)
        self._unread += [f"{source.name} line {each.number}: {each}" for each in dump.warnings]
        elsewhere = [""] * len(dump.lines)  # what stands between the tables may be what ip prints
        for line in dump.unread:
            if line.outside:
                elsewhere[line.number - 1] = line.text
            else:
                unread.append(_Unread(line.number, line.why, line.text, line.by_nft))
        said = []
        if dump.tables:
            self._dumps.append((source, dump))
            rules = sum(len(table.rules) for table in dump.tables)
            said.append(f"iptables: {_count(len(dump.tables), 'table')}, {_count(rules, 'rule')}")
        if any(elsewhere):
            said += self._take_ip(source.replace(text="\n".join(elsewhere)), unread)
        return said

    def _take_nft(self, source: Source, unread: list[_Unread]) -> list[str]:
        dump = nft_dump.parse(source.text)
        self._native.append((source, dump))
        said = ", ".join(_count(number, kind) for kind, number in dump.counts.items()) or "nothing"
        for kind, number in dump.unknown.items():
            self._unread.append(f"{source.name}: nftables: {_count(number, shown(kind))}: not known")
        if dump.counts and "chain" not in dump.counts and not source.may_be_empty:
            why = "no chain is in it (`nft -j list ruleset` prints all of them, with their rules)"
            self._unread.append(f"{source.name}: nftables: {why}")
        return [f"nftables: {said}"]

    def _take_ipset(self, source: Source, unread: list[_Unread]) -> list[str]:
        found = iptables_sets.read(source.text)
        self._sets.update(found)
        created = set()
        for number, line in enumerate(source.text.splitlines(), 1):
            kind, name = (*line.split()[:2], "", "")[:2]
            if kind == "create":
                created.add(name)
                if name not in found:
                    unread.append(_Unread(number, "what is in such a set cannot be told", line))
            elif kind and name not in created:
                unread.append(_Unread(number, f"no line before it creates the set {shown(name)}", line))
        members = sum(map(len, found.values()))
        return [f"ipset: {_count(len(found), 'set')}, {_count(members, 'member')}"] if found else []

    def _take_ip(self, source: Source, unread: list[_Unread]) -> list[str]:
        dump = ip_dump.read(source.text, name=source.name)
        for line in dump.unread:
            why = iptables_dump.why_other(line.text) or line.why
            unread.append(_Unread(line.line, why, line.text))
        counts = {kind: number for kind, number in dump.counts.items() if number and kind != "unread"}
        if not counts and dump.unread:
            return []
        self._network.append(dump)
        said = ", ".join(_count(number, kind.removesuffix("s")) for kind, number in counts.items())
        return [f"ip: {said or 'nothing'}"]

    def rules(self, network: Network | None) -> Rules:
        network = ip_dump.joined(self._network) if self._network else network
        known = Known(network, self._sets or None)
        self._may_sleep = {
            each for _, dump in self._native for each in nft_expressions.may_sleep(dump.objects)
        }
        tables = [*self._of_iptables(known), *self._of_nftables(known)]
        program = Program(tuple(tables))
        unread = (*self._unread, *(() if self._native else self._left_to_nft))
        assumed = (*self._assumed, *(network.assumed if network and self._network else ()))
        if network and not self._network:
            unread += network.unread
        objects = tuple(each for _, dump in self._native for each in dump.objects)
        return Rules(
            program,
            network,
            tuple(map(_line, self._read)),
            tuple(map(_line, unread)),
            tuple(map(_line, assumed)),
            dumps=tuple(self._dumps),
            objects=objects,
        )

    def _of_iptables(self, known: Known) -> Iterator[Table]:
        for source, dump in self._dumps:
            unknown = [table.name for table in dump.tables if not (table.family or source.family)]
            if unknown:
                names = ", ".join(dict.fromkeys(unknown))
                self._assumed.append(f"{source.name}: no family is told by {names}: taken for IPv4")
            for table in iptables_compiled.compiled(dump, known, source.family or IPV4):
                of_nft = {(NFT_FAMILIES[family], table.name) for family in table.families}
                if table.location == IPTABLES_LEGACY or not of_nft & self._may_sleep:
                    yield table

    def _of_nftables(self, known: Known) -> Iterator[Table]:
        for source, dump in self._native:
            unread = nft_expressions.unread(dump.objects)
            for what, rules in unread.items():
                self._unread.append(f"{source.name}: {shown(what)}: not modelled, {_count(rules, 'rule')}")
            yield from nft_expressions.compiled(
                dump.objects,
                known,
                texts=nft_dump.rule_texts(source.rule_texts),
                leave_out=self._known_already(dump),
            )

    def _known_already(self, dump: NftDump) -> set[tuple[str, str]]:
        """Return the tables of iptables-nft of which there is a dump of iptables, which says more."""
        dumped = {
            (NFT_FAMILIES[table.family or source.family or IPV4], table.name)
            for source, each in self._dumps
            for table in each.tables
            if table.variant != IPTABLES_LEGACY
        }
        return (dumped & nft_expressions.iptables_tables(dump.objects)) - self._may_sleep


class _Unread(Record):
    """A line that was not read. `by_nft`: nft can print what iptables could not."""

    line: int
    why: str
    text: str
    by_nft: bool = False

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}: {_shown(self.text)}"


_READERS = {
    "iptables": _Reading._take_iptables,
    "nft": _Reading._take_nft,
    "ipset": _Reading._take_ipset,
    "ip": _Reading._take_ip,
}
_WANTED = (
    "what iptables-save, ip6tables-save, `nft -j list ruleset`, `ipset save`, `ip rule`, `ip route` and "
    "`ip addr` print can be read"
)
#: As many characters of a line are shown.
_LONGEST = 120


def _shown(text: str) -> str:
    """Return the beginning of a line."""
    text = text.strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _line(text: str) -> str:
    """Return a text as a line for a terminal: without characters that a terminal obeys."""
    return text if text.isprintable() else "".join(e if e.isprintable() else repr(e)[1:-1] for e in text)


def _summary(unread: Sequence[_Unread]) -> str:
    """Return the first line that was not read, and how many more there are."""
    if not unread:
        return "no table is in it"
    first = min(unread, key=lambda each: each.line)
    return f"{first} (and {_count(len(unread) - 1, 'more line')})" if len(unread) > 1 else str(first)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if number == 1 else f"{number} {plural}"
