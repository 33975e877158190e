"""nft_fields: the expressions of nf_tables that have a value: payload, meta, ct, fib, concatenations, masks.

Sources: nft(8), PRIMARY EXPRESSIONS and PAYLOAD EXPRESSIONS; libnftables-json(5); nft_payload.c, nft_meta.c,
nft_ct.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from ..startup.record import Record
from . import conntrack
from . import nft_values as values
from .condition import (
    ALWAYS,
    HAS_SOCKET,
    NEVER,
    AllOf,
    AnyOf,
    Condition,
    Named,
    Not,
    OneOf,
    Unmodelled,
    number,
)
from .known import NOTHING_KNOWN
from .nft_fib import fib
from .nft_operands import Cases, Concatenation, FlagSet, Interface, Number, Opaque, Operand, Word
from .nft_values import UnreadError
from .nft_words import expression as words
from .packet import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from .protocols import PROTOCOLS
from .routing import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..rules.model import Family
    from ..rules.nftables.model import Ranges
    from .known import Known


class NativeScope(Record):
    """The table that an expression is in.

    `families` are those of its packets; `sets` are the elements of its sets and maps by name. `early`: it has
    a chain that gets packets before conntrack does. `prints_all`: the version of nft prints the statements of
    elements that a rule adds to a set, such as limits.
    """

    families: frozenset[Family]
    known: Known = NOTHING_KNOWN
    sets: Mapping[str, list[Any]] = {}
    early: bool = False
    prints_all: bool = True

    @property
    def entry(self) -> Condition:
        """The condition that there is a conntrack entry, without which an expression of ct ends the rule.

        A template is none (nft_ct_get_eval).
        """
        return conntrack.has_entry(before=self.early)


def operand(value: Any, scope: NativeScope) -> Operand:
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
        return fib(flags, inner["result"], scope.known, scope.families, words(value))
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


def _combined(operator: str, inner: list[Any], scope: NativeScope, why: str) -> Operand:
    found = operand(inner[0], scope)
    try:
        for each in inner[1:]:
            constant = found.read(each) if isinstance(found, (Number, Word, FlagSet)) else each
            found = found.combined(operator, constant)
    except UnreadError:
        return Opaque(found.needs, why=why)
    return found


def of_family(family: Family, scope: NativeScope) -> tuple[Condition, ...]:
    """Return what it takes for a packet of a table to be of a family."""
    if family not in scope.families:
        return (NEVER,)
    return () if len(scope.families) == 1 else (OneOf("family", frozenset({family})),)


# --- payload ----------------------------------------------------------------------------------


def _of_protocol(protocol: int) -> Condition:
    return number("protocol", protocol)


_PORTS_OF = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "dccp": DCCP, "udplite": UDPLITE}
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


def _payload(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Operand:
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


def _header(protocol: str, field: str, scope: NativeScope, why: str) -> Operand:
    if protocol in _IP:
        return _ip_header(_IP[protocol], field, of_family(_IP[protocol], scope), why)
    if protocol == "th" and field in _PORTS:
        # Of another protocol these are other bytes of its header.
        needs: tuple[Condition, ...] = (
            AnyOf((conntrack.HAS_PORTS, Unmodelled(f"{why} of another protocol"))),
        )
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
        return Number(needs, bits=8, field="protocol", names=PROTOCOLS)
    if field == "frag-off":
        return _FragmentOffset(needs, why=why)
    if field == "version":
        version = 4 if family == IPV4 else 6
        return Word(needs, bits=4, field="family", words={family: version})
    return Opaque(needs, why=why)


class _FragmentOffset(Opaque):
    """The fields of IPv4 for fragments: the offset, in the lower 13 bits, is 0 but for further parts."""

    offset_alone: bool = False

    def combined(self, operator: str, constant: int) -> Operand:
        """Return it after `&` with a constant."""
        return self.replace(offset_alone=(operator, constant) == ("&", 0x1FFF))

    def equal(self, value: Any) -> Condition:
        """Return the condition that it is a constant."""
        return number("fragment", 0) if self.offset_alone and value == 0 else Unmodelled(self.why)


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
        if not isinstance(value, str) or value.isdigit():
            raise UnreadError(value)
        return self._exactly(value)


def _link_type(field: str, why: str) -> Operand:
    is_lo = Named(field, LOOPBACK)
    ether = AllOf((Not(is_lo), Not(Named(field, "")), Unmodelled(why)))
    names = values.LINK_TYPES
    return Cases(cases={names["loopback"]: is_lo, names["ether"]: ether}, names=names)


#: The words of packet.py for kinds of packets.
_PACKET_TYPES = {"unicast": 0, "broadcast": 1, "multicast": 2, "otherhost": 3}

_META: Mapping[str, Callable[[str], Operand]] = {
    "mark": lambda _: Number(field="mark"),
    "l4proto": lambda _: Number(bits=8, field="protocol", names=PROTOCOLS),
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
    "pkttype": lambda _: Word(bits=8, field="packet_type", words=_PACKET_TYPES, names=values.PACKET_TYPES),
}


# --- ct ---------------------------------------------------------------------------------------


def _ct(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Operand:
    key: str = inner["key"]
    direction: str = inner.get("dir", "")
    if key == "state":
        words = {name.upper(): bit for name, bit in values.STATES.items()}
        return _State(field="state", words=words, names=values.STATES, early=scope.early)
    needs = (scope.entry,)
    if key in _OF_BOTH:
        return _meta(_OF_BOTH[key], why).replace(needs=needs)
    if key == "zone":
        return _Zone(needs, bits=16, field=_ZONES[direction])
    if direction:
        return _tuple(key, direction, needs, scope, why)
    make = _CT.get(key)
    return make(why).replace(needs=needs) if make else Opaque(needs, why=why)


_ZONES = {"": "", "original": "zone", "reply": "reply_zone"}


class _Zone(Number):
    """The zone for a direction; without one, `field` is empty: that of either, if they differ (nft_ct.c)."""

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that it is in some ranges."""
        if self.field:
            return super().within(ranges)
        original, reply = (
            Number.within(self.replace(field=field), ranges) for field in ("zone", "reply_zone")
        )
        none = number("zone", 0)
        return AnyOf((AllOf((Not(none), original)), AllOf((none, reply))), "conntrack zone")


