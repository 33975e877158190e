"""files: open files as root where other users may have made what is at a path, and read no more than a limit.

A symbolic link counts only if root, or the user who runs this, has made it: another user could lead root to
any file (symlink(7); the sysctl fs.protected_symlinks does the same in folders such as /tmp, if it is on).
A FIFO, whose opening waits for ever, and a directory are called what they are. What is read is a regular
file: a device may have no end.
"""

from __future__ import annotations

import errno
import os
import stat

_MOST_LINKS = 40  # MAXSYMLINKS of the kernel

_NO_FILES = (
    (stat.S_ISDIR, "it is a directory"),
    (stat.S_ISFIFO, "it is a FIFO"),
    (stat.S_ISSOCK, "it is a socket"),
)


def open_file(path: str, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor of a file or device, opened with `flags` of open(2), made with `mode`.

    Raises OSError, whose `strerror` is for people: also for what else is there, or if the path goes through a
    symbolic link of another user.
    """
    folder, name = _followed(path)
    try:
        # Without O_NONBLOCK a FIFO waits for its other end; for a regular file it means nothing.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, mode, dir_fd=folder)
        except OSError as error:
            raise OSError(error.errno, _why_not_opened(name, folder, error), path) from None
    finally:
        os.close(folder)
    kind = _kind(os.fstat(descriptor).st_mode)
    if kind:
        os.close(descriptor)
        raise OSError(errno.EINVAL, kind, path)
    return descriptor


def read(path: str, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises OSError as open_file does."""
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a device", path)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 10} KiB", path)
    return content


def _why_not_opened(name: str, folder: int, error: OSError) -> str:
    """Return why a file cannot be opened. For some kinds the kernel's answer would mislead: ENXIO, ELOOP."""
    try:
        kind = _kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        kind = ""
    return kind or os.strerror(error.errno or 0)


def _kind(mode: int) -> str:
    return next((words for is_kind, words in _NO_FILES if is_kind(mode)), "")


def _followed(path: str) -> tuple[int, str]:
    """Follow a path up to its last part, and return a descriptor of that folder, and that part.

    The kernel follows no link here: each is looked at, so that it cannot be exchanged meanwhile.
    """
    pending = _parts(path)
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    folder = os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_CLOEXEC)
    links = 0
    try:
        while pending:
            name = pending.pop()
            try:
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:
                if pending:
                    raise
                return folder, name
            status = os.fstat(entry)
            if not stat.S_ISLNK(status.st_mode):
                if not pending:
                    os.close(entry)
                    return folder, name
                os.close(folder)
                folder = entry
                continue
            target = _target(entry, status, path)
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            pending += _parts(target)
            if target.startswith("/"):
                os.close(folder)
                folder = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except BaseException:
        os.close(folder)
        raise
    return folder, "."


def _target(link: int, status: os.stat_result, path: str) -> str:
    """Return where a symbolic link leads, and close its descriptor."""
    try:
        # In a user namespace root's files may seem to be another user's: so does the root folder then.
        if status.st_uid not in (0, os.geteuid(), os.stat("/").st_uid):
            raise OSError(errno.ELOOP, f"a symbolic link of UID {status.st_uid} is on its path", path)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _parts(path: str) -> list[str]:
    """Return the parts of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part]
