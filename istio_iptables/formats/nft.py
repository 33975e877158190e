"""nft: the tables of native mode in the language of nft(8).

A whole table is written as `nft list table` prints it, so that what is shown is what is applied.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..rules import model
from ..rules.istio import NATIVE_FAMILY
from ..rules.model import Cidr
from ..rules.nftables import model as nftables
from ..rules.nftables.edit import Delete, Flush, transactions
from ..rules.nftables.model import Hook, NativeTable
from ..startup.record import Record
from . import NFT_FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..rules.model import Counters, Match, Rule, Target
    from ..rules.nftables.edit import Step
    from ..rules.nftables.model import Listing

_SIDE = {"source": "s", "destination": "d"}
_VERSION = {"ipv4": 4, "ipv6": 6}
#: How many members of a set are written on a line; longer sets begin on a line of their own.
_MEMBERS_A_LINE = 8


def script(tables: Iterable[NativeTable], *, explain: bool = False) -> str:
    """Return what makes tables where there are none, for `nft -f`; `explain`: each rule's reason above it."""
    texts = [_Text(table, explain) for table in tables]
    return "".join(text.whole(text.named) for text in texts)


def edit_scripts(
    before: Sequence[NativeTable], after: Sequence[NativeTable], *, sets_first: bool = True
) -> list[str]:
    """Return what turns some tables into others, for `nft -f`: a transaction each, mostly one.

    The steps are those of rules/nftables/edit.py.
    """
    return [
        "".join(_step_text(step) for step in steps)
        for steps in transactions(before, after, sets_first=sets_first)
    ]


def _step_text(step: Step) -> str:
    if isinstance(step, Flush):
        return f"flush table {NATIVE_FAMILY} {step.table}\n"
    if isinstance(step, Delete):
        name = f" {step.name}" if step.name else ""
        return f"delete {step.kind} {NATIVE_FAMILY} {step.table}{name}\n"
    text = _Text(step.table)
    return text.sets(step.sets) if step.only_sets else text.whole(step.sets)


class _Text:
    """A table as text, and the named sets that are in it."""

    def __init__(self, table: NativeTable, explain: bool = False) -> None:
        self.table = table
        self.named: dict[str, _Set] = {}
        self._chains: list[str] = []
        for number, chain in enumerate(table.chains if not table.text else ()):
            self._chains += [*([""] if number else []), f"\tchain {chain.name} {{"]
            self._chains += [f"\t\t{hook_line(chain.hook)}"] if chain.hook else []
            for rule in chain.rules:
                self._chains += [f"\t\t# {rule.reason}"] if explain and rule.reason else []
                self._chains += [f"\t\t{line}" for line in rule_lines(rule, named=self.named)]
            self._chains.append("\t}")

    def whole(self, sets: Iterable[str]) -> str:
        """Return all of the table, with the sets of these names: others are there already."""
        if self.table.text:
            return self.table.text
        return self._in_braces([*(line for name in sets for line in (*self._set(name), "")), *self._chains])

    def sets(self, names: Iterable[str]) -> str:
        """Return sets of the table alone."""
        return self._in_braces(line for name in names for line in self._set(name))

    def _set(self, name: str) -> list[str]:
        wanted = self.named[name]
        elements = _lines(["elements =", wanted.replace(name="")], _MEMBERS_A_LINE)
        inner = [f"type {wanted.type}", "flags interval", *elements]
        return [f"\tset {name} {{", *(f"\t\t{line}" for line in inner), "\t}"]

    def _in_braces(self, lines: Iterable[str]) -> str:
        whole = (f"table {NATIVE_FAMILY} {self.table.name} {{", *lines, "}")
        return "".join(f"{line}\n" for line in whole)


def hook_line(hook: Hook) -> str:
    """Return the line that makes a chain a base chain."""
    return f"type {hook.kind} hook {hook.hook} priority {hook.priority}; policy {hook.policy};"


