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

    from .actions import Action, UndoableAction
    from .plan import Plan

    class Kernel(Protocol):
        """An object that does actions: kernel.machine.Machine, or a fake."""

        def do(self, action: Action) -> None:
            """Do one action completely, or raise KernelError and have done nothing."""

        def let_packets_pass(self) -> None:
            """Wait until every packet that is between two hooks now has left them."""


def execute(plan: Plan, kernel: Kernel, *, interrupted: Callable[[], bool] = bool) -> None:
    """Do the actions in order. If one fails, undo those before it and raise KernelError.

    `interrupted` is called before each: if it returns True, that counts as a failure. A signal must not
    cut an action short, since then it would be unknown whether it was done: see kernel/signals.py.
    """
    done: list[UndoableAction] = []
    try:
        for action in plan.undoable:
            _go_on(interrupted)
            if _hands_over(done, action):
                kernel.let_packets_pass()
            kernel.do(action)
            done.append(action)
        if plan.final:
            _go_on(interrupted)
            kernel.do(plan.final)
    except BaseException as error:
        left = _roll_back(done, kernel)
        if not isinstance(error, KernelError):
            raise
        if left:
            raise KernelError(
                f"{error.cause}; and this could not be undone: {'; '.join(left)}",
                error.remedy,
            ) from error
        raise


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
        except KernelError as error:
            left.append(f"{action}: {error.cause}")
    return left
