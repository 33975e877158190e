"""outcomes: what becomes of all packets of a kind, by the same walk that follows one packet."""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import AllOf
from ..interpreter.condition import number as is_number
from ..interpreter.journey import Journey
from ..interpreter.many import Changed, Many
from ..interpreter.merged import merged
from ..interpreter.packet import TCP, address_text
from ..interpreter.regions import Region
from ..interpreter.verdict import DEPENDS, DIRECT, DROPPED, LOOPS, REJECTED, Verdict
from ..interpreter.walk import Observer
from ..startup.record import Record
from .translated import sent_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from ..interpreter.algebra import Question
    from ..interpreter.condition import Condition
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy
    from ..interpreter.walk import Ended
    from .space import Packets


def simplified(world: World) -> World:
    """Return a world with the same meaning and fewer rules."""
    return world.replace(program=merged(world.program))


class Outcome(Record):
    """Packets, as they set out, that have one verdict, and how their way ends.

    `if_` are the answers to questions that nothing in the rules tells, such as the order of chains.
    """

    region: Region
    verdict: Verdict
    how: str
    note: str = ""
    if_: tuple[tuple[str, int], ...] = ()


#: As many combinations of answers are followed.
_MOST_WAYS = 64


def outcomes(world: World, packets: Packets, proxy: Proxy) -> tuple[Outcome, ...]:
    """Return what becomes of packets: regions that have no packet in common for equal `if_`.

    The world is that of `simplified`, or any other.
    """
    found: list[Outcome] = []
    for ended, algebra in ways(world, packets):
        told = tuple((_about(question), algebra.answer(question)) for question in algebra.questions)
        found += _verdicts(ended, algebra, packets, proxy, told)
    return tuple(found)


def _about(question: Question) -> str:
    if isinstance(question.about, tuple):
        return f"the order of {' and '.join(map(str, question.about))}"
    return str(question.about)


def ways(
    world: World, packets: Packets, observer: Callable[[], Observer] = Observer
) -> Iterator[tuple[list[Ended], Many]]:
    """Yield how the ways of packets end, for each combination of answers to what nothing in the rules tells.

    `observer` makes one that is told of the steps; of a combination that is not followed to its end, too.
    """
    pending: list[dict[Hashable, int]] = [{}]
    done = 0
    while pending:
        answers = pending.pop()
        done += 1
        algebra = Many(packets.space, answers)
        journey = Journey(world, packets.space.family, algebra, observer())
        start = algebra.all(packets.fixed, packets.free, packets.possible, packets.unknown)
        ended = journey.outbound(start) if packets.direction == "out" else journey.inbound(start)
        new = [question for question in algebra.questions if question.key not in answers]
        if new and done + len(pending) < _MOST_WAYS:
            question = new[0]
            pending += [{**answers, question.key: option} for option in range(question.options)]
            continue
        yield ended, algebra


def _verdicts(
    ended: list[Ended], algebra: Many, packets: Packets, proxy: Proxy, told: tuple[tuple[str, int], ...]
) -> Iterator[Outcome]:
    for end in ended:
        note = str(end.place) if end.place else end.note
        for changed, region in end.packets.items():
            for part, verdict in _of(changed, region, end.how, algebra, packets, proxy):
                if part:
                    yield Outcome(part, verdict, end.how, note, told)


_TCP = is_number("protocol", TCP)
_NOT_DELIVERED: Mapping[str, Verdict] = {"dropped": DROPPED, "rejected": REJECTED, "not known": DEPENDS}


def _of(
    changed: Changed, region: Region, how: str, algebra: Many, packets: Packets, proxy: Proxy
) -> Iterator[tuple[Region, Verdict]]:
    """Yield the parts of a region with the verdict of each; see verdict_of for one packet."""
    fields = changed.fields
    if how in _NOT_DELIVERED:
        yield region, _NOT_DELIVERED[how]
    elif fields["tproxied"]:
        yield region, Verdict("tproxied", str(fields["tproxied"]))
    elif fields["redirected"] and how != "sent":  # a socket that is bound to an interface sends it there
        redirected = Verdict("redirected", str(fields["redirected"]))
        if fields["redirected"] != proxy.outbound_port or packets.direction == "in":
            yield region, redirected
            return
        own, others = _split(region, AllOf((_TCP, sent_by(proxy))), algebra)
        yield from ((own, LOOPS), (others, redirected))
    elif fields["translated"]:
        yield region, _translated(changed, packets)
    else:
        yield region, DIRECT


def _split(region: Region, condition: Condition, algebra: Many) -> tuple[Region, Region]:
    """Divide packets by what they were when they set out."""
    as_sent = Changed({})
    hit, miss = algebra.split({as_sent: region}, condition, NO_QUESTION)
    nothing = Region.nothing(region.space)
    return hit.get(as_sent, nothing), miss.get(as_sent, nothing)


def _translated(changed: Changed, packets: Packets) -> Verdict:
    """Return the verdict with the new address and port; `:PORT` if each packet keeps its address."""
    address, port = changed.fields.get("destination", _KEPT), changed.fields.get("destination_port")
    if address == _KEPT and isinstance(port, int):
        return Verdict("translated", f":{port}")
    if not isinstance(address, int):
        return DEPENDS
    text = address_text(packets.space.family, address)
    if isinstance(port, int):
        text = f"{text}:{port}" if packets.space.family == "ipv4" else f"[{text}]:{port}"
    return Verdict("translated", text)


_KEPT = "kept"
