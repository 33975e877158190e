"""lock: one writer at a time.

Two locks are held from before the live rules are read until after they are written. That of the network
namespace makes two runs in one pod take turns whatever file systems they see. The xtables lock is the one
that iptables itself uses (iptables(8), XTABLES_LOCKFILE). It does not depend on the namespace and so is not
taken in CNI mode, where it would be that of the whole node.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from ..errors import KernelError
from .files import open_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: How long to wait for a lock, in seconds.
WAIT_LIMIT = 10.0
#: How long to wait before saying so.
_SILENCE = 1.0
_RETRY = 0.02


def xtables_lock_file() -> str:
    """Return the path of the xtables lock file."""
    return os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"


class Locks:
    """A context manager that holds the locks. Raises KernelError if one cannot be taken.

    `on_wait` is called once for each lock that is waited for longer than a second, with a text that names
    the process that holds it and the rest of the time limit.
    """

    def __init__(
        self,
        *,
        cni_mode: bool = False,
        wait_limit: float = WAIT_LIMIT,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        self._cni_mode = cni_mode
        self._on_wait = on_wait
        self._deadline = time.monotonic() + wait_limit
        self._wait_limit = wait_limit
        self._held: list[int] = []

    def __enter__(self) -> Locks:
        try:
            self._take("/proc/self/ns/net", lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            if not self._cni_mode:
                self._take(xtables_lock_file(), lambda path: open_file(path, os.O_RDONLY | os.O_CREAT))
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Release the locks."""
        for descriptor in reversed(self._held):
            os.close(descriptor)
        self._held.clear()

    def _take(self, path: str, opened: Callable[[str], int]) -> None:
        try:
            descriptor = opened(path)
        except OSError as error:
            from ..remedies import lock_not_opened

            raise lock_not_opened(path, error.strerror or str(error)) from error
        self._held.append(descriptor)
        # The commands that write inherit it: if this process is killed, they hold the lock until they are
        # done.
        os.set_inheritable(descriptor, True)
        self._wait(descriptor, path)

    def _wait(self, descriptor: int, path: str) -> None:
        """Lock an open file; wait for another process until the time limit."""
        begun, is_told = time.monotonic(), self._on_wait is None
        while not _is_locked(descriptor, path):
            now = time.monotonic()
            if now > self._deadline:
                from ..remedies import lock_held

                raise lock_held(path, holder(descriptor), self._wait_limit)
            if self._on_wait and not is_told and now - begun >= _SILENCE:
                self._on_wait(
                    f"waiting for the lock {path}, held by {holder(descriptor)}: "
                    f"at most {self._deadline - now:.0f} seconds more"
                )
                is_told = True
            time.sleep(_RETRY)


def _is_locked(descriptor: int, path: str) -> bool:
    """Try to lock an open file. Raises KernelError if that fails for another reason than its being held."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
            from ..remedies import of_errno

            raise KernelError(
                f"the lock file {path} cannot be locked: {error.strerror}", of_errno(error.errno)
            ) from error
        return False
    return True


def holder(descriptor: int) -> str:
    """Return the program and PID of the process that locked an open file, as far as /proc tells (proc(5)).

    A process of another PID namespace is not listed there, and comm is gone when the process has ended and
    left the lock to one that it started.
    """
    pid = holder_pid(descriptor)
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()} (PID {pid})"
    except OSError:
        return f"process {pid}" if pid else "another process"


def holder_pid(descriptor: int) -> str:
    """Return the PID of the process that locked an open file, nothing if /proc/locks lists none."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    pid = ""
    try:
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                # 1: FLOCK  ADVISORY  WRITE 1234 00:19:5678 0 EOF; a waiting process has -> in front of FLOCK
                words = line.split()
                if words[1] == "FLOCK" and words[5] == f"{device}:{status.st_ino}":
                    pid = words[4]
    except (OSError, IndexError):
        pass
    return pid
