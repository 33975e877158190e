"""Lint: what in a pod's manifest does not do what it says.

Istio takes nearly any annotation and any combination of them without a word. A check looks at one pod and
yields findings; checks of values are in traffic_checks.py, those of the pod around them in pod_checks.py.
"""

from __future__ import annotations

from . import pod_checks, traffic_checks
from .reading import captures_nothing
from .subject import KINDS, Finding, Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..settings import Given
    from ..values import Names
    from .manifest import Pod

__all__ = ["KINDS", "Finding", "lint"]


def lint(pod: Pod, names: Names, others: Sequence[Given] = ()) -> list[Finding]:
    """Return all findings about a pod. `others` are settings that go before its own, all of them valid."""
    subject = Subject(pod, others, names)
    checks = pod_checks.CHECKS
    if not captures_nothing(pod) and not pod.host_network:
        checks += traffic_checks.CHECKS
    return list(dict.fromkeys(finding for check in checks for finding in check(subject)))