#: What both directions of a connection have in common with each packet.
_OF_BOTH = {"l3proto": "nfproto", "protocol": "l4proto"}


class _State(Word):
    """The conntrack state, which is there for every packet.

    One that conntrack has not seen is invalid, or new if a rule has given it a zone (nft_ct.c).
    """

    early: bool = False

    def _satisfying(self, test: Callable[[int], bool]) -> Condition:
        found = super()._satisfying(test)
        return conntrack.states(found.words, before=self.early) if isinstance(found, OneOf) else found


def _status(why: str) -> Operand:
    """Return the conntrack status. Whether replies have come shows in the state (nf_conntrack_core.c)."""
    is_new = OneOf("state", frozenset({"NEW"}))
    # The first packet of a connection has none of these, until it comes in again by lo.
    vague = AllOf((AnyOf((number("first", 0), Named("received_on", LOOPBACK))), Unmodelled(why)), why)
    bits = values.STATUS
    facts = {
        bits["dnat"]: number("translated", 1),
        bits["snat"]: number("source_translated", 1),
        bits["expected"]: AllOf((Not(is_new), Unmodelled(why)), why),
        bits["seen-reply"]: AnyOf(
            (
                OneOf("state", frozenset({"ESTABLISHED"})),
                AllOf((OneOf("state", frozenset({"RELATED"})), Unmodelled(why))),
            ),
            why,
        ),
        bits["assured"]: vague,
        bits["confirmed"]: vague,
    }
    return FlagSet(facts=facts, names=bits)


_CT: Mapping[str, Callable[[str], Operand]] = {
    "mark": lambda _: Number(field="connection_mark"),
    "status": _status,
    "direction": lambda _: Word(bits=8, field="direction", words=values.DIRECTIONS, names=values.DIRECTIONS),
}

_ORIGINAL = {
    "saddr": "original_source",
    "daddr": "original_destination",
    "proto-src": "original_source_port",
    "proto-dst": "original_port",
}
_REPLY = {
    "saddr": "destination",
    "daddr": "source",
    "proto-src": "destination_port",
    "proto-dst": "source_port",
}


def _tuple(key: str, direction: str, needs: tuple[Condition, ...], scope: NativeScope, why: str) -> Operand:
    """Return an address or port of a connection as one of its directions has it."""
    of, _, part = key.rpartition(" ")
    if part not in _ORIGINAL:
        return Opaque(needs, why=why)
    field = (_ORIGINAL if direction == "original" else _REPLY)[part]
    kind = Number if direction == "original" else _Reply
    if part in ("saddr", "daddr"):
        family = _IP[of] if of in _IP else next(iter(scope.families))
        found = _address(family, field, of_family(family, scope))
        return kind((*needs, *found.needs), found.bits, address_of=family, field=field)
    return kind((*needs, conntrack.ports(ALWAYS)), 16, field=field)


class _Reply(Number):
    """An address or port of replies; `field` is where the first packet of the connection has it."""

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that it is in some ranges."""
        of = conntrack.reply_source if self.field.startswith("destination") else conntrack.reply_destination
        return of(lambda field: Number.within(self.replace(field=field), ranges), self.field)
