"""broken_pods: pods as the Kubernetes API has them, whose istio-validation has ended or not."""

from __future__ import annotations

from typing import Any

FAILED = {"terminated": {"exitCode": 126, "reason": "Error"}}
ENDED_WELL = {"terminated": {"exitCode": 0, "reason": "Completed"}}
WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}
RUNNING = {"running": {"startedAt": "2026-11-27T10:00:00Z"}}


def pod(
    name: str = "web",
    *,
    state: Any = None,
    last: Any = None,
    policy: str = "Always",
    container: str = "istio-validation",
    node: str = "node-1",
) -> dict[str, Any]:
    """A pod with the states of one init container."""
    states = {"name": container, "state": state or {}, "lastState": last or {}}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-of-{name}", "labels": {"app": name}},
        "spec": {"nodeName": node, "restartPolicy": policy, "containers": [{"name": "app", "image": "app"}]},
        "status": {
            "phase": "Failed" if policy == "Never" and state == FAILED else "Pending",
            "initContainerStatuses": [
                {"name": "other", "state": ENDED_WELL, "lastState": {}},
                {key: value for key, value in states.items() if value},
            ],
        },
    }