def table_lines(table: NativeTable) -> Iterator[str]:
    """Yield a table as lines to compare, each with the name of its chain; unused sets are left out."""
    if table.is_left_over:
        return
    yield f"table {NATIVE_FAMILY} {table.name}"
    yield from table.extras
    for chain in sorted(table.chains, key=lambda chain: chain.name):
        if chain.hook:
            yield f"{chain.name}: {hook_line(chain.hook)}"
        elif not chain.rules:
            yield f"{chain.name}: (no rules)"
        for rule in chain.rules:
            yield from (f"{chain.name}: {line}" for line in rule_lines(rule, counted=False, members_a_line=1))


# --- a rule -----------------------------------------------------------------------------------


class _Set(Record):
    """The values of a match as a set: their type, the members as nft writes them, a name if it needs one."""

    type: str
    members: tuple[str, ...]
    name: str = ""


def rule_lines(
    rule: Rule,
    *,
    counted: bool = True,
    members_a_line: int = _MEMBERS_A_LINE,
    named: dict[str, _Set] | None = None,
) -> list[str]:
    """Return a rule: one line, or more if it has a set that is too long for one.

    With `named`, sets that need a name are put there, and the rule has that name.
    """
    parts: _Parts = []
    comments: _Parts = []
    for match in rule.matches:
        (comments if isinstance(match, model.Comment) else parts).extend(_MATCH[type(match)](match))
    if not isinstance(rule.target, model.ForeignTarget):  # that has all that the rule does
        parts.append(_counter(rule.counters) if counted else "counter")
    parts += _TARGET[type(rule.target)](rule.target)
    if named is not None:
        named.update((part.name, part) for part in parts if isinstance(part, _Set) and part.name)
        parts = [f"@{part.name}" if isinstance(part, _Set) and part.name else part for part in parts]
    return _lines([*parts, *comments], members_a_line)


def _lines(parts: Iterable[str | _Set], members_a_line: int) -> list[str]:
    """Join the parts of a rule; a set may take several lines."""
    lines = [""]
    for part in parts:
        start = lines[-1] + " " if lines[-1] else ""
        if isinstance(part, str):
            lines[-1] = start + part
            continue
        members = part.members
        if len(members) <= _MEMBERS_A_LINE:
            lines[-1] = f"{start}{{ {', '.join(members)} }}"
        else:
            lines[-1] = start + "{"
            for first in range(0, len(members), members_a_line):
                lines.append(f"\t{', '.join(members[first : first + members_a_line])},")
            lines.append("}")
    return lines


def _counter(counters: Counters) -> str:
    if not counters.packets:
        return "counter"
    return f"counter packets {counters.packets} bytes {counters.bytes}"


_Parts = list[str | _Set]


def _operator(negated: bool) -> list[str]:
    return ["!="] if negated else []


def _values(match: Listing, text: Callable[[int, int], str]) -> str | _Set:
    """Return one value as it is, several as a set."""
    kind, ranges = nftables.set_of(match)
    members = tuple([text(first, last) for first, last in ranges])
    return members[0] if len(members) == 1 else _Set(kind, members, nftables.set_name(match))


def _number_range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _address_range(version: int) -> Callable[[int, int], str]:
    """Return how the addresses from one to another are written: an address, a CIDR or a range."""
    bits = 32 if version == 4 else 128

    def text(first: int, last: int) -> str:
        size = last - first + 1
        if size & (size - 1) == 0 and first % size == 0:
            prefix = bits - size.bit_length() + 1
            written = str(Cidr(version, first, prefix))
            return written.partition("/")[0] if prefix == bits else written
        ends = (str(Cidr(version, end, bits)).partition("/")[0] for end in (first, last))
        return "-".join(ends)

    return text


