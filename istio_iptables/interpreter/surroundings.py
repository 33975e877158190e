"""surroundings: what the walk through rules needs to know of the namespace: addresses, routes, sockets.

Source: nf_nat_redirect.c, nf_nat_masquerade.c, nf_tproxy_ipv4.c, ip_route_me_harder and ip6_route_me_harder
(net/ipv4/netfilter.c, net/ipv6/netfilter.c).
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from .algebra import NO_QUESTION
from .condition import ALWAYS, AnyOf, Named, named, number
from .origins import NO_CHECK
from .packet import TCP, UDP
from .routing import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Generic, TypeAlias, TypeVar

    from ..rules.model import Family
    from .algebra import Algebra
    from .condition import Condition
    from .origins import SourceCheck
    from .program import Program
    from .routing import Network, Routed
    from .walk import Observer, Walk

    S = TypeVar("S")
else:
    Generic = {None: object}
    S = None

#: Ranges of IPv6 whose addresses REDIRECT turns into one of the same range only, or drops the packet:
#: loopback, IPv4-compatible, link-local and site-local (nf_nat_redirect_ipv6_usable, ipv6_addr_scope).
_IPV6_SCOPES = (
    (1, 1),
    (0, 0xFFFFFFFF),
    (0xFE80 << 112, (0xFEC0 << 112) - 1),
    (0xFEC0 << 112, (0xFF00 << 112) - 1),
)
#: Why such a packet ends.
LEAVES_BY_LO = "a source of 127.0.0.0/8 may leave by lo alone (net.ipv4.conf.INTERFACE.route_localnet)"
NOT_KNOWN = "the routing table of a VRF is not known"
_NUMBERS = {"tcp": TCP, "udp": UDP}


class World(Record):
    """A network namespace: its rules, and its addresses and routes.

    `forwards`: the packets that it forwards if they are not for it (net.ipv4.conf.IF.forwarding,
    net.ipv6.conf.all.forwarding). `localnet`: the interfaces by which packets to and from 127.0.0.0/8 may
    come and go besides lo (route_localnet). `sources`: what it checks of IPv4 packets that come in, by
    interface (rp_filter), and `other_sources`: of those from others. `listening`: the transparent sockets
    that TPROXY can hand packets to, as `tcp` or `udp` and port; None: not known, then the packet says so
    (`listening`).
    """

    program: Program
    network: Network
    forwards: Condition = ALWAYS
    localnet: frozenset[str] = frozenset()
    sources: Mapping[str, SourceCheck] = {}
    other_sources: SourceCheck = NO_CHECK
    listening: frozenset[tuple[str, int]] | None = None


class Surroundings(Generic[S]):
    """Nothing is known of the namespace: for a walk through one hook."""

    def listening(self, port: int) -> Condition:
        """Return the condition that a transparent socket on a port takes the packet."""
        return number("listening", 1)

    def redirect_addresses(self, packets: S) -> Iterable[tuple[S, int | None]]:
        """Return packets with the addresses that REDIRECT gives them: 0 if there is none, None: not known."""
        return ((packets, None),)

    def masquerade_addresses(self, packets: S) -> Iterable[tuple[S, int | None]]:
        """Return packets with the addresses that MASQUERADE gives them, as above."""
        return ((packets, None),)

    def reroute(self, walk: Walk[S], packets: S) -> S:
        """Return packets that a rule has changed with their new routes; without one their way ends here."""
        return packets


if TYPE_CHECKING:
    _Base: TypeAlias = Surroundings
else:
    _Base = {None: Surroundings}  # as Generic above


class Host(_Base[S]):
    """A namespace of which addresses and routes are known, for packets of one family."""

    def __init__(self, world: World, family: Family, algebra: Algebra[S], observer: Observer) -> None:
        self._world = world
        self._family = family
        self._algebra = algebra
        self._observer = observer

    def listening(self, port: int) -> Condition:
        """Return the condition that a transparent socket on a port takes the packet."""
        if self._world.listening is None:
            return super().listening(port)
        return AnyOf(
            tuple(
                number("protocol", _NUMBERS[protocol])
                for protocol, at in sorted(self._world.listening)
                if at == port
            )
        )

    def redirect_addresses(self, packets: S) -> Iterator[tuple[S, int | None]]:
        """Yield packets with the first address of the interface that they came in by (nf_nat_redirect.c).

        With IPv6 that of the scope of their destination.
        """
        network = self._world.network
        for interface, part in self._by_interface(packets, "received_on"):
            addresses = network.redirects_to(self._family, interface)
            if self._family == IPV4:
                yield part, addresses[0].address if addresses else 0
                continue
            for first, last in _IPV6_SCOPES:
                within, part = self._algebra.split(part, number("destination", first, last), NO_QUESTION)
                yield within, next((a.address for a in addresses if first <= a.address <= last), 0)
            yield part, addresses[0].address if addresses else 0

    def masquerade_addresses(self, packets: S) -> Iterator[tuple[S, int | None]]:
        """Yield packets with the address of the interface that they leave by (nf_nat_masquerade.c)."""
        for interface, part in self._by_interface(packets, "sent_to"):
            yield part, self._world.network.sender(self._family, interface)

    def _by_interface(self, packets: S, field: str) -> Iterator[tuple[str, S]]:
        for name in self._world.network.interfaces:
            part, packets = self._algebra.split(packets, Named(field, name), NO_QUESTION)
            if not self._algebra.is_empty(part):
                yield name, part
        if not self._algebra.is_empty(packets):
            yield "", packets

    def reroute(self, walk: Walk[S], packets: S) -> S:
        """Return packets that a rule has changed with their new routes; without one their way ends here."""
        algebra = self._algebra
        found = algebra.empty
        if algebra.is_empty(packets):
            return found
        for part, routed in self._routes_of_socket(packets, "again, since a rule has changed it", again=True):
            if routed.kind == "unknown":
                walk.end(part, "not known", note=NOT_KNOWN)
                continue
            if routed.error:
                walk.end(part, "dropped", note=f"no route for what a rule has changed ({routed.kind})")
                continue
            part = algebra.update(part, route=routed.kind, leaves_by=routed.leaves_by, rerouted=True)
            part, refused = self.possible_sources(part)
            walk.end(refused, "dropped", note=LEAVES_BY_LO)
            found = algebra.join(found, part)
        return found

    def possible_sources(self, packets: S) -> tuple[S, S]:
        """Return packets that may leave by the interface `leaves_by`, and those that may not.

        A source of 127.0.0.0/8 may leave by lo, and by others with route_localnet (__mkroute_output).
        """
        algebra = self._algebra
        if self._family != IPV4:
            return packets, algebra.empty
        free = named("leaves_by", {LOOPBACK, *self._world.localnet})
        inside, outside = algebra.split(packets, free, NO_QUESTION)
        refused, outside = algebra.split(outside, number("source", 0x7F000000, 0x7FFFFFFF), NO_QUESTION)
        return algebra.join(inside, outside), refused

    def routes_of_socket(self, packets: S) -> Iterator[tuple[S, Routed]]:
        """Yield packets that a socket sends with their routes, those without one too."""
        return self._routes_of_socket(packets, "to send it")

    def _routes_of_socket(self, packets: S, why: str, again: bool = False) -> Iterator[tuple[S, Routed]]:
        network = self._world.network
        return self._told(network.routes_of_socket(self._algebra, packets, self._family, again=again), why)

    def routes(self, packets: S, why: str) -> Iterator[tuple[S, Routed]]:
        """Yield packets that have come in with their routes, those without one too."""
        return self._told(self._world.network.route(self._algebra, packets, self._family), why)

    def _told(self, found: Iterable[tuple[S, Routed]], why: str) -> Iterator[tuple[S, Routed]]:
        for part, routed in found:
            self._observer.routed(part, routed, why)
            yield part, routed
