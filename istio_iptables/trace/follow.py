"""follow: what the proxy does with a connection that it gets, hop by hop, until it arrives or loops.

What Envoy does, as Istio configures it: what arrives at the outbound port it sends on to the original
destination, as its own user. What arrives at the inbound port it sends to the application at the original
destination: from 127.0.0.6 or ::6 (REDIRECT), or from the caller's address and with the mark (TPROXY,
original_src). The agent answers DNS, and asks the server itself for what it does not know. The address of a
service is taken for that of an endpoint: which endpoint Envoy chooses, its own configuration says.
"""

from __future__ import annotations

from ..interpreter.packet import TCP, Packet
from ..interpreter.verdict import LOOPS
from ..rules.istio import DNS_AGENT_PORT
from ..startup.record import Record
from .answer import Answer, answer
from .packet import Asked, Filled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from ..interpreter.journey import World
    from ..interpreter.verdict import Proxy

    Ending: TypeAlias = Literal["arrives", "leaves", "loops", "ends", "depends"]

#: The addresses from which Envoy calls the application (Istio's InboundPassthroughCluster).
PASSTHROUGH = {"ipv4": 0x7F000006, "ipv6": 6}
#: A real way has three hops at most; one that has more goes round.
_MOST_HOPS = 8


class Hop(Record):
    """A hop: who sends, and what becomes of it."""

    sender: str
    answer: Answer


class Followed(Record):
    """All hops, how the last one ends, and that in plain words."""

    hops: tuple[Hop, ...]
    ending: Ending
    conclusion: str


def follow(world: World, asked: Asked, proxy: Proxy) -> Followed:
    """Follow a connection through the proxy."""
    hops: list[Hop] = []
    seen: set[Packet] = set()
    sender = _first_sender(asked, proxy)
    following: tuple[str, Asked] | None = (sender, asked)
    while following and len(hops) < _MOST_HOPS:
        sender, asked = following
        if asked.packet in seen:
            return _looped(hops)
        seen.add(asked.packet)
        found = answer(world, asked, proxy)
        hops.append(Hop(sender, found))
        if found.verdict == LOOPS:
            return _looped(hops)
        following = _next(found, proxy)
    return _looped(hops) if following else _ended(hops)


def _first_sender(asked: Asked, proxy: Proxy) -> str:
    if asked.direction == "in":
        return "somebody outside"
    return "the proxy" if proxy.sends(asked.packet) else "the application"


def _next(found: Answer, proxy: Proxy) -> tuple[str, Asked] | None:
    """Return what is sent next, and by whom; None if the way ends here."""
    if found.verdict.code not in ("redirected", "tproxied"):
        return None
    port = int(found.verdict.to)
    before = found.asked.packet
    if port == proxy.outbound_port and before.protocol == TCP:
        return "the proxy, to the original destination", _outbound(before, proxy)
    if port == proxy.inbound_port and before.protocol == TCP:
        return "the proxy, to the application", _inbound(before, proxy, found.verdict.code == "tproxied")
    if port == DNS_AGENT_PORT and not proxy.sends(before):
        return "the agent, for names that it does not know", _outbound(before, proxy)
    return None


def _of_proxy(before: Packet, proxy: Proxy) -> Packet:
    """Return the first packet of a connection of the proxy; in TPROXY mode that runs as root."""
    uid = 0 if proxy.tproxy else proxy.uids[0]
    return Packet(
        before.family,
        before.protocol,
        before.source,
        before.destination,
        before.source_port + 1,
        before.destination_port,
        uid=uid,
        gid=proxy.gids[0],
        original_destination=before.destination,
        original_port=before.destination_port,
    )


def _outbound(before: Packet, proxy: Proxy) -> Asked:
    packet = _of_proxy(before, proxy)
    return Asked("out", packet, (Filled("destination", "", "the original destination, as an endpoint"),))


def _inbound(before: Packet, proxy: Proxy, tproxied: bool) -> Asked:
    packet = _of_proxy(before, proxy)
    if tproxied:
        return Asked("out", packet.replace(mark=proxy.mark), ())
    return Asked("out", packet.replace(source=PASSTHROUGH[before.family]), ())


# --- the end ----------------------------------------------------------------------------------


def _looped(hops: list[Hop]) -> Followed:
    return Followed(tuple(hops), "loops", "It loops: what the proxy sends comes back to the proxy.")


def _ended(hops: list[Hop]) -> Followed:
    last = hops[-1].answer
    code = last.verdict.code
    through = _through(hops)
    if code == "direct":
        delivered = last.paths[0].end.startswith("delivered")
        ending: Ending = "arrives" if delivered else "leaves"
        where = "arrives in this pod" if delivered else "leaves the pod"
        return Followed(tuple(hops), ending, f"It {where}{through}.")
    if code == "depends":
        return Followed(tuple(hops), "depends", f"The last hop depends: {last.conclusion}")
    return Followed(tuple(hops), "ends", f"It ends{through}: {last.conclusion}")


def _through(hops: list[Hop]) -> str:
    ports = [hop.answer.verdict.to for hop in hops[:-1]]
    if not ports:
        return " without going through the proxy"
    return f" after {' and '.join(ports)}"
