"""sockets: the TCP and UDP sockets of this network namespace: proc(5), /proc/net, and sock_diag(7)."""

from __future__ import annotations

import struct
import sys

from ...kernel.netlink.messages import NetlinkError, dump
from ...rules.model import ADDRESS_FAMILIES, PROTOCOL_NUMBERS
from ...startup.c_modules import socket
from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Protocol

_FILES = {
    "tcp": ("/proc/self/net/tcp", "/proc/self/net/tcp6"),
    "udp": ("/proc/self/net/udp", "/proc/self/net/udp6"),
}
# net/tcp_states.h. A UDP socket that is not connected has the state TCP_CLOSE.
LISTEN, _TIME_WAIT, _CLOSE = 0x0A, 0x06, 0x07
_RECEIVING = {"tcp": LISTEN, "udp": _CLOSE}
_MAPPED = bytes(10) + b"\xff\xff"


# sock_diag.h, inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
#: struct inet_diag_req_v2: family, protocol, extensions, padding, states, then struct inet_diag_sockid
_SOCKETS_OF = struct.Struct("=BBBxI48x")
#: In struct inet_diag_msg: the socket's own port, and how many connections wait and how many may.
_OWN_PORT_AT = 4
_QUEUES = struct.Struct("=II")
_QUEUES_AT = 56


class Connection(Record):
    """A socket: its own address and port, those of its peer, its state (net/tcp_states.h) and its user.

    `inode` is a number that no other socket has. `waiting`, of a listening socket, is how many connections
    have not been accepted yet.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    waiting: int
    uid: int
    inode: int


def connections(port: int, protocol: Protocol = "tcp") -> Iterator[Connection]:
    """Yield every socket with a port at either end; a mapped address (`::ffff:…`) is given as IPv4."""
    mentioned = f":{port:04X} "  # parsing all sockets of a busy machine would take a while
    for path in _FILES[protocol]:
        try:
            file = open(path, encoding="ascii")  # noqa: SIM115  # FileNotFoundError: the kernel has no IPv6
        except FileNotFoundError:
            continue
        with file:
            for line in file:
                if mentioned in line:
                    yield _connection(line.split())


def _connection(fields: list[str]) -> Connection:
    waiting = fields[4].partition(":")[2]
    local, remote = _end(fields[1]), _end(fields[2])
    return Connection(local, remote, int(fields[3], 16), int(waiting, 16), int(fields[7]), int(fields[9]))


def _end(text: str) -> tuple[str, int]:
    """Read `0100007F:1F90`: words of 32 bits in the machine's byte order, as hexadecimal numbers."""
    address, _, port = text.partition(":")
    words = (int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8))
    packed = b"".join(words)
    if packed.startswith(_MAPPED):
        packed = packed[len(_MAPPED) :]
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed), int(port, 16)


def answering(peer: tuple[str, int]) -> Connection | None:
    """Return the socket that a connection from `peer` has arrived at, None if there is none here.

    It looks twice, because other sockets that come and go may hide one in a single reading.
    """
    for _ in range(2):
        found = [c for c in connections(peer[1]) if c.remote == peer and c.state != LISTEN]
        if found:
            # The remains of an older connection from the same port count only if there is nothing else.
            return min(found, key=lambda connection: connection.state == _TIME_WAIT)
    return None


def has_orphan(port: int) -> bool:
    """Tell whether a connection at a local port has a peer that no socket here is bound to.

    The kernel gives a redirected connection another source port if it still remembers one with the same: then
    the listener's socket does not name the port that dialled.
    """
    here = [c for c in connections(port) if c.local[1] == port and c.state not in (LISTEN, _TIME_WAIT)]
    return any(not _is_dialled(connection) for connection in here)


def _is_dialled(connection: Connection) -> bool:
    """Tell whether the peer of a connection is a socket of this network namespace."""
    return any(other.local == connection.remote for other in connections(connection.remote[1]))


def listening(port: int, addresses: tuple[str, ...], protocol: Protocol = "tcp") -> Connection | None:
    """Return the socket that listens on a port at one of these addresses, None if there is none."""
    for connection in connections(port, protocol):
        ready = connection.state == _RECEIVING[protocol]
        if ready and connection.local[1] == port and connection.local[0] in addresses:
            return connection
    return None


def can_accept(port: int) -> bool | None:
    """Tell whether every listener on a TCP port can take one more connection, None if that is not known.

    A listener's queue is full when more connections wait in it than its backlog allows (listen(2)). The
    kernel then drops the first packet of another one. It asks as `ss -ltn` does, and needs no privilege.
    """
    full: list[bool] = []
    for family in ADDRESS_FAMILIES.values():
        question = _SOCKETS_OF.pack(family, PROTOCOL_NUMBERS["tcp"], 0, 1 << LISTEN)
        try:
            answers = dump("list listeners", _NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, question)
        except NetlinkError:
            continue
        for answer in answers:
            waiting, limit = _QUEUES.unpack_from(answer, _QUEUES_AT)
            if int.from_bytes(answer[_OWN_PORT_AT : _OWN_PORT_AT + 2], "big") == port:
                full.append(waiting > limit)
    return not any(full) if full else None
