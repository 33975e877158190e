"""wire: packets as bytes, and sockets that put them into a network namespace as any user, or on a cable.

What leaves a namespace comes from raw sockets with a header of their own (raw(7), IP_HDRINCL): every
address, port, flag, user, group and mark can be had, and netfilter sees the socket's owner. What comes in is
written to the other end of a cable (packet(7)).

A packet can be told from all others wherever it is seen: by the sequence number of TCP, else by its data.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from istio_iptables.interpreter.packet import ICMP, ICMPV6, SCTP, TCP, UDP, Packet
from istio_iptables.rules.model import IPV4

from .scratch import entered

#: The window of TCP segments made here: what has another one was made by the kernel.
WINDOW = 0x5A5A
#: The protocol of the packets that mark the end (experiments, RFC 3692).
SENTINEL_PROTOCOL = 253

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_ETHERTYPE = {"ipv4": 0x0800, "ipv6": 0x86DD}
_libc = ctypes.CDLL(None, use_errno=True)


class Identity(NamedTuple):
    """Whose socket sends."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


class Numbers(NamedTuple):
    """What a packet is known by: its number, and the sequence numbers of its TCP segment."""

    tag: int
    sequence: int = 0
    acknowledged: int = 0


# --- bytes ------------------------------------------------------------------------------------


def datagram(packet: Packet, numbers: Numbers) -> bytes:
    """Return the bytes of a packet, from its IP header on."""
    payload = _transport(packet, numbers)
    source, destination = _addresses(packet)
    if packet.family == IPV4:
        start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, packet.protocol, 0)
        start = start[:10] + struct.pack("!H", checksum(start + source + destination))
        return start + source + destination + payload
    start = struct.pack("!IHBB", 6 << 28, len(payload), packet.protocol, 64)
    return start + source + destination + payload


def _addresses(packet: Packet) -> tuple[bytes, bytes]:
    size = 4 if packet.family == IPV4 else 16
    return packet.source.to_bytes(size, "big"), packet.destination.to_bytes(size, "big")


def _transport(packet: Packet, numbers: Numbers) -> bytes:
    data = tag_bytes(numbers.tag)
    ports = packet.source_port, packet.destination_port
    if packet.protocol == TCP:
        head = struct.pack(
            "!HHIIBBHHH", *ports, numbers.sequence, numbers.acknowledged, 5 << 4, packet.flags, WINDOW, 0, 0
        )
        return _summed(packet, head, 16)
    if packet.protocol == UDP:
        return _summed(packet, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data, 6)
    if packet.protocol in (ICMP, ICMPV6):
        head = struct.pack("!BBHHH", packet.icmp_type, packet.icmp_code, 0, numbers.tag & 0xFFFF, 1)
        return _summed(packet, head + data, 2, pseudo=packet.protocol == ICMPV6)
    if packet.protocol == SCTP:
        return struct.pack("!HHII", *ports, 1, 0) + data
    return data


def _summed(packet: Packet, payload: bytes, at: int, *, pseudo: bool = True) -> bytes:
    """Return a payload with its checksum at an offset, over the pseudo header too if it has one."""
    head = b""
    if pseudo:
        head = b"".join(_addresses(packet)) + struct.pack("!II", len(payload), packet.protocol)
    total = checksum(head + payload) or 0xFFFF  # UDP: zero says that there is none
    return payload[:at] + struct.pack("!H", total) + payload[at + 2 :]


