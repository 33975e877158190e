"""execute: do the actions of a plan, and put back what was done if one fails.

It does not know how the kernel is told: it is given an object that can do one action.
"""

from __future__ import annotations

from ..errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .actions import Action
    from .plan import Plan

    class Kernel(Protocol):
        """An object that does actions: kernel.machine.Machine, or a fake."""

        def do(self, action: Action) -> None:
            """Do one action completely, or raise KernelError and have done nothing."""


def execute(plan: Plan, kernel: Kernel, *, interrupted: Callable[[], bool] = bool) -> None:
    """Do the actions in order. If one fails, undo those before it and raise KernelError.

    `interrupted` is called before each: if it returns True, that counts as a failure. A signal must not
    cut an action short, since then it would be unknown whether it was done: see kernel/signals.py.
    """
    done: list[Action] = []
    try:
        for action in plan.actions:
            if interrupted():
                raise KernelError("interrupted by a signal", "everything is as before: run again")
            kernel.do(action)
            done.append(action)
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


def _roll_back(done: list[Action], kernel: Kernel) -> list[str]:
    """Undo actions, last first; return what could not be undone and why."""
    left = []
    for action in reversed(done):
        try:
            kernel.do(action.inverse())
        except KernelError as error:
            left.append(f"{action}: {error.cause}")
    return left
