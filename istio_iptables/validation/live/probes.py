"""probes: make the planned connections, one after another, and see where each arrives.

Meanwhile this process listens on the proxy's ports. If another process has one of them already, the kernel's
list of sockets tells where a connection arrived. One deadline covers all probes.
"""

from __future__ import annotations

import os
import random
import time

from ...errors import KernelError
from ...kernel.netlink import routing
from ...kernel.proc import missing_capabilities
from ...kernel.this_machine import ThisMachine
from ...settings.parsers import host_cidr
from ..model import Identity, Observation, Probe, Skipped
from ..plan import Situation
from ..verdict import conclude, is_late, judge, may_change, skipped
from .listeners import PAUSE, Listeners
from .observe import observe
from .sockets import can_accept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...rules.model import Family
    from ..model import Result

#: How often a connection is dialled before a silence counts, from another port and to another address each
#: time; more often where another process's listener resets connections, or where it is unclear which it was.
_TRIES, _TRIES_OF_RESETS = 3, 12


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
        tuple(filter(None, map(host_cidr, ThisMachine().dns_servers()))),
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

    What was not answered in its share of the time is dialled again with what the others have left.
    `in_place`: the rules in place are known to be those of the settings.
    """
    deadline = time.monotonic() + seconds
    own = Identity(os.geteuid(), os.getegid())
    results = [skipped(item) if isinstance(item, Skipped) else None for item in planned]
    with Listeners(planned) as listeners:
        tries = {
            number: _Tries(item, own, listeners, in_place)
            for number, item in enumerate(planned)
            if isinstance(item, Probe)
        }
        left = [*tries]
        while left:
            for done, number in enumerate(left):
                share = (deadline - time.monotonic()) / (len(left) - done)
                found = tries[number].result(time.monotonic() + share)
                if results[number] is None or not is_late(found):
                    results[number] = found
            in_time = time.monotonic() + PAUSE < deadline
            left = [number for number in left if in_time and tries[number].may_change]
    return tuple(result for result in results if result)


class _Tries:
    """The connections that are made for one probe, until one arrives where it has to."""

    def __init__(self, probe: Probe, own: Identity, listeners: Listeners, in_place: bool) -> None:
        self._probe = probe
        self._own = own
        self._listeners = listeners
        self._in_place = in_place
        self._used: set[int] = set()
        self._number = 0
        self.may_change = True

    def result(self, deadline: float) -> Result:
        """Dial until it passes, or has failed repeatedly. A single failure does not count: see _TRIES."""
        results: list[Result] = []
        for number in range(_TRIES_OF_RESETS):
            result, again = self._try(number, deadline)
            results.append(result)
            if result.status == "pass" or not again:
                break
        found = conclude(results, _TRIES)
        self.may_change = may_change(found)
        return found

    def _try(self, number: int, deadline: float) -> tuple[Result, bool]:
        """Dial once; return the result, and whether to dial again."""
        probe = self._variant()
        left = deadline - time.monotonic()
        if left <= 0:
            late = Observation("late")
            return judge(probe, late, self._listeners.at(probe), in_place=self._in_place), False
        self._number += 1
        listening = self._listeners.ready(probe, time.monotonic() + left / 2)
        self._listeners.forget()
        left = deadline - time.monotonic()
        until = time.monotonic() + (left if number >= _TRIES - 1 else left / 2)
        seen = observe(probe, self._own, self._listeners, listening, until, self._used)
        if seen.state == "unanswered" and probe.protocol == "tcp" and not listening.taken:
            listening = listening.replace(stuck=can_accept(probe.watched) is False)
        taken, refused = listening.taken, seen.state == "refused" and seen.refused_here
        if taken and refused and self._listeners.at(probe).inode != listening.inode:
            seen = seen.replace(state="unclear")  # the listener has ended since
        result = judge(probe, seen, listening, in_place=self._in_place)
        if listening.problem or seen.state in ("cannot-become", "no-dialler"):
            return result, False
        if taken and seen.state in ("reset", "unclear"):
            time.sleep(PAUSE)  # the listener may be ending, as another validation does
            return result, True
        return result, seen.state == "unclear" or number < _TRIES - 1

    def _variant(self) -> Probe:
        addresses = (self._probe.address, *self._probe.others)
        return self._probe.replace(address=addresses[self._number % len(addresses)])
