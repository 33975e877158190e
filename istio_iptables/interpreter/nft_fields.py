"""nft_fields: the expressions of nf_tables that have a value: payload, meta, ct, fib, concatenations, masks.

Sources: nft(8), PRIMARY EXPRESSIONS and PAYLOAD EXPRESSIONS; libnftables-json(5); nft_payload.c, nft_meta.c,
nft_ct.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from ..startup.record import Record
from . import nft_values as values
from .condition import (
    HAS_CONNECTION,
    HAS_SOCKET,
    NEVER,
    AllOf,
    AnyOf,
    Condition,
    In,
    Named,
    Not,
    OneOf,
    Unmodelled,
    any_of,
    number,
    numbers,
)
from .nft_fib import fib
from .nft_operands import Cases, Concatenation, FlagSet, Interface, Number, Opaque, Operand, Word
from .nft_values import UnreadError
from .nft_words import expression as words
from .packet import ICMP, ICMPV6, SCTP, TCP, UDP
from .routing import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..rules.model import Family
    from .known import Known


class Scope(Record):
    """The table that an expression is in.

    `families` are those of its packets; `sets` are the elements of its sets and maps by name. `early`: it has
    a chain that gets packets before conntrack does.
    """

    families: frozenset[Family]
    known: Known
    sets: Mapping[str, list[Any]] = {}  # a record: nothing changes it
    early: bool = False


def operand(value: Any, scope: Scope) -> Operand:
    """Return what an expression takes from a packet; one that is not modelled is Opaque.

    Raises UnreadError for something that is no expression with a value.
    """
    if not isinstance(value, dict) or not value:
        raise UnreadError(value)
    [(kind, inner), *_] = value.items()
    if kind == "payload":
        return _payload(inner, scope, words(value))
    if kind == "meta":
        return _meta(inner["key"], words(value))
    if kind == "ct":
        return _ct(inner, scope, words(value))
    if kind == "fib":
        flags = inner["flags"]
        flags = [flags] if isinstance(flags, str) else flags
        return fib(flags, inner["result"], scope.known, words(value))
    if kind == "concat":
        parts = tuple(operand(part, scope) for part in inner)
        return Concatenation(tuple(need for part in parts for need in part.needs), parts=parts)
    if kind in ("&", "|", "^", "<<", ">>"):
        return _combined(kind, inner, scope, words(value))
    if kind in ("numgen", "jhash", "symhash"):
        least: int = inner.get("offset", 0)
        needs = operand(inner["expr"], scope).needs if "expr" in inner else ()
        return Opaque(needs, why=words(value), least=least, most=least + inner["mod"] - 1)
    needs = (_of_protocol(TCP),) if kind == "tcp option" else ()
    return Opaque(needs, why=words(value))


def _combined(operator: str, inner: list[Any], scope: Scope, why: str) -> Operand:
    found = operand(inner[0], scope)
    try:
        for each in inner[1:]:
            constant = found.read(each) if isinstance(found, (Number, Word, FlagSet)) else 0
            found = found.combined(operator, constant)
    except UnreadError:
        return Opaque(found.needs, why=why)
    return found


def of_family(family: Family, scope: Scope) -> tuple[Condition, ...]:
    """Return what it takes for a packet of a table to be of a family."""
    if family not in scope.families:
        return (NEVER,)
    return () if len(scope.families) == 1 else (OneOf("family", frozenset({family})),)


# --- payload ----------------------------------------------------------------------------------


def _of_protocol(protocol: int) -> Condition:
    return number("protocol", protocol)


DCCP, UDPLITE = 33, 136  #: numbers in IP headers (linux/in.h)
_PORTS_OF = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "dccp": DCCP, "udplite": UDPLITE}
_HAS_PORTS = numbers("protocol", [(protocol, protocol) for protocol in _PORTS_OF.values()])
_PORTS = {"sport": "source_port", "dport": "destination_port"}
_ADDRESSES = {"saddr": "source", "daddr": "destination"}
_IP: Mapping[str, Family] = {"ip": IPV4, "ip6": IPV6}
_ICMP = {
    "icmp": (ICMP, {"type": values.ICMP_TYPES, "code": values.ICMP_CODES}),
    "icmpv6": (ICMPV6, {"type": values.ICMPV6_TYPES, "code": values.ICMPV6_CODES}),
}
#: Headers of other protocols, by which a packet is of that protocol.
_OTHER_HEADERS = {"ah": 51, "esp": 50, "comp": 108, "igmp": 2, "gre": 47}
#: Fields by base, offset and length in bits, of IPv4, of IPv6, and of the transport header.
_RAW: Mapping[tuple[str, int, int], tuple[str, str]] = {
    ("ipv4", 72, 8): ("ip", "protocol"),
    ("ipv4", 96, 32): ("ip", "saddr"),
    ("ipv4", 128, 32): ("ip", "daddr"),
    ("ipv6", 48, 8): ("ip6", "nexthdr"),
    ("ipv6", 64, 128): ("ip6", "saddr"),
    ("ipv6", 192, 128): ("ip6", "daddr"),
    ("th", 0, 16): ("th", "sport"),
    ("th", 16, 16): ("th", "dport"),
}


def _payload(inner: Mapping[str, Any], scope: Scope, why: str) -> Operand:
    if "base" in inner:
        base: str = inner["base"]
        if base == "nh" and len(scope.families) == 1:  # else it may be of either header
            [base] = scope.families
        named = _RAW.get((base, inner["offset"], inner["len"]))
        if named is None:
            return Opaque(why=why)
        protocol, field = named
    else:
        protocol, field = inner["protocol"], inner["field"]
    return _header(protocol, field, scope, why)


def _header(protocol: str, field: str, scope: Scope, why: str) -> Operand:
    if protocol in _IP:
        return _ip_header(_IP[protocol], field, of_family(_IP[protocol], scope), why)
    if protocol == "th" and field in _PORTS:
        # Of another protocol these are other bytes of its header.
        needs: tuple[Condition, ...] = (AnyOf((_HAS_PORTS, Unmodelled(f"{why} of another protocol"))),)
        return Number(needs, bits=16, field=_PORTS[field])
    if protocol in _PORTS_OF:
        needs = (_of_protocol(_PORTS_OF[protocol]),)
        if field in _PORTS:
            return Number(needs, bits=16, field=_PORTS[field])
        if (protocol, field) == ("tcp", "flags"):
            return Number(needs, bits=8, field="flags", names=values.TCP_FLAGS)
        return Opaque(needs, why=why)
    if protocol in _ICMP:
        of, names = _ICMP[protocol]
        if field in names:
            return Number((_of_protocol(of),), bits=8, field=f"icmp_{field}", names=names[field])
        return Opaque((_of_protocol(of),), why=why)
    if protocol in _OTHER_HEADERS:
        return Opaque((_of_protocol(_OTHER_HEADERS[protocol]),), why=why)
    return Opaque(why=why)


def _ip_header(family: Family, field: str, needs: tuple[Condition, ...], why: str) -> Operand:
    if field in _ADDRESSES:
        return _address(family, _ADDRESSES[field], needs)
    if field in ("protocol", "nexthdr"):
        return Number(needs, bits=8, field="protocol", names=values.PROTOCOLS)
    if field == "version":
        version = 4 if family == IPV4 else 6
        return Word(needs, bits=4, field="family", words={family: version})
    return Opaque(needs, why=why)


def _address(family: Family, field: str, needs: tuple[Condition, ...]) -> Number:
    return Number(needs, bits=32 if family == IPV4 else 128, address_of=family, field=field)


# --- meta -------------------------------------------------------------------------------------

_INTERFACES = {"iif": "received_on", "iifname": "received_on", "oif": "sent_to", "oifname": "sent_to"}
_LINKS = {"iiftype": "received_on", "oiftype": "sent_to"}
_LOOPBACK_INDEX = 1  #: of every namespace's loopback interface


def _meta(key: str, why: str) -> Operand:
    if key in ("iifname", "oifname"):
        return Interface(field=_INTERFACES[key])
    if key in ("iif", "oif"):
        return _Index(field=_INTERFACES[key])
    if key in _LINKS:
        return _link_type(_LINKS[key], why)
    make = _META.get(key)
    return make(why) if make else Opaque(why=why)


class _Index(Interface):
    """The number of an interface, which nft prints as its name while there is such an interface."""

    def equal(self, value: Any) -> Condition:
        """Return the condition that it has a number. Raises UnreadError for one without a name."""
        if value == _LOOPBACK_INDEX:
            return Named(self.field, LOOPBACK)
        if value == 0:
            return Named(self.field, "")
        if not isinstance(value, str):
            raise UnreadError(value)
        return self._exactly(value)


def _link_type(field: str, why: str) -> Operand:
    is_lo = Named(field, LOOPBACK)
    ether = AllOf((Not(is_lo), Not(Named(field, "")), Unmodelled(why)))
    names = values.LINK_TYPES
    return Cases(cases={names["loopback"]: is_lo, names["ether"]: ether}, names=names)


def _packet_type(why: str) -> Operand:
    """Return how the link layer addressed a packet: to this host, if it is for one receiver (eth_type_trans).

    That of others depends on the link layer.
    """
    several = AnyOf(
        (
            AllOf((OneOf("family", frozenset({IPV4})), In("destination", ((0xE0000000, 0xFFFFFFFF),)))),
            AllOf(
                (
                    OneOf("family", frozenset({IPV6})),
                    In("destination", ((0xFF << 120, (1 << 128) - 1),)),
                )
            ),
        )
    )
    unknown = AllOf((several, Unmodelled(why)))
    types = values.PACKET_TYPES
    cases = {
        types["host"]: AnyOf((Not(several), unknown)),
        types["broadcast"]: unknown,
        types["multicast"]: unknown,
        types["other"]: unknown,
    }
    return Cases(cases=cases, names=types)


_META: Mapping[str, Callable[[str], Operand]] = {
    "mark": lambda _: Number(field="mark"),
    "l4proto": lambda _: Number(bits=8, field="protocol", names=values.PROTOCOLS),
    "nfproto": lambda _: Word(
        bits=8, field="family", words=values.FAMILY_NUMBERS, names=values.FAMILY_NUMBERS
    ),
    "protocol": lambda _: Word(
        bits=16,
        field="family",
        words={family: values.ETHERTYPES[name] for name, family in _IP.items()},
        names=values.ETHERTYPES,
    ),
    "skuid": lambda _: Number((HAS_SOCKET,), field="uid"),
    "skgid": lambda _: Number((HAS_SOCKET,), field="gid"),
    "pkttype": _packet_type,
}


# --- ct ---------------------------------------------------------------------------------------

_ENTRY = HAS_CONNECTION.parts


def _ct(inner: Mapping[str, Any], scope: Scope, why: str) -> Operand:
    key: str = inner["key"]
    direction: str = inner.get("dir", "")
    if key == "state":
        return _State(
            bits=32,
            field="state",
            words={name.upper(): bit for name, bit in values.STATES.items()},
            names=values.STATES,
            early=scope.early,
        )
    if direction or key in _OF_BOTH:
        return _tuple(key.rpartition(" ")[2], key, direction, scope, why)
    make = _CT.get(key)
    return make(why) if make else Opaque(_ENTRY, why=why)


class _State(Word):
    """The conntrack state, which is there for every packet: those that conntrack has not seen are invalid."""

    early: bool = False

    def _satisfying(self, test: Callable[[int], bool]) -> Condition:
        seen = super()._satisfying(test)
        if not self.early:
            return seen
        is_not_seen = number("tracked", 0)
        untracked = OneOf("state", frozenset({"UNTRACKED"}))
        before = [
            AllOf((is_not_seen, untracked if name == "UNTRACKED" else Not(untracked)))
            for name in ("UNTRACKED", "INVALID")
            if test((self.words[name] & self.mask & self.full) ^ self.flip)
        ]
        return any_of((AllOf((number("tracked", 1), seen)), *before))


def _status(why: str) -> Operand:
    """Return the conntrack status. Whether replies have come shows in the state (nf_conntrack_core.c)."""
    is_new = OneOf("state", frozenset({"NEW"}))
    # The first packet of a connection has none of these, until it comes in again by lo.
    vague = AllOf((AnyOf((number("first", 0), Named("received_on", LOOPBACK))), Unmodelled(why)))
    bits = values.STATUS
    facts = {
        bits["dnat"]: number("translated", 1),
        bits["snat"]: number("source_translated", 1),
        bits["expected"]: AllOf((Not(is_new), Unmodelled(why))),
        bits["seen-reply"]: AnyOf(
            (
                OneOf("state", frozenset({"ESTABLISHED"})),
                AllOf((OneOf("state", frozenset({"RELATED"})), Unmodelled(why))),
            )
        ),
        bits["assured"]: vague,
        bits["confirmed"]: vague,
    }
    return FlagSet(_ENTRY, facts=facts, names=bits)


_CT: Mapping[str, Callable[[str], Operand]] = {
    "mark": lambda _: Number(_ENTRY, field="connection_mark"),
    "status": _status,
    "direction": lambda _: Word(
        _ENTRY, bits=8, field="direction", words=values.DIRECTIONS, names=values.DIRECTIONS
    ),
    "zone": lambda _: Number(_ENTRY, bits=16, field="zone"),
}

#: What both directions of a connection have in common with each packet.
_OF_BOTH = {"l3proto": "nfproto", "protocol": "l4proto"}
_OF_ORIGINAL = {
    "daddr": ("destination", "original_destination", "translated"),
    "proto-dst": ("destination_port", "original_port", "translated"),
    "saddr": ("source", "", "source_translated"),
    "proto-src": ("source_port", "", "source_translated"),
}


def _tuple(part: str, key: str, direction: str, scope: Scope, why: str) -> Operand:
    """Return an address or port of a connection as one of its directions has it."""
    if part in _OF_BOTH:
        return _meta(_OF_BOTH[part], why).replace(needs=_ENTRY)
    if direction != "original" or part not in _OF_ORIGINAL:
        return Opaque(_ENTRY, why=why)
    field, noted, changed = _OF_ORIGINAL[part]
    if part in ("saddr", "daddr"):
        family = _IP.get(key.split()[0], next(iter(scope.families)))
        bits, needs = 32 if family == IPV4 else 128, of_family(family, scope)
    else:
        family, bits, needs = None, 16, ()
    return _Original(
        (*_ENTRY, *needs), bits=bits, address_of=family, field=field, noted=noted, changed=changed, why=why
    )


class _Original(Number):
    """An address or port of the connection's first packet.

    It is what the packet says that is noted, else what a packet of the original direction still has, unless
    nat has changed it.
    """

    noted: str = ""
    changed: str = ""
    why: str = ""

    def within(self, ranges: Any) -> Condition:
        """Return the condition that it is in some ranges."""
        if self.mask != -1:
            raise UnreadError("a mask")
        same = AllOf((OneOf("direction", frozenset({"original"})), number(self.changed, 0)))
        now = super().within(ranges)
        told = AnyOf((AllOf((same, now)), AllOf((Not(same), Unmodelled(self.why)))))
        if not self.noted:
            return told
        is_noted = Not(number(self.noted, 0))
        return AnyOf((AllOf((is_noted, In(self.noted, ranges))), AllOf((Not(is_noted), told))))
