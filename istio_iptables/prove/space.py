"""space: which packets there are: the fields that may differ, and all values of each that make a difference.

Names of interfaces are told apart as far as rules and routes do; one more stands for all others.
"""

from __future__ import annotations

from ..interpreter import action as actions
from ..interpreter.condition import AllOf, AnyOf, Condition, Named, Not, OneOf
from ..interpreter.merged import merged
from ..interpreter.packet import ACK, ICMP, ICMPV6, SYN, TCP, Packet
from ..interpreter.regions import Region, Space
from ..interpreter.routing import LOOPBACK
from ..rules.model import FAMILIES, IPV4, NO_ID
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Literal, TypeAlias

    from ..interpreter.action import Action
    from ..interpreter.program import Program
    from ..interpreter.surroundings import World
    from ..rules.model import Family

    Direction: TypeAlias = Literal["out", "in"]
    Phase: TypeAlias = Literal["first", "expected", "later", "error", "invalid"]

DIRECTIONS: tuple[Direction, ...] = ("out", "in")
#: The packets of a connection: nat is asked for the first; that of one which a helper of conntrack expected
#: is RELATED to another one, and has its mark (init_conntrack in nf_conntrack_core.c); errors of ICMP are
#: about a connection, RELATED to it, too; and conntrack finds some that belong to none.
PHASES: tuple[Phase, ...] = ("first", "expected", "later", "error", "invalid")
#: The phases of packets that begin a connection.
BEGINNINGS = frozenset({"first", "expected"})
_STATES: Mapping[Phase, str] = {
    "first": "NEW",
    "expected": "RELATED",
    "later": "ESTABLISHED",
    "error": "RELATED",
    "invalid": "INVALID",
}

#: A further part of a packet comes to rules only before conntrack puts the parts together, in a chain that
#: another program has made for that.
_OF_SEGMENTS = frozenset({"flags", "icmp_type", "icmp_code", "fragment"})
#: What packets of a phase are not told apart by, though rules may ask. The first packet is one way.
_UNKNOWN: Mapping[Phase, frozenset[str]] = {
    "first": _OF_SEGMENTS,
    "expected": _OF_SEGMENTS,
    "later": _OF_SEGMENTS | {"direction"},
    "error": _OF_SEGMENTS | {"direction"},
    "invalid": _OF_SEGMENTS,
}

#: Stands for every interface that nothing names. `/` is in no name.
OTHER_INTERFACE = "any/other"


class Packets(Record):
    """Packets of one kind: their space, the values of fields that are fixed, and the names of the others.

    `possible` are those that there can be: a socket has a user and a group, or there is no socket.
    `unknown` are fields that packets of the kind may differ in without being told apart: what a rule asks
    of them is not modelled. An example has the values of `fixed`.
    """

    direction: Direction
    phase: Phase
    space: Space
    fixed: Packet
    free: frozenset[str]
    possible: Region
    unknown: frozenset[str] = frozenset()


def packets(
    worlds: Sequence[World], family: Family, direction: Direction, phase: Phase, bound: str = ""
) -> Packets:
    """Return all packets of a kind, as far as some worlds tell them apart.

    Those that are sent are of sockets that are bound to an interface (SO_BINDTODEVICE), or to none.
    """
    highest = (1 << (32 if family == IPV4 else 128)) - 1
    ranges = {
        "protocol": (0, 255),
        "source": (0, highest),
        "destination": (0, highest),
        "source_port": (0, 0xFFFF),
        "destination_port": (0, 0xFFFF),
    }
    words: dict[str, frozenset[str]] = {}
    names = {name for world in worlds for name in _names(world) if name}  # "" stands for what is sent here
    interfaces = frozenset(names | {OTHER_INTERFACE, LOOPBACK})
    if direction == "out":
        ranges |= {"uid": (0, NO_ID), "gid": (0, NO_ID)}
    else:
        words["received_on"] = interfaces - {LOOPBACK}
    marks = frozenset({"mark"} if phase in ("first", "invalid") else {"mark", "connection_mark"})
    fixed = Packet(
        family,
        TCP,
        0,
        0,
        state=_STATES[phase],
        bound=bound,
        first=phase in BEGINNINGS,
        flags=SYN if phase in BEGINNINGS else ACK,
    )
    space = Space(family, ranges, marks, words)
    free = frozenset(ranges) | marks | frozenset(words)
    known = {name for world in worlds for name in world.network.interfaces} - {LOOPBACK}
    possible = _possible(space, direction, known)
    number = ICMP if family == IPV4 else ICMPV6
    if phase == "error":
        possible, _ = possible.divide("protocol", ((number, number),))
    elif phase == "expected":
        _, possible = possible.divide("protocol", ((number, number),))
    return Packets(direction, phase, space, fixed, free, possible, _UNKNOWN[phase])


def every_kind(worlds: Sequence[World]) -> Iterator[Packets]:
    """Yield all packets there are: of both families, sent and received, first and later ones.

    Those that are sent by a socket which is bound to an interface are kinds of their own, since they take
    other routes. The first of the worlds tells which interfaces there are.
    """
    yield from of_free_sockets(worlds)
    for bound in worlds[0].network.interfaces:
        for family in FAMILIES:
            for phase in PHASES:
                yield packets(worlds, family, "out", phase, bound)


def of_free_sockets(worlds: Sequence[World]) -> Iterator[Packets]:
    """Yield all packets but those that are sent by a socket which is bound to an interface."""
    for direction in DIRECTIONS:
        for family in FAMILIES:
            for phase in PHASES:
                yield packets(worlds, family, direction, phase)


def _possible(space: Space, direction: Direction, interfaces: Iterable[str]) -> Region:
    if direction == "in":
        names = frozenset(interfaces)
        return Region(space, ((("received_on", names),),)) if names else Region.nothing(space)
    none, some = ((NO_ID, NO_ID),), ((0, NO_ID - 1),)
    region = Region(space, tuple((("gid", ids), ("uid", ids)) for ids in (some, none)))
    # Who connects to 0.0.0.0 or :: has an own address written there before any rule (ip_route_output_key).
    _, possible = region.divide("destination", ((0, 0),))
    return possible


def _names(world: World) -> Iterator[str]:
    """Yield a name for each set of interfaces that rules, routes and routing rules tell from others."""
    yield from world.network.interfaces
    for rule in world.network.rules:
        yield from _named(rule.condition)
    yield from names_of(world.program)


def names_of(program: Program) -> Iterator[str]:
    """Yield a name for each set of interfaces that rules tell from others."""
    for table in merged(program).tables:
        for chain in table.chains.values():
            for each in chain:
                for statement in each.statements:
                    yield from _named(statement)


def _named(part: Condition | Action) -> Iterator[str]:
    if isinstance(part, Named):
        # A pattern is for its own beginning, and for all names that go on.
        yield part.pattern.removesuffix("+")
        if part.pattern.endswith("+"):
            yield f"{part.pattern[:-1]}/other"
    elif isinstance(part, (AllOf, AnyOf)):
        for each in part.parts:
            yield from _named(each)
    elif isinstance(part, Not):
        yield from _named(part.part)
    elif isinstance(part, OneOf) and part.field in ("received_on", "sent_to"):
        yield from part.words
    elif isinstance(part, actions.Choose):
        for condition, branch in part.branches:
            yield from _named(condition)
            yield from _named(branch)
