"""status: whether rules could be written on this node, found out by the checks of `doctor`, by reading only.

A pod's rules go into a new network namespace, so that is where the checks look: in one that this process
makes for itself, with nothing in it, and that ends with it. The node's own rules do not matter to a pod.
"""

from __future__ import annotations

from ..doctor.examination import CHECKS, answer
from ..doctor.live.here import Here
from ..doctor.live.names import PatientMachine
from ..doctor.model import FAIL
from ..errors import KernelError
from ..kernel.namespace import enter_new
from ..settings.resolve import parse
from .configuration import NO_NAMES
from .protocol import NOT_AVAILABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .configuration import Node


class _Pod(PatientMachine):
    """A pod of this node, which has addresses of the same families as the node."""

    def __init__(self, families: tuple[bool, bool]) -> None:
        super().__init__()
        self._families = families

    def usable_families(self) -> tuple[bool, bool]:
        """Tell whether there is an IPv4, and an IPv6, address that traffic could use."""
        return self._families


def require_available(node: Node) -> None:
    """Raise CniError with what keeps the rules of a pod with the node's settings from being written."""
    machine = _Pod(PatientMachine().usable_families())
    try:
        enter_new()
    except KernelError as error:
        raise CniError(NOT_AVAILABLE, error.cause, error.remedy) from error
    parsed = parse(node.given, NO_NAMES)
    here = Here(parsed, parsed.operation(), machine)
    found = [(check.name, answer(check, here)) for check in CHECKS if check.of_node]
    failed = [f"{name}: {what.finding}: {what.remedy}" for name, what in found if what.status == FAIL]
    if failed:
        raise CniError(NOT_AVAILABLE, "rules cannot be written on this node", "\n".join(failed))
