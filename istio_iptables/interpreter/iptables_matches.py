"""iptables_matches: what the options of each match of iptables mean; MODULES has one entry for each match.

Sources: iptables(8), iptables-extensions(8), and the kernel's net/netfilter/xt_*.c. A match that is not in
MODULES is not modelled: its options say something about time, chance, or parts of a packet that packet.py
has not.
"""

from __future__ import annotations

from ..rules.values import MOST_8, MOST_32, port_range, value_and_mask
from ..rules.values import number as bounded
from ..startup.record import Record
from . import conntrack, iptables_sets
from .addresses import block, has_type, span
from .condition import (
    ALWAYS,
    HAS_SOCKET,
    AllOf,
    AnyOf,
    Masked,
    Named,
    OneOf,
    Unmodelled,
    label,
    negated,
    number,
    numbers,
)
from .protocols import ICMP_TYPES, ICMPV6_TYPES, protocol_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from .condition import Condition
    from .known import Scope

    #: Makes a condition of the values of an option. Raises an error of _UNREADABLE if it cannot read them.
    Maker: TypeAlias = "Callable[[Option, Scope], Condition]"


class Option(Record):
    """An option of a match with its values; `negated` if `!` stands before it."""

    module: str
    name: str
    values: tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        """The first value. Raises IndexError if there is none."""
        return self.values[0]

    @property
    def words(self) -> str:
        """The option as iptables prints it."""
        return " ".join((*(("!",) if self.negated else ()), self.name, *self.values))

    @property
    def unmodelled(self) -> Unmodelled:
        """The condition that stands for it where its meaning cannot be told."""
        return Unmodelled(f"-m {self.module} {self.words}" if self.module else self.words)


class Module(Record):
    """A match: its options, with the number of values that each has, and what a list of them means.

    The meaning has one condition for each option if they can be told apart.
    """

    options: Mapping[str, int]
    meaning: Callable[[Sequence[Option], Scope], list[Condition]]


#: What a value raises that cannot be read. OSError: inet_pton found no address.
_UNREADABLE = (ValueError, LookupError, OSError)


def _condition(option: Option, scope: Scope, makers: Mapping[str, Maker]) -> Condition:
    try:
        return negated(makers[option.name](option, scope), option.negated)
    except _UNREADABLE:
        return option.unmodelled


def _each(makers: Mapping[str, Maker], **counts: int) -> Module:
    """Return a match each of whose options has a meaning of its own.

    `counts` has the options that have not one value, with `_` for `-`.
    """
    options = {name: counts.get(name.strip("-").replace("-", "_"), 1) for name in makers}

    def meaning(given: Sequence[Option], scope: Scope) -> list[Condition]:
        return [_condition(option, scope, makers) for option in given]

    return Module(options, meaning)


def _aliases(makers: Mapping[str, Maker], names: Mapping[str, str]) -> dict[str, Maker]:
    """Return makers with further names of the same options."""
    return {**makers, **{alias: makers[name] for alias, name in names.items()}}


# --- values -------------------------------------------------------------------------------------


def _ports(*fields: str) -> Maker:
    def make(option: Option, scope: Scope) -> Condition:
        ranges = [port_range(each) for each in option.value.split(",")]
        parts = tuple(numbers(field, ranges) for field in fields)
        return parts[0] if len(parts) == 1 else AnyOf(parts)

    return make


def _block(field: str) -> Maker:
    return lambda option, _: block(option.value).on(field)


def _range(field: str) -> Maker:
    def make(option: Option, scope: Scope) -> Condition:
        _, first, last = span(option.value)
        return number(field, first, last)

    return make


def _listed(option: Option, possible: frozenset[str]) -> frozenset[str]:
    """Return the words of a list. Raises ValueError if one of them is not possible."""
    words = frozenset(option.value.split(","))
    if not words <= possible:
        raise ValueError(option.value)
    return words


def _words(field: str, possible: frozenset[str]) -> Maker:
    return lambda option, _: OneOf(field, frozenset(map(str.lower, _listed(option, possible))))


def _masked(field: str) -> Maker:
    return lambda option, _: Masked(field, *value_and_mask(option.value))


def _protocol(option: Option, scope: Scope) -> Condition:
    wanted = protocol_number("0" if option.value == "all" else option.value)
    return number("protocol", wanted) if wanted else ALWAYS  # 0: every protocol (iptables(8), -p)


_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}


def _tcp_flags(option: Option, scope: Scope) -> Condition:
    mask, wanted = (_flag_bits(each) for each in option.values)
    return Masked("flags", wanted, mask)


def _flag_bits(text: str) -> int:
    bits = 0
    for name in text.split(","):
        bits |= _FLAGS[name] if name in _FLAGS else bounded(name, MOST_8, 0)
    return bits


def _icmp(names: Mapping[str, int]) -> Maker:
    def make(option: Option, scope: Scope) -> Condition:
        kind, slash, code = option.value.partition("/")
        if kind == "any" or (kind == "255" and names is ICMP_TYPES):  # 255 stands for any (ip_tables.c)
            return ALWAYS
        of = number("icmp_type", names[kind] if kind in names else bounded(kind, MOST_8))
        return AllOf((of, number("icmp_code", bounded(code, MOST_8)))) if slash else of

    return make


