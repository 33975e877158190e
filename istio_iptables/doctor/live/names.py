"""names: users, groups and DNS servers, looked up in such a way that nothing can keep doctor waiting."""

from __future__ import annotations

import os
import select
import time

from ...errors import KernelError
from ...kernel.this_machine import ThisMachine
from ..checks.names import LookUp, ResolvConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    Kind: TypeAlias = Literal["user", "group"]

#: The seconds after which no answer is waited for.
LIMIT = 3.0
_SIGKILL = 9
_RESOLV_CONF = "/etc/resolv.conf"


class PatientMachine(ThisMachine):
    """This machine, whose look-ups of names end in good time: one without an answer finds no such name.

    Each runs in a forked process, which is ended when the time is up: getpwnam(3) cannot be interrupted.
    `look_ups` has all that were made.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        super().__init__()
        self._limit = limit
        self._known: dict[tuple[Kind, str], LookUp] = {}

    @property
    def look_ups(self) -> tuple[LookUp, ...]:
        """What was looked up, in order."""
        return tuple(self._known.values())

    def dns_servers(self) -> tuple[str, ...]:
        """Return the DNS servers; none if they cannot be read, which a check of its own says."""
        return resolv_conf().servers

    def user_id(self, name: str) -> int | None:
        """Return the UID of a user, None if there is none of that name."""
        return self._look_up("user", name, super().user_id)

    def group_id(self, name: str) -> int | None:
        """Return the GID of a group, None if there is none of that name."""
        return self._look_up("group", name, super().group_id)

    def _look_up(self, kind: Kind, name: str, find: Callable[[str], int | None]) -> int | None:
        if (kind, name) not in self._known:
            self._known[kind, name] = _timed(name, find, self._limit)
        return self._known[kind, name].found


def _timed(name: str, find: Callable[[str], int | None], limit: float) -> LookUp:
    """Look a name up in a process of its own, which measures how long it takes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            begun = time.monotonic()
            found = find(name)
            os.write(writing, f"{time.monotonic() - begun} {'' if found is None else found}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        if not select.select([reading], [], [], limit)[0]:
            os.kill(child, _SIGKILL)
            return LookUp(name, limit, problem=f"has no answer after {limit:g} seconds: a run waits for it")
        answer = os.read(reading, 100).decode()
    finally:
        os.close(reading)
        _, status = os.waitpid(child, 0)
    if not answer:
        return LookUp(name, problem=f"ended its process ({os.waitstatus_to_exitcode(status)})")
    seconds, _, number = answer.partition(" ")
    return LookUp(name, float(seconds), int(number) if number else None)


def resolv_conf() -> ResolvConf:
    """Return the DNS servers of /etc/resolv.conf, and why it cannot be read."""
    try:
        servers = ThisMachine(_RESOLV_CONF).dns_servers()
    except KernelError as error:
        return ResolvConf(problem=error)
    return ResolvConf(servers, missing=not os.path.exists(_RESOLV_CONF))
