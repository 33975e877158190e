"""conntrack: what connection tracking knows of a connection: where it was sent, and its peer there."""

from __future__ import annotations

import errno
import struct

from ...kernel.netlink.messages import (
    NETLINK_NETFILTER,
    NetlinkError,
    ask,
    pack_attribute,
    parse_attributes,
)
from ...rules.model import ADDRESS_FAMILIES, PROTOCOL_NUMBERS
from ...startup.c_modules import socket
from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...rules.model import Family
    from ..model import Protocol

# netfilter/nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_CT_GET = 1 << 8 | 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ZONE = 1, 2, 18
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
#: Source and destination address, by family.
_CTA_IP = {"ipv4": (1, 2), "ipv6": (3, 4)}
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NESTED = 0x8000


class Tracked(Record):
    """An entry: the destination that was dialled, where it was sent to, and the peer that is seen there.

    `seen_as` is not the dialler's own address and port if the kernel had to change the port: it does that
    when it still remembers another connection from that port to the same listener.
    """

    dialled: tuple[str, int]
    sent_to: tuple[str, int]
    seen_as: tuple[str, int]


def look_up(
    family: Family,
    protocol: Protocol,
    source: tuple[str, int],
    destination: tuple[str, int],
    *,
    reply: bool = False,
    zones: Iterable[int] = (0,),
) -> Tracked | None:
    """Return the entry from a source to a destination, in the first of some zones that has it.

    `reply`: these are the ends of the reply, as the listener sees them. It asks as `conntrack -G` does, which
    takes the capability NET_ADMIN. Raises NetlinkError.
    """
    for zone in zones:
        found = _look_up(family, protocol, source, destination, reply, zone)
        if found is not None:
            return found
    return None


def _look_up(
    family: Family,
    protocol: Protocol,
    source: tuple[str, int],
    destination: tuple[str, int],
    reply: bool,
    zone: int,
) -> Tracked | None:
    number = ADDRESS_FAMILIES[family]
    own, other = _CTA_IP[family]
    addresses = pack_attribute(own, socket.inet_pton(number, source[0]))
    addresses += pack_attribute(other, socket.inet_pton(number, destination[0]))
    ports = pack_attribute(_CTA_PROTO_NUM, bytes([PROTOCOL_NUMBERS[protocol]]))
    ports += pack_attribute(_CTA_PROTO_SRC_PORT, source[1].to_bytes(2, "big"))
    ports += pack_attribute(_CTA_PROTO_DST_PORT, destination[1].to_bytes(2, "big"))
    ends = pack_attribute(_CTA_TUPLE_IP | _NESTED, addresses)
    ends += pack_attribute(_CTA_TUPLE_PROTO | _NESTED, ports)
    direction = _CTA_TUPLE_REPLY if reply else _CTA_TUPLE_ORIG
    # struct nfgenmsg: family, version, resource
    payload = struct.pack("=BBH", number, 0, 0) + pack_attribute(direction | _NESTED, ends)
    payload += pack_attribute(_CTA_ZONE, zone.to_bytes(2, "big"))
    try:
        answers = ask("ask connection tracking", NETLINK_NETFILTER, _CT_GET, payload)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    for answer in answers:
        entry = parse_attributes(answer[4:])
        _, dialled = _ends(family, entry[_CTA_TUPLE_ORIG])
        sent_to, seen_as = _ends(family, entry[_CTA_TUPLE_REPLY])
        return Tracked(dialled, sent_to, seen_as)
    return None


def _ends(family: Family, data: bytes) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return source and destination of a tuple."""
    ends = parse_attributes(data)
    addresses, ports = parse_attributes(ends[_CTA_TUPLE_IP]), parse_attributes(ends[_CTA_TUPLE_PROTO])
    source, destination = (
        (socket.inet_ntop(ADDRESS_FAMILIES[family], addresses[at]), int.from_bytes(ports[port], "big"))
        for at, port in zip(_CTA_IP[family], (_CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT), strict=True)
    )
    return source, destination
