"""routing: the addresses, routing rules and routes of a network namespace, and the route that a packet takes.

Source: ip-rule(8), ip-route(8); net/ipv4/fib_rules.c, fib_frontend.c and their IPv6 counterparts.
"""

from __future__ import annotations

from ..rules.lists import union
from ..rules.model import FAMILIES, IPV4
from ..startup.record import Record
from .algebra import Question, value_of
from .condition import ALWAYS, AllOf, AnyOf, In, Named, Not, Unmodelled, number, numbers
from .packet import Packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal, TypeAlias, TypeVar

    from ..rules.model import Cidr, Family
    from ..rules.nftables.model import Ranges
    from .algebra import Algebra
    from .condition import Condition

    S = TypeVar("S")
    RouteKind: TypeAlias = Literal[
        "local",
        "unicast",
        "unreachable",
        "blackhole",
        "prohibit",
        "throw",
        "broadcast",
        "anycast",
        "multicast",
    ]

LOOPBACK = "lo"
#: Kinds of routes whose packets are for this machine, if they come in, and those that are no way at all.
LOCAL_KINDS = frozenset({"local", "broadcast", "anycast", "multicast"})
_OWN_KINDS = frozenset({"local", "anycast"})
NO_WAY = frozenset({"unreachable", "blackhole", "prohibit", "none"})
LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE = "local", "main", "default"


class Address(Record):
    """An address of an interface; `prefix` is that of its network, in bits."""

    interface: str
    family: Family
    address: int
    prefix: int

    @property
    def is_loopback(self) -> bool:
        """True for 127.0.0.0/8 and ::1."""
        return self.address >> 24 == 127 if self.family == IPV4 else self.address == 1

    @property
    def is_link_local(self) -> bool:
        """True for 169.254.0.0/16 and fe80::/10."""
        return self.address >> 16 == 0xA9FE if self.family == IPV4 else self.address >> 118 == 0x3FA


class Route(Record):
    """A route of a table. `source` is the address that it prefers (ip-route(8), `src`)."""

    family: Family
    table: str
    kind: RouteKind
    first: int
    last: int
    interface: str = ""
    source: int | None = None
    metric: int = 0


class RoutingRule(Record):
    """A rule of ip-rule(8): packets that have the condition look a route up in a table, or end."""

    family: Family
    priority: int
    condition: Condition
    table: str = ""
    ends: str = ""  #: unreachable, prohibit or blackhole instead of a table
    text: str = ""


class Routed(Record):
    """A route that was found: what it does, by which interface, and the rule that led to its table."""

    kind: str
    interface: str = ""
    source: int | None = None
    rule: str = ""

    @property
    def error(self) -> bool:
        """True if it leads nowhere."""
        return self.kind in NO_WAY

    @property
    def is_local(self) -> bool:
        """True if packets that come in are for this machine."""
        return self.kind in LOCAL_KINDS

    @property
    def leaves_by(self) -> str:
        """The interface that a packet leaves by: what is for this machine, by lo (ip_route_output_key)."""
        return LOOPBACK if self.kind in _OWN_KINDS else self.interface


