"""lookup: questions to the kernel about one connection: which way it goes, where it was sent to, and
whether who listens there has room for it."""

from __future__ import annotations

import errno
import struct

from ..lean import socket
from .messages import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NetlinkError,
    ask,
    dump,
    pack_attribute,
    parse_attributes,
    read_u32,
)

#: The kernel's numbers of the address families, and how many bits an address has.
_FAMILIES = {"ipv4": (2, 32), "ipv6": (10, 128)}

# rtnetlink.h
_RTM_GETROUTE = 26
_RTA_DST, _RTA_OIF = 1, 4
_RTN_UNICAST, _RTN_LOCAL = 1, 2
#: struct rtmsg: family, destination and source length, TOS, table, protocol, scope, type, flags
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")

# netfilter/nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_CT_GET = 1 << 8 | 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY = 1, 2
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
#: Source and destination address, by family.
_CTA_IP = {"ipv4": (1, 2), "ipv6": (3, 4)}
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_NESTED = 0x8000
_TCP = 6

# sock_diag.h, inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_LISTENING = 1 << 10  # TCP_LISTEN (net/tcp_states.h)
#: struct inet_diag_req_v2: family, protocol, extensions, padding, states, then struct inet_diag_sockid
_SOCKETS_OF = struct.Struct("=BBBxI48x")
#: In struct inet_diag_msg: the socket's own port, and how many connections wait and how many may.
_OWN_PORT_AT = 4
_QUEUES = struct.Struct("=II")
_QUEUES_AT = 56


def route_to(family: str, address: str) -> str | None:
    """Return the name of the interface by which an address is reached, None if no route leads there.

    Like `ip route get ADDRESS`. Needs no privilege; sends nothing. Raises NetlinkError.
    """
    number, bits = _FAMILIES[family]
    header = _ROUTE_HEADER.pack(number, bits, 0, 0, 0, 0, 0, 0, 0)
    payload = header + pack_attribute(_RTA_DST, socket.inet_pton(number, address))
    try:
        answers = ask("find the route", NETLINK_ROUTE, _RTM_GETROUTE, payload)
    except NetlinkError as error:
        # What blackhole, prohibit and throw routes and the lack of any mean (ip-route(8)).
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAGAIN):
            return None
        raise
    for answer in answers:
        kind = _ROUTE_HEADER.unpack_from(answer)[7]
        index = read_u32(parse_attributes(answer[_ROUTE_HEADER.size :]), _RTA_OIF)
        if kind in (_RTN_UNICAST, _RTN_LOCAL) and index:
            return socket.if_indextoname(index)
    return None


def sent_to(family: str, source: tuple[str, int], destination: tuple[str, int]) -> tuple[str, int] | None:
    """Return the address and port that a TCP connection was sent to in the end; None if that is not known.

    Connection tracking knows (`conntrack -G`); asking takes the capability NET_ADMIN. Raises NetlinkError.
    """
    number, _ = _FAMILIES[family]
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


def room_at(port: int) -> bool | None:
    """Tell whether every listener on a TCP port can take one more connection, None if that cannot be known.

    A listener's queue is full when more connections wait in it than its backlog says (listen(2)); the first
    packet of a further one is then dropped. Like `ss -ltn`; needs no privilege.
    """
    full: list[bool] = []
    for family, _ in _FAMILIES.values():
        question = _SOCKETS_OF.pack(family, _TCP, 0, _LISTENING)
        try:
            answers = dump("list listeners", _NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, question)
        except NetlinkError:
            continue
        for answer in answers:
            waiting, limit = _QUEUES.unpack_from(answer, _QUEUES_AT)
            if int.from_bytes(answer[_OWN_PORT_AT : _OWN_PORT_AT + 2], "big") == port:
                full.append(waiting > limit)
    return not any(full) if full else None
