"""lint: find settings in a pod's manifest that do not do what they say.

Istio accepts nearly any annotation, and any combination of them, silently. A check takes one pod and yields
findings. Checks of values are in traffic.py, checks of the pod around them in pod.py.
"""

from __future__ import annotations

from . import pod as pod_checks
from . import traffic as traffic_checks
from .findings import KINDS, Finding
from .subject import Subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...settings.parsers import Names
    from ...settings.texts import Given
    from ..model import Pod

__all__ = ["KINDS", "Finding", "lint"]


def lint(pod: Pod, names: Names, others: Sequence[Given] = ()) -> list[Finding]:
    """Return all findings about a pod. `others` are valid settings that take precedence over its own."""
    subject = Subject(pod, others, names)
    checks = pod_checks.CHECKS
    if not subject.captures_nothing and not pod.host_network:
        checks += traffic_checks.CHECKS
    return list(dict.fromkeys(finding for check in checks for finding in check(subject)))
