"""process: run a command and return what it prints.

The standard module subprocess is not used since its import takes as long as a command runs. The input and
output of the command are files in memory, so no process has to read and write at the same time. The command
never reads a part of a script, even if this process is killed: nft would execute that part, say `flush
table`.
"""

from __future__ import annotations

import os
import sys

from ..startup.c_modules import signal
from .signals import DEFERRED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: The system's own folders come before those of PATH, so that no other user's program is run as root.
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")
#: The program by which all others are started in a tree that `cni install` has made (cni/node/tree.py).
LAUNCHER = "launch"
#: The variables that a command is given if they are set. All others could change what it does or loads.
_PASSED_ON = ("XTABLES_LOCKFILE", "XTABLES_LIBDIR")
_SIGKILL = 9
#: Python ignores these, and a command that ignores SIGXFSZ takes a file that is cut off for a whole one.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


class Result:
    """How a command ended (its exit code, or minus the signal that ended it), and what it printed."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors

    @property
    def ended(self) -> str:
        """How it ended, as text, for a command that printed nothing."""
        return f"a signal ended it ({-self.status})" if self.status < 0 else f"its exit code is {self.status}"


def which(name: str) -> str:
    """Return the path of a command, or nothing: from the system's folders, then from those of PATH.

    An entry of PATH counts only if it is absolute: the current folder may be another user's.
    """
    for folder in _folders():
        path = f"{folder}/{name}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _folders() -> tuple[str, ...]:
    """Return where to look for commands. In a tree of `cni install` its own come first: they fit together."""
    path = os.environ.get("PATH", "").split(":")
    own = (f"{sys.prefix}/bin",) if os.path.exists(f"{sys.prefix}/{LAUNCHER}") else ()
    return (*own, *_SYSTEM_FOLDERS, *(entry for entry in path if entry.startswith("/")))


def _environment() -> dict[str, str]:
    """Return the environment of a command. It is made anew: nothing else of this process's is passed on."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PATH": ":".join(_folders()), "LC_ALL": "C"}


def run(command: tuple[str, ...], script: str = "", *, private_lock: bool = False) -> Result:
    """Run a command, by its path, in the C locale, `script` being its standard input.

    Raises KernelError if it cannot be run.

    With `private_lock` it gets an xtables lock file of its own: the caller holds the real lock during
    reading, planning and applying.
    """
    environment = _environment()
    files = [os.memfd_create(name) for name in ("input", "output", "errors")]
    try:
        with open(files[0], "wb", closefd=False) as standard_input:
            standard_input.write(script.encode())
        os.lseek(files[0], 0, os.SEEK_SET)
        if private_lock:
            files.append(os.memfd_create("xtables.lock", 0))  # the command inherits it
            environment["XTABLES_LOCKFILE"] = f"/proc/self/fd/{files[-1]}"
        status = _run(command, environment, files[:3])
        return Result(status, *(_content(file) for file in files[1:3]))
    finally:
        for file in files:
            os.close(file)


def _run(command: tuple[str, ...], environment: Mapping[str, str], standard_files: list[int]) -> int:
    """Start a command and wait for its end. If Ctrl-C interrupts the wait, the command is killed."""
    actions = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(standard_files)]
    pid = 0
    # Signals wait until it is known which process to end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    try:
        try:
            pid = os.posix_spawn(
                *(command[0], command, environment),
                file_actions=actions,
                setsigmask=before,
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError as error:
            from ..remedies import not_started

            raise not_started(command[0], error) from error
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _, status = os.waitpid(pid, 0)
    except BaseException:
        if pid:
            os.kill(pid, _SIGKILL)
            os.waitpid(pid, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return os.waitstatus_to_exitcode(status)


def _content(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, size, 0).decode(errors="replace")
