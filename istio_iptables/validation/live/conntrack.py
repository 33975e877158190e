"""conntrack: where a connection was sent, according to connection tracking."""

from __future__ import annotations

import errno
import struct

from ...kernel.netlink.messages import (
    ADDRESS_FAMILIES,
    NETLINK_NETFILTER,
    NetlinkError,
    ask,
    pack_attribute,
    parse_attributes,
)
from ...startup.c_modules import socket

# netfilter/nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_CT_GET = 1 << 8 | 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
#: Source and destination address, by family.
_CTA_IP = {"ipv4": (1, 2), "ipv6": (3, 4)}
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NESTED = 0x8000
_TCP = 6


def sent_to(family: str, source: tuple[str, int], destination: tuple[str, int]) -> tuple[str, int] | None:
    """Return the address and port that a TCP connection was finally sent to; None if that is not known.

    It asks connection tracking (as `conntrack -G` does), which takes the capability NET_ADMIN. Raises
    NetlinkError.
    """
    number = ADDRESS_FAMILIES[family]
    own, other = _CTA_IP[family]
    addresses = pack_attribute(own, socket.inet_pton(number, source[0]))
    addresses += pack_attribute(other, socket.inet_pton(number, destination[0]))
    protocol = pack_attribute(_CTA_PROTO_NUM, bytes([_TCP]))
    protocol += pack_attribute(_CTA_PROTO_SRC_PORT, source[1].to_bytes(2, "big"))
    protocol += pack_attribute(_CTA_PROTO_DST_PORT, destination[1].to_bytes(2, "big"))
    original = pack_attribute(_CTA_TUPLE_IP | _NESTED, addresses)
    original += pack_attribute(_CTA_TUPLE_PROTO | _NESTED, protocol)
    # struct nfgenmsg: family, version, resource
    payload = struct.pack("=BBH", number, 0, 0) + pack_attribute(_CTA_TUPLE_ORIG | _NESTED, original)
    try:
        answers = ask("ask connection tracking", NETLINK_NETFILTER, _CT_GET, payload)
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    for answer in answers:
        reply = parse_attributes(parse_attributes(answer[4:])[_CTA_TUPLE_REPLY])
        address = socket.inet_ntop(number, parse_attributes(reply[_CTA_TUPLE_IP])[own])
        port = int.from_bytes(parse_attributes(reply[_CTA_TUPLE_PROTO])[_CTA_PROTO_SRC_PORT], "big")
        return address, port
    return None
