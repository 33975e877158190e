"""signals: defer Ctrl-C and termination while the kernel's rules are being changed."""

from __future__ import annotations

from ..startup.c_modules import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

#: The signals that are deferred.
DEFERRED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def ignore() -> None:
    """Ignore these signals in this process from now on."""
    for number in DEFERRED:
        signal.signal(number, signal.SIG_IGN)


class SignalsDeferred:
    """A context manager in which these signals wait; processes started in it do not get them either.

    `pending` tells whether one waits. A caller that acts on that has handled it: it is not delivered at the
    end. A signal that `pending` has not reported is.
    """

    def __init__(self) -> None:
        self._answered = False

    def __enter__(self) -> SignalsDeferred:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
        return self

    def pending(self) -> bool:
        """Tell whether a signal waits."""
        self._answered = not DEFERRED.isdisjoint(signal.sigpending())
        return self._answered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._answered and signal.sigtimedwait(DEFERRED, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
