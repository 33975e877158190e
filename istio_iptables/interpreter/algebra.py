"""algebra: how conditions divide packets and how actions change them.

The walk through the rules (walk.py) is written over an Algebra: what it carries is a set of packets. Here is
the algebra of one packet, in which a set has one packet or none. What cannot be told is a question; `answers`
says how to go on, and whoever wants all outcomes runs the walk again with other answers (see explore.py).
"""

from __future__ import annotations

from .condition import AllOf, AnyOf, In, Masked, Named, Not, OneOf, Same, Unmodelled
from .connection import found, translation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Literal, Protocol, TypeAlias, TypeVar

    from .action import Assign
    from .condition import Condition
    from .packet import Packet

    S = TypeVar("S")
    #: What nat translates at a hook.
    Side: TypeAlias = Literal["destination", "source"]

    class Algebra(Protocol[S]):
        """Sets of packets."""

        empty: S

        def is_empty(self, packets: S) -> bool:
            """Tell whether there is no packet in a set."""

        def join(self, one: S, other: S) -> S:
            """Return the packets of both sets."""

        def split(self, packets: S, condition: Condition, asked: Question) -> tuple[S, S]:
            """Return the packets that have a condition, and those that do not.

            `asked` is what to ask where that cannot be told.
            """

        def update(self, packets: S, **fields: object) -> S:
            """Return the packets with other values of fields."""

        def assign(self, packets: S, action: Assign) -> S:
            """Return the packets with a mark changed by an action."""

        def find(self, packets: S) -> S:
            """Return packets as conntrack sees them, which looks for their connections."""

        def keep(self, packets: S, side: Side) -> tuple[S, S]:
            """Return later packets of connections as nat translates them.

            Those that keep their address come first, then those that have got another one.
            """

        def answer(self, asked: Question) -> int:
            """Return which of the options of a question is to be taken, 0 being the first."""

        def same(self, one: S, other: S) -> bool:
            """Tell whether two sets have the same packets."""


class Question:
    """What cannot be told: which rule or order it is about, and the number of possible answers."""

    __slots__ = ("about", "key", "options")

    def __init__(self, key: Hashable, about: object, options: int = 2) -> None:
        self.key = key
        self.about = about
        self.options = options


NO_QUESTION = Question(None, None)  #: for conditions of which the value is always known


def value_of(condition: Condition, packet: Packet) -> bool | None:
    """Return whether a packet has a condition, None if that cannot be told."""
    return _VALUE[type(condition)](condition, packet)


def _in(condition: In, packet: Packet) -> bool | None:
    value = getattr(packet, condition.field)
    if isinstance(value, tuple):  # supplementary groups
        return any(first <= each <= last for each in value for first, last in condition.ranges)
    if value is None:
        return None
    ranges = condition.ranges
    if len(ranges) < 8:
        return any(first <= value <= last for first, last in ranges)
    from bisect import bisect_right

    at = bisect_right(ranges, (value, 1 << 130)) - 1
    return at >= 0 and ranges[at][0] <= value <= ranges[at][1]


def _named(condition: Named, packet: Packet) -> bool | None:
    name: str | None = getattr(packet, condition.field)
    if name is None:
        return None
    pattern = condition.pattern
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _one_of(condition: OneOf, packet: Packet) -> bool | None:
    value = getattr(packet, condition.field)
    if isinstance(value, str) and " " in value:  # several, such as conntrack's status
        return not condition.words.isdisjoint(value.split())
    return None if value is None else value in condition.words


def _masked(condition: Masked, packet: Packet) -> bool | None:
    value = getattr(packet, condition.field)
    return None if value is None else value & condition.mask == condition.value


def _all(condition: AllOf, packet: Packet) -> bool | None:
    found: bool | None = True
    for part in condition.parts:
        value = value_of(part, packet)
        if value is False:
            return False
        if value is None:
            found = None
    return found


def _any(condition: AnyOf, packet: Packet) -> bool | None:
    found: bool | None = False
    for part in condition.parts:
        value = value_of(part, packet)
        if value is True:
            return True
        if value is None:
            found = None
    return found


def _not(condition: Not, packet: Packet) -> bool | None:
    value = value_of(condition.part, packet)
    return None if value is None else not value


def _same(condition: Same, packet: Packet) -> bool | None:
    return bool(getattr(packet, condition.field) == getattr(packet, condition.other))


def _unmodelled(condition: Unmodelled, packet: Packet) -> None:
    return None


_VALUE: Mapping[type[Condition], Callable[..., bool | None]] = {
    In: _in,
    Named: _named,
    OneOf: _one_of,
    Masked: _masked,
    Same: _same,
    AllOf: _all,
    AnyOf: _any,
    Not: _not,
    Unmodelled: _unmodelled,
}


class One:
    """The algebra of one packet: a set is the packet, or None.

    `questions` are those that came up, in order; those without an answer in `answers` got the answer 0,
    which is "no" for a condition.
    """

    def __init__(self, answers: Mapping[Hashable, int] | None = None) -> None:
        self.empty: Packet | None = None
        self.questions: list[Question] = []
        self._answers: dict[Hashable, int] = dict(answers or {})

    def is_empty(self, packets: Packet | None) -> bool:
        """Tell whether there is no packet."""
        return packets is None

    def join(self, one: Packet | None, other: Packet | None) -> Packet | None:
        """Return the packet: it is in one of the sets only."""
        return other if one is None else one

    def split(
        self, packets: Packet | None, condition: Condition, asked: Question
    ) -> tuple[Packet | None, Packet | None]:
        """Return the packet and None if it has the condition, else None and the packet."""
        if packets is None:
            return None, None
        value = value_of(condition, packets)
        if value is None:
            value = bool(self.answer(asked))
        return (packets, None) if value else (None, packets)

    def answer(self, asked: Question) -> int:
        """Return the answer to a question, and remember that it was asked."""
        if asked.key not in self._answers:
            self._answers[asked.key] = 0
            self.questions.append(asked)
        elif all(known.key != asked.key for known in self.questions):
            self.questions.append(asked)
        return self._answers[asked.key]

    def update(self, packets: Packet | None, **fields: object) -> Packet | None:
        """Return the packet with other values of fields."""
        return None if packets is None else packets.replace(**fields)

    def assign(self, packets: Packet | None, action: Assign) -> Packet | None:
        """Return the packet with a mark changed by an action."""
        if packets is None:
            return None
        value = (getattr(packets, action.field) & action.keep) ^ action.flip
        if action.source:
            value ^= getattr(packets, action.source) & action.source_mask
        return packets.replace(**{action.field: value})

    def find(self, packets: Packet | None) -> Packet | None:
        """Return the packet as conntrack sees it."""
        return found(packets) if packets else None

    def keep(self, packets: Packet | None, side: Side) -> tuple[Packet | None, Packet | None]:
        """Return the packet as nat translates it, in the second place if its address is another one."""
        kept = translation(packets, side) if packets else None
        if packets is None or kept is None:
            return packets, None
        address, port = kept
        before: int | None = getattr(packets, side)
        if packets.has_ports:
            packets = packets.replace(**{side: address, f"{side}_port": port})
        else:
            packets = packets.replace(**{side: address})
        return (packets, None) if address == before else (None, packets)

    def same(self, one: Packet | None, other: Packet | None) -> bool:
        """Tell whether both are the same packet, or none."""
        return one == other
