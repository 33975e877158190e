"""dial: make one connection as a given user, in a process of its own, and see at once what happens to it.

Or send one query over UDP.

Nothing here waits for a timeout. A connection that is redirected to a local listener never leaves the
loopback interface, and what one processor sends there is received in the order in which it was sent. So after
the first packet of the connection, the process sends itself a datagram. When it receives the datagram, the
listener has received the packet. When it receives a second and a third one, the answer of the listener, and
the answer to that, have been received. If there is no answer by then, the connection was not redirected to a
local listener, however slow the machine is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import time

from ...rules.model import ADDRESS_FAMILIES
from ...startup.record import Record
from .origin import KINDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..model import Identity, Probe, State
    from .origin import Origin

#: How many datagrams have to come back before a missing answer counts: see above.
_ROUNDS = 3
#: Whether what lo receives is spread over processors, which breaks the order (Receive Packet Steering).
_SPREADING = "/sys/class/net/lo/queues/rx-0/rps_cpus"
#: A connection is closed with a reset, so that it leaves nothing behind on either side.
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)
#: Errors of a machine that is short of memory, files or processes: they say nothing about rules.
SHORTAGES = (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


class Dialled(Record):
    """What happened to a connection: see Observation in model.py. `local` is its own address and port."""

    state: State
    error: str = ""
    certain: bool = True
    local: tuple[str, int] = ("", 0)


class Dialling:
    """A context manager: a process that has dialled, and keeps the connection until the block ends.

    `done` says what happened to the connection. The process ends with the block, in any case. It also ends by
    itself, soon after `deadline` (time.monotonic()).
    """

    def __init__(self, probe: Probe, own: Identity, deadline: float, origin: Origin) -> None:
        self._probe = probe
        self._own = own
        self._deadline = deadline
        self._origin = origin

    def __enter__(self) -> Dialling:
        self._reading, report = os.pipe()
        wait, self._holding = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._reading)
                os.close(self._holding)
                _child(self._probe, self._own, self._deadline, self._origin, report, wait)
            except Exception as error:
                fields = ("no-dialler", "", " ".join(f"{type(error).__name__}: {error}".split()), "", "0")
                os.write(report, "\n".join(fields).encode())
            finally:
                os._exit(0)
        os.close(report)
        os.close(wait)
        try:
            self.done = self._report()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _report(self) -> Dialled:
        if not select.select([self._reading], [], [], _left(self._deadline))[0]:
            return Dialled("late")
        report = os.read(self._reading, 4096).decode()
        if not report:
            return Dialled("no-dialler", "the process that should have dialled has ended")
        state, certain, error, address, port = report.split("\n")
        return Dialled(state, error, bool(certain), (address, int(port)))  # type: ignore[arg-type]

    def __exit__(self, *_: object) -> None:
        # It runs as another user, and without the capability KILL it cannot be killed. Then the closed pipe
        # ends it, or its deadline.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._child, signal.SIGKILL)
        os.close(self._reading)
        os.close(self._holding)
        with contextlib.suppress(
            ChildProcessError
        ):  # our parent ignored SIGCHLD: the kernel has reaped the child
            os.waitpid(self._child, 0)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline, 0 if it has passed."""
    return max(0.0, deadline - time.monotonic())


# --- in the process that dials --------------------------------------------------------------
#
# Nothing is imported here, not even a codec: the user that it becomes may be unable to read the Python
# installation.


def _child(probe: Probe, own: Identity, deadline: float, origin: Origin, report: int, wait: int) -> None:
    """Dial, report, and keep the connection until the other end of `wait` is closed."""
    deadline -= _left(deadline) / 5  # so that the report comes while the parent still waits for it
    with contextlib.ExitStack() as open_until_then:
        try:
            _become(probe.identity, own)
        except OSError as error:
            done = Dialled("cannot-become", error.strerror or str(error))
        else:
            certain = _pin()
            try:
                made = socket.socket(ADDRESS_FAMILIES[probe.family], KINDS[probe.protocol])
                open_until_then.enter_context(made)
                done = _dial(made, probe, certain, deadline, origin)
            except OSError as error:
                state: State = "no-dialler" if error.errno in SHORTAGES else "error"
                done = Dialled(state, error.strerror or str(error))
        fields = (done.state, "certain" if done.certain else "", done.error, *map(str, done.local))
        os.write(report, "\n".join(fields).encode())
        select.select([wait], [], [], _left(deadline) + 1)


def _become(identity: Identity, own: Identity) -> None:
    """Change all user and group IDs, irrevocably. Raises OSError if that is not permitted."""
    if identity == own:
        return
    uid, gid = identity.uid, identity.gid
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _pin() -> bool:
    """Stay on one processor; return whether what it sends over lo is then received in order."""
    try:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with open(_SPREADING, "rb") as file:
            return not file.read().strip(b"0,\n")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _dial(made: socket.socket, probe: Probe, certain: bool, deadline: float, origin: Origin) -> Dialled:
    """Connect, and see what happens. Raises OSError if nothing could be sent."""
    if probe.family == "ipv4":  # what is not redirected gets no further than the first router
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    _bind(made, origin)
    # A socket whose connection was refused at once no longer knows its own address.
    local = made.getsockname()[:2]
    made.setblocking(False)
    if probe.protocol == "tcp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        number = made.connect_ex((probe.address, probe.port))
    else:
        made.connect((probe.address, probe.port))
        made.send(query(origin.token))
        number = errno.EINPROGRESS
    if number not in (0, errno.EINPROGRESS, errno.ECONNREFUSED, errno.ECONNRESET):
        raise OSError(number, os.strerror(number))
    certain = _drained(deadline) and certain
    if number in (0, errno.EINPROGRESS):
        number = _outcome(made, probe)
    if number == errno.EINPROGRESS and not certain:
        reading, writing = ([made], []) if probe.protocol == "udp" else ([], [made])
        select.select(reading, writing, [], _left(deadline))
        number = _outcome(made, probe)
    state = _STATES.get(number, "unanswered")
    error = os.strerror(number) if state == "unanswered" and number != errno.EINPROGRESS else ""
    return Dialled(state, error, certain, local)


def query(token: bytes) -> bytes:
    """Return a DNS query (RFC 1035, section 4.1) for TOKEN.invalid, which does not exist (RFC 6761)."""
    header = struct.pack("!6H", int(token[:4], 16), 0x0100, 1, 0, 0, 0)
    return header + bytes([len(token)]) + token + b"\x07invalid\0" + struct.pack("!2H", 1, 1)


def _bind(made: socket.socket, origin: Origin) -> None:
    """Bind to the chosen address and port, or to any port if it was taken meanwhile. Raises OSError."""
    try:
        made.bind((origin.address, origin.port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        made.bind((origin.address, 0))


_STATES: Mapping[int, State] = {0: "connected", errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset"}


def _outcome(made: socket.socket, probe: Probe) -> int:
    """Return 0 for a connection that has been made, EINPROGRESS for none yet, or the error that ended it."""
    number: int = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number or probe.protocol == "udp":
        return number or errno.EINPROGRESS
    try:
        made.getpeername()
    except OSError:
        return errno.EINPROGRESS
    return 0


def _drained(deadline: float) -> bool:
    """Wait until what was sent over lo has been received, and answered, twice; return whether that was so."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))
            datagrams.connect(datagrams.getsockname())
            for _ in range(_ROUNDS):
                datagrams.settimeout(max(_left(deadline), 0.001))
                datagrams.send(b"?")
                datagrams.recv(1)
    except OSError:
        return False
    return True
