"""proof: whether rules do what clauses promise, for every packet; and packets for which they do not."""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.many import Changed, Many
from ..interpreter.program import Program
from ..interpreter.regions import Region
from ..interpreter.verdict import LOOPS
from ..startup.record import Record
from .example import example, own_address, questions, strangeness
from .outcomes import outcomes, simplified
from .space import BEGINNINGS
from .translated import led_back, of_packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..interpreter.packet import Packet
    from ..interpreter.routing import Network
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy, Verdict
    from .clause import Clause
    from .outcomes import Outcome
    from .space import Packets

    Status: TypeAlias = Literal["PROVED", "REFUTED", "DEPENDS"]
    Promises: TypeAlias = Callable[[Packets], Sequence[Clause]]


class Counterexample(Record):
    """A packet for which rules do not do what was promised; `at` is the rule that ended its way, if one did.

    `depends_on` names what is not modelled: then the packet may get another verdict. `loops`: the proxy has
    sent it, and it comes to its own outbound port.
    """

    packets: Packets
    packet: Packet
    wanted: Verdict
    found: Verdict
    at: str = ""
    depends_on: tuple[str, ...] = ()
    loops: bool = False


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
    shown: set[tuple[object, ...]] = set()

    def is_new(clause: Clause, found: Counterexample) -> bool:
        """Tell whether no plainer first packet of a connection, of an earlier kind, shows the same."""
        kind = found.packets
        if kind.phase not in BEGINNINGS:
            return True
        about = (found.wanted, found.found, found.loops, bool(found.depends_on))
        key = (kind.space.family, kind.direction, clause.says, *about)
        of_kind = (*key, kind.phase, kind.fixed.bound)
        is_known = key in shown and of_kind not in shown
        shown.update((key, of_kind))
        return not is_known

    for packets in kinds:
        own = own_address(world.network, packets.space.family)
        found = outcomes(world, packets, proxy)
        left = _minus(packets.possible, outcomes(bare, packets, proxy))
        for clause in promised(packets):
            region, left = divided(left, clause)
            if not region:
                continue
            about = Instance(packets, example(region, packets, own), clause.verdict, clause.says)
            said.setdefault(clause.name, {}).setdefault(clause.says, about)
            wrong = _against(region, clause, found, packets, proxy, world.network)
            against.setdefault(clause.name, []).extend(each for each in wrong if is_new(clause, each))
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
    region: Region, clause: Clause, found: Sequence[Outcome], packets: Packets, proxy: Proxy, network: Network
) -> Iterator[Counterexample]:
    """Yield the plainest packet for each verdict that some packets of a clause have instead of the promised.

    What is led back to the proxy is told apart, whatever verdict it shares with others.
    """
    plainest: dict[tuple[Verdict, bool, bool], Counterexample] = {}
    own = own_address(network, packets.space.family)
    for outcome in found:
        if outcome.verdict == clause.verdict:
            continue
        wrong = outcome.region & region
        for part, loops in _parts(wrong, outcome.verdict, packets, proxy, network):
            about = (*questions(part), *(what for what, _ in outcome.if_))
            if outcome.verdict.code == "depends":
                about = about or (outcome.note,)
            packet = example(part, packets, own)
            verdict = of_packet(outcome.verdict, packet)
            key = (outcome.verdict, bool(about), loops)
            known = plainest.get(key)
            if known is None or strangeness(packet, own) < strangeness(known.packet, own):
                plainest[key] = Counterexample(
                    packets, packet, clause.verdict, verdict, outcome.note, about, loops
                )
    yield from plainest.values()


def _parts(
    wrong: Region, verdict: Verdict, packets: Packets, proxy: Proxy, network: Network
) -> Iterator[tuple[Region, bool]]:
    """Yield the packets that the proxy has sent and that come to its own outbound port, and the others."""
    back, others = Region.nothing(wrong.space), wrong
    if verdict == LOOPS:
        back, others = others, back
    elif packets.direction == "out":
        back, others = led_back(wrong, verdict, proxy, network)
    yield from ((part, loops) for part, loops in ((back, True), (others, False)) if part)


def _status(found: Sequence[Counterexample]) -> Status:
    if any(not each.depends_on for each in found):
        return "REFUTED"
    return "DEPENDS" if found else "PROVED"
