"""broken: which pods started without their rules, as the Kubernetes API shows it.

Such a pod has an init container `istio-validation`, in which `istio-iptables --run-validation
--skip-rule-apply` runs: it ends with exit code 126. That is the container's last state as long as kubelet
starts it again, and its state where kubelet does not (restartPolicy Never).
"""

from __future__ import annotations

from ...errors import NotValidated
from ...pod.container import VALIDATION
from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class BrokenPod(Record):
    """A pod without its rules. `restarts`: kubelet starts its init container again if that fails."""

    name: str
    namespace: str
    uid: str
    restarts: bool
    labels: Mapping[str, str]

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.name}"


def broken(pod: Mapping[str, Any]) -> BrokenPod | None:
    """Return the pod (a Pod as the API's JSON has it) if it started without its rules, else None.

    One that is being deleted is left to that.
    """
    metadata = pod.get("metadata") or {}
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or ()
    if metadata.get("deletionTimestamp") or not any(map(_failed, statuses)):
        return None
    return BrokenPod(
        metadata["name"],
        metadata["namespace"],
        metadata["uid"],
        (pod.get("spec") or {}).get("restartPolicy", "Always") != "Never",
        metadata.get("labels") or {},
    )


def _failed(status: Mapping[str, Any]) -> bool:
    if status.get("name") != VALIDATION:
        return False
    now, before = (_exit_code(status.get(key)) for key in ("state", "lastState"))
    return now == NotValidated.exit_code or (now is None and before == NotValidated.exit_code)


def _exit_code(state: Mapping[str, Any] | None) -> int | None:
    terminated = (state or {}).get("terminated") or {}
    code: int | None = terminated.get("exitCode")
    return code
