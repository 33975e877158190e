"""verdict: what finally happens to a packet: a closed list, each with a stable code."""

from __future__ import annotations

from ..rules import istio
from ..startup.record import Record
from .packet import TCP, endpoint_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from .packet import Packet

    Code: TypeAlias = Literal[
        "redirected", "tproxied", "direct", "dropped", "rejected", "translated", "loops", "depends"
    ]

#: The codes, and what each says.
CODES: dict[str, str] = {
    "redirected": "nat sends it to this local port",
    "tproxied": "TPROXY hands it to the socket on this local port, with its destination as it is",
    "direct": "it arrives where it was sent",
    "dropped": "a rule discards it without an answer",
    "rejected": "it is refused, and the sender is told",
    "translated": "nat sends it to this other address",
    "loops": "what the proxy sends comes back to the proxy",
    "depends": "it depends on something that is not modelled",
}


class Verdict(Record):
    """What happens to a packet: a code of CODES, with a port or `ADDRESS:PORT` where the code has one.

    >>> str(Verdict("redirected", "15001"))
    'redirected 15001'
    """

    code: Code
    to: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.to}".rstrip()


DIRECT = Verdict("direct")
DROPPED = Verdict("dropped")
REJECTED = Verdict("rejected")
LOOPS = Verdict("loops")
DEPENDS = Verdict("depends")


class Proxy(Record):
    """The proxy, as the settings have it: its users and groups, and the ports it listens on."""

    uids: tuple[int, ...] = (istio.PROXY_ID,)
    gids: tuple[int, ...] = (istio.PROXY_ID,)
    outbound_port: int = istio.OUTBOUND_PORT
    inbound_port: int = istio.INBOUND_PORT
    tunnel_port: int = istio.TUNNEL_PORT
    tproxy: bool = False
    mark: int = istio.TPROXY_MARK

    def sends(self, packet: Packet) -> bool:
        """Tell whether the proxy has sent a packet."""
        return packet.uid in self.uids or packet.gid in self.gids


def verdict_of(sent: Packet, end: Packet, how: str, proxy: Proxy) -> Verdict:
    """Return the verdict for a packet as it was sent, as it is at the end of its way, and how that ended."""
    if how == "dropped":
        return DROPPED
    if how == "rejected":
        return REJECTED
    if how == "not known":
        return DEPENDS
    if end.tproxied:
        return Verdict("tproxied", str(end.tproxied))
    if end.redirected and how != "sent":  # a socket that is bound to an interface sends it there
        if sent.protocol == TCP and proxy.sends(sent) and end.redirected == proxy.outbound_port:
            return LOOPS
        return Verdict("redirected", str(end.redirected))
    if end.translated and (end.destination, end.destination_port) != (
        sent.destination,
        sent.destination_port,
    ):
        return Verdict("translated", endpoint_text(end.family, end.destination, end.destination_port))
    return DIRECT
