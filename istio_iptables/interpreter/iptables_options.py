"""iptables_options: what the arguments of matches and targets mean that this tool never writes.

Sources: iptables-extensions(8) and the kernel's xt_*.c. What is not known here is Unmodelled, or Unknown.
"""

from __future__ import annotations

from . import action as actions
from .condition import Unmodelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .action import Action
    from .condition import Condition
    from .known import Known


def foreign_match(args: Sequence[str], known: Known) -> Condition:
    """Return what arguments of iptables(8) mean that stand before the target."""
    return Unmodelled(" ".join(args))


def foreign_target(args: Sequence[str], known: Known) -> tuple[Action, ...]:
    """Return what a target does, from its arguments, of which the first is -j or -g."""
    return (actions.Unknown(" ".join(args)),)
