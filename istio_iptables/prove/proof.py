"""proof: whether rules do what clauses promise, for every packet; and packets for which they do not."""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.many import Changed, Many
from ..interpreter.program import Program
from ..interpreter.regions import Region
from ..startup.record import Record
from .example import example, questions
from .outcomes import outcomes, simplified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..interpreter.packet import Packet
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy, Verdict
    from .clause import Clause
    from .outcomes import Outcome
    from .space import Packets

    Status: TypeAlias = Literal["PROVED", "REFUTED", "DEPENDS"]
    Promises: TypeAlias = Callable[[Packets], Sequence[Clause]]


class Counterexample(Record):
    """A packet for which rules do not do what was promised; `at` is the rule that ended its way, if one did.

    `depends_on` names what is not modelled: then the packet may get another verdict.
    """

    packets: Packets
    packet: Packet
    wanted: Verdict
    found: Verdict
    at: str = ""
    depends_on: tuple[str, ...] = ()


class Property(Record):
    """A named property: what it says, whether it holds, and the packets for which it does not."""

    name: str
    says: tuple[str, ...]
    status: Status
    counterexamples: tuple[Counterexample, ...] = ()


def prove(world: World, kinds: Iterable[Packets], proxy: Proxy, promised: Promises) -> tuple[Property, ...]:
    """Return every property that is promised for some packets, in the order of their clauses.

    Packets that the kernel refuses without any rule are left out: no rule can do anything for them.
    """
    world = simplified(world)
    bare = world.replace(program=Program())
    said: dict[str, dict[str, None]] = {}
    against: dict[str, list[Counterexample]] = {}
    for packets in kinds:
        own = next((each.address for each in world.network.own(packets.space.family)), None)
        found = outcomes(world, packets, proxy)
        left = _minus(packets.possible, outcomes(bare, packets, proxy))
        own = next((each.address for each in world.network.own(packets.space.family)), None)
        for clause in promised(packets):
            region, left = divided(left, clause)
            if not region:
                continue
            said.setdefault(clause.name, {})[clause.says] = None
            against.setdefault(clause.name, []).extend(_against(region, clause, found, packets, own))
    return tuple(property_of(name, said[name], against[name]) for name in said)


def property_of(name: str, says: Iterable[str], against: Sequence[Counterexample]) -> Property:
    """Return a property, of which the status follows from the packets for which it does not hold."""
    return Property(name, tuple(says), _status(against), tuple(against))


def divided(region: Region, clause: Clause) -> tuple[Region, Region]:
    """Return the packets of a region that a clause is for, and the others."""
    as_sent = Changed({})
    nothing = Region.nothing(region.space)
    hit, miss = Many(region.space).split({as_sent: region} if region else {}, clause.when, NO_QUESTION)
    return hit.get(as_sent, nothing), miss.get(as_sent, nothing)


def _minus(region: Region, bare: Sequence[Outcome]) -> Region:
    for outcome in bare:
        if outcome.how in ("dropped", "rejected"):
            region = region - outcome.region
    return region


def _against(
    region: Region, clause: Clause, found: Sequence[Outcome], packets: Packets, own: int | None
) -> Iterator[Counterexample]:
    """Yield a packet for each verdict that some packets of a clause have instead of the promised one."""
    seen: set[tuple[Verdict, bool]] = set()
    for outcome in found:
        if outcome.verdict == clause.verdict:
            continue
        wrong = outcome.region & region
        if not wrong:
            continue
        about = (*questions(wrong), *(what for what, _ in outcome.if_))
        if outcome.verdict.code == "depends":
            about = about or (outcome.note,)
        if (outcome.verdict, bool(about)) in seen:
            continue
        seen.add((outcome.verdict, bool(about)))
        packet = example(wrong, packets, own)
        yield Counterexample(packets, packet, clause.verdict, outcome.verdict, outcome.note, about)


def _status(found: Sequence[Counterexample]) -> Status:
    if any(not each.depends_on for each in found):
        return "REFUTED"
    return "DEPENDS" if found else "PROVED"