class Network(Record):
    """What a network namespace has besides tables. `assumed` says what of it was not read but assumed."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    interfaces: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

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

    def of_interface(self, family: Family, interface: str) -> list[Address]:
        """Return all addresses of an interface, in the kernel's order, which is that of ip-address(8)."""
        return [a for a in self.addresses if a.family == family and a.interface == interface]

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

    def own_sources(self, family: Family) -> Condition:
        """Return the condition that a source is no host that a packet from outside may come from.

        Such is any that a packet without a mark would be routed to within this machine, or as a broadcast
        (__fib_validate_source).
        """
        fields = ("protocol", "source", "destination", "source_port", "destination_port", "uid")
        asked = Packet(family, **dict.fromkeys(fields))  # type: ignore[arg-type]  # they are not known
        left: Ranges = ((0, 0xFFFFFFFF if family == IPV4 else (1 << 128) - 1),)
        refused: list[tuple[int, int]] = []
        for rule in self.rules:
            if rule.family != family:
                continue
            applies = value_of(rule.condition, asked)
            if applies is None:
                return Unmodelled(f"ip rule {rule.priority}: {rule.text}")
            if not applies:
                continue
            if rule.ends:
                break
            passed: list[tuple[int, int]] = []
            for route in self._table(rule.table, family):
                taken, left = _parted(left, route.first, route.last)
                if route.kind == "throw":
                    passed += taken
                elif route.kind in LOCAL_KINDS:
                    refused += taken
            left = union([*left, *passed])
        return numbers("source", refused)

    def is_local(self, family: Family, address: int) -> bool:
        """Tell whether a packet to this address is delivered in this namespace."""
        return any(
            each.family == family and each.kind == "local" and each.first <= address <= each.last
            for each in self.routes
            if each.table == LOCAL_TABLE
        )

    def route(
        self, algebra: Algebra[S], packets: S, family: Family, bound: str = ""
    ) -> Iterator[tuple[S, Routed]]:
        """Yield the packets of each route that they take, and the route; packets without one come last.

        `bound` is the interface that the socket which sends them is bound to: they take routes by that one
        only. Without any, IPv4 takes the destination for a neighbour there (ip_route_output_key_hash_rcu).
        """
        for part, routed in self._routes(algebra, packets, family, bound):
            if bound and family == IPV4 and routed.error:
                kind = "local" if bound == LOOPBACK else "unicast"  # __mkroute_output
                why = "none by this interface: taken for on the link"
                routed = Routed(kind, bound, self.sender(family, bound), why)
            yield part, routed

    def _routes(
        self, algebra: Algebra[S], packets: S, family: Family, bound: str
    ) -> Iterator[tuple[S, Routed]]:
        for rule in self.rules:
            if rule.family != family or algebra.is_empty(packets):
                continue
            asked = Question(("ip rule", rule.priority, rule.text), f"ip rule {rule.priority}: {rule.text}")
            hit, packets = algebra.split(packets, rule.condition, asked)
            if algebra.is_empty(hit):
                continue
            if rule.ends:
                yield hit, Routed(rule.ends, rule=rule.text)
                continue
            for route in self._table(rule.table, family, bound):
                taken, hit = algebra.split(hit, _fits(route), asked)
                if route.kind == "throw":
                    packets = algebra.join(packets, taken)
                elif not algebra.is_empty(taken):
                    yield taken, Routed(route.kind, route.interface, route.source, rule.text)
                if algebra.is_empty(hit):
                    break
            packets = algebra.join(packets, hit)
        if not algebra.is_empty(packets):
            yield packets, Routed("none")

    def _table(self, table: str, family: Family, bound: str = "") -> list[Route]:
        """Return the routes of a table, the longest prefix first, then the smallest metric.

        With `bound` those by this interface (fib_lookup_good_nhc, rt6_score_route). Routes of IPv4 that lead
        nowhere have no interface, and are taken all the same; those of IPv6 have lo.
        """
        found = [route for route in self.routes if route.table == table and route.family == family]
        if bound:
            anyway = NO_WAY | {"throw"} if family == IPV4 else ()
            found = [route for route in found if route.interface == bound or route.kind in anyway]
        return sorted(found, key=lambda route: (route.last - route.first, route.metric))


#: Loopback, link-local and multicast addresses. For what comes in for one of them, IPv6 takes routes by the
#: same interface alone (rt6_need_strict in net/ipv6/route.c).
_STRICT = numbers(
    "destination", [(1, 1), (0xFE80 << 112, (0xFEC0 << 112) - 1), (0xFF << 120, (1 << 128) - 1)]
)


def _fits(route: Route) -> Condition:
    """Return the condition that a packet may take a route of a table."""
    reached = In("destination", ((route.first, route.last),))
    if route.family == IPV4:
        return reached
    same = (Named("received_on", ""), Named("received_on", route.interface))
    return AllOf((reached, AnyOf((Not(_STRICT), *same))))


def default_rules() -> tuple[RoutingRule, ...]:
    """Return the rules that a new network namespace has (ip-rule(8))."""
    return tuple(
        RoutingRule(family, priority, ALWAYS, table, text=f"from all lookup {table}")
        for family in FAMILIES
        for priority, table in ((0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, DEFAULT_TABLE))
    )


def mark_rule(family: Family, mark: int, table: str, priority: int = 32765) -> RoutingRule:
    """Return the rule `fwmark MARK lookup TABLE`; 32765 is the number that the kernel gives it."""
    return RoutingRule(
        family, priority, number("mark", mark), table, text=f"from all fwmark {mark:#x} lookup {table}"
    )


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


def from_interface(name: str) -> Condition:
    """Return the condition `iif` of ip-rule(8): what this machine sends counts as from lo (ip-rule(8))."""
    if name == LOOPBACK:
        return AnyOf((Named("received_on", LOOPBACK), Named("received_on", "")))
    return Named("received_on", name)


def _parted(ranges: Ranges, first: int, last: int) -> tuple[list[tuple[int, int]], Ranges]:
    """Return those numbers of some ranges that are in another range, and those that are not."""
    inside: list[tuple[int, int]] = []
    outside: list[tuple[int, int]] = []
    for low, high in ranges:
        if low <= last and first <= high:
            inside.append((max(low, first), min(high, last)))
        if low < first:
            outside.append((low, min(high, first - 1)))
        if high > last:
            outside.append((max(low, last + 1), high))
    return inside, tuple(outside)
