"""routing: the addresses, routing rules and routes of a network namespace together."""

from __future__ import annotations

from ..rules.model import FAMILIES, FULL_MASK, IPV4
from ..startup.record import Record
from .algebra import NO_QUESTION
from .condition import ALWAYS, AllOf, AnyOf, In, Masked, Named, OneOf
from .ip_names import DEFAULT_TABLE, LOCAL_TABLE, MAIN_TABLE
from .route import ERRORS, SENT_HERE
from .route import LOCAL_KINDS as LOCAL_KINDS
from .route import LOOPBACK as LOOPBACK
from .route import Address as Address
from .route import Route as Route
from .route import Routed as Routed
from .route import RoutingRule as RoutingRule
from .route import from_interface as from_interface
from .route_table import RouteTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self, TypeVar

    from ..rules.model import Cidr, Family
    from .condition import Condition
    from .route_lookup import Sets

    S = TypeVar("S")

_START_RULES = [(0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, DEFAULT_TABLE)]


class Network(Record):
    """What a network namespace has besides tables.

    `assumed` says what of it was not read but assumed, `unread` what was there and has no influence here, or
    an unknown one.
    """

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    interfaces: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def own(self, family: Family, interface: str = "") -> list[Address]:
        """Return the addresses that are neither loopback nor link-local, of one interface or of all."""
        return [
            each
            for each in self.addresses
            if each.family == family
            and not (each.is_loopback or each.is_link_local)
            and interface in ("", each.interface)
            and each.interface != LOOPBACK
        ]

    def default_route(self, family: Family) -> Route | None:
        """Return the default route of the table main that counts, if there is one."""
        found = [
            route
            for route in self.routes
            if (route.family, route.table, route.kind, route.prefix) == (family, MAIN_TABLE, "unicast", 0)
        ]
        return min(found, key=lambda route: route.metric, default=None)

    def is_local(self, family: Family, address: int) -> bool:
        """Tell whether a packet to this address is delivered in this namespace."""
        return any(route.kind == "local" for route in self.choice(family, LOCAL_TABLE, address)[:1])

    def choice(self, family: Family, table: str, destination: int) -> tuple[Route, ...]:
        """Return the routes of a table that packets to an address may take, the best first.

        Each but the last has a condition.
        """
        return self.table(table, family).choice(destination)

    def of_interface(self, family: Family, interface: str) -> list[Address]:
        """Return all addresses of an interface, in the kernel's order, which is that of ip-address(8)."""
        return [a for a in self.addresses if a.family == family and a.interface == interface]

    def redirects_to(self, family: Family, interface: str) -> list[Address]:
        """Return the addresses that REDIRECT may give what comes in by an interface (nf_nat_redirect.c)."""
        return [address for address in self.of_interface(family, interface) if not address.is_tentative]

    def sender(self, family: Family, interface: str) -> int | None:
        """Return the address that MASQUERADE takes for what leaves by an interface.

        0 if there is none; None if it depends on more than the interface (inet_select_addr in devinet.c,
        ipv6_dev_get_saddr in addrconf.c).
        """
        found = [a for a in self.of_interface(family, interface) if not (a.is_loopback or a.is_link_local)]
        if len(found) == 1 and (family == IPV4 or interface != LOOPBACK):
            return found[0].address
        if found or family != IPV4:
            return None
        others = [a for name in self.interfaces for a in self.of_interface(family, name)]
        return next((a.address for a in others if not (a.is_loopback or a.is_link_local)), 0)

    def route(
        self, algebra: Sets[S], packets: S, family: Family, *, again: bool = False, bound: str = ""
    ) -> Iterator[tuple[S, Routed]]:
        """Yield the packets of each route that they take, and the route; packets without one come last.

        `again`: they are routed again, since a rule of netfilter has changed them. `bound` is the interface
        that the socket which sends them is bound to: they take routes by that one only. Without any, IPv4
        takes the destination for a neighbour there (ip_route_output_key_hash_rcu).
        """
        from .route_lookup import RouteLookup

        network = self._bound_to(bound, family) if bound else self
        for part, routed in RouteLookup(network, algebra, family, again).routes(packets):
            if bound and family == IPV4 and routed.error:
                kind = "local" if bound == LOOPBACK else "unicast"  # __mkroute_output
                why = "none by this interface: taken for on the link"
                routed = Routed(kind, bound, self.sender(family, bound), why)
            yield part, routed

    def routes_of_socket(
        self, algebra: Sets[S], packets: S, family: Family, *, again: bool = False
    ) -> Iterator[tuple[S, Routed]]:
        """Yield packets that sockets send with their routes, as above; `bound` of each says to what it is."""
        for name in self.interfaces:
            part, packets = algebra.split(packets, OneOf("bound", frozenset({name})), NO_QUESTION)
            if not algebra.is_empty(part):
                yield from self.route(algebra, part, family, again=again, bound=name)
        if not algebra.is_empty(packets):
            yield from self.route(algebra, packets, family, again=again)

    def _bound_to(self, interface: str, family: Family) -> Self:
        """Return the network as a socket sees it that is bound to an interface (fib_lookup_good_nhc).

        Routes of IPv4 that lead nowhere have no interface, and are taken all the same; those of IPv6 have lo.
        """
        anyway = ERRORS | {"throw"} if family == IPV4 else frozenset()
        made: dict[tuple[str, Family], Self] = self.__dict__.setdefault("_bound", {})
        if (interface, family) not in made:
            kept = [r for r in self.routes if interface in r.interfaces or r.kind in anyway]
            made[interface, family] = self.replace(routes=tuple(kept))
        return made[interface, family]

    def table(self, name: str, family: Family, by_link: bool = False) -> RouteTable:
        """Return a table for look-ups; it is made once.

        With `by_link` a packet that has come in takes a route by its incoming interface alone.
        """
        made: dict[tuple[str, Family, bool], RouteTable] = self.__dict__.setdefault("_tables", {})
        key = (name, family, by_link)
        if key not in made:
            routes = [route for route in self.routes if route.table == name and route.family == family]
            made[key] = RouteTable(routes, _condition_by_link if by_link else _condition)
        return made[key]

    @property
    def merged(self) -> In:
        """The IPv4 destinations that depend on whether there ever was a rule besides those of the start.

        Until one is added, the kernel has the tables local and main in one, and the longest prefix of both
        counts (fib_unmerge). Afterwards the table local comes first, even when that rule is gone.
        """
        made: dict[str, In] = self.__dict__
        if "_merged" not in made:
            rules = [(rule.priority, rule.table) for rule in self.rules if rule.family == IPV4]
            main, local = self.table(MAIN_TABLE, IPV4), self.table(LOCAL_TABLE, IPV4)
            ranges = main.more_specific(local) if rules == _START_RULES else ()
            made["_merged"] = In("destination", ranges)
        return made["_merged"]


