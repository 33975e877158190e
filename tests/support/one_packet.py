"""one_packet: a program that sends one packet; what kind of packet, is JSON in its argument.

It runs inside a network namespace, as root, and needs nothing but the standard library:

    protocol    udp, tcp, icmp or a number of a protocol (a raw packet)
    to, source  address and port
    uid, gid, groups, mark
    reply       udp only: the packet that counts is the answer, of the process at the other end; `between` is
                a command to run before it
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any


def main(order: dict[str, Any]) -> None:
    """Send the packet."""
    family = socket.AF_INET6 if ":" in order["to"][0] else socket.AF_INET
    os.setgroups(order.get("groups", []))
    made = _socket(family, order)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, order.get("mark", 0))
    if order["protocol"] in ("udp", "tcp"):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(tuple(order["source"]))
    elif order["source"][0]:
        made.bind((order["source"][0], 0))
    if order["protocol"] == "tcp":
        made.setblocking(False)
        made.connect_ex(tuple(order["to"]))
    elif order.get("reply"):
        _exchange(family, made, order)
    else:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        port = order["to"][1] if order["protocol"] == "udp" else 0
        made.sendto(_payload(family, order["protocol"]), (order["to"][0], port))


def _socket(family: socket.AddressFamily, order: dict[str, Any]) -> socket.socket:
    """Make the socket as the user and the group: these are the ones that netfilter sees."""
    os.setegid(order.get("gid", 0))
    os.seteuid(order.get("uid", 0))
    try:
        if order["protocol"] == "udp":
            return socket.socket(family, socket.SOCK_DGRAM)
        if order["protocol"] == "tcp":
            return socket.socket(family, socket.SOCK_STREAM)
        icmp = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
        return socket.socket(
            family, socket.SOCK_RAW, icmp if order["protocol"] == "icmp" else order["protocol"]
        )
    finally:
        os.seteuid(0)
        os.setegid(0)


def _exchange(family: socket.AddressFamily, made: socket.socket, order: dict[str, Any]) -> None:
    """Send a packet there, and one back."""
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind(tuple(order["to"]))
        made.sendto(b"?", tuple(order["to"]))
        _, peer = other.recvfrom(9)
        subprocess.run(order["between"], check=True)
        other.sendto(b"!", peer)


def _payload(family: socket.AddressFamily, protocol: object) -> bytes:
    if protocol != "icmp":
        return b"?" * 16
    echo = bytes((128 if family == socket.AF_INET6 else 8, 0, 0, 0, 7, 7, 0, 1))
    if family == socket.AF_INET6:
        return echo  # the kernel writes the checksum
    total = sum(int.from_bytes(echo[at : at + 2], "big") for at in range(0, 8, 2))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return echo[:2] + checksum.to_bytes(2, "big") + echo[4:]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