def checksum(data: bytes) -> int:
    """Return the checksum of the Internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tag_bytes(tag: int) -> bytes:
    """Return the data of a packet that is not TCP."""
    return struct.pack("!4sI", b"wire", tag)


class Seen(NamedTuple):
    """The headers of a packet that was seen."""

    protocol: int
    source: int
    destination: int
    source_port: int
    destination_port: int
    flags: int  #: of TCP, or the type of ICMP
    numbers: Numbers
    payload: bytes


def read_datagram(data: bytes) -> Seen:
    """Take a packet apart."""
    if data[0] >> 4 == 4:
        protocol, start = data[9], (data[0] & 15) * 4
        source, destination = data[12:16], data[16:20]
    else:
        protocol, start = data[6], 40
        source, destination = data[8:24], data[24:40]
    addresses = int.from_bytes(source, "big"), int.from_bytes(destination, "big")
    payload = data[start:]
    ports, flags, sequence, acknowledged = (0, 0), 0, 0, 0
    if protocol in (TCP, UDP, SCTP) and len(payload) >= 4:
        ports = struct.unpack_from("!HH", payload)
    if protocol == TCP and len(payload) >= 14:
        sequence, acknowledged = struct.unpack_from("!II", payload, 4)
        flags = payload[13]
    elif protocol in (ICMP, ICMPV6) and payload:
        flags = payload[0]
    at = payload.find(b"wire")
    tag = struct.unpack_from("!I", payload, at + 4)[0] if 0 <= at <= len(payload) - 8 else 0
    return Seen(protocol, *addresses, *ports, flags, Numbers(tag, sequence, acknowledged), payload)


# --- sockets ----------------------------------------------------------------------------------


class Pen:
    """Raw sockets in a namespace: it sends packets as any user."""

    def __init__(self, namespace: str) -> None:
        self._path = f"/run/netns/{namespace}"
        self._made: dict[tuple[str, Identity], socket.socket] = {}

    def close(self) -> None:
        """Close the sockets."""
        for made in self._made.values():
            made.close()
        self._made.clear()

    def send(self, packet: Packet, who: Identity, numbers: Numbers) -> int:
        """Send a packet from a socket of a user; return the error's number, 0 if there was none.

        The socket is bound to the packet's source, as that of a program is: routes may depend on it.
        """
        made = self._socket(packet.family, who)
        kind = socket.AF_INET if packet.family == IPV4 else socket.AF_INET6
        source, destination = (socket.inet_ntop(kind, address) for address in _addresses(packet))
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark - (packet.mark >> 31 << 32))
            made.bind((source, 0))
            made.sendto(datagram(packet, numbers), (destination, 0))
        except OSError as error:
            return error.errno or -1
        return 0

    def _socket(self, family: str, who: Identity) -> socket.socket:
        if (family, who) not in self._made:
            with entered(self._path), acting_as(who):
                self._made[family, who] = _raw_socket(family)
        return self._made[family, who]


def _raw_socket(family: str) -> socket.socket:
    if family == IPV4:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        return made
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    return made


@contextmanager
def acting_as(who: Identity) -> Iterator[None]:
    """Make files, and so sockets, that belong to a user; no capability is given up (setfsuid(2))."""
    groups = os.getgroups()
    os.setgroups(who.groups)
    _libc.setfsgid(who.gid)
    _libc.setfsuid(who.uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        os.setgroups(groups)


class Cable:
    """The far end of a cable: what is written to it comes in by the interface at the near end."""

    def __init__(self, namespace: str, interface: str, near: bytes) -> None:
        """Open the interface of a namespace; `near` is the hardware address of the near end."""
        with entered(f"/run/netns/{namespace}"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.bind((interface, 0))
        self._near = near

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, packet: Packet, numbers: Numbers) -> None:
        """Write a packet to the cable."""
        self.write(packet.family, datagram(packet, numbers))

    def write(self, family: str, data: bytes) -> None:
        """Write an IP packet to the cable."""
        far = self._socket.getsockname()[4]
        self._socket.send(self._near + far + struct.pack("!H", _ETHERTYPE[family]) + data)


def sentinel() -> bytes:
    """Return the packet that marks the end."""
    own = socket.inet_aton("127.0.0.1")
    start = struct.pack("!BBHHHBBH", 0x45, 0, 20, 1, 0x4000, 64, SENTINEL_PROTOCOL, 0)
    return start[:10] + struct.pack("!H", checksum(start + own + own)) + own + own
