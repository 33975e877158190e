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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

#: How long to wait for a lock, in seconds.
WAIT_LIMIT = 10.0
_RETRY = 0.02


def xtables_lock_file() -> str:
    """Return the path of the xtables lock file."""
    return os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"


class Locks:
    """A context manager that holds the locks. Raises KernelError if one cannot be taken."""

    def __init__(self, *, cni_mode: bool = False, wait_limit: float = WAIT_LIMIT) -> None:
        self._cni_mode = cni_mode
        self._deadline = time.monotonic() + wait_limit
        self._wait_limit = wait_limit
        self._held: list[int] = []

    def __enter__(self) -> Locks:
        try:
            self._take("/proc/self/ns/net", os.O_RDONLY)
            if not self._cni_mode:
                self._take(xtables_lock_file(), os.O_RDONLY | os.O_CREAT)
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

    def _take(self, path: str, flags: int) -> None:
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KernelError(
                f"the lock file {path} cannot be opened: {os.strerror(error.errno or 0)}",
                "mount a writable directory there, or put an empty file there in the image (which may then "
                "be read-only), or name another file in XTABLES_LOCKFILE, "
                "or use --cni-mode, which locks only the network namespace",
            ) from error
        self._held.append(descriptor)
        # The commands that write inherit it: if this process is killed, they hold the lock until they are
        # done.
        os.set_inheritable(descriptor, True)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    raise KernelError(f"the lock file {path} cannot be locked: {error.strerror}") from error
                if time.monotonic() > self._deadline:
                    raise KernelError(
                        f"the lock {path} is still held by another process "
                        f"after {self._wait_limit:g} seconds",
                        f"find the process (fuser -v {path}) and let it finish, then run again",
                    ) from None
                time.sleep(_RETRY)
            else:
                return
