"""dumps: what programs have printed about a network namespace, and what was read of it.

A text tells what it is: a dump of iptables-save or ip6tables-save, the JSON of `nft -j list ruleset`, what
ip(8) prints, or `ipset save`. Dumps of iptables and of ip may stand one after the other in one text.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY
from ..errors import DumpError, SettingsError
from ..formats import ip_dump, iptables_compiled, iptables_dump, nft_dump
from ..interpreter import iptables_sets, nft_expressions
from ..interpreter.known import Known
from ..interpreter.program import Program
from ..rules.model import IPV4
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..formats.iptables_dump import Dump
    from ..formats.nft_dump import NftDump
    from ..interpreter.program import Table
    from ..interpreter.routing import Network
    from ..rules.model import Family


class Source(Record):
    """A text, and what it is called in messages: the name of a file, or the command that printed it.

    `family` is that of a dump of iptables which does not tell it. `rule_texts` is what `nft -a` prints, for a
    text of `nft -j`.
    """

    name: str
    text: str
    family: Family | None = None
    rule_texts: str = ""


class Rules(Record):
    """The tables of all dumps, the network that they tell of, and what was read and what was not.

    `network` is None if nothing tells of addresses, routes or routing rules. `read` and `unread` have a line
    for each text or thing, for people.
    """

    program: Program
    network: Network | None
    read: tuple[str, ...]
    unread: tuple[str, ...]
    #: The numbers of nftables' rules in their chains by their handles, for each family, table and chain.
    handles: Mapping[tuple[str, str, str], Mapping[int, int]] = {}


def read(sources: Iterable[Source], network: Network | None = None) -> Rules:
    """Read dumps. `network` is the namespace's, if it is known from elsewhere.

    Raises SettingsError with a line for each text that cannot be read.
    """
    reading = _Reading()
    mistakes = []
    for source in sources:
        try:
            reading.take(source)
        except (DumpError, ValueError) as error:
            mistakes.append(f"{source.name}: {error}")
    if mistakes:
        raise SettingsError(mistakes)
    return reading.rules(network)


class _Reading:
    """What has been read so far."""

    def __init__(self) -> None:
        self._dumps: list[tuple[Source, Dump]] = []
        self._native: list[tuple[Source, NftDump]] = []
        self._network: list[ip_dump.Dump] = []
        self._sets: dict[str, tuple[str, ...]] = {}
        self._read: list[str] = []
        self._unread: list[str] = []

    def take(self, source: Source) -> None:
        text = source.text
        if text.lstrip().startswith("{"):
            self._take_nft(source, nft_dump.parse(text))
        elif iptables_dump.is_dump(text):
            self._take_iptables(source, iptables_dump.read(text))
        elif _is_of_ipset(text):
            found = iptables_sets.read(text)
            self._sets.update(found)
            self._read.append(f"{source.name}: ipset: {_count(len(found), 'set')}")
        else:
            self._take_ip(source.name, text)

    def _take_iptables(self, source: Source, dump: Dump) -> None:
        self._dumps.append((source, dump))
        rules = sum(len(table.rules) for table in dump.tables)
        said = f"{_count(len(dump.tables), 'table')}, {_count(rules, 'rule')}"
        self._read.append(f"{source.name}: iptables: {said}")
        self._unread += [f"{source.name}: {warning}" for warning in dump.warnings]
        if dump.unread:  # what stands between the tables may be what ip prints
            self._take_ip(source.name, "\n".join(str(line) for line in dump.unread))

    def _take_nft(self, source: Source, dump: NftDump) -> None:
        self._native.append((source, dump))
        said = ", ".join(_count(number, kind) for kind, number in dump.counts.items()) or "nothing"
        self._read.append(f"{source.name}: nftables: {said}")
        self._unread += [f"{source.name}: {_count(number, kind)}" for kind, number in dump.unknown.items()]

    def _take_ip(self, name: str, text: str) -> None:
        dump = ip_dump.read(text, name=name)
        counts = {kind: number for kind, number in dump.counts.items() if number and kind != "unread"}
        self._unread += [str(each) for each in dump.unread]
        if counts:
            self._network.append(dump)
            said = ", ".join(_count(number, kind.removesuffix("s")) for kind, number in counts.items())
            self._read.append(f"{name}: ip: {said}")
        elif not dump.unread:
            self._unread.append(f"{name}: the text is empty")

    def rules(self, network: Network | None) -> Rules:
        network = ip_dump.joined(self._network) if self._network else network
        known = Known(network, self._sets or None)
        tables = [*self._of_iptables(known), *self._of_nftables(known)]
        program = Program(tuple(tables))
        return Rules(program, network, tuple(self._read), tuple(self._unread), self._handles())

    def _handles(self) -> dict[tuple[str, str, str], dict[int, int]]:
        found: dict[tuple[str, str, str], dict[int, int]] = {}
        rules = (each["rule"] for _, dump in self._native for each in dump.objects if "rule" in each)
        for rule in rules:
            numbers = found.setdefault((rule["family"], rule["table"], rule["chain"]), {})
            if "handle" in rule:
                numbers[rule["handle"]] = len(numbers) + 1
        return found

    def _of_iptables(self, known: Known) -> Iterator[Table]:
        for source, dump in self._dumps:
            unknown = [table.name for table in dump.tables if not (table.family or source.family)]
            if unknown:
                names = ", ".join(dict.fromkeys(unknown))
                self._unread.append(f"{source.name}: no family is told by {names}: taken for IPv4")
            yield from iptables_compiled.compiled(dump, known, source.family or IPV4)

    def _of_nftables(self, known: Known) -> Iterator[Table]:
        for source, dump in self._native:
            unread = nft_expressions.unread(dump.objects)
            self._unread += [f"{source.name}: {_count(number, kind)}" for kind, number in unread.items()]
            yield from nft_expressions.compiled(
                dump.objects,
                known,
                texts=nft_dump.rule_texts(source.rule_texts),
                leave_out=self._known_already(dump),
            )

    def _known_already(self, dump: NftDump) -> set[tuple[str, str]]:
        """Return the tables of iptables-nft of which there is a dump of iptables, which says more."""
        names: Mapping[Family, str] = {"ipv4": "ip", "ipv6": "ip6"}
        dumped = {
            (names[table.family or source.family or IPV4], table.name)
            for source, each in self._dumps
            for table in each.tables
            if table.variant != IPTABLES_LEGACY
        }
        return dumped & nft_expressions.iptables_tables(dump.objects)


def _is_of_ipset(text: str) -> bool:
    first = text.split(maxsplit=3)[:3]
    return len(first) == 3 and first[0] == "create" and ":" in first[2]


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if number == 1 else f"{number} {plural}"
