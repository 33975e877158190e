"""namespace: enter another network namespace for the rest of the process's life (setns(2))."""

from __future__ import annotations

import errno
import os

from ..errors import KernelError, SettingsError

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_NAMES = "/var/run/netns"  # ip-netns(8)


def enter(namespace: str, origin: str = "--network-namespace") -> None:
    """Enter the network namespace that a path, or a name known to `ip netns`, stands for.

    Raises SettingsError if there is no such namespace, KernelError if it may not be entered.
    """
    descriptor, path = _open(namespace, origin)
    try:
        _setns(descriptor, path)
    finally:
        os.close(descriptor)


def mistake(namespace: str, origin: str) -> str:
    """Return why there is no such network namespace, an empty text if there is or only root could tell."""
    try:
        os.close(_open(namespace, origin)[0])
    except SettingsError as error:
        return str(error)
    except KernelError:
        pass
    return ""


def _open(namespace: str, origin: str) -> tuple[int, str]:
    """Return a descriptor of a network namespace, and its path. Raises as `enter` does."""
    import fcntl

    path = namespace if "/" in namespace else os.path.join(_NAMES, namespace)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise _forbidden(path) from error
        raise SettingsError([f"{origin}: {path!r} cannot be opened: {error.strerror}"]) from error
    except ValueError as error:  # a NUL, or another name that no file can have
        raise SettingsError([f"{origin}: {path!r} cannot be opened: {error}"]) from error
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _CLONE_NEWNET:
        os.close(descriptor)
        raise SettingsError([f"{origin}: {path!r} is not a network namespace"])
    return descriptor, path


def _setns(descriptor: int, path: str) -> None:
    if hasattr(os, "setns"):  # Python 3.12 and later
        try:
            os.setns(descriptor, _CLONE_NEWNET)
        except OSError as error:
            raise _forbidden(path) from error
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise _forbidden(path)


def _forbidden(path: str) -> KernelError:
    return KernelError(
        f"the network namespace {path} may not be entered",
        "run as root with the capability SYS_ADMIN, which setns(2) requires",
    )
