"""bound: the open end of sockets that are bound to an interface (SO_BINDTODEVICE), which many clauses have.

What nat redirects is for the loopback address then, and the kernel routes it again by the interface of the
socket alone: it does not reach the proxy. Which packets are to be redirected the clauses themselves say.
"""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import AllOf
from ..interpreter.condition import number as is_number
from ..interpreter.many import Many
from ..interpreter.packet import endpoint_text
from ..interpreter.regions import Region
from ..interpreter.routing import LOOPBACK
from ..interpreter.verdict import DIRECT, DROPPED, LOOPS, Verdict
from ..rules.istio import PROXY_TO_OWN_POD_MARK
from ..rules.model import IPV4
from .clause import Clause
from .open_ends import OPEN_END, marked_for_own_pod, restored
from .space import BEGINNINGS
from .terms import TCP_ONLY, condition_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ..interpreter.condition import Condition
    from .terms import Terms

NAME = "bound-socket"
SAYS = (
    "what a socket sends that is bound to an interface (SO_BINDTODEVICE) is redirected, but leaves by that "
    "interface, for the loopback address, and does not arrive"
)
#: The address that REDIRECT gives what is sent here.
_LOOPBACK = {"ipv4": 0x7F000001, "ipv6": 1}
_FROM_LOOPBACK = is_number("source", 0x7F000000, 0x7FFFFFFF)


def of_bound_sockets(terms: Terms, clauses: Iterable[Clause]) -> Iterator[Clause]:
    """Yield clauses, before each that says "redirected" what becomes of the packets of bound sockets."""
    bound = terms.packets.fixed.bound and terms.packets.phase in BEGINNINGS
    ways = _Ways(terms)
    for clause in clauses:
        if bound and clause.verdict.code in ("redirected", "loops"):
            port = terms.config.outbound_port if clause.verdict == LOOPS else int(clause.verdict.to)
            for when, verdict in ways.lost(port):
                yield Clause(f"{OPEN_END}{NAME}", AllOf((clause.when, when)), verdict, SAYS)
        yield clause


class _Ways:
    """Where the packets of a bound socket go that are redirected to a port."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._algebra = Many(terms.packets.space)
        self._known: dict[int, tuple[tuple[Condition, Verdict], ...]] = {}
        self._start: Any = None

    def lost(self, port: int) -> tuple[tuple[Condition, Verdict], ...]:
        """Return packets that do not come to the proxy, with their verdict."""
        if port not in self._known:
            found: dict[Verdict, list[Region]] = {}
            for packets, verdict in self._lost(port):
                found.setdefault(verdict, []).extend(packets.values())
            self._known[port] = tuple(
                (condition_of(Region.together(regions)), verdict) for verdict, regions in found.items()
            )
        return self._known[port]

    def _lost(self, port: int) -> Iterator[tuple[Any, Verdict]]:
        family, algebra = self._terms.family, self._algebra
        address = _LOOPBACK[family]
        if self._start is None:
            self._start = self._marked()
        as_sent = AllOf((is_number("destination", address), is_number("destination_port", port)))
        same, others = algebra.split(self._start, as_sent, NO_QUESTION)
        there = Verdict("translated", endpoint_text(family, address, port))
        for packets, verdict in ((same, DIRECT), (others, there)):
            packets = algebra.update(packets, destination=address, destination_port=port)
            yield from self._routed(packets, verdict)

    def _routed(self, packets: Any, verdict: Verdict) -> Iterator[tuple[Any, Verdict]]:
        """Yield packets that do not leave by lo; the verdict is that of those which leave."""
        family, algebra = self._terms.family, self._algebra
        routes = self._terms.network.routes_of_socket(algebra, packets, family, again=True)
        for part, routed in routes:
            if routed.error:
                yield part, DROPPED
            elif routed.leaves_by != LOOPBACK:
                if family == IPV4:  # nothing from 127.0.0.0/8 leaves by a cable
                    refused, part = algebra.split(part, _FROM_LOOPBACK, NO_QUESTION)
                    yield refused, DROPPED
                yield part, verdict

    def _marked(self) -> Any:
        """Return all packets, with the marks that rules of TPROXY have given them."""
        terms, algebra, kind = self._terms, self._algebra, self._terms.packets
        packets = algebra.all(kind.fixed, kind.free, Region.whole(kind.space))
        if not terms.config.tproxy:
            return packets
        again, packets = algebra.split(packets, restored(terms), NO_QUESTION)
        own, packets = algebra.split(packets, AllOf((TCP_ONLY, marked_for_own_pod(terms))), NO_QUESTION)
        found = algebra.join(packets, algebra.update(again, mark=terms.config.tproxy_mark))
        return algebra.join(found, algebra.update(own, mark=PROXY_TO_OWN_POD_MARK))
