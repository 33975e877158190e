"""namespace: another network namespace, for the rest of the process's life or for one function (setns(2))."""

from __future__ import annotations

import errno
import os

from ..errors import KernelError, SettingsError
from .signals import SignalsDeferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_NAMES = "/var/run/netns"  # ip-netns(8)
_SIGINT = 2
#: What a signal may raise in the middle of waiting.
_INTERRUPTIONS = (KeyboardInterrupt, SystemExit)
#: Bytes of the length in front of an answer.
_SIZE = 8


def enter(namespace: str | os.PathLike[str], origin: str = "network_namespace") -> None:
    """Enter a network namespace, given by its path or by a name known to `ip netns`.

    `origin` says in an error where the namespace was named.

    Raises SettingsError if there is no such namespace, KernelError if it may not be entered.
    """
    descriptor, path = _open(_named(namespace), origin)
    try:
        _setns(descriptor, path)
    finally:
        os.close(descriptor)


def _named(namespace: str | os.PathLike[str]) -> str:
    """Return the path or name as a string. Raises TypeError if it is neither."""
    if not isinstance(namespace, (str, os.PathLike)):
        raise TypeError(f"a network namespace is a path or a name, not {type(namespace).__name__}")
    return os.fspath(namespace)


def why_not_there(namespace: str, origin: str) -> str:
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


def enter_new() -> None:
    """Enter a new network namespace, which ends with this process. Raises KernelError if it may not."""
    try:
        if hasattr(os, "unshare"):  # Python 3.12 and later
            os.unshare(_CLONE_NEWNET)
            return
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise KernelError(
            f"a network namespace cannot be made: {error.strerror}",
            "run as root with the capability SYS_ADMIN, which unshare(2) requires",
        ) from error


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


# --- for a piece of code --------------------------------------------------------------------


class NetworkNamespace:
    """A network namespace in which functions run, each in a process of its own; see `network_namespace`."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._descriptor = -1
        self._path = ""

    def __enter__(self) -> NetworkNamespace:
        self._descriptor, self._path = _open(self._namespace, "network_namespace")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def run(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function in the network namespace and return what it returns, or raise what it raises.

        It runs in a forked process: it sees all that this process has in memory, and what it changes there is
        lost. What it returns or raises has to be what `pickle` can copy: a Machine cannot. If this thread is
        interrupted meanwhile (KeyboardInterrupt), so is the function, and what it does is waited for.

        Raises KernelError if the namespace may not be entered, or if the process ended without an answer.
        """
        if self._descriptor < 0:
            raise RuntimeError("use `with network_namespace(...) as inside:`, which opens it first")
        _flush()
        reading, writing = os.pipe()
        pid, interrupted = -1, None
        try:
            with SignalsDeferred():  # else one could come before it is known which process to wait for
                pid = os.fork()
        except _INTERRUPTIONS as error:  # deferred until now
            interrupted = error
        if pid == 0:
            os.close(reading)
            self._serve(writing, lambda: function(*arguments, **named))
        os.close(writing)
        try:
            answer: T = _answer(reading, pid, self._path, interrupted)
            return answer
        finally:
            os.close(reading)

    def _serve(self, writing: int, function: Callable[[], object]) -> NoReturn:
        """Call the function in this process, which is the forked one, send what became of it, and end."""
        try:
            trace = ""
            try:
                _setns(self._descriptor, self._path)
                outcome = True, function()
            except BaseException as error:
                import traceback

                outcome, trace = (False, error), traceback.format_exc()
            _flush()
            _send(writing, outcome, trace)
        finally:
            os._exit(0)


def network_namespace(namespace: str | os.PathLike[str]) -> NetworkNamespace:
    """Open a network namespace, by its path or a name known to `ip netns`, for a block of code.

        with network_namespace("NAME") as inside:
            inside.run(function, argument)

    This process, with all of its threads, stays in its own namespace: functions run in processes of their
    own. (A thread would not do: /proc/self/net is that of the first thread, which also gets the signals.) All
    of the block uses the same namespace, even if its name is given to another one meanwhile.

    Raises SettingsError if there is no such namespace, KernelError if it may not be opened.
    """
    return NetworkNamespace(_named(namespace))


def _send(writing: int, outcome: tuple[bool, object], trace: str) -> None:
    import pickle

    try:
        data = pickle.dumps((*outcome, trace))
        pickle.loads(data)  # an exception may be copied, and fail to be made again
    except Exception as error:
        what = "returned" if outcome[0] else "raised"
        problem = TypeError(f"what the function {what} cannot be sent to this process: {error}")
        data = pickle.dumps((False, problem, trace))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(len(data).to_bytes(_SIZE, "big") + data)


def _answer(reading: int, pid: int, path: str, interrupted: BaseException | None) -> Any:
    """Return what a process has sent, or raise it, after the process has ended."""
    data = bytearray()
    if interrupted:
        os.kill(pid, _SIGINT)
    while True:
        try:
            _receive(reading, data)
            break
        except _INTERRUPTIONS as error:
            interrupted = error
            os.kill(pid, _SIGINT)
    with SignalsDeferred():
        _, status = os.waitpid(pid, 0)
    if interrupted:
        raise interrupted
    if len(data) <= _SIZE:
        ended = os.waitstatus_to_exitcode(status)
        raise KernelError(
            f"the process in the network namespace {path} ended without an answer (exit status {ended})",
            "see what in the function ends its process; a negative status is the signal that did",
        )
    import pickle

    returned, value, trace = pickle.loads(data[_SIZE:])
    if returned:
        return value
    value.add_note(f"in the network namespace {path}:\n{trace}")
    raise value


def _receive(reading: int, data: bytearray) -> None:
    """Read what comes with its length in front, until its end or that of the process."""
    while len(data) < _SIZE or len(data) < _SIZE + int.from_bytes(data[:_SIZE], "big"):
        part = os.read(reading, 1 << 20)
        if not part:
            return
        data += part


def _flush() -> None:
    """Write what is buffered: a forked process would write it a second time, or lose its own."""
    import sys

    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
