"""listeners: this process listens where the probes have to arrive, unless another process does."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time

from ...rules.model import ADDRESS_FAMILIES
from ..model import LOOPBACK, Listening, Probe
from .origin import KINDS
from .sockets import can_accept, listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import TypeAlias

    from ...rules.model import Family
    from ..model import Protocol, Skipped

    Where: TypeAlias = tuple[Family, Protocol, int]
    End: TypeAlias = tuple[str, int]

_SO_ORIGINAL_DST = 80  # the same number in both families: linux/netfilter_ipv4.h, ip6_tables.h
#: By family: the addresses of listeners that serve what is redirected to the loopback address.
_SERVING = {"ipv4": ("127.0.0.1", "0.0.0.0", "::"), "ipv6": ("::1", "::")}
#: Seconds between two looks at a port whose process seems to be ending.
PAUSE = 0.02
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)


class Listeners:
    """Listeners on the ports that are watched, in the families that are dialled; a context manager.

    They listen only on the loopback address, which is where the kernel redirects local connections. So no
    host can reach them from outside, and a connection that arrives was redirected.
    """

    def __init__(self, planned: Sequence[Probe | Skipped]) -> None:
        self._wanted = dict.fromkeys(_where(probe) for probe in planned if isinstance(probe, Probe))
        self._sockets: dict[Where, socket.socket] = {}
        self._problems: dict[Where, OSError] = {}
        self._waited: set[Where] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Listeners:
        with contextlib.ExitStack() as self._stack:
            for where in self._wanted:
                self._listen(where)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self, where: Where) -> None:
        try:
            made = self._stack.enter_context(_listener(where))
        except OSError as error:
            self._problems[where] = error
        else:
            self._sockets[where] = made
            self._problems.pop(where, None)

    def ready(self, probe: Probe, until: float) -> Listening:
        """Return who listens on the port that a probe watches: this process, if the port has become free.

        A process that has the port without listening there may be starting or ending, as another validation
        does. This waits for it, once for each port, until a deadline (time.monotonic()).
        """
        where = _where(probe)
        while True:
            problem = self._problems.get(where)
            if problem is not None and problem.errno == errno.EADDRINUSE:
                self._listen(where)
            found = self.at(probe)
            if not (found.problem and found.taken) or where in self._waited:
                return found
            if time.monotonic() >= until:
                self._waited.add(where)
            else:
                time.sleep(PAUSE)

    def is_own(self, probe: Probe, port: int) -> bool:
        """Tell whether this process listens on a port, for what a probe sends."""
        return (probe.family, probe.protocol, port) in self._sockets

    def at(self, probe: Probe) -> Listening:
        """Return who listens on the port that a probe watches."""
        port = probe.watched
        problem = self._problems.get(_where(probe))
        if problem is None:
            return Listening(port)
        if problem.errno != errno.EADDRINUSE:
            return Listening(port, problem=problem.strerror or str(problem))
        holder = listening(port, _SERVING[probe.family], probe.protocol)
        if holder is None:
            problem_text = "another process has it, but does not listen there for redirected connections"
            return Listening(port, taken=True, problem=problem_text)
        if probe.protocol == "udp":
            return Listening(port, taken=True, uid=holder.uid, inode=holder.inode)
        accepts = can_accept(port)
        stuck = holder.waiting > 0 if accepts is None else not accepts
        return Listening(port, taken=True, uid=holder.uid, stuck=stuck, inode=holder.inode)

    def forget(self) -> None:
        """Close what has arrived so far: nothing of it is the next probe, and a full queue takes no more."""
        for (_, protocol, _), made in self._sockets.items():
            if protocol == "udp":
                for _ in _received(made):
                    pass
                continue
            for connection, _ in _accepted(made):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                connection.close()

    def accepted(
        self, probe: Probe, peers: Collection[End], seconds: float
    ) -> tuple[int, End | None] | int | None:
        """Return the port at which a probe's connection arrived, and its original destination.

        `peers` are the addresses and ports that it may come from. Waits for it for some seconds; None if it
        has not arrived; a port alone if a connection from elsewhere to the same destination has arrived.
        """
        sockets = self._of(probe)
        deadline = time.monotonic() + seconds
        similar = None
        while True:
            for made, port in sockets.items():
                for connection, address in _accepted(made):
                    with connection:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                        original = _original(connection)
                        if address in peers:
                            return port, original
                        if original == (probe.address, probe.port):
                            similar = port
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([*sockets], [], [], left)[0]:
                return similar

    def received(self, probe: Probe, token: bytes) -> tuple[int, End] | None:
        """Return the port at which the query with a token arrived, and from where; None if it has not."""
        for made, port in self._of(probe).items():
            for data, address in _received(made):
                if token in data:
                    return port, address
        return None

    def _of(self, probe: Probe) -> dict[socket.socket, int]:
        kind = (probe.family, probe.protocol)
        return {made: port for (*of, port), made in self._sockets.items() if tuple(of) == kind}


def _where(probe: Probe) -> Where:
    return probe.family, probe.protocol, probe.watched


def _listener(where: Where) -> socket.socket:
    family, protocol, port = where
    made = socket.socket(ADDRESS_FAMILIES[family], KINDS[protocol])
    try:
        if protocol == "tcp":
            # In spite of old connections of an earlier proxy. A port that has a listener stays unavailable.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((LOOPBACK[family], port))
        if protocol == "tcp":
            made.listen(64)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _accepted(made: socket.socket) -> Iterator[tuple[socket.socket, End]]:
    while True:
        try:
            connection, address = made.accept()
        except OSError:  # BlockingIOError: there are no more; or the connection was reset already
            return
        yield connection, address[:2]


def _received(made: socket.socket) -> Iterator[tuple[bytes, End]]:
    while True:
        try:
            data, address = made.recvfrom(512)
        except OSError:  # BlockingIOError: there are no more
            return
        yield data, address[:2]


def _original(connection: socket.socket) -> End | None:
    """Return the destination of a connection before it was redirected, None if the kernel does not know."""
    try:
        if connection.family == socket.AF_INET6:
            data = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
        data = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")
    except OSError:
        return None
