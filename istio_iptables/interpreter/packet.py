"""packet: a packet where a hook has it, with what the kernel knows about its socket and its connection."""

from __future__ import annotations

from ..rules.model import IPV4, NO_ID
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family
    from .connection import Connection

#: Numbers in IP headers (linux/in.h).
TCP, UDP, ICMP, ICMPV6, SCTP, DCCP, UDPLITE = 6, 17, 1, 58, 132, 33, 136
SYN = 0x02  #: the flag of the first packet of a TCP connection
ACK = 0x10


class Packet(Record):
    """A packet where a hook has it. Addresses are integers, ports and marks too.

    `uid` and `gid` are NO_ID if it belongs to no socket. `first` tells whether it is the first packet of
    its connection: nat is asked for no other. `redirected`, `tproxied` and `translated` are what rules have
    done with it: the local port that it was redirected to by nat, the one that TPROXY handed it to, and
    whether nat gave it another destination. `listening` tells whether a socket takes what TPROXY hands over.

    The original addresses and ports are those of the first packet of its connection, before nat changed them,
    those of replies (of a later packet) what answers have; `packet_type` is what the link layer says of it:
    unicast, broadcast, multicast or otherhost; `fragment` says that it is a further part of a packet, without
    a header of its own; `echo_number` is that of an echo of ICMP. What is not known of these, and of the
    socket, is None; a condition on it cannot be told.

    `bound` is the interface that its socket is bound to (SO_BINDTODEVICE in socket(7)), empty if to none.

    The state is what conntrack makes of it; rules see that only where it is `tracked`, from conntrack's place
    in the first hook on. `connection` is that of a later packet: then conntrack finds out the state and all
    that belongs to it, and `state` is what it would be without (see connection.py).
    `zone` is the conntrack zone of its connection, and `reply_zone` that of the answers.

    The last fields belong to the walk. `zoned`: a rule has given it a conntrack zone, which the first one
    does for good. `destination_bound` and `source_bound`: nat has decided about its connection.
    `confirmed`: it got through a hook at whose end conntrack keeps the connection. `mark_before` is the mark
    that a chain of type route got it with. `route` is the kind of route that it has (routing.py), and
    `leaves_by` the interface of that; `rerouted`: it is another one than at the beginning of the hook.
    """

    family: Family
    protocol: int
    source: int
    destination: int
    source_port: int = 0
    destination_port: int = 0
    received_on: str = ""
    sent_to: str = ""
    uid: int = NO_ID
    gid: int = NO_ID
    groups: tuple[int, ...] = ()
    bound: str = ""
    mark: int = 0
    connection_mark: int = 0
    state: str = "NEW"
    status: str = ""
    direction: str = "original"
    zone: int = 0
    reply_zone: int = 0
    flags: int = SYN
    icmp_type: int = 8
    icmp_code: int = 0
    first: bool = True
    original_source: int | None = None
    original_source_port: int | None = None
    original_destination: int | None = None
    original_port: int | None = None
    reply_source: int | None = None
    reply_source_port: int | None = None
    reply_destination: int | None = None
    reply_port: int | None = None
    packet_type: str | None = None
    fragment: bool = False
    echo_number: int | None = None
    redirected: int = 0
    tproxied: int = 0
    translated: bool = False
    source_translated: bool | None = False
    connection: Connection | None = None
    listening: bool = True
    tracked: bool = False
    zoned: bool = False
    destination_bound: bool = False
    source_bound: bool = False
    confirmed: bool = False
    mark_before: int = 0
    route: str = ""
    leaves_by: str = ""
    rerouted: bool = False

    @property
    def has_ports(self) -> bool:
        """True if its protocol has ports."""
        return has_ports(self.protocol)


def has_ports(protocol: int) -> bool:
    """Tell whether packets of a protocol have ports."""
    return protocol in (TCP, UDP, SCTP, DCCP, UDPLITE)


def address_text(family: Family, address: int) -> str:
    """Return an address as text.

    >>> address_text("ipv6", 6)
    '::6'
    """
    from ..startup.c_modules import socket

    if family == IPV4:
        return socket.inet_ntop(socket.AF_INET, address.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, address.to_bytes(16, "big"))


def endpoint_text(family: Family, address: int, port: int) -> str:
    """Return an address and port as text, IPv6 in brackets.

    >>> endpoint_text("ipv6", 6, 80), endpoint_text("ipv4", 0x0A000001, 80)
    ('[::6]:80', '10.0.0.1:80')
    """
    text = address_text(family, address)
    if not port:
        return text
    return f"{text}:{port}" if family == IPV4 else f"[{text}]:{port}"
