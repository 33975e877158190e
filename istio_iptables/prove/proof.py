"""proof: whether rules do what clauses promise, for every packet; and packets for which they do not."""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.many import Changed, Many
from ..interpreter.packet import endpoint_text
from ..interpreter.program import Program
from ..interpreter.regions import Region
from ..interpreter.verdict import Verdict
from ..rules.model import IPV4
from ..startup.record import Record
from .example import example, questions
from .outcomes import outcomes, simplified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..interpreter.packet import Packet
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy
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


class Instance(Record):
    """A packet that a sentence is about, and the verdict that it is to have."""

    packets: Packets
    packet: Packet
    verdict: Verdict
    says: str


class Property(Record):
    """A named property: what it says, whether it holds, and the packets for which it does not.

    `instances` has one of the packets that each sentence is about.
    """

    name: str
    says: tuple[str, ...]
    status: Status
    counterexamples: tuple[Counterexample, ...] = ()
    instances: tuple[Instance, ...] = ()


def prove(world: World, kinds: Iterable[Packets], proxy: Proxy, promised: Promises) -> tuple[Property, ...]:
    """Return every property that is promised for some packets, in the order of their clauses.

    Packets that the kernel refuses without any rule are left out: no rule can do anything for them.
    """
    world = simplified(world)
    bare = world.replace(program=Program())
    said: dict[str, dict[str, Instance]] = {}
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
            about = Instance(packets, example(region, packets, own), clause.verdict, clause.says)
            said.setdefault(clause.name, {}).setdefault(clause.says, about)
            against.setdefault(clause.name, []).extend(_against(region, clause, found, packets, own))
    return tuple(property_of(name, said[name], against[name], said[name].values()) for name in said)


def property_of(
    name: str,
    says: Iterable[str],
    against: Sequence[Counterexample],
    instances: Iterable[Instance] = (),
) -> Property:
    """Return a property, of which the status follows from the packets for which it does not hold."""
    return Property(name, tuple(says), _status(against), tuple(against), tuple(instances))


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
        found_for = _of_packet(outcome.verdict, packet)
        yield Counterexample(packets, packet, clause.verdict, found_for, outcome.note, about)


def _of_packet(verdict: Verdict, packet: Packet) -> Verdict:
    """Return the verdict for one of the packets: what keeps its address has one of its own."""
    if verdict.code == "translated" and verdict.to.startswith(":") and verdict.to[1:].isdigit():
        port = int(verdict.to[1:])
        return Verdict("translated", endpoint_text(packet.family, packet.destination, port))
    has_port = ":" in verdict.to if packet.family == IPV4 else verdict.to.startswith("[")
    if verdict.code == "translated" and not has_port and packet.has_ports:
        to = f"[{verdict.to}]" if packet.family != IPV4 else verdict.to
        return Verdict("translated", f"{to}:{packet.destination_port}")
    return verdict


def _status(found: Sequence[Counterexample]) -> Status:
    if any(not each.depends_on for each in found):
        return "REFUTED"
    return "DEPENDS" if found else "PROVED"