# --- matches whose options have to be read together ----------------------------------------------


def _states(option: Option, scope: Scope) -> Condition:
    return conntrack.states(_listed(option, conntrack.STATES), before=scope.before_conntrack)


_STATUSES = frozenset({"NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"})


def _status(option: Option, scope: Scope) -> Condition:
    """NONE has no bit, so it never matches (libxt_conntrack.c); a packet that has left once is CONFIRMED."""
    wanted = _listed(option, _STATUSES) - {"NONE"}
    found = OneOf("status", wanted)
    return AnyOf((found, number("confirmed", 1)), label(found)) if "CONFIRMED" in wanted else found


def _reply(make: Callable[..., Condition], field: str, value: Callable[[str], Maker]) -> Maker:
    return lambda option, scope: make(lambda name: value(name)(option, scope), field)


def _connection_ports(maker: Maker) -> Maker:
    return lambda option, scope: conntrack.ports(maker(option, scope))


_CONNTRACK: Mapping[str, Maker] = {
    "--ctstate": _states,
    "--ctproto": _protocol,
    "--ctorigsrc": _block("original_source"),
    "--ctorigdst": _block("original_destination"),
    "--ctorigsrcport": _connection_ports(_ports("original_source_port")),
    "--ctorigdstport": _connection_ports(_ports("original_port")),
    "--ctreplsrc": _reply(conntrack.reply_source, "destination", _block),
    "--ctrepldst": _reply(conntrack.reply_destination, "source", _block),
    "--ctreplsrcport": _connection_ports(_reply(conntrack.reply_source, "destination_port", _ports)),
    "--ctrepldstport": _connection_ports(_reply(conntrack.reply_destination, "source_port", _ports)),
    "--ctstatus": _status,
    "--ctdir": _words("direction", frozenset({"ORIGINAL", "REPLY"})),
}


def _conntrack_meaning(given: Sequence[Option], scope: Scope) -> list[Condition]:
    """A packet without an entry has the states that say so; if they match, the other options do not count.

    Without --ctstate it never matches (conntrack_mt in xt_conntrack.c).
    """
    parts = [_condition(each, scope, _CONNTRACK) for each in given]
    entry = conntrack.has_entry(before=scope.before_conntrack)
    wanted = [each for each in given if each.name == "--ctstate"]
    if scope.before_conntrack:
        entry = AnyOf((entry, conntrack.TEMPLATE))
        parts = [
            part if option in wanted else conntrack.of_entry(part, scope.family, option.words)
            for option, part in zip(given, parts, strict=True)
        ]
    if not wanted:
        return [entry, *parts] if parts else []
    if not any(_admits_none(each) for each in wanted):
        return parts
    return [
        part if option in wanted else AnyOf((negated(entry), part), label(part))
        for option, part in zip(given, parts, strict=True)
    ]


def _admits_none(option: Option) -> bool:
    """Tell whether --ctstate can be true of a packet without an entry."""
    words = frozenset(option.value.split(",")) if option.values else frozenset[str]()
    none = conntrack.WITHOUT_ENTRY
    return not none <= words if option.negated else not none.isdisjoint(words)


def _connmark(given: Sequence[Option], scope: Scope) -> list[Condition]:
    return [_one_connmark(option, scope) for option in given]


def _one_connmark(option: Option, scope: Scope) -> Condition:
    try:
        value, mask = value_and_mask(option.value)
    except _UNREADABLE:
        return option.unmodelled
    return conntrack.mark(value, mask, negate=option.negated, before=scope.before_conntrack)


def _ids(field: str) -> Maker:
    def make(option: Option, scope: Scope) -> Condition:
        first, dash, last = option.value.replace(":", "-").partition("-")
        return number(field, bounded(first, MOST_32), bounded(last, MOST_32) if dash else None)

    return make


#: An answer of the kernel itself (an ICMP error, a TCP reset) may come from a socket of its own. That has no
#: file, so the answer has no owner (owner_mt in xt_owner.c). What is forwarded has no socket.
_KERNELS_OWN = Unmodelled("whether the kernel's own socket sends it")
_SENT_HERE = OneOf("received_on", frozenset({""}))
_SOCKET_EXISTS = AnyOf((HAS_SOCKET, AllOf((_SENT_HERE, _KERNELS_OWN))), "socket")
_OWNER: Mapping[str, Maker] = {
    "--uid-owner": _ids("uid"),
    "--gid-owner": _ids("gid"),
    "--socket-exists": lambda *_: _SOCKET_EXISTS,
}


