"""journey: the whole way of packets through a network namespace, from a socket or an interface to the end.

    from a socket:        route, output, [route again], postrouting, then out, or by lo to:
    from an interface:    prerouting, route, input (to a socket) or forward and postrouting (out)

Source: the kernel's ip_output.c, ip_input.c, ip_forward.c, route.c, fib_frontend.c and netfilter.c of IPv4,
and their IPv6 counterparts; loopback.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, NO_ID
from .algebra import NO_QUESTION, Question
from .condition import AllOf, AnyOf, Named, Not, OneOf, label, named, number, numbers
from .origins import refused
from .packet import TCP
from .routing import LOCAL_KINDS, LOOPBACK
from .surroundings import LEAVES_BY_LO, NOT_KNOWN, Host
from .surroundings import World as World
from .walk import Observer, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, TypeVar

    from ..rules.model import Family
    from .algebra import Algebra
    from .origins import SourceCheck
    from .routing import Routed
    from .walk import Ended, How

    S = TypeVar("S")
else:
    Generic = {None: object}
    S = None


_FROM_LO = Named("received_on", LOOPBACK)
_LOOPBACK_NETWORK = (0x7F000000, 0x7FFFFFFF)
#: What IPv6 discards before any hook, if it does not come from lo (ip6_rcv_core).
_IPV6_LOOPBACK = AnyOf((number("destination", 1), number("source", 1)))
_MANY = ((0xE0000000, 0xEFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF))
_FROM_MANY = numbers("source", _MANY)
#: What goes to all on a link may come from 0.0.0.0, and nothing else may; TCP takes nothing of the kind
#: (tcp_v4_rcv). Other addresses of 0.0.0.0/8 are like any other since Linux 5.3.
_TO_ALL = AllOf((number("destination", 0xFFFFFFFF), Not(number("protocol", TCP))))
_NO_DESTINATION = number("destination", 0)
_NO_SOURCE_NOTE = "no packet may come from that address"
#: Addresses that nothing on a wire may have as its source (ip_route_input_slow, ip6_rcv_core).
_NO_SOURCE = {
    "ipv4": numbers("source", ((0, 0), *_MANY)),
    "ipv6": numbers("source", ((0xFFFF00000000, 0xFFFFFFFFFFFF), (0xFF << 120, (1 << 128) - 1))),
}
_LOOPBACK_ADDRESS = AnyOf((number("destination", *_LOOPBACK_NETWORK), number("source", *_LOOPBACK_NETWORK)))
_MARTIAN = "a loopback address from another interface than lo (martian)"
_ASKED_FORWARDS = Question(("forwards",), "whether this machine forwards, which could not be read")
_DOES_NOT_FORWARD = {
    "ipv4": "this machine does not forward (net.ipv4.ip_forward, net.ipv4.conf.INTERFACE.forwarding)",
    "ipv6": "this machine does not forward (net.ipv6.conf.all.forwarding)",
}


class Journey(Generic[S]):
    """The way of packets of one family through a network namespace."""

    def __init__(
        self,
        world: World,
        family: Family,
        algebra: Algebra[S],
        observer: Observer | None = None,
    ) -> None:
        self._world = world
        self._family: Family = family
        self._algebra = algebra
        observer = observer or Observer()
        self._surroundings = Host(world, family, algebra, observer)
        self._walk: Walk[S] = Walk(world.program, family, algebra, self._surroundings, observer)

    # --- from a socket -------------------------------------------------------------------------

    def outbound(self, packets: S) -> list[Ended]:
        """Return how the ways of packets end that a socket sends; `sent_to` is set here."""
        algebra = self._algebra
        ready = algebra.empty
        for part, routed in self._surroundings.routes_of_socket(packets):
            if routed.error:
                how: How = "not known" if routed.kind == "unknown" else "rejected"
                self._walk.end(part, how, note=_note(routed))
                continue
            device = routed.leaves_by
            part = algebra.update(part, sent_to=device, leaves_by=device, route=routed.kind)
            part, refused = self._surroundings.possible_sources(part)
            self._walk.end(refused, "rejected", note=LEAVES_BY_LO)
            ready = algebra.join(ready, part)
        self._leave(self._walk.hook("output", ready))
        return self._walk.ended

    def _leave(self, packets: S) -> None:
        """Send packets by the interfaces of their routes."""
        algebra = self._algebra
        again, packets = algebra.split(packets, number("rerouted", 1), NO_QUESTION)
        for name in self._world.network.interfaces:
            part, again = algebra.split(again, Named("leaves_by", name), NO_QUESTION)
            packets = algebra.join(packets, algebra.update(part, sent_to=name, rerouted=False))
        packets = self._walk.hook("postrouting", packets)
        looped, sent = algebra.split(packets, Named("sent_to", LOOPBACK), NO_QUESTION)
        self._walk.end(sent, "sent")
        if not algebra.is_empty(looped):
            # The device takes the socket away, and keeps mark, connection and route (loopback_xmit).
            looped = algebra.update(looped, received_on=LOOPBACK, sent_to="", uid=NO_ID, gid=NO_ID, groups=())
            # At what it has found invalid conntrack looks again, in the zone that rules now say.
            invalid, looped = algebra.split(looped, _INVALID, NO_QUESTION)
            invalid = algebra.update(invalid, tracked=False, zoned=False, zone=0, reply_zone=0)
            self.inbound(algebra.join(looped, invalid))

    # --- from an interface ---------------------------------------------------------------------

    def inbound(self, packets: S) -> list[Ended]:
        """Return how the ways of packets end that an interface has received; `received_on` is set before.

        What has a route comes from this machine, by lo.
        """
        algebra = self._algebra
        packets = self._walk.hook("prerouting", self._accepted(packets))
        unrouted, routed = algebra.split(packets, OneOf("route", frozenset({""})), NO_QUESTION)
        local, others = algebra.split(routed, _LOCAL, NO_QUESTION)
        self._walk.end(others, "dropped", note="it came back by lo, but is not for this machine")
        self._deliver(local)
        self._route(unrouted)
        return self._walk.ended

    def _accepted(self, packets: S) -> S:
        """Return the packets that IPv6 takes from an interface; IPv4 looks when it routes them."""
        if self._family == IPV4:
            return packets
        lo, others = self._algebra.split(packets, _FROM_LO, NO_QUESTION)
        refused, others = self._algebra.split(others, _IPV6_LOOPBACK, NO_QUESTION)
        self._walk.end(refused, "dropped", note=_MARTIAN)
        refused, others = self._algebra.split(others, _NO_SOURCE["ipv6"], NO_QUESTION)
        self._walk.end(refused, "dropped", note=_NO_SOURCE_NOTE)
        return self._algebra.join(lo, others)

    def _route(self, packets: S) -> None:
        """Route packets that have come in."""
        algebra = self._algebra
        if self._family == IPV4:
            packets = self._without_martians(packets)
        for part, routed in self._surroundings.routes(packets, "as it came in"):
            if routed.error:
                self._no_route(part, routed)
            elif routed.is_local:
                self._deliver(self._with_possible_origins(part, routed))
            else:
                part, kept = algebra.split(part, self._world.forwards, _ASKED_FORWARDS)
                self._walk.end(kept, "dropped", note=_DOES_NOT_FORWARD[self._family])
                part = self._with_possible_origins(part, routed)
                self._forward(algebra.update(part, sent_to=routed.interface))

    def _no_route(self, packets: S, routed: Routed) -> None:
        """The sender is told (ip_error, ip6_pkt_drop), with IPv4 only by a machine that forwards."""
        how: How = "dropped" if routed.kind == "blackhole" else "rejected"
        if routed.kind == "unknown":
            how = "not known"
        elif self._family == IPV4:
            packets, silent = self._algebra.split(packets, self._world.forwards, _ASKED_FORWARDS)
            self._walk.end(silent, "dropped", note=_note(routed))
        self._walk.end(packets, how, note=_note(routed))

    def _without_martians(self, packets: S) -> S:
        """Return the packets whose addresses may come in by an interface (ip_route_input_slow)."""
        algebra = self._algebra
        to_all, packets = algebra.split(packets, _TO_ALL, NO_QUESTION)
        refused, to_all = algebra.split(to_all, _FROM_MANY, NO_QUESTION)
        self._walk.end(refused, "dropped", note=_NO_SOURCE_NOTE)
        refused, packets = algebra.split(packets, _NO_SOURCE["ipv4"], NO_QUESTION)
        self._walk.end(refused, "dropped", note=_NO_SOURCE_NOTE)
        refused, packets = algebra.split(packets, _NO_DESTINATION, NO_QUESTION)
        self._walk.end(refused, "dropped", note="no packet may go to that address")
        free, packets = algebra.split(packets, named("received_on", self._world.localnet), NO_QUESTION)
        refused, packets = algebra.split(packets, _LOOPBACK_ADDRESS, NO_QUESTION)
        self._walk.end(refused, "dropped", note=_MARTIAN)
        return algebra.join(algebra.join(free, packets), to_all)

    def _with_possible_origins(self, packets: S, routed: Routed) -> S:
        """Return the packets whose source IPv4 takes from their interface (fib_validate_source)."""
        if self._family != IPV4:
            return packets
        algebra = self._algebra
        passed = algebra.empty
        for name, check in self._world.sources.items():
            part, packets = algebra.split(packets, named("received_on", (name,)), NO_QUESTION)
            passed = algebra.join(passed, self._checked(part, check, name, routed))
        return algebra.join(passed, self._checked(packets, self._world.other_sources, "", routed))

    def _checked(self, packets: S, check: SourceCheck, interface: str, routed: Routed) -> S:
        """Return the packets from an interface whose source is taken."""
        if self._algebra.is_empty(packets):
            return packets
        found = refused(self._world.network, check, interface, routed)
        for condition, note in (
            (found.martian, "its source is an address of this machine (martian)"),
            (
                found.filtered,
                f"no way back to its source by {interface} (net.ipv4.conf.{interface}.rp_filter)",
            ),
        ):
            asked = Question(("source", note), label(condition))
            ended, packets = self._algebra.split(packets, condition, asked)
            self._walk.end(ended, "dropped", note=note)
        return packets

    def _deliver(self, packets: S) -> None:
        self._walk.end(self._walk.hook("input", packets), "delivered")

    def _forward(self, packets: S) -> None:
        handed, packets = self._algebra.split(packets, _TPROXIED, NO_QUESTION)
        self._walk.end(handed, "dropped", note="TPROXY gave it to a socket, and its route is not local")
        packets = self._walk.hook("forward", packets)
        packets = self._walk.hook("postrouting", packets)
        self._walk.end(packets, "sent")


def _note(routed: Routed) -> str:
    return NOT_KNOWN if routed.kind == "unknown" else f"no route ({routed.kind})"


_TPROXIED = Not(number("tproxied", 0))
_LOCAL = OneOf("route", LOCAL_KINDS)
_INVALID = OneOf("state", frozenset({"INVALID"}))
