"""route: the parts of the routing of a network namespace: addresses, routes, routing rules.

Source: ip-address(8), ip-route(8), ip-rule(8).
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from .condition import ALWAYS, AllOf, AnyOf, Named, Unmodelled, number
from .ip_names import MAIN_TABLE
from .packet import address_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rules.model import Family
    from .condition import Condition
    from .ip_names import RouteKind

LOOPBACK = "lo"
#: Kinds of routes whose packets are for this machine, if they come in, and those that it sends by lo.
LOCAL_KINDS = frozenset({"local", "broadcast", "anycast", "multicast"})
_OWN_KINDS = frozenset({"local", "anycast"})
#: Kinds of routes that end a look-up with an error.
ERRORS = frozenset({"unreachable", "blackhole", "prohibit"})
#: A packet that this machine sends has not come in by any interface.
SENT_HERE = Named("received_on", "")


class Address(Record):
    """An address of an interface; `prefix` is that of its network, in bits.

    `scope` is a number of ip_names.SCOPES. `flags` has those of ip-address(8) by which the kernel prefers or
    avoids it as a source: secondary, deprecated, tentative, dadfailed, optimistic, temporary. `peer` is the
    address of the other end of a point-to-point link.
    """

    interface: str
    family: Family
    address: int
    prefix: int
    scope: int = 0
    flags: frozenset[str] = frozenset()
    peer: int | None = None

    @property
    def is_loopback(self) -> bool:
        """True for 127.0.0.0/8 and ::1."""
        return self.address >> 24 == 127 if self.family == IPV4 else self.address == 1

    @property
    def is_link_local(self) -> bool:
        """True for 169.254.0.0/16 and fe80::/10."""
        return self.address >> 16 == 0xA9FE if self.family == IPV4 else self.address >> 118 == 0x3FA

    @property
    def is_tentative(self) -> bool:
        """True while the kernel still finds out whether another machine has it, and does not use it."""
        return "tentative" in self.flags and "optimistic" not in self.flags


class Hop(Record):
    """One of the ways that a route has (ip-route(8), `nexthop`); `gateway` as `ip route` prints it."""

    interface: str
    gateway: str = ""


class Route(Record):
    """A route of a table. `source` is the address that it prefers (ip-route(8), `src`).

    `scope` is a number of ip_names.SCOPES, `gateway` as `ip route` prints it. `hops` has all ways, if there
    are more than one; `interface` is then that of the first. Only packets from the addresses `sources` take
    it (`from`, IPv6), and only those with its `tos`. `preference` is a number of ip_names.PREFERENCES.
    """

    family: Family
    table: str
    kind: RouteKind
    first: int
    last: int
    interface: str = ""
    source: int | None = None
    metric: int = 0
    scope: int = 0
    gateway: str = ""
    hops: tuple[Hop, ...] = ()
    sources: tuple[int, int] | None = None
    tos: str = ""
    preference: int = 0

    @property
    def prefix(self) -> int:
        """The length of its prefix in bits."""
        return _bits(self.family) - (self.last - self.first).bit_length()

    @property
    def condition(self) -> Condition:
        """What a packet to one of its addresses must have, too."""
        if not (self.sources or self.tos):
            return ALWAYS
        from_there = (number("source", *self.sources),) if self.sources else ()
        return AllOf((*from_there, *((Unmodelled(f"tos {self.tos}"),) if self.tos else ())))

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The interfaces that it may lead to."""
        return tuple(dict.fromkeys(hop.interface for hop in self.hops)) or (self.interface,)

    @property
    def result(self) -> tuple[object, ...]:
        """What it does with a packet that takes it, and which packets take it."""
        return (self.kind, self.interfaces, self.source, self.sources, self.tos)

    @property
    def text(self) -> str:
        """The route in the words of ip-route(8), without what has no influence on packets."""
        return " ".join(_route_words(self))


class RoutingRule(Record):
    """A rule of ip-rule(8): packets that have the condition look a route up in a table, or end.

    With `goto` they go on at the first rule of this priority, if there is one. Without table, end and
    `goto` the rule does nothing (nop). Routes with a prefix of `suppress_prefix` bits or less do not count,
    nor do those by an interface of the group `suppress_group`. `again` is the condition for packets that are
    routed again since a rule of netfilter has changed them, if it is another one.
    """

    family: Family
    priority: int
    condition: Condition
    table: str = ""
    ends: str = ""  #: unreachable, prohibit or blackhole instead of a table, or unknown
    text: str = ""
    goto: int | None = None
    suppress_prefix: int = -1
    suppress_group: str = ""
    again: Condition | None = None


class Routed(Record):
    """A route that was found: what it does, by which interface, and the rule that led to its table.

    `kind` is that of a route, the end that a rule gives, "none", or "unknown" if the table is not known.
    `table` is empty without a route. `ways` are all interfaces that the route may lead to.
    """

    kind: str
    interface: str = ""
    source: int | None = None
    rule: str = ""
    table: str = ""
    ways: tuple[str, ...] = ()

    @property
    def error(self) -> bool:
        """True if it leads nowhere, or if it is not known where."""
        return self.kind in ERRORS or self.kind in ("none", "unknown")

    @property
    def is_local(self) -> bool:
        """True if packets that come in are for this machine."""
        return self.kind in LOCAL_KINDS

    @property
    def leaves_by(self) -> str:
        """The interface that a packet leaves by: what is for this machine, by lo (ip_route_output_key)."""
        return LOOPBACK if self.kind in _OWN_KINDS else self.interface


def _bits(family: Family) -> int:
    return 32 if family == IPV4 else 128


def _route_words(route: Route) -> Iterator[str]:
    if route.kind != "unicast":
        yield route.kind
    yield network_text(route.family, route.first, route.prefix)
    if route.sources:
        bits = _bits(route.family) - (route.sources[1] - route.sources[0]).bit_length()
        yield f"from {network_text(route.family, route.sources[0], bits)}"
    if route.tos:
        yield f"tos {route.tos}"
    if not route.hops:
        yield from _hop_words(Hop(route.interface, route.gateway))
    if route.table != MAIN_TABLE:
        yield f"table {route.table}"
    if route.source is not None:
        yield f"src {address_text(route.family, route.source)}"
    if route.metric:
        yield f"metric {route.metric}"
    for hop in route.hops:
        yield "nexthop"
        yield from _hop_words(hop)


def _hop_words(hop: Hop) -> Iterator[str]:
    if hop.gateway:
        yield f"via {hop.gateway}"
    if hop.interface:
        yield f"dev {hop.interface}"


def network_text(family: Family, address: int, prefix: int) -> str:
    """Return a network as `ip route` prints it.

    >>> network_text("ipv4", 0x0A000000, 8), network_text("ipv6", 6, 128), network_text("ipv4", 0, 0)
    ('10.0.0.0/8', '::6', 'default')
    """
    if not prefix:
        return "default"
    text = address_text(family, address)
    return text if prefix == _bits(family) else f"{text}/{prefix}"


def from_interface(name: str) -> Condition:
    """Return the condition `iif` of ip-rule(8): what this machine sends counts as from lo."""
    if name.endswith("+"):  # for iptables a pattern; here it is a name like any other
        return Unmodelled(f"iif {name}")
    found = Named("received_on", name)
    return AnyOf((found, SENT_HERE)) if name == LOOPBACK else found
