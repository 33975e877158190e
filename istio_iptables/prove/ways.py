"""ways: the namespaces and the packets for which settings are judged, and the judgement."""

from __future__ import annotations

from ..interpreter.completed import completed
from ..interpreter.ip_names import SCOPES
from ..interpreter.journey import World
from ..interpreter.program import Program
from ..interpreter.routing import LOOPBACK, Address, Network
from ..interpreter.verdict import DROPPED, LOOPS, REJECTED, Verdict
from ..rules.model import FAMILIES, IPV4, IPV6
from ..trace.world import proxy_of
from .intent import promised
from .open_ends import OPEN_END
from .proof import Counterexample, Property, property_of, prove
from .space import of_free_sockets, packets
from .terms import fits
from .words import proxy_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..rules.model import Cidr, Family
    from ..settings.config import Config
    from .space import Packets


def assumed(config: Config, own: Iterable[Cidr] = ()) -> Network:
    """Return the network of a pod of which no more is known than its settings, and perhaps its own addresses.

    It has eth0, and an interface for each name that the settings have, with addresses for documentation and a
    link-local one, and a network behind it. The default route is by eth0.
    """
    addresses = [Address("eth0", each.family, each.address, each.prefix) for each in own]
    addresses += _addresses("eth0", 0, [each.family for each in addresses])
    for number, name in enumerate(_interfaces(config), 1):
        addresses += _addresses(name, number)
    loopback = [Address(LOOPBACK, IPV4, 0x7F000001, 8), Address(LOOPBACK, IPV6, 1, 128)]
    return completed(Network(addresses=(*loopback, *addresses)))


def _interfaces(config: Config) -> tuple[str, ...]:
    """Return a name for each interface, or pattern of names, that the settings have."""
    found = ["eth0"]
    for pattern in (*config.interfaces_excluded, *config.rerouted_interfaces):
        if not any(fits((pattern,), name) for name in (*found, LOOPBACK)):
            name = pattern.removesuffix("+")
            found.append(f"{name[:14]}0" if pattern.endswith("+") and len(name) < 15 else name)
    return tuple(found[1:])


def _addresses(interface: str, number: int, known: Iterable[Family] = ()) -> Iterator[Address]:
    """Yield addresses of an interface, those of RFC 2544 and RFC 3849, for families without known ones."""
    if IPV4 not in known:
        yield Address(interface, IPV4, 0xC6120002 | number << 8, 24)
    if IPV6 not in known:
        yield Address(interface, IPV6, 0x20010DB8 << 96 | number << 64 | 2, 64)
    yield Address(interface, IPV6, 0xFE80 << 112 | number + 2, 64, SCOPES["link"])


def kinds(worlds: Iterable[World], config: Config) -> tuple[Packets, ...]:
    """Return the kinds of packets that are judged, as far as some namespaces and settings tell them apart.

    Of what sockets send that are bound to an interface, that is the first packets of connections, by the
    interface of the default route: each interface more would cost as much again.
    """
    named = Network(interfaces=tuple(name for name in _names(config) if name))
    worlds = (*worlds, World(Program(), named))
    found = [*of_free_sockets(worlds)]
    for family in FAMILIES:
        default = worlds[0].network.default_route(family)
        found += [packets(worlds, family, "out", "first", default.interfaces[0])] if default else []
    return tuple(found)


def _names(config: Config) -> Iterator[str]:
    for pattern in (*config.interfaces_excluded, *config.rerouted_interfaces):
        yield pattern.removesuffix("+")
        if pattern.endswith("+"):  # a pattern is for its own beginning, and for all names that go on
            yield f"{pattern[:-1]}/other"


def judged(config: Config, world: World) -> tuple[Property, ...]:
    """Return whether a namespace does what settings promise, for every packet.

    First come those that are about some packets, then the exceptions of open_ends.py, then those that are
    about all packets: no loop, nothing dropped, and every packet as it should be.
    """
    found = prove(world, kinds((world,), config), proxy_of(config), promised(config, world.network))
    wrong = [each for property_ in found for each in property_.counterexamples]
    looping = [each for each in wrong if each.loops]
    looping += _meant_to_loop(config, found)
    dropped = [each for each in wrong if each.found in (DROPPED, REJECTED)]
    return (
        *sorted(found, key=lambda each: each.name.startswith(OPEN_END)),
        property_of(
            "no-loop",
            (f"what {proxy_words(config)} sends is led to its own port {config.outbound_port} by no rule",),
            looping,
        ),
        property_of(
            "nothing-dropped", ("only what is INVALID, or what an open end says, is dropped",), dropped
        ),
        property_of("every-packet", ("every packet gets the verdict that the settings promise",), wrong),
    )


def _meant_to_loop(config: Config, properties: Iterable[Property]) -> list[Counterexample]:
    """Return packets of the proxy that settings themselves lead to its outbound port."""
    wanted = Verdict("redirected", str(config.inbound_port))
    return [
        Counterexample(each.packets, each.packet, wanted, LOOPS, loops=True)
        for property_ in properties
        for each in property_.instances
        if each.verdict == LOOPS
    ]
