"""iptables_sets: what `-m set --match-set NAME src,dst` means, from the members of the set.

Source: ipset(8); net/netfilter/ipset/ip_set_core.c (ip_set_test), ip_set_hash_*.c, ip_set_getport.c.
"""

from __future__ import annotations

from ..startup.record import Record
from .addresses import span
from .condition import NEVER, AllOf, AnyOf, In, Named, Not, OneOf, number, numbers
from .packet import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from .protocols import ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..rules.model import Family
    from .condition import Condition
    from .known import Scope

_ADDRESS = {"src": "source", "dst": "destination"}
_PORT = {"src": "source_port", "dst": "destination_port"}
_INTERFACE = {"src": "received_on", "dst": "sent_to"}
#: The protocols whose ports bitmap:port has, and those whose ports hash:ip,port has.
_OF_BITMAP = ((TCP, TCP), (UDP, UDP))
_WITH_PORTS = frozenset({TCP, UDP, SCTP, UDPLITE})

#: Options of `ipset create` that change what members mean, or types whose members are not modelled.
_UNREADABLE = frozenset({"netmask", "bitmask", "markmask"})
_UNREADABLE_TYPES = ("mac", "mark")


class NotModelled(ValueError):
    """The meaning of a set cannot be told from its members."""


class Member(Record):
    """A member of a set, as the conditions of its dimensions; `excludes` is ipset's `nomatch`.

    `sizes` are those of the networks in it: a smaller one counts before a larger one.
    """

    condition: Condition
    dimensions: int
    excludes: bool = False
    sizes: tuple[int, ...] = ()


class _Sets(Record):
    """The sets that are known, and the family of the table that asks for them, if that is known."""

    members: Mapping[str, tuple[str, ...]]
    family: Family | None


def match(name: str, directions: Sequence[str], scope: Scope) -> Condition:
    """Return the condition that a packet is in a set. Raises NotModelled if that cannot be told."""
    return _match(name, directions, _Sets(scope.known.sets or {}, scope.family), 0)


def _match(name: str, directions: Sequence[str], sets: _Sets, depth: int) -> Condition:
    about = f"set {name}"
    if name not in sets.members or depth > 1:  # a list:set has no list:set as member
        raise NotModelled(about)
    texts = sets.members[name]
    if all(text.split()[0] in sets.members for text in texts):
        # list:set, whose members are sets; a set without members has nothing in it, whatever its type.
        parts = tuple(_match(text.split()[0], directions, sets, depth + 1) for text in texts)
        return AnyOf(parts, about)
    members = [_member(text, directions, sets.family) for text in texts]
    if any(member.dimensions > len(directions) for member in members):
        return AnyOf((), about)  # ip_set_test: too few directions never match
    if not any(member.excludes for member in members):
        return AnyOf(tuple(_merged(members)), about)
    found: Condition = NEVER
    for member in sorted(members, key=lambda each: each.sizes, reverse=True):
        own = member.condition
        found = AllOf((Not(own), found)) if member.excludes else AnyOf((own, found))
    return AnyOf((found,), about)


def _merged(members: Iterable[Member]) -> list[Condition]:
    """Return the conditions of members, those that are ranges of one field as one."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    others = []
    for member in members:
        if isinstance(member.condition, In):
            ranges.setdefault(member.condition.field, []).extend(member.condition.ranges)
        else:
            others.append(member.condition)
    return [*(numbers(field, found) for field, found in ranges.items()), *others]


def _member(text: str, directions: Sequence[str], wanted: Family | None) -> Member:
    """Return a member of a set with one to three dimensions; its text is that of `ipset list` or `save`."""
    head, *extensions = text.split()
    items = head.split(",")
    reader = _Dimensions(wanted, wildcard="wildcard" in extensions)
    padded = [*directions, *("src",) * len(items)]  # the caller finds that there are too few
    parts = [reader.read(item, way) for item, way in zip(items, padded, strict=False)]
    whole = parts[0] if len(parts) == 1 else AllOf(tuple(parts))
    return Member(whole, len(parts), "nomatch" in extensions, tuple(reader.sizes))


class _Dimensions:
    """Reads the parts of a member, from the first to the last."""

    def __init__(self, family: Family | None, *, wildcard: bool) -> None:
        self.sizes: list[int] = []
        self._family = family
        self._wildcard = wildcard
        self._first = True

    def read(self, item: str, way: str) -> Condition:
        """Return the condition of a part; `way` is src or dst."""
        if way not in _ADDRESS:
            raise NotModelled(way)
        first, self._first = self._first, False
        if item.isdigit() and first:
            return AllOf((numbers("protocol", _OF_BITMAP), number(_PORT[way], int(item))))
        protocol, colon, rest = item.partition(":")
        if colon and protocol in PROTOCOLS and not first:
            return _protocol_port(PROTOCOLS[protocol], rest, way)
        try:
            family, low, high = span(item)
        except (OSError, ValueError):
            if first or ":" in item or item.startswith("0x"):
                raise NotModelled(item) from None
            return Named(_INTERFACE[way], item + ("+" if self._wildcard else ""))
        self.sizes.append(high - low)
        found = number(_ADDRESS[way], low, high)
        if self._family is None:
            return AllOf((OneOf("family", frozenset({family})), found))
        return found if family == self._family else NEVER


def _protocol_port(protocol: int, text: str, way: str) -> Condition:
    """Return the condition of `tcp:80`. In place of a port, ICMP has a type and code, and others nothing."""
    of = number("protocol", protocol)
    if protocol in _WITH_PORTS:
        return AllOf((of, number(_PORT[way], int(text))))
    if protocol not in (ICMP, ICMPV6):
        return of
    names = ICMP_TYPES if protocol == ICMP else ICMPV6_TYPES
    kind, _, code = f"{names[text]}/0".partition("/") if text.startswith("echo-") else text.partition("/")
    if not (kind.isdigit() and code.isdigit()):
        raise NotModelled(text)
    return AllOf((of, number("icmp_type", int(kind)), number("icmp_code", int(code))))


# --- reading ------------------------------------------------------------------------------------


def read(text: str) -> dict[str, tuple[str, ...]]:
    """Read what `ipset save` prints: the members of the sets whose members say what is in them.

    >>> read("create web hash:ip family inet\\nadd web 10.0.0.1\\n")
    {'web': ('10.0.0.1',)}
    """
    sets: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "create" and _is_readable(words[2], words[3:]):
            sets[words[1]] = []
        elif len(words) >= 3 and words[0] == "add" and words[1] in sets:
            sets[words[1]].append(line.split(maxsplit=2)[2])
    return {name: tuple(members) for name, members in sets.items()}


def _is_readable(kind: str, options: Iterable[str]) -> bool:
    dimensions = kind.partition(":")[2].split(",")
    return not (_UNREADABLE.intersection(options) or any(each in _UNREADABLE_TYPES for each in dimensions))