def _owner(given: Sequence[Option], scope: Scope) -> list[Condition]:
    """With --suppl-groups, the supplementary groups count for --gid-owner, and no packet without a socket
    matches, negated or not (owner_mt in xt_owner.c).
    """
    if not any(option.name == "--suppl-groups" for option in given):
        return [_condition(option, scope, _OWNER) for option in given]
    parts: list[Condition] = [
        _condition(option, scope, {**_OWNER, "--gid-owner": _any_group})
        for option in given
        if option.name != "--suppl-groups"
    ]
    return [*parts, _SOCKET_EXISTS]


def _any_group(option: Option, scope: Scope) -> Condition:
    own, others = (_ids(field)(option, scope) for field in ("gid", "groups"))
    return AnyOf((own, others))


_LIMITS = {"--limit-iface-in": "received_on", "--limit-iface-out": "sent_to"}
_TYPED = {"--src-type": "source", "--dst-type": "destination"}


def _addrtype(given: Sequence[Option], scope: Scope) -> list[Condition]:
    """A limit to an interface counts for both addresses (addrtype_mt_v1 in xt_addrtype.c)."""
    interface = next((_LIMITS[option.name] for option in given if option.name in _LIMITS), "")

    def make(option: Option, scope: Scope) -> Condition:
        return has_type(_TYPED[option.name], option.value.upper().split(","), interface, scope)

    makers: Mapping[str, Maker] = dict.fromkeys(_TYPED, make)
    return [_condition(option, scope, makers) for option in given if option.name not in _LIMITS]


#: Options that say whether a match counts in the set; they change nothing for the packet.
_COUNTING = frozenset({"--update-counters", "--update-subcounters"})


def _set(given: Sequence[Option], scope: Scope) -> list[Condition]:
    """What asks for counters of the set, or turns its meaning round, cannot be told from the members."""
    plain = not any(option.name == "--return-nomatch" for option in given)
    parts: list[Condition] = []
    for option in given:
        if option.name in _COUNTING:
            continue
        if option.name in ("--match-set", "--set") and plain:
            parts.append(_condition(option, scope, {option.name: _member}))
        else:
            parts.append(option.unmodelled)
    return parts


def _member(option: Option, scope: Scope) -> Condition:
    name, directions = option.values
    return iptables_sets.match(name, directions.split(","), scope)


# --- all matches ----------------------------------------------------------------------------------

_PORTS = {"--sport": _ports("source_port"), "--dport": _ports("destination_port")}
_PORT_NAMES = {"--source-port": "--sport", "--destination-port": "--dport"}
_WITH_PORTS = _aliases(_PORTS, _PORT_NAMES)

MODULES: Mapping[str, Module] = {
    "": _each(
        _aliases(
            {
                "-s": _block("source"),
                "-d": _block("destination"),
                "-i": lambda option, _: Named("received_on", option.value),
                "-o": lambda option, _: Named("sent_to", option.value),
                "-p": _protocol,
                "-f": lambda *_: number("fragment", 1),
            },
            {
                "--source": "-s",
                "--src": "-s",
                "--destination": "-d",
                "--dst": "-d",
                "--in-interface": "-i",
                "--out-interface": "-o",
                "--protocol": "-p",
                "--fragment": "-f",
            },
        ),
        f=0,
        fragment=0,
    ),
    "tcp": _each(
        {
            **_WITH_PORTS,
            "--tcp-flags": _tcp_flags,
            "--syn": lambda *_: Masked("flags", _FLAGS["SYN"], _flag_bits("SYN,RST,ACK,FIN")),
        },
        tcp_flags=2,
        syn=0,
    ),
    **dict.fromkeys(("udp", "udplite", "sctp", "dccp"), _each(_WITH_PORTS)),
    "icmp": _each({"--icmp-type": _icmp(ICMP_TYPES)}),
    **dict.fromkeys(("icmp6", "icmpv6", "ipv6-icmp"), _each({"--icmpv6-type": _icmp(ICMPV6_TYPES)})),
    "multiport": _each(
        _aliases(
            {
                "--sports": _ports("source_port"),
                "--dports": _ports("destination_port"),
                "--ports": _ports("source_port", "destination_port"),
            },
            {"--source-ports": "--sports", "--destination-ports": "--dports"},
        )
    ),
    "comment": _each({"--comment": lambda *_: ALWAYS}),
    "conntrack": Module(dict.fromkeys(_CONNTRACK, 1), _conntrack_meaning),
    "state": _each({"--state": _states}),
    "mark": _each({"--mark": _masked("mark")}),
    "connmark": Module({"--mark": 1}, _connmark),
    "owner": Module({"--uid-owner": 1, "--gid-owner": 1, "--socket-exists": 0, "--suppl-groups": 0}, _owner),
    "addrtype": Module({**dict.fromkeys(_TYPED, 1), **dict.fromkeys(_LIMITS, 0)}, _addrtype),
    "set": Module({"--match-set": 2, "--set": 2, "--return-nomatch": 0, **dict.fromkeys(_COUNTING, 0)}, _set),
    "iprange": _each({"--src-range": _range("source"), "--dst-range": _range("destination")}),
    "pkttype": _each({"--pkt-type": _words("packet_type", frozenset({"unicast", "broadcast", "multicast"}))}),
}
