"""completed: a network of which only parts are known, with the rest assumed, and each assumption said.

People paste `ip route` alone, or `ip addr` alone. Much of the rest the kernel itself derives from addresses
(net/ipv4/fib_frontend.c, fib_add_ifaddr; net/ipv6/addrconf.c), and so it is done here.
"""

from __future__ import annotations

from ..rules.model import FAMILIES, IPV4
from .ip_names import LOCAL_TABLE, MAIN_TABLE, SCOPES
from .ip_rule import ends_of
from .routing import LOOPBACK, Address, Network, Route, default_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..rules.model import Family
    from .ip_names import RouteKind

_TITLES: Mapping[Family, str] = {"ipv4": "IPv4", "ipv6": "IPv6"}
_LOOPBACK_ADDRESS: Mapping[Family, Address] = {
    "ipv4": Address(LOOPBACK, "ipv4", 0x7F000001, 8, SCOPES["host"]),
    "ipv6": Address(LOOPBACK, "ipv6", 1, 128, SCOPES["host"]),
}
_KNOWN_TABLES = frozenset({LOCAL_TABLE, MAIN_TABLE, "default"})


def completed(network: Network, *, only_local: bool = False) -> Network:
    """Return the network with what is missing of it; `assumed` says what that is.

    For each family: without rules it gets those of a new network namespace. Without local routes it gets
    those of its addresses, and without addresses those that its routes name. Without any route, or with
    `only_local` without one of another table than local, it gets one to each neighbouring network and a
    default route by the first interface that has an address.
    """
    parts = [_Part(network, family, only_local) for family in FAMILIES]
    if any(part.addresses for part in parts):
        for part in parts:
            if not (part.addresses or part.routes):
                part.off = True
    for part in parts:
        part.complete()
    addresses = [address for part in parts for address in part.addresses]
    routes = [route for part in parts for route in part.routes]
    named = [address.interface for address in addresses] + [route.interface for route in routes]
    return network.replace(
        addresses=tuple(addresses),
        routes=tuple(routes),
        rules=tuple(rule for part in parts for rule in part.rules),
        interfaces=tuple(dict.fromkeys((*network.interfaces, LOOPBACK, *filter(None, named)))),
        assumed=(*network.assumed, *(note for part in parts for note in part.notes)),
    )


class _Part:
    """What is known of one family."""

    def __init__(self, network: Network, family: Family, only_local: bool) -> None:
        self.family: Family = family
        self.addresses = [each for each in network.addresses if each.family == family]
        self.routes = [each for each in network.routes if each.family == family]
        self.rules = [each for each in network.rules if each.family == family]
        self.notes: list[str] = []
        self.off = False  #: another family has addresses, and this one has none
        self._interfaces = network.interfaces
        self._has_main = any(route.table != LOCAL_TABLE for route in self.routes) or (
            bool(self.routes) and not only_local
        )

    def note(self, text: str) -> None:
        self.notes.append(f"{_TITLES[self.family]}: {text}")

    def complete(self) -> None:
        if not self.rules:
            self._add_rules()
        if self.off:
            self.note("it has no address, so it is taken as switched off")
            return
        if not self.addresses:
            self._add_addresses()
        if not any(route.table == LOCAL_TABLE for route in self.routes):
            self.routes += local_routes(self.addresses)
            self.note("the table local was not given; its routes are made from the addresses")
        if not self._has_main:
            self._add_main()

    def _add_rules(self) -> None:
        self.rules = [rule for rule in default_rules() if rule.family == self.family]
        others = sorted({route.table for route in self.routes} - _KNOWN_TABLES)
        unused = f"; nothing leads to {', '.join(others)}" if others else ""
        self.note(f"no routing rule was given; those of a new network namespace are assumed{unused}")

    def _add_addresses(self) -> None:
        self.addresses = [_LOOPBACK_ADDRESS[self.family]]
        found = list(dict.fromkeys(_addresses_of(self.routes)))
        self.addresses += found
        if found:
            self.note("no address was given; those are taken that the routes name")
        else:
            self.note("no address was given; only the one of lo is known to be of this machine")

    def _add_main(self) -> None:
        outside = [each for each in self.addresses if each.interface != LOOPBACK]
        self.routes += neighbour_routes(outside)
        others = [name for name in self._interfaces if name != LOOPBACK]
        by = outside[0].interface if outside else (others or ["eth0"])[0]
        source = outside[0].address if outside else None
        last = ends_of(self.family, 0, 0)[1]
        self.routes.append(Route(self.family, MAIN_TABLE, "unicast", 0, last, by, source))
        self.note(f"no route was given; a default route by {by} is assumed")


def _addresses_of(routes: Iterable[Route]) -> Iterator[Address]:
    """Yield the addresses that routes show this machine to have, but for those of lo."""
    near = [route for route in routes if route.table == MAIN_TABLE and not (route.gateway or route.hops)]
    for route in routes:
        if route.interface == LOOPBACK:
            continue
        if route.kind == "local" and route.first == route.last:
            yield _address(route, route.first, near)
        elif route.kind == "unicast" and route.source is not None and route in near:
            yield _address(route, route.source, near)


def _address(route: Route, address: int, near: Iterable[Route]) -> Address:
    """Return an address with the prefix of the network that it is in."""
    around = [
        each.prefix
        for each in near
        if each.interface == route.interface and each.prefix and each.first <= address <= each.last
    ]
    bits = 32 if route.family == IPV4 else 128
    scope = SCOPES["link"] if route.family != IPV4 and address >> 118 == 0xFE80 >> 6 else 0
    return Address(route.interface, route.family, address, max(around, default=bits), scope)


def local_routes(addresses: Iterable[Address]) -> Iterator[Route]:
    """Yield the routes that the kernel makes in the table local for the addresses of a family."""
    for each in addresses:
        if each.family != IPV4:
            yield _local(each, "local", each.address, each.address)
            continue
        first, last = ends_of(IPV4, each.address, each.prefix)
        if each.interface == LOOPBACK and each.prefix < 32:
            yield _local(each, "local", first, last)
        yield _local(each, "local", each.address, each.address)
        if each.prefix < 31:
            yield _local(each, "broadcast", last, last)


def _local(address: Address, kind: RouteKind, first: int, last: int) -> Route:
    ipv4 = address.family == IPV4
    scope = SCOPES["host" if kind == "local" else "link"] if ipv4 else 0
    source = address.address if ipv4 else None
    by = address.interface
    return Route(address.family, LOCAL_TABLE, kind, first, last, by, source, scope=scope)


def neighbour_routes(addresses: Iterable[Address]) -> Iterator[Route]:
    """Yield the routes that the kernel makes in the table main to the networks that addresses are in."""
    for each in addresses:
        near = each.address if each.peer is None else each.peer
        first, last = ends_of(each.family, near, each.prefix)
        if each.family == IPV4:
            if (first, last) != (each.address, each.address):
                scope = SCOPES["link"]
                yield Route(
                    IPV4, MAIN_TABLE, "unicast", first, last, each.interface, each.address, scope=scope
                )
        else:
            yield Route(each.family, MAIN_TABLE, "unicast", first, last, each.interface, metric=256)
