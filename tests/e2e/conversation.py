"""TCP connections of the tests' own process, made in a namespace, as a user: to be kept, and talked over.

A socket stays in the namespace in which it was made, and belongs to the user who made it, wherever the
process goes after that.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.arrivals import Arrival, Endpoint, read_arrival
from tests.support.netns import Namespace
from tests.support.scratch import entered

#: How long an answer may take, in seconds, that has to come.
LIMIT = 30.0


@contextmanager
def acting_as(namespace: Namespace, uid: int, gid: int) -> Iterator[None]:
    """Be in a namespace, as a user and group."""
    with entered(f"/run/netns/{namespace.name}"):
        os.setegid(gid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)


def made_by(namespace: Namespace, uid: int, gid: int, address: str, kind: socket.SocketKind) -> socket.socket:
    """Make a socket of the address's family inside a namespace that belongs to a user and group."""
    with acting_as(namespace, uid, gid):
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)


class Conversation:
    """An open connection to a listener that echoes; a context manager. Who answered stands in `arrival`.

    Raises the OSError with which the connection failed; `limit` is for how long to try, in seconds.
    """

    def __init__(
        self, namespace: Namespace, uid: int, gid: int, dialled: Endpoint, limit: float = LIMIT
    ) -> None:
        self.dialled = dialled
        self._socket = made_by(namespace, uid, gid, dialled[0], socket.SOCK_STREAM)
        try:
            self._socket.settimeout(limit)
            self._socket.connect(dialled)
            self.arrival: Arrival = read_arrival(json.loads(self._line()))
        except BaseException:
            self._socket.close()
            raise
        self.local: Endpoint = self._socket.getsockname()[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        """Read the line that a listener says first; that it does not come is an error."""
        line = b""
        while not line.endswith(b"\n"):
            data = self._socket.recv(1)  # nothing of what follows the line
            if not data:
                raise ConnectionResetError("closed before anybody answered")
            line += data
        return line

    def exchange(self, size: int) -> None:
        """Send bytes, and get the same ones back: none is lost, wrong, or too many."""
        sent, received = noise(size), bytearray()
        sender = threading.Thread(target=self._send, args=(sent,))
        sender.start()
        try:
            while len(received) < size and (data := self._socket.recv(1 << 16)):
                received += data
        finally:
            sender.join(LIMIT)
        assert len(received) == size, f"{len(received)} of {size} bytes came back"
        assert received == sent, "other bytes came back than were sent"

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            # A thread that is reading ends at once; otherwise it would wait in vain.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Close one direction; the far side then closes the other, and nothing comes any more."""
        self._socket.shutdown(socket.SHUT_WR)
        rest = self._socket.recv(1 << 16)
        assert rest == b"", f"{len(rest)} bytes too many came back"


@functools.cache
def noise(size: int) -> bytes:
    """Return bytes that do not repeat, so that none can stand for another."""
    return hashlib.shake_256(b"noise").digest(size)


def failure(error: OSError) -> str:
    """Return in a word how a connection has failed."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "closed" if isinstance(error, ConnectionResetError) else str(error)
