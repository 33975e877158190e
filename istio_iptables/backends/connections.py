"""connections: the TCP sockets of this network namespace, as /proc/net/tcp shows them (proc(5))."""

from __future__ import annotations

import sys

from ..lean import socket
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
# net/tcp_states.h
LISTEN, _TIME_WAIT = 0x0A, 0x06
_MAPPED = bytes(10) + b"\xff\xff"


class Connection(Record):
    """A TCP socket: its own end, the other end, its state (net/tcp_states.h) and the user who has it.

    `waiting` is, of a listening socket, how many connections nobody has accepted yet.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    waiting: int
    uid: int


def connections(port: int) -> Iterator[Connection]:
    """Yield every TCP socket with a port at either end; IPv4 within IPv6 (`::ffff:…`) is given as IPv4."""
    mentioned = f":{port:04X} "  # parsing all of a busy machine's sockets would take a while
    for path in _FILES:
        try:
            file = open(path, encoding="ascii")  # noqa: SIM115  # FileNotFoundError: the kernel has no IPv6
        except FileNotFoundError:
            continue
        with file:
            for line in file:
                if mentioned in line:
                    yield _connection(line.split())


def _connection(words: list[str]) -> Connection:
    waiting = words[4].partition(":")[2]
    return Connection(_end(words[1]), _end(words[2]), int(words[3], 16), int(waiting, 16), int(words[7]))


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

    Looked up twice, as sockets that come and go may hide one in a single reading.
    """
    for _ in range(2):
        found = [c for c in connections(peer[1]) if c.remote == peer and c.state != LISTEN]
        if found:
            # What an older connection from the same port has left counts only if there is nothing else.
            return min(found, key=lambda connection: connection.state == _TIME_WAIT)
    return None


def listening(port: int, addresses: tuple[str, ...]) -> Connection | None:
    """Return the socket that listens on a port of one of these addresses, None if none does."""
    for connection in connections(port):
        if connection.state == LISTEN and connection.local[1] == port and connection.local[0] in addresses:
            return connection
    return None
