"""files: whether files could be opened as a run opens them, and who holds the locks. Nothing is made."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from ...kernel.lock import holder, holder_pid, xtables_lock_file
from ...kernel.own_network import FIRST_PID_NAMESPACE
from ...remedies import lock_not_opened
from ..checks.files import LockFile

NAMESPACE_LOCK = "/proc/self/ns/net"


def xtables_lock() -> LockFile:
    """Return the lock that iptables uses."""
    path = xtables_lock_file()
    number = _why_not_made(path, os.R_OK)
    if number:
        return LockFile(path, problem=lock_not_opened(path, os.strerror(number)))
    return _lock(path) if os.path.exists(path) else LockFile(path, exists=False)


def namespace_lock() -> LockFile:
    """Return the lock of the network namespace."""
    return _lock(NAMESPACE_LOCK)


def locks(*, cni_mode: bool) -> tuple[LockFile, ...]:
    """Return the locks that a run takes and that exist, so that another process may hold them."""
    there = [namespace_lock(), *([] if cni_mode else [xtables_lock()])]
    return tuple(lock for lock in there if lock.exists and not lock.problem)


def _lock(path: str) -> LockFile:
    """Return a lock that exists, and its holder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = holder_pid(descriptor)
        if not pid and not _is_held_by_the_unseen(descriptor):
            return LockFile(path)
        return LockFile(path, holder=holder(descriptor), running=_running(pid) if pid else None)
    finally:
        os.close(descriptor)


def _is_held_by_the_unseen(descriptor: int) -> bool:
    """Tell whether a process that /proc/locks does not list holds a lock, one of another PID namespace.

    Only taking the lock tells. It is taken as a shared one, and let go of at once.
    """
    if os.readlink("/proc/self/ns/pid") == FIRST_PID_NAMESPACE:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _running(pid: str) -> float | None:
    """Return the seconds since a process was started (proc_pid_stat(5), field 22), None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            started = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime", encoding="ascii") as file:
            up = float(file.read().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    return max(0.0, up - started / os.sysconf("SC_CLK_TCK"))


def why_not_written(path: str) -> str:
    """Return why a file could not be opened for writing, or made; nothing if it could."""
    try:
        number = _why_not_made(path, os.W_OK)
    except ValueError as error:  # a NUL in the path
        return str(error)
    return os.strerror(number) if number else ""


#: File systems in which no file can be made, whatever their mode says, and what the kernel says of it.
_NO_NEW_FILES = {"/proc": errno.ENOENT, "/sys": errno.EACCES}


def _why_not_made(path: str, access: int) -> int:
    """Return the error of opening a file that is made if it does not exist, 0 if that would work."""
    path = os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _why_not_made_in(os.path.dirname(path))
    except OSError as error:
        return error.errno or errno.EIO
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return 0 if _may(path, access) else _refusal(path, access)


def _why_not_made_in(folder: str) -> int:
    if not os.path.isdir(folder):
        return errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
    for system, number in _NO_NEW_FILES.items():
        if f"{folder}/".startswith(f"{system}/"):
            return number
    return 0 if _may(folder, os.W_OK | os.X_OK) else _refusal(folder, os.W_OK)


def _may(path: str, access: int) -> bool:
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


def _refusal(path: str, access: int) -> int:
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return errno.EROFS if read_only and access & os.W_OK else errno.EACCES