def _condition(route: Route) -> Condition:
    return route.condition


def _condition_by_link(route: Route) -> Condition:
    by = tuple(Named("received_on", name) for name in route.interfaces)
    return AllOf((AnyOf((SENT_HERE, *by)), route.condition))


def default_rules() -> tuple[RoutingRule, ...]:
    """Return the rules that a new network namespace has (ip-rule(8))."""
    return tuple(
        RoutingRule(family, priority, ALWAYS, table, text=f"from all lookup {table}")
        for family in FAMILIES
        for priority, table in _START_RULES
        if family == IPV4 or table != DEFAULT_TABLE
    )


def mark_rule(family: Family, mark: int, table: str, priority: int = 32765) -> RoutingRule:
    """Return the rule `fwmark MARK lookup TABLE`; 32765 is the number that the kernel gives it."""
    text = f"from all fwmark {mark:#x} lookup {table}"
    return RoutingRule(family, priority, Masked("mark", mark, FULL_MASK), table, text=text)


def local_default(family: Family, table: str) -> Route:
    """Return the route `local default dev lo table TABLE`."""
    return Route(family, table, "local", 0, (1 << (32 if family == IPV4 else 128)) - 1, LOOPBACK)


def assumed_network(own: Iterable[tuple[str, Cidr]], *, why: str) -> Network:
    """Return a network of which only addresses are known.

    `own` are interfaces and addresses, with the prefix of their network. A default route is assumed, by the
    first interface that has an address.
    """
    addresses = [Address(LOOPBACK, "ipv4", 0x7F000001, 8), Address(LOOPBACK, "ipv6", 1, 128)]
    routes = [Route("ipv4", LOCAL_TABLE, "local", 0x7F000000, 0x7FFFFFFF, LOOPBACK, 0x7F000001)]
    routes.append(Route("ipv6", LOCAL_TABLE, "local", 1, 1, LOOPBACK, 1))
    outside = ""
    for interface, cidr in own:
        addresses.append(Address(interface, cidr.family, cidr.address, cidr.prefix))
        routes.append(
            Route(cidr.family, LOCAL_TABLE, "local", cidr.address, cidr.address, interface, cidr.address)
        )
        if interface != LOOPBACK:
            outside = outside or interface
    for family in FAMILIES:
        first = next((a for a in addresses if a.family == family and a.interface != LOOPBACK), None)
        everything = (1 << (32 if family == IPV4 else 128)) - 1
        by = first.interface if first else outside or "eth0"
        routes.append(
            Route(family, MAIN_TABLE, "unicast", 0, everything, by, first.address if first else None)
        )
    interfaces = tuple(dict.fromkeys((LOOPBACK, *(a.interface for a in addresses), outside or "eth0")))
    return Network(tuple(addresses), tuple(routes), default_rules(), interfaces, (why,))
