"""follow: what the proxy does with a connection that it gets, hop by hop, until it arrives or loops.

What Envoy does, as Istio configures it: what arrives at the outbound port it sends to an endpoint of the
destination, as its own user. What arrives at the inbound port it sends to the application at the original
destination: from 127.0.0.6 or ::6 (REDIRECT), or from the caller's address and with the mark (TPROXY,
original_src). A connection that was dialled to one of these two ports it closes (Istio's virtualOutbound- and
virtualInbound-blackhole). The agent answers DNS, and asks a server itself for what it does not know.
Rules do not say which endpoint Envoy chooses: without `Choices.endpoint` it is the original destination.
"""

from __future__ import annotations

from ..interpreter.packet import TCP, Packet, address_text, endpoint_text
from ..interpreter.verdict import DEPENDS, LOOPS
from ..rules.istio import DNS_AGENT_PORT
from ..rules.model import IPV4
from ..settings.packet_parsers import Endpoint
from ..startup.record import Record
from .answer import Answer, answer
from .packet import Asked, Filled, source_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from ..interpreter.journey import World
    from ..interpreter.verdict import Proxy, Verdict
    from ..rules.model import Cidr, Family

    Ending: TypeAlias = Literal["arrives", "leaves", "loops", "ends", "depends"]

#: The addresses from which Envoy calls the application (Istio's InboundPassthroughCluster).
PASSTHROUGH = {"ipv4": 0x7F000006, "ipv6": 6}
#: A real way has three hops at most; one that has more goes round.
_MOST_HOPS = 8
_PROXY = "the proxy"


class Choices(Record):
    """What the proxy and the agent do that rules do not say.

    The endpoint that the proxy chooses, the user and group that it runs as if they are not those of the
    settings, and the DNS servers that the agent asks, in their order.
    """

    endpoint: Endpoint = Endpoint()
    user: tuple[int, int] | None = None
    servers: tuple[Cidr, ...] = ()


class Hop(Record):
    """A hop: who sends, and what becomes of it."""

    sender: str
    answer: Answer


class Followed(Record):
    """All hops, how the last one ends, and that in plain words."""

    hops: tuple[Hop, ...]
    ending: Ending
    conclusion: str

    @property
    def verdict(self) -> Verdict:
        """The verdict on the connection: `loops` or `depends` if a later hop does, else that of the first."""
        later = {"loops": LOOPS, "depends": DEPENDS}
        return later.get(self.ending, self.hops[0].answer.verdict)


def follow(world: World, asked: Asked, proxy: Proxy, choices: Choices | None = None) -> Followed:
    """Follow a connection through the proxy."""
    further = _Further(world, proxy, choices or Choices())
    hops: list[Hop] = []
    seen: set[Packet] = set()
    following: tuple[str, Asked] | None = (_first_sender(asked, proxy), asked)
    while following and len(hops) < _MOST_HOPS:
        sender, asked = following
        found = answer(world, asked, proxy)
        hops.append(Hop(sender, found))
        if found.verdict == LOOPS or _unnumbered(asked.packet) in seen:
            return _looped(hops)
        seen.add(_unnumbered(asked.packet))
        following = further.next(found)
    return _looped(hops) if following else _ended(hops, world, proxy)


def _unnumbered(packet: Packet) -> Packet:
    """Return a packet without its source port, which is another one in every round of a loop."""
    return packet.replace(source_port=0, original_source_port=0)


def _first_sender(asked: Asked, proxy: Proxy) -> str:
    if asked.direction == "in":
        return "a caller outside of the pod"
    return _PROXY if proxy.sends(asked.packet) else "the application"


