"""conntrack: what matches on the connection of a packet mean (net/netfilter/xt_conntrack.c, xt_connmark.c).

A packet has an entry in the connection tracking table, or none: INVALID if nothing is known about it, or
UNTRACKED if a rule wants that. Before conntrack has seen a packet (table raw), it has none either, but for a
template: an entry without addresses, in which the zone is that a rule has given it (xt_CT.c, nft_ct.c).
"""

from __future__ import annotations

from .condition import (
    ALWAYS,
    NEVER,
    AllOf,
    AnyOf,
    Masked,
    Not,
    OneOf,
    Unmodelled,
    label,
    negated,
    number,
    numbers,
)
from .packet import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE, Packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..rules.model import Family
    from .condition import Condition

STATES = frozenset({"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"})
#: The states of packets that have no entry.
WITHOUT_ENTRY = frozenset({"INVALID", "UNTRACKED"})
_STATE = "conntrack state"
_MARK = "connection mark"

_SEEN = number("tracked", 1)
_FIRST = number("first", 1)
#: A packet that conntrack has not seen, and that has got a zone.
TEMPLATE = AllOf((Not(_SEEN), number("zoned", 1)), "template")
HAS_PORTS = numbers("protocol", [(each, each) for each in (TCP, UDP, SCTP, DCCP, UDPLITE)])
#: In the place of ports, conntrack has the type, code and number of an echo (nf_conntrack_proto_icmp.c). What
#: that is, is not known of any packet.
_ECHO = numbers("protocol", [(ICMP, ICMP), (ICMPV6, ICMPV6)])


def has_entry(*, before: bool = False) -> Condition:
    """Return the condition that a packet has an entry; `before`: conntrack may not have seen it yet."""
    known = Not(OneOf("state", WITHOUT_ENTRY))
    return AllOf((_SEEN, known), _STATE) if before else known


def of_entry(part: Condition, family: Family | None, why: str) -> Condition:
    """Return the condition that an entry, found by conntrack or a template, is as `part` says.

    It is about a packet that conntrack may not have seen.
    """
    from .algebra import value_of

    value = value_of(part, _template(family)) if family else None
    of_template = {True: ALWAYS, False: NEVER, None: Unmodelled(why)}[value]
    both = (AllOf((has_entry(before=True), part)), AllOf((TEMPLATE, of_template)))
    return AnyOf(both, label(part))


def _template(family: Family) -> Packet:
    """Return a packet of which everything is as in a template (nf_ct_tmpl_alloc)."""
    nothing = dict.fromkeys((*_REPLY_FIELDS.values(), *_ORIGINAL_FIELDS), 0)
    unknown = {"status": None, "confirmed": None}
    return Packet(family, 0, 0, 0, **nothing, **unknown)  # type: ignore[arg-type]  # not known


_ORIGINAL_FIELDS = ("original_source", "original_source_port", "original_destination", "original_port")


def ports(of_ports: Condition) -> Condition:
    """Return the condition on a port of a connection; that of an echo of ICMP is another number."""
    return AnyOf((AllOf((Not(_ECHO), of_ports)), AllOf((_ECHO, number("echo_number", 0)))), label(of_ports))


def states(wanted: frozenset[str], *, before: bool = False) -> Condition:
    """Return what --ctstate means; DNAT and SNAT say whether nat translates the connection.

    Where conntrack may not have seen a packet yet (`before`), it is INVALID, unless it is UNTRACKED or a rule
    has given it a zone: then it has the entry of that rule as a template, and counts as NEW (xt_CT.c).
    """
    parts: list[Condition] = [OneOf("state", wanted - {"DNAT", "SNAT"})]
    if "DNAT" in wanted:
        parts.append(number("translated", 1))
    if "SNAT" in wanted:
        parts.append(number("source_translated", 1))
    meaning = AnyOf(tuple(parts), _STATE) if parts[1:] else parts[0]
    if not before:
        return meaning
    found: list[Condition] = [AllOf((_SEEN, meaning))]
    if "INVALID" in wanted:
        found.append(AllOf((Not(_SEEN), number("zoned", 0))))
    if "NEW" in wanted:
        found.append(TEMPLATE)
    return AnyOf(tuple(found), _STATE)


def mark(value: int, mask: int, *, negate: bool, before: bool = False) -> Condition:
    """Return what `connmark` means: a packet without an entry never matches.

    The connection mark of such a packet is 0 here, so that has to be said only if 0 would match. A template
    is one for all packets, so the mark that rules have left in it is not known.
    """
    found = negated(Masked("connection_mark", value, mask), negate)
    if before:
        of_template = AllOf((TEMPLATE, Unmodelled("connection mark of a template")))
        return AnyOf((AllOf((has_entry(before=True), found)), of_template), _MARK)
    return found if (value == 0) == negate else AllOf((has_entry(), found), _MARK)


def reply_source(make: Callable[[str], Condition], field: str) -> Condition:
    """Return a condition on the source of replies: what a first packet is sent to, translated or not.

    `make` gives the condition on a field, here `destination` or `destination_port`.
    """
    return _of_replies(make, field, _REPLY_FIELDS[field])


def reply_destination(make: Callable[[str], Condition], field: str) -> Condition:
    """Return a condition on the destination of replies: the source of a first packet, translated or not."""
    return _of_replies(make, field, _REPLY_FIELDS[field])


def _of_replies(make: Callable[[str], Condition], field: str, noted: str) -> Condition:
    """What a later packet has got instead of these is only known if its connection is (connection.py)."""
    now, then = AllOf((_FIRST, make(field))), AllOf((Not(_FIRST), make(noted)))
    return AnyOf((now, then), _REPLY_NAMES[field])


_REPLY_FIELDS: Mapping[str, str] = {
    "destination": "reply_source",
    "destination_port": "reply_source_port",
    "source": "reply_destination",
    "source_port": "reply_port",
}
_REPLY_NAMES: Mapping[str, str] = {
    "destination": "source of replies",
    "destination_port": "source port of replies",
    "source": "destination of replies",
    "source_port": "destination port of replies",
}
