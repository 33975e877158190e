"""journey: the whole way of packets through a network namespace, from a socket or an interface to the end.

    from a socket:        route, output, [route again], postrouting, then out, or by lo to:
    from an interface:    prerouting, route, input (to a socket) or forward and postrouting (out)

Source: the kernel's ip_output.c, ip_input.c, ip_forward.c, route.c and netfilter.c.
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from .algebra import Question
from .condition import AllOf, Named, Not, number
from .routing import LOOPBACK
from .walk import Observer, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Generic, TypeVar

    from ..rules.model import Family
    from .algebra import Algebra
    from .program import Program
    from .routing import Network, Routed
    from .walk import Ended

    S = TypeVar("S")
else:
    Generic = {None: object}
    S = None


class World(Record):
    """A network namespace: its rules, and its addresses and routes.

    `forwards`: it forwards packets that are not for it (net.ipv4.ip_forward). `localnet`: it takes packets to
    127.0.0.0/8 from other interfaces than lo (route_localnet).
    """

    program: Program
    network: Network
    forwards: bool = True
    localnet: bool = False


_NO_QUESTION = Question(None, None)
_ROUTE_DUE = number("route_due", 1)
_NOT_BY_LO = Not(Named("received_on", LOOPBACK))
_TPROXIED = Not(number("tproxied", 0))
_LOOPBACK_ADDRESS = {
    "ipv4": number("destination", 0x7F000000, 0x7FFFFFFF),
    "ipv6": number("destination", 1),
}
#: How the way of a packet ends that has no route, or one of these kinds; the sender is told, or not.
_NO_ROUTE = {"blackhole": "dropped", "unreachable": "rejected", "prohibit": "rejected", "none": "rejected"}


class Journey(Generic[S]):
    """The way of packets of one family through a network namespace."""

    def __init__(
        self, world: World, family: Family, algebra: Algebra[S], observer: Observer | None = None
    ) -> None:
        self._world = world
        self._family: Family = family
        self._algebra = algebra
        self._observer = observer or Observer()
        self._interface = ""
        self._walk: Walk[S] = Walk(world.program, family, algebra, self._redirect_address, observer)

    def outbound(self, packets: S) -> list[Ended]:
        """Return how the ways of packets end that a socket sends; `sent_to` is set here."""
        for part, routed in self._routes(packets, "to send it"):
            part = self._algebra.update(part, sent_to=_leaves_by(routed))
            part = self._walk.hook("output", part)
            again, part = self._algebra.split(part, _ROUTE_DUE, _NO_QUESTION)
            self._leaves(part, routed)
            again = self._algebra.update(again, route_due=False)
            for rerouted, new in self._routes(again, "again, since a rule has changed it"):
                self._leaves(self._algebra.update(rerouted, sent_to=_leaves_by(new)), new)
        return self._walk.ended

    def _leaves(self, packets: S, routed: Routed) -> None:
        if self._algebra.is_empty(packets):
            return
        packets = self._walk.hook("postrouting", packets)
        if _leaves_by(routed) != LOOPBACK:
            self._walk.end(packets, "sent", note=routed.interface)
            return
        # The loopback device takes the socket away, and keeps mark and connection (loopback.c).
        self.inbound(
            self._algebra.update(packets, received_on=LOOPBACK, sent_to="", uid=None, gid=None, groups=None)
        )

    def inbound(self, packets: S) -> list[Ended]:
        """Return how the ways of packets end that an interface has received; `received_on` is set before."""
        packets = self._walk.hook("prerouting", packets)
        packets = self._algebra.update(packets, route_due=False)
        packets = self._without_martians(packets)
        for part, routed in self._routes(packets, "as it came in"):
            if routed.kind == "local":
                part = self._walk.hook("input", part)
                self._walk.end(part, "delivered", note=routed.interface)
            else:
                self._forward(self._algebra.update(part, sent_to=routed.interface), routed)
        return self._walk.ended

    def _without_martians(self, packets: S) -> S:
        """Loopback addresses are taken from the loopback interface alone (ip_route_input_slow)."""
        if self._world.localnet and self._family == IPV4:
            return packets
        martian = AllOf((_LOOPBACK_ADDRESS[self._family], _NOT_BY_LO))
        dropped, packets = self._algebra.split(packets, martian, _NO_QUESTION)
        self._walk.end(dropped, "dropped", note="a loopback address from another interface than lo (martian)")
        return packets

    def _forward(self, packets: S, routed: Routed) -> None:
        algebra = self._algebra
        handed, packets = algebra.split(packets, _TPROXIED, _NO_QUESTION)
        self._walk.end(handed, "dropped", note="TPROXY gave it to a socket, and its route is not local")
        if not self._world.forwards:
            self._walk.end(packets, "dropped", note="this machine does not forward (net.ipv4.ip_forward)")
            return
        packets = self._walk.hook("forward", packets)
        packets = self._walk.hook("postrouting", packets)
        self._walk.end(packets, "sent", note=routed.interface)

    def _routes(self, packets: S, why: str) -> Iterator[tuple[S, Routed]]:
        """Yield packets with their routes; the way of packets without one ends here."""
        for part, routed in self._world.network.route(self._algebra, packets, self._family):
            self._observer.routed(part, routed, why)
            how = _NO_ROUTE.get(routed.kind)
            if how:
                self._walk.end(part, how, note=f"no route ({routed.kind})")  # type: ignore[arg-type]
            else:
                yield part, routed

    def _redirect_address(self, packets: S) -> int | None:
        """Return the first own address of the interface by which packets came in (nf_nat_redirect.c)."""
        interface: str = getattr(packets, "received_on", "")
        if interface == LOOPBACK:
            return 0x7F000001 if self._family == IPV4 else 1
        own = self._world.network.own(self._family, interface)
        return own[0].address if own else None


def _leaves_by(routed: Routed) -> str:
    """Return the interface that a packet leaves by: what is for this machine, by lo (ip_route_output_key)."""
    return LOOPBACK if routed.kind == "local" else routed.interface
