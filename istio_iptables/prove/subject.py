"""subject: rules that are judged, of settings, in the kernel or of dumps, and how `trace` gets them."""

from __future__ import annotations

from ..interpreter.known import NOTHING_KNOWN
from ..interpreter.program import Program
from ..interpreter.surroundings import World
from ..rules.model import FAMILIES
from ..startup.record import Record
from ..trace.packet import Question
from ..trace.world import network_of, of_ruleset, with_interface, with_objects
from .space import names_of
from .words import family_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpreter.routing import Network
    from ..interpreter.verdict import Proxy
    from ..rules.model import Cidr, RoutingObject, Ruleset
    from ..trace.dumps import Rules


#: An interface that nothing names, where the first one is named.
_UNNAMED = "other0"


def assumed(own: tuple[Cidr, ...], names: Sequence[str]) -> Network:
    """Return the network of a pod of which only its own addresses are known.

    It has each of some interfaces that rules name (see space.names_of), and one that they do not.
    """
    network = network_of(own, Question("out"))
    wanted = dict.fromkeys(name.replace("/other", "0") for name in names)
    if not wanted.keys().isdisjoint(network.interfaces) or any("/" in name for name in names):
        wanted[_UNNAMED] = None
    for name in wanted:
        if name and name not in network.interfaces:
            network = with_interface(network, name)
    return network


class Subject(Record):
    """Rules, with the namespace that they are in.

    `title` is what they are called. `settings` and `arguments` are what stands before and after `trace` so
    that it uses the same rules; with `can_be_traced` False there is nothing that does: they are a plan's.
    `rules` has what was read of the kernel or of dumps; unless it `is_whole` nothing is certain. `own` are
    the pod's addresses if they are assumed, with the routing rules and routes `objects` that are, too.
    `trace` does not know the kernel's variables if `as_usual`. `proxy` is its proxy if it is another one.
    """

    title: str
    world: World
    settings: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    rules: Rules | None = None
    is_whole: bool = True
    own: tuple[Cidr, ...] = ()
    objects: tuple[RoutingObject, ...] = ()
    can_be_traced: bool = True
    as_usual: bool = False
    proxy: Proxy | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes a proof say less than it seems to: packets without a route are none."""
        network = self.world.network
        there = [family for family in FAMILIES if network.own(family)] or list(FAMILIES)
        return tuple(
            f"there is no default route of {family_words(family)}: the kernel refuses what has no route "
            "before any rule sees it, and nothing is said of that"
            for family in there
            if network.default_route(family) is None
        )

    def at(self, question: Question) -> World:
        """Return the namespace as `trace` has it for a packet, which may tell of an interface."""
        if self.as_usual:
            return World(self.world.program, self.world.network)
        if not self.own:
            return self.world
        return self.world.replace(network=with_objects(network_of(self.own, question), self.objects))


def of_rules(ruleset: Ruleset, own: tuple[Cidr, ...], *, native: bool = False) -> Subject:
    """Return a rule set in a pod of which only its own addresses are known."""
    program = Program(tuple(of_ruleset(ruleset, NOTHING_KNOWN, native=native)))
    network = with_objects(assumed(own, tuple(names_of(program))), ruleset.routing)
    return Subject("of a rule set", World(program, network), own=own, objects=ruleset.routing)
