"""condition: what has to be true of a packet for a rule to match, whichever tool wrote the rule.

A condition is a tree: leaves compare one field of a packet (see packet.py) with constants, or say that the
meaning is not modelled. Its value for a packet is True, False, or None where it depends on what is not
modelled or not known.
"""

from __future__ import annotations

from ..rules.lists import union
from ..rules.model import NO_ID
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..rules.nftables.model import Ranges


class Condition(Record):
    """What has to be true of a packet."""


class In(Condition):
    """A field that is a number is in one of some ranges, both ends included."""

    field: str
    ranges: Ranges


class Named(Condition):
    """A field that is an interface has this name; a trailing `+` stands for any ending (iptables(8), -i)."""

    field: str
    pattern: str


class OneOf(Condition):
    """A field that is a word, such as the conntrack state, is one of these."""

    field: str
    words: frozenset[str]


class Masked(Condition):
    """A field that is a number, such as a mark or an address, is `value` under `mask`."""

    field: str
    value: int
    mask: int


class Same(Condition):
    """Two fields have the same value."""

    field: str
    other: str


class AllOf(Condition):
    """Every part is true. Without parts it is always true. `about` is what it is about, for people."""

    parts: tuple[Condition, ...] = ()
    about: str = ""


class AnyOf(Condition):
    """At least one part is true. Without parts it is never true. `about` is what it is about, for people."""

    parts: tuple[Condition, ...] = ()
    about: str = ""


class Not(Condition):
    """The part is false."""

    part: Condition


class Unmodelled(Condition):
    """Whether it is true cannot be told; `why` says what it is about, in the words of the tool."""

    why: str


ALWAYS = AllOf()
NEVER = AnyOf()


def negated(part: Condition, negate: bool = True) -> Condition:
    """Return the opposite of a condition, or itself if `negate` is False."""
    if negate and isinstance(part, Not):
        return part.part
    return Not(part) if negate else part


def any_of(parts: Iterable[Condition]) -> Condition:
    """Return the condition that one of some is true; one alone is itself."""
    found = tuple(parts)
    return found[0] if len(found) == 1 else AnyOf(found)


def number(field: str, first: int, last: int | None = None) -> In:
    """Return the condition that a field is a number, or in a range."""
    return In(field, ((first, first if last is None else last),))


def numbers(field: str, ranges: Iterable[tuple[int, int]]) -> In:
    """Return the condition that a field is in one of some ranges, which may touch and overlap."""
    return In(field, union(ranges))


def named(field: str, names: Iterable[str]) -> Condition:
    """Return the condition that a field is an interface with one of some names, none of which is a pattern.

    >>> named("received_on", ()) == NEVER
    True
    """
    found = frozenset(names)
    return OneOf(field, found) if found else NEVER


#: A process has the socket that the packet comes from.
HAS_SOCKET = Not(number("uid", NO_ID))

#: What a field is called in explanations.
LABELS: Mapping[str, str] = {
    "family": "family",
    "protocol": "protocol",
    "source": "source address",
    "destination": "destination address",
    "source_port": "source port",
    "destination_port": "destination port",
    "received_on": "incoming interface",
    "sent_to": "outgoing interface",
    "uid": "UID",
    "gid": "GID",
    "groups": "supplementary groups",
    "mark": "mark",
    "connection_mark": "connection mark",
    "state": "conntrack state",
    "status": "conntrack status",
    "direction": "direction of the connection",
    "flags": "TCP flags",
    "icmp_type": "ICMP type",
    "icmp_code": "ICMP code",
    "original_source": "original source address",
    "original_source_port": "original source port",
    "original_destination": "original destination",
    "original_port": "original destination port",
    "reply_source": "source of replies",
    "reply_source_port": "source port of replies",
    "reply_destination": "destination of replies",
    "reply_port": "destination port of replies",
    "zone": "conntrack zone",
    "packet_type": "packet type",
    "fragment": "fragment",
    "echo_number": "number of the echo",
    "tracked": "conntrack entry",
    "translated": "translated destination",
    "source_translated": "translated source",
    "first": "first packet of the connection",
    "listening": "listening socket",
}


def label(condition: Condition) -> str:
    """Return what a condition is about, for people: `UID`, `destination port`."""
    if isinstance(condition, Not):
        return label(condition.part)
    if isinstance(condition, (AllOf, AnyOf)):
        return (
            condition.about or ", ".join(dict.fromkeys(label(part) for part in condition.parts)) or "nothing"
        )
    if isinstance(condition, Unmodelled):
        return condition.why
    field: str = getattr(condition, "field", "")
    return LABELS.get(field, field)