class _Further:
    """Finds out what is sent next."""

    def __init__(self, world: World, proxy: Proxy, choices: Choices) -> None:
        self._world = world
        self._network = world.network
        self._proxy = proxy
        self._choices = choices

    def next(self, found: Answer) -> tuple[str, Asked] | None:
        """Return what is sent next, and by whom; None if the way ends here."""
        if found.verdict.code not in ("redirected", "tproxied") or _unanswered(found, self._world):
            return None
        port, before = int(found.verdict.to), found.asked.packet
        if port == DNS_AGENT_PORT:
            return "the agent, which asks a server for a name that it does not know", self._query(before)
        if before.protocol != TCP or before.destination_port == port:
            return None
        if port == self._proxy.outbound_port:
            return "the proxy, which sends it on", self._outbound(before)
        if port == self._proxy.inbound_port:
            return "the proxy, which calls the application", self._inbound(before)
        return None

    def _outbound(self, before: Packet) -> Asked:
        chosen = self._choices.endpoint
        if chosen.address is None:
            why = "the original destination: --endpoint names another"
            return self._sent(before, before.family, before.destination, before.destination_port, why)
        why = "the endpoint that --endpoint names"
        return self._sent(before, chosen.address.family, chosen.address.address, chosen.port, why)

    def _query(self, before: Packet) -> Asked:
        if not self._choices.servers:
            why = "the server that was asked: no other is known"
            return self._sent(before, before.family, before.destination, before.destination_port, why)
        server = self._choices.servers[0]
        return self._sent(before, server.family, server.address, 53, "the first server of /etc/resolv.conf")

    def _inbound(self, before: Packet) -> Asked:
        packet, user = self._packet(before, before.family, before.destination, before.destination_port)
        if self._proxy.tproxy:
            source, mark, why = before.source, self._proxy.mark, "the caller's (TPROXY: original_src)"
        else:
            source, mark = PASSTHROUGH[before.family], 0
            why = "the proxy calls the application from this address"
        filled = Filled("source", address_text(before.family, source), why)
        return Asked("out", packet.replace(source=source, mark=mark, original_source=source), (user, filled))

    def _sent(self, before: Packet, family: Family, destination: int, port: int, why: str) -> Asked:
        packet, user = self._packet(before, family, destination, port)
        source, why_source = source_for(self._network, packet)
        filled = (
            Filled("destination", endpoint_text(family, destination, port), why),
            Filled("source", address_text(family, source), why_source),
            user,
        )
        return Asked("out", packet.replace(source=source, original_source=source), filled)

    def _packet(self, before: Packet, family: Family, destination: int, port: int) -> tuple[Packet, Filled]:
        """Return the first packet of a connection of the proxy, without a source, and whose it is."""
        proxy = self._proxy
        if self._choices.user:
            (uid, gid), why = self._choices.user, "--proxy-runs-as"
        elif proxy.tproxy:
            uid, gid, why = 0, proxy.gids[0], "in TPROXY mode the proxy runs as root, with its own group"
        else:
            uid, gid, why = proxy.uids[0], proxy.gids[0], "the first of --proxy-uid and of --proxy-gid"
        source_port = before.source_port + 1
        packet = Packet(
            family,
            before.protocol,
            0,
            destination,
            source_port,
            port,
            uid=uid,
            gid=gid,
            original_source_port=source_port,
            original_destination=destination,
            original_port=port,
        )
        return packet, Filled("UID and GID", f"{uid}, {gid}", why)


# --- the end ----------------------------------------------------------------------------------


def _looped(hops: list[Hop]) -> Followed:
    ports = [hop.answer.verdict.to for hop in hops if hop.answer.verdict.to]
    where = f"port {ports[-1]} of the proxy" if ports else "the proxy"
    return Followed(tuple(hops), "loops", f"It loops: what the proxy sends comes back to {where}.")


def _ended(hops: list[Hop], world: World, proxy: Proxy) -> Followed:
    last = hops[-1].answer
    packet, verdict, end = last.paths[0].packet, last.verdict, last.paths[0].end
    if verdict.code == "depends":
        return Followed(tuple(hops), "depends", f"It is not known where it ends: {last.conclusion}")
    if why := _unanswered(last, world):
        return Followed(tuple(hops), "ends", f"It ends{_through(hops)}: {why}")
    closed = _closed_by_proxy(last, proxy)
    if closed:
        why = f"The proxy closes it: it was dialled to {closed}, which is for redirected connections only."
        return Followed(tuple(hops), "ends", why)
    if verdict.code not in ("direct", "translated") or packet.redirected:
        return Followed(tuple(hops), "ends", f"It ends{_through(hops)}. {last.conclusion}")
    to = endpoint_text(packet.family, packet.destination, packet.destination_port)
    source = address_text(packet.family, packet.source)
    if end.startswith("delivered"):
        ending: Ending = "arrives"
        where = f"arrives at {to} in this pod"
    else:
        ending = "leaves"
        where = f"leaves the pod for {to}"
    return Followed(tuple(hops), ending, f"It {where}, from {source}{_through(hops)}.")


def _unanswered(found: Answer, world: World) -> str:
    """Return why what arrived here cannot be answered, empty if it can.

    An answer from 127.0.0.0/8 may leave by lo alone (__mkroute_output in net/ipv4/route.c). So it cannot get
    to a caller outside, whose address the proxy has taken in TPROXY mode.
    """
    path = found.paths[0]
    packet, network = path.packet, world.network
    if found.verdict.code == "depends" or not path.end.startswith("delivered") or world.localnet:
        return ""
    if packet.family != IPV4 or packet.destination >> 24 != 127 or network.is_local(IPV4, packet.source):
        return ""
    source, port = address_text(IPV4, packet.source), packet.destination_port
    return (
        f"port {port} gets the first packet, but no answer from 127.0.0.1 can get to {source}, so there is "
        "no connection."
    )


def _closed_by_proxy(last: Answer, proxy: Proxy) -> str:
    """Return the port of the proxy that a connection was dialled to, empty if to none."""
    dialled, code = last.asked.packet, last.verdict.code
    ports = {str(proxy.outbound_port), str(proxy.inbound_port)}
    if dialled.protocol != TCP or str(dialled.destination_port) not in ports:
        return ""
    here = code == "direct" and last.paths[0].end.startswith("delivered")
    taken = code in ("redirected", "tproxied") and last.verdict.to == str(dialled.destination_port)
    return f"its own port {dialled.destination_port}" if here or taken else ""


def _through(hops: list[Hop]) -> str:
    ports = [hop.answer.verdict.to for hop in hops[:-1]]
    if not ports:
        return "" if hops[0].sender == _PROXY else ", without going through the proxy"
    return f", after it went through port {' and port '.join(ports)}"
