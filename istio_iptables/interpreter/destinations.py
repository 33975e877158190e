"""destinations: where packets go that differ in their destination alone: all destinations at once.

The kernel looks routes up for addresses that no packet is sent to: the way back to a source, the type of an
address. This is the algebra for that: a set is ranges of destinations, and the rest of the packet is given.
"""

from __future__ import annotations

from ..rules.lists import union
from .algebra import value_of
from .condition import AllOf, AnyOf, In, Not
from .route_lookup import RouteLookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..rules.nftables.model import Ranges
    from .algebra import Question
    from .condition import Condition
    from .packet import Packet
    from .routing import Network, Routed


class CannotTell(Exception):
    """The route depends on what is not known; `about` says what that is."""

    def __init__(self, about: object) -> None:
        self.about = about
        super().__init__(str(about))


def routes_of(network: Network, packet: Packet, *, any_way: bool = False) -> Iterator[tuple[Ranges, Routed]]:
    """Yield the destinations of each route that a packet takes, whatever its own destination is.

    Its fields that are None are not known. Raises CannotTell if a route depends on one of these, and without
    `any_way` also if it has ways by several interfaces.
    """
    last = (1 << (32 if packet.family == "ipv4" else 128)) - 1
    return RouteLookup(network, _Destinations(packet, any_way), packet.family).looked_up(((0, last),))


class _Destinations:
    """Sets of destinations of one packet; the part of an Algebra that routing needs."""

    empty: Ranges = ()

    def __init__(self, packet: Packet, any_way: bool) -> None:
        self._packet = packet
        self._any_way = any_way

    def is_empty(self, packets: Ranges) -> bool:
        return not packets

    def join(self, one: Ranges, other: Ranges) -> Ranges:
        return union([*one, *other]) if one and other else one or other

    def split(self, packets: Ranges, condition: Condition, asked: Question) -> tuple[Ranges, Ranges]:
        return self._split(packets, condition, asked) if packets else ((), ())

    def _split(self, packets: Ranges, condition: Condition, asked: Question) -> tuple[Ranges, Ranges]:
        if isinstance(condition, In) and condition.field == "destination":
            return _parted(packets, condition.ranges)
        if isinstance(condition, Not):
            hit, missed = self.split(packets, condition.part, asked)
            return missed, hit
        if isinstance(condition, AllOf):
            return self._parts(packets, condition.parts, asked, stops=1)
        if isinstance(condition, AnyOf):
            missed, hit = self._parts(packets, condition.parts, asked, stops=0)
            return hit, missed
        value = value_of(condition, self._packet)
        if value is None:
            raise CannotTell(asked.about)
        return (packets, ()) if value else ((), packets)

    def _parts(
        self, packets: Ranges, parts: Iterable[Condition], asked: Question, *, stops: int
    ) -> tuple[Ranges, Ranges]:
        """Return the packets that no part stops, and those that one does: those that have it (0), or not (1).

        What a part cannot tell does not matter for packets that another one stops.
        """
        stopped: Ranges = ()
        unknown: CannotTell | None = None
        for part in parts:
            try:
                divided = self.split(packets, part, asked)
            except CannotTell as error:
                unknown = error
                continue
            packets, stopped = divided[1 - stops], self.join(stopped, divided[stops])
        if unknown and packets:
            raise unknown
        return packets, stopped

    def answer(self, asked: Question) -> int:
        if self._any_way:
            return 0
        raise CannotTell(asked.about)


def _parted(ranges: Ranges, others: Ranges) -> tuple[Ranges, Ranges]:
    """Return those numbers of some ranges that are in others, and those that are not. All are in order."""
    inside: list[tuple[int, int]] = []
    outside: list[tuple[int, int]] = []
    at = 0
    for first, last in ranges:
        while at < len(others) and others[at][1] < first:
            at += 1
        place = at
        while first <= last:
            low, high = others[place] if place < len(others) else (last + 1, last + 1)
            if low > first:
                outside.append((first, min(last, low - 1)))
            if max(first, low) <= min(last, high):
                inside.append((max(first, low), min(last, high)))
            first = high + 1
            place += 1
    return tuple(inside), tuple(outside)
