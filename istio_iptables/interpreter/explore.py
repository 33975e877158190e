"""explore: one packet, whatever cannot be told: all ways that it may take, and on which rules they depend."""

from __future__ import annotations

from ..startup.record import Record
from .algebra import One
from .journey import Journey
from .verdict import DEPENDS, Verdict, verdict_of
from .walk import Observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from typing import Literal, TypeAlias

    from .algebra import Question
    from .journey import World
    from .packet import Packet
    from .verdict import Proxy
    from .walk import Ended

    Direction: TypeAlias = Literal["out", "in"]

#: As many ways are followed; if there are more, that is said.
MOST_WAYS = 64


class Way(Record):
    """One way of a packet: the verdict, how the way ended, and what was observed on it.

    `assumed` are the questions that came up on it, with the answers it stands for.
    """

    verdict: Verdict
    end: Ended
    observer: Observer
    assumed: tuple[tuple[object, int], ...] = ()

    @property
    def packet(self) -> Packet:
        """The packet as it is at the end."""
        found: Packet = self.end.packets
        return found


class Fork(Record):
    """Where ways part: what could not be told, and where each answer leads."""

    about: object
    key: Hashable
    branches: tuple[Way | Fork, ...]


class Explored(Record):
    """What may happen to a packet: a Way if all end alike, else a Fork. `cut`: there are more ways."""

    found: Way | Fork
    cut: bool = False

    @property
    def verdict(self) -> Verdict:
        """The verdict; `depends` if the ways have different ones, or not all were followed.

        Ways that differ in anything else, such as a mark, are told apart by `found`.
        """
        first, *others = (way.verdict for way in self.ways)
        return DEPENDS if self.cut or any(each != first for each in others) else first

    @property
    def ways(self) -> tuple[Way, ...]:
        """All ways that were followed and have different verdicts or depend on different things."""
        return tuple(_leaves(self.found))


def _leaves(node: Way | Fork) -> Iterator[Way]:
    if isinstance(node, Way):
        yield node
    else:
        for branch in node.branches:
            yield from _leaves(branch)


def explore(
    world: World,
    packet: Packet,
    direction: Direction,
    proxy: Proxy,
    observer: Callable[[], Observer] = Observer,
) -> Explored:
    """Follow a packet that a socket sends (`out`) or an interface receives (`in`) on all ways it may take."""
    left = [MOST_WAYS]

    def node(answers: Mapping[Hashable, int]) -> Way | Fork:
        way, questions = _run(world, packet, direction, proxy, answers, observer())
        left[0] -= 1
        new = [question for question in questions if question.key not in answers]
        if not new or left[0] <= 0:
            return way
        question = new[0]
        branches = [node({**answers, question.key: option}) for option in range(question.options)]
        if all(isinstance(branch, Way) for branch in branches):
            ways = [branch for branch in branches if isinstance(branch, Way)]
            if all(_same_end(way, ways[0]) for way in ways):
                return ways[0]
        return Fork(question.about, question.key, tuple(branches))

    found = node({})
    return Explored(found, cut=left[0] <= 0)


def _same_end(one: Way, other: Way) -> bool:
    return one.verdict == other.verdict and _lasting(one.packet) == _lasting(other.packet)


def _lasting(packet: Packet) -> tuple[object, ...]:
    """What of a packet counts for others once it has arrived."""
    return (
        packet.mark,
        packet.connection_mark,
        packet.zone,
        packet.reply_zone,
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
        packet.sent_to,
        packet.state,
    )


def _run(
    world: World,
    packet: Packet,
    direction: Direction,
    proxy: Proxy,
    answers: Mapping[Hashable, int],
    observer: Observer,
) -> tuple[Way, list[Question]]:
    algebra = One(answers)
    journey = Journey(world, packet.family, algebra, observer)
    ended = journey.outbound(packet) if direction == "out" else journey.inbound(packet)
    if len(ended) != 1:
        raise AssertionError(f"one packet ends once, not {len(ended)} times")
    [end] = ended
    assumed = tuple((question.about, algebra.answer(question)) for question in algebra.questions)
    return Way(verdict_of(packet, end.packets, end.how, proxy), end, observer, assumed), algebra.questions