def _addresses(match: nftables.Addresses) -> _Parts:
    values = _values(match, _address_range(_VERSION[match.family]))
    return [NFT_FAMILIES[match.family], f"{_SIDE[match.direction]}addr", *_operator(match.negated), values]


def _ports(match: nftables.Ports) -> _Parts:
    values = _values(match, _number_range)
    return [match.protocol, f"{_SIDE[match.direction]}port", *_operator(match.negated), values]


def _owners(match: nftables.Owners) -> _Parts:
    key = "skuid" if match.kind == "user" else "skgid"
    return ["meta", key, *_operator(match.negated), _values(match, _number_range)]


def _interface(key: str) -> Callable[[model.InInterface | model.OutInterface], _Parts]:
    def parts(match: model.InInterface | model.OutInterface) -> _Parts:
        return [key, *_operator(match.negated), interface_name(match.name)]

    return parts


def interface_name(name: str) -> str:
    """Return the name of an interface as nft(8) takes it, in quotes; a trailing `+` is a wildcard.

    Raises SettingsError for a name with a quote or a backslash, which nft has no way to escape.

    >>> interface_name("eth0"), interface_name("veth+"), interface_name("odd*")
    ('"eth0"', '"veth*"', '"odd\\\\*"')
    """
    if '"' in name or "\\" in name:
        raise SettingsError(
            [f"interface {name!r}: nft cannot write a name with a double quote or a backslash; iptables can"]
        )
    if name.endswith("+"):
        return f'"{name[:-1]}*"'
    return f'"{name[:-1]}\\*"' if name.endswith("*") else f'"{name}"'


def _mark(key: str) -> Callable[[model.Mark | model.ConnectionMark], _Parts]:
    def parts(match: model.Mark | model.ConnectionMark) -> _Parts:
        return [key, *_operator(match.negated), f"{match.value:#x}"]

    return parts


def _state(match: model.ConntrackState) -> _Parts:
    states = ",".join(sorted(state.lower() for state in match.states))
    return ["ct state", *_operator(match.negated), states]


_MATCH: Mapping[type[Match], Callable[[Any], _Parts]] = {
    nftables.NfProto: lambda match: ["meta nfproto", match.family],
    nftables.Addresses: _addresses,
    nftables.Ports: _ports,
    nftables.Owners: _owners,
    model.InInterface: _interface("iifname"),
    model.OutInterface: _interface("oifname"),
    model.Transport: lambda match: ["meta l4proto", *_operator(match.negated), match.protocol],
    model.Mark: _mark("meta mark"),
    model.ConnectionMark: _mark("ct mark"),
    model.ConntrackState: _state,
    model.Comment: lambda match: [f'comment "{match.text}"'],
    model.ForeignMatch: lambda match: list(match.args),
}


def _tproxy(target: nftables.FamilyTProxy) -> _Parts:
    return [f"tproxy {NFT_FAMILIES[target.family]} to :{target.port} meta mark set {target.mark:#x} accept"]


def _statement(json: str) -> str:
    """Return a statement that nft printed as JSON; one without a value, such as `accept`, in nft's words."""
    word = json.removeprefix('{"').partition('"')[0]
    return word if json == f'{{"{word}": null}}' or word == "counter" else json


_TARGET: Mapping[type[Target], Callable[[Any], _Parts]] = {
    model.Jump: lambda target: [f"{'goto' if target.goto else 'jump'} {target.chain}"],
    model.Verdict: lambda target: [target.name.lower()],
    model.Redirect: lambda target: [f"redirect to :{target.port}"],
    model.SetMark: lambda target: [f"meta mark set {target.value:#x}"],
    model.SaveMark: lambda _: ["ct mark set meta mark"],
    model.RestoreMark: lambda _: ["meta mark set ct mark"],
    nftables.FamilyTProxy: _tproxy,
    model.ConntrackZone: lambda target: [f"ct zone set {target.zone}"],
    model.ForeignTarget: lambda target: [_statement(text) for text in target.args],
}
