"""execute: do the actions of a plan, and put back what was done if one fails.

It does not know how the kernel is told: it is given an object that can do one action.
"""

from __future__ import annotations

from ..errors import KernelError
from .actions import EditNative, EditTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .actions import Action, RemoveByHandle, UndoableAction
    from .plan import Plan

    class Kernel(Protocol):
        """An object that does actions: kernel.machine.Machine, or a fake."""

        def do(self, action: Action) -> None:
            """Do one action completely, or raise an error: then `was_done` tells what became of it."""

        def was_done(self, action: Action) -> bool:
            """Read back whether an action that failed was done all the same. Raises KernelError."""

        def let_packets_pass(self) -> None:
            """Wait until every packet that is between two hooks now has left them."""


def execute(plan: Plan, kernel: Kernel, *, interrupted: Callable[[], bool] = bool) -> None:
    """Do the actions in order. If one fails, undo what was done and raise KernelError.

    An action can fail after the kernel has done it: an acknowledgement is lost, a process dies before it
    answers. So what became of it is read back, and undone too, before anything is said.

    `interrupted` is called before each: if it returns True, that counts as a failure. A signal must not
    cut an action short, since then it would be unknown whether it was done: see kernel/signals.py.
    """
    done: list[UndoableAction] = []
    try:
        for action in plan.undoable:
            _go_on(interrupted)
            if _hands_over(done, action):
                kernel.let_packets_pass()
            _do(action, kernel, done)
        if plan.final:
            _go_on(interrupted)
            _do_last(plan.final, kernel)
    except BaseException as error:
        left = _roll_back(done, kernel)
        told = _told(error)
        if told is error and not (left and isinstance(error, KernelError)):
            raise
        if left and isinstance(told, KernelError):
            told = KernelError(f"{told.cause}; and this could not be undone: {'; '.join(left)}", told.remedy)
        raise told from error


def _do(action: UndoableAction, kernel: Kernel, done: list[UndoableAction]) -> None:
    """Do an action and add it to `done`; if it fails, add it if the kernel has done it all the same."""
    try:
        kernel.do(action)
    except Exception as error:
        if _was_done(action, kernel, error):
            done.append(action)
        raise
    done.append(action)


def _do_last(action: RemoveByHandle, kernel: Kernel) -> None:
    """Do the action that cannot be undone. If it was done, all is done, whatever was reported."""
    try:
        kernel.do(action)
    except Exception as error:
        if not _was_done(action, kernel, error):
            raise


def _was_done(action: Action, kernel: Kernel, error: Exception) -> bool:
    try:
        return kernel.was_done(action)
    except (KernelError, OSError) as unread:
        first, second = _told(error), _told(unread)
        if not isinstance(first, KernelError) or not isinstance(second, KernelError):
            raise error from unread
        raise KernelError(
            f"{first.cause}; and what became of this could not be read back: {action}: {second.cause}",
            first.remedy,
        ) from error


def _told(error: BaseException) -> BaseException:
    """Return an error of a system call as a KernelError, which says what to do; any other as it is."""
    if not isinstance(error, OSError) or error.errno is None:
        return error
    from ..remedies import system_refused

    return system_refused(error)


def _go_on(interrupted: Callable[[], bool]) -> None:
    if interrupted():
        raise KernelError("interrupted by a signal", "everything is as before: run again")


def _hands_over(done: list[UndoableAction], action: UndoableAction) -> bool:
    """Tell whether an action stops capturing inbound traffic that an earlier one began to capture elsewhere.

    A packet that passed the one table before its rules were there would meet the other without rules.
    """
    edits = (EditTable, EditNative)
    return (
        isinstance(action, edits)
        and action.releases_inbound
        and any(isinstance(earlier, edits) and earlier.gains_inbound for earlier in done)
    )


def _roll_back(done: list[UndoableAction], kernel: Kernel) -> list[str]:
    """Undo actions, last first; return what could not be undone and why."""
    left = []
    for action in reversed(done):
        try:
            kernel.do(action.inverse())
        except (KernelError, OSError) as error:
            try:
                undone = kernel.was_done(action.inverse())
            except (KernelError, OSError):
                undone = False
            if not undone:
                left.append(f"{action}: {getattr(_told(error), 'cause', error)}")
    return left
