"""ways: the namespaces and the packets for which settings are judged, and the judgement."""

from __future__ import annotations

from ..interpreter.journey import World
from ..interpreter.program import Program
from ..interpreter.routing import Network
from ..interpreter.verdict import DROPPED, LOOPS, REJECTED
from ..rules.model import FAMILIES
from ..trace.world import proxy_of
from .intent import promised
from .open_ends import OPEN_END
from .proof import Property, property_of, prove
from .space import DIRECTIONS, PHASES, packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..settings.config import Config
    from .proof import Counterexample
    from .space import Packets


def kinds(worlds: Iterable[World], config: Config) -> tuple[Packets, ...]:
    """Return all kinds of packets, as far as some namespaces and the settings tell them apart."""
    named = Network(interfaces=tuple(_names(config)))
    worlds = (*worlds, World(Program(), named))
    return tuple(
        packets(worlds, family, direction, phase)
        for family in FAMILIES
        for direction in DIRECTIONS
        for phase in PHASES
    )


def _names(config: Config) -> Iterator[str]:
    for pattern in (*config.interfaces_excluded, *config.rerouted_interfaces):
        yield pattern.removesuffix("+")
        if pattern.endswith("+"):  # a pattern is for its own beginning, and for all names that go on
            yield f"{pattern[:-1]}/other"


def judged(config: Config, world: World) -> tuple[Property, ...]:
    """Return whether a namespace does what settings promise, for every packet.

    First come those of SPEC 10, then the exceptions, then those that are about all packets: that nothing is
    dropped, and that every packet has the verdict that it is to have.
    """
    found = prove(world, kinds((world,), config), proxy_of(config), promised(config, world.network))
    wrong = [each for property_ in found for each in property_.counterexamples]
    loops = [each for each in wrong if each.found == LOOPS]
    dropped = [each for each in wrong if each.found in (DROPPED, REJECTED)]
    found = tuple(_with(each, loops) if each.name == "no-loop" else each for each in found)
    return (
        *sorted(found, key=lambda each: each.name.startswith(OPEN_END)),
        property_of(
            "nothing-dropped", ("only what is INVALID, or what an open end says, is dropped",), dropped
        ),
        property_of("every-packet", ("every packet gets the verdict that the settings promise",), wrong),
    )


def _with(known: Property, others: Iterable[Counterexample]) -> Property:
    """Return a property with more packets for which it does not hold."""
    more = [each for each in others if each not in known.counterexamples]
    return property_of(known.name, known.says, (*known.counterexamples, *more))
