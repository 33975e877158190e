"""deadline: an end for what may take too long, in a process that does one thing."""

from __future__ import annotations

from ..startup.c_modules import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Deadline:
    """A context manager in which an error is raised when the time is up (setitimer(2)).

    Only for the main thread, and only one at a time: a process has one such timer.
    """

    def __init__(self, seconds: float, error: Exception) -> None:
        self._seconds = seconds
        self._error = error

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._end)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _end(self, *_: object) -> NoReturn:
        raise self._error
