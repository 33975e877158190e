"""probes: make the planned connections, one after another, and see where each arrives.

Meanwhile this process listens on the proxy's ports. If another process has one of them already, the kernel's
list of sockets tells where a connection arrived. One deadline covers all probes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
import struct
import time

from ...errors import KernelError
from ...kernel.netlink import routing
from ...kernel.proc import missing_capabilities, refusals_sent
from ...settings.parsers import host_cidr
from ..model import Identity, Listening, Observation, Probe, Skipped
from ..plan import Situation
from ..verdict import judge, skipped
from .conntrack import sent_to
from .dial import Dialling
from .sockets import answering, can_accept, listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...rules.model import Family
    from ..model import Result
    from .dial import Dialled

_SO_ORIGINAL_DST = 80  # the same number in both families: linux/netfilter_ipv4.h, ip6_tables.h
#: By family: the address that local connections are redirected to, and the addresses of listeners that serve
#: it.
_LOOPBACK = {"ipv4": ("127.0.0.1", ("127.0.0.1", "0.0.0.0", "::")), "ipv6": ("::1", ("::1", "::"))}
#: How often a connection is dialled before a wrong destination counts. Connection tracking remembers an
#: unanswered connection for two minutes (nf_conntrack_tcp_timeout_syn_sent), and a connection with the same
#: addresses and ports does not go through the nat rules again. More often where another process's listener
#: resets connections.
_TRIES, _TRIES_OF_RESETS = 3, 12
#: Seconds between two looks at a port whose process seems to be ending.
_PAUSE = 0.02
_RESET_ON_CLOSE = struct.pack("=ii", 1, 0)


def situation() -> Situation:
    """Return what the plan depends on in this process and its network namespace. Raises KernelError."""
    try:
        addresses = routing.addresses()
    except OSError as error:
        raise KernelError(f"the addresses cannot be read: {error.strerror}") from error
    cidrs = (host_cidr(address.address) for address in addresses)
    return Situation(
        Identity(os.geteuid(), os.getegid()),
        not missing_capabilities("SETUID", "SETGID"),
        tuple(
            cidr.replace(prefix=address.prefix)
            for cidr, address in zip(cidrs, addresses, strict=True)
            if cidr
        ),
        _route,
        random.randrange,
    )


def _route(family: Family, address: str) -> str | None:
    try:
        return routing.route_to(family, address)
    except OSError:
        return None


def probe_all(
    planned: Sequence[Probe | Skipped], seconds: float, *, in_place: bool = False
) -> tuple[Result, ...]:
    """Make the planned connections within some seconds and return the results in the same order.

    `in_place`: the rules in place are known to be those of the settings.
    """
    deadline = time.monotonic() + seconds
    own = Identity(os.geteuid(), os.getegid())
    results: list[Result] = []
    with _Listeners(planned) as listeners:
        for done, item in enumerate(planned):
            if isinstance(item, Skipped):
                results.append(skipped(item))
                continue
            share = (deadline - time.monotonic()) / (len(planned) - done)
            tries = _Tries(item, own, listeners, time.monotonic() + share, in_place)
            results.append(tries.result())
    return tuple(results)


class _Tries:
    """The connections that are made for one probe, until one arrives where it has to."""

    def __init__(
        self, probe: Probe, own: Identity, listeners: _Listeners, deadline: float, in_place: bool
    ) -> None:
        self._probe = probe
        self._own = own
        self._listeners = listeners
        self._deadline = deadline
        self._in_place = in_place
        self._used: set[int] = set()

    def result(self) -> Result:
        """Dial until it passes, or has failed repeatedly. A single failure does not count: see _TRIES."""
        results: list[Result] = []
        for number in range(_TRIES_OF_RESETS):
            result, again = self._try(number)
            results.append(result)
            if result.status == "pass" or not again:
                return self._verdict(results)
        return self._verdict(results)

    @staticmethod
    def _verdict(results: Sequence[Result]) -> Result:
        failed = [result for result in results if result.status == "fail"]
        if results[-1].status == "pass" or len(failed) < 2:
            return results[-1]
        return failed[-1]

    def _try(self, number: int) -> tuple[Result, bool]:
        """Dial once; return the result, and whether to dial again."""
        probe = self._variant(number)
        left = self._deadline - time.monotonic()
        if left <= 0:
            late = Observation("late")
            return judge(probe, late, self._listeners.at(probe), in_place=self._in_place), False
        listening = self._listeners.ready(probe, time.monotonic() + left / 2)
        left = self._deadline - time.monotonic()
        until = time.monotonic() + (left if number >= _TRIES - 1 else left / 2)
        seen = _observe(probe, self._own, self._listeners, until, self._used)
        result = judge(probe, seen, listening, in_place=self._in_place)
        if listening.problem or seen.state in ("cannot-become", "no-dialler"):
            return result, False
        if (
            listening.taken and seen.state == "reset"
        ):  # the listener may be ending, as another validation does
            time.sleep(_PAUSE)
            return result, True
        return result, number < _TRIES - 1

    def _variant(self, number: int) -> Probe:
        addresses = (self._probe.address, *self._probe.others)
        return self._probe.replace(address=addresses[number % len(addresses)])


def _observe(
    probe: Probe, own: Identity, listeners: _Listeners, deadline: float, used: set[int]
) -> Observation:
    """Dial once, from a port that is not in `used`, and add the port to it."""
    refusals = refusals_sent()
    with Dialling(probe, own, deadline, used) as dialling:
        done = dialling.done
        used.add(done.local[1])
        seen = Observation(done.state, done.error, done.certain, address_is_here=_is_here(probe))
        if done.state == "refused":
            seen = seen.replace(refused_here=refusals_sent() != refusals)
        if done.state == "connected":
            return _arrival(seen, probe, done, listeners, deadline)
        if done.state in ("refused", "reset", "unanswered"):
            return seen.replace(sent_to=_sent_to(probe, done))
        return seen


def _arrival(
    seen: Observation, probe: Probe, done: Dialled, listeners: _Listeners, deadline: float
) -> Observation:
    """Return what was seen, with the place where the connection arrived."""
    accepted = listeners.accepted(probe.family, done.local, 0)
    other_end = None if accepted else answering(done.local)
    if other_end and listeners.is_own(probe.family, other_end.local[1]):
        # The kernel has not handed it over yet, for some reason: it will be there in a moment.
        accepted = listeners.accepted(probe.family, done.local, deadline - time.monotonic())
        if not accepted:
            return seen.replace(state="late")
    if accepted:
        port, original = accepted
        return seen.replace(arrived=port, original=original)
    if other_end:
        return seen.replace(arrived=other_end.local[1], listener_uid=other_end.uid)
    return seen.replace(sent_to=_sent_to(probe, done))


def _sent_to(probe: Probe, done: Dialled) -> tuple[str, int] | None:
    """Return where the kernel sent a connection, if this process may ask."""
    try:
        return sent_to(probe.family, done.local, (probe.address, probe.port))
    except OSError:
        return None


def _is_here(probe: Probe) -> bool:
    """Tell whether the dialled address is one of this network namespace."""
    if probe.family == "ipv4" and probe.address.startswith("127."):
        return True
    try:
        return any(address.address == probe.address for address in routing.addresses())
    except OSError:
        return True


class _Listeners:
    """Listeners on the ports that are watched, in the families that are dialled; a context manager.

    They listen only on the loopback address, which is where the kernel redirects local connections. So no
    host can reach them from outside, and a connection that arrives was redirected.
    """

    def __init__(self, planned: Sequence[Probe | Skipped]) -> None:
        self._wanted = dict.fromkeys((p.family, p.watched) for p in planned if isinstance(p, Probe))
        self._sockets: dict[tuple[Family, int], socket.socket] = {}
        self._problems: dict[tuple[Family, int], OSError] = {}
        self._waited: set[tuple[Family, int]] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Listeners:
        with contextlib.ExitStack() as self._stack:
            for family, port in self._wanted:
                self._listen(family, port)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self, family: Family, port: int) -> None:
        try:
            made = self._stack.enter_context(_listener(family, port))
        except OSError as error:
            self._problems[family, port] = error
        else:
            self._sockets[family, port] = made
            self._problems.pop((family, port), None)

    def ready(self, probe: Probe, until: float) -> Listening:
        """Return who listens on the port that a probe watches: this process, if the port has become free.

        A process that has the port without listening there may be starting or ending, as another validation
        does. This waits for it, once for each port, until a deadline (time.monotonic()).
        """
        where = (probe.family, probe.watched)
        while True:
            problem = self._problems.get(where)
            if problem is not None and problem.errno == errno.EADDRINUSE:
                self._listen(*where)
            found = self.at(probe)
            if not (found.problem and found.taken) or where in self._waited:
                return found
            if time.monotonic() >= until:
                self._waited.add(where)
            else:
                time.sleep(_PAUSE)

    def is_own(self, family: Family, port: int) -> bool:
        """Tell whether this process listens on a port."""
        return (family, port) in self._sockets

    def at(self, probe: Probe) -> Listening:
        """Return who listens on the port that a probe watches."""
        family, port = probe.family, probe.watched
        problem = self._problems.get((family, port))
        if problem is None:
            return Listening(port)
        if problem.errno != errno.EADDRINUSE:
            return Listening(port, problem=problem.strerror or str(problem))
        holder = listening(port, _LOOPBACK[family][1])
        if holder is None:
            problem_text = "another process has it, but does not listen there for redirected connections"
            return Listening(port, taken=True, problem=problem_text)
        accepts = can_accept(port)
        stuck = holder.waiting > 0 if accepts is None else not accepts
        return Listening(port, taken=True, uid=holder.uid, stuck=stuck)

    def accepted(
        self, family: Family, peer: tuple[str, int], seconds: float
    ) -> tuple[int, tuple[str, int] | None] | None:
        """Return the port at which a connection from `peer` arrived, and its original destination.

        Waits for it for some seconds; None if it has not arrived. Other connections are closed.
        """
        sockets = {made: port for (of, port), made in self._sockets.items() if of == family}
        deadline = time.monotonic() + seconds
        while True:
            for made, port in sockets.items():
                for connection, address in _accept_all(made):
                    with connection:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                        if address == peer:
                            return port, _original(connection)
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([*sockets], [], [], left)[0]:
                return None


def _listener(family: Family, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET if family == "ipv4" else socket.AF_INET6)
    try:
        # In spite of old connections of an earlier proxy. A port that has a listener stays unavailable.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_LOOPBACK[family][0], port))
        made.listen(64)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _accept_all(made: socket.socket) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    while True:
        try:
            connection, address = made.accept()
        except OSError:  # BlockingIOError: there are no more; or the connection was reset already
            return
        yield connection, address[:2]


def _original(connection: socket.socket) -> tuple[str, int] | None:
    """Return the destination of a connection before it was redirected, None if the kernel does not know."""
    try:
        if connection.family == socket.AF_INET6:
            data = connection.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
        data = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")
    except OSError:
        return None
