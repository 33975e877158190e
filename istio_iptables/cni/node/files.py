"""files: replace a file in one step, without losing what another program writes into it meanwhile.

A reader sees the old text or the new one, whenever this process is killed. renameat2(2) with RENAME_EXCHANGE
hands back what was in place at that instant: if it is not what was read before, another program was quicker,
and its file is put back. Temporary files have names that no runtime reads; those of a process that was killed
are removed by the next one, which is why all changes of a folder are made under its lock.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: What the names of temporary files begin and end with. Runtimes read *.conf, *.conflist and *.json.
_PREFIX, _SUFFIX = ".istio-iptables-", ".tmp"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_DEFAULT_MODE = 0o600


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the lock of a folder, and remove what a killed process has left in it."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        _remove_stale(folder)
        yield
    finally:
        os.close(file)


def _remove_stale(folder: str) -> None:
    """Remove temporary files of processes that were killed, in the folder and in those of networks."""
    for inside in (
        folder,
        *(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)),
    ):
        for name in os.listdir(inside):
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(inside, name))


def read(path: str) -> str | None:
    """Return the text of a file, byte for byte as `encoded` gives it back; None if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def encoded(text: str) -> bytes:
    """Return the bytes that `read` has read."""
    return text.encode("utf-8", "surrogateescape")


def create(path: str, text: str, like: str = "") -> None:
    """Put a file in place, whatever is there. Mode and owner are those of the file `like`, if given."""
    temporary = _temporary(path, text, like)
    try:
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise
    _sync(os.path.dirname(path))


def replace(path: str, before: str, after: str) -> bool:
    """Replace the text of a file; mode and owner stay. False if it was another before: then it stays.

    What a symbolic link leads to is replaced, and the link stays.
    """
    path = os.path.realpath(path)
    try:
        temporary = _temporary(path, after, path)
    except FileNotFoundError:
        return False
    try:
        return _exchange(temporary, path, before, after)
    finally:
        _remove(temporary)
        _sync(os.path.dirname(path))


def remove(path: str, before: str) -> bool:
    """Remove a file. False if its text was another: then it stays (or comes back, after an instant)."""
    temporary = os.path.join(os.path.dirname(path), f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
    try:
        os.rename(path, temporary)
    except FileNotFoundError:
        return False
    if read(temporary) == before:
        os.unlink(temporary)
        _sync(os.path.dirname(path))
        return True
    with suppress(FileExistsError):  # a newer one still is there meanwhile
        os.link(temporary, path, follow_symlinks=False)
    os.unlink(temporary)
    return False


def _exchange(temporary: str, path: str, before: str, after: str) -> bool:
    """Exchange both files until nothing of another program's is displaced."""
    expected, put = before, after
    first = True
    while True:
        try:
            _rename_exchange(temporary, path)
        except FileNotFoundError:
            return False  # it was removed, which is an answer, too
        except _NotSupported:
            if read(path) != before:
                return False
            os.rename(temporary, path)
            return True
        displaced = read(temporary)
        if displaced is None or displaced == expected:
            return first
        expected, put, first = put, displaced, False


class _NotSupported(Exception):
    """The file system or the C library cannot exchange files."""


def _rename_exchange(one: str, other: str) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        raise _NotSupported
    if function(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        raise _NotSupported
    raise OSError(number, os.strerror(number), other)


def _temporary(path: str, text: str, like: str) -> str:
    """Write a text to a new file beside `path`, and return its name. It is on the disk then."""
    name = os.path.join(os.path.dirname(path), f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")
    there = os.stat(like) if like else None
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _DEFAULT_MODE)
    try:
        data = encoded(text)
        while data:
            data = data[os.write(file, data) :]
        if there:
            os.fchmod(file, there.st_mode & 0o7777)
            if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):  # without CHOWN it stays ours, which the runtime can read
                    os.fchown(file, there.st_uid, there.st_gid)
        os.fsync(file)
    except BaseException:
        _remove(name)
        raise
    finally:
        os.close(file)
    return name


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync(folder: str) -> None:
    """Have the names in a folder on the disk. A file system that cannot do it is no error."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
