"""broken_pods: pods as the Kubernetes API has them, whose istio-validation has ended or not."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cni import INJECTED
from tests.support.netns import Namespace

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


def injected() -> dict[str, Any]:
    """A pod with a sidecar, which waits for its rules."""
    found = pod(state=WAITING, last=FAILED)
    found["metadata"] |= {"uid": str(uuid.uuid4()), "annotations": INJECTED}
    found["spec"]["containers"].append(
        {"name": "istio-proxy", "image": "proxyv2", "args": ["proxy", "sidecar"]}
    )
    return found


#: Who the process is that keeps a pod's namespaces: the user of the pause image.
PAUSE = 65535


@contextlib.contextmanager
def running(document: dict[str, Any], network: Namespace) -> Iterator[None]:
    """A process of a pod in its network, in a control group that is named as kubelet names it for systemd."""
    group = f"pod{document['metadata']['uid'].replace('-', '_')}.slice"
    script = (
        'mount -t cgroup2 cgroup2 "$0" && mkdir "$0/$1" && echo $$ >"$0/$1/cgroup.procs" && echo ready && '
        'exec nsenter "--net=/run/netns/$2" setpriv "--reuid=$3" "--regid=$3" --clear-groups cat'
    )
    with tempfile.TemporaryDirectory() as mounted:
        command = ["unshare", "--mount", "sh", "-c", script, mounted, group, network.name, str(PAUSE)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin
        assert process.stdout
        try:
            if process.stdout.readline() != "ready\n":
                pytest.skip("no control group can be made here")
            process.stdin.write("here\n")
            process.stdin.flush()
            assert process.stdout.readline() == "here\n"  # it is in the network, as its user
            yield
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()
            remove = 'mount -t cgroup2 cgroup2 "$0" && rmdir "$0/$1"'
            subprocess.run(["unshare", "--mount", "sh", "-c", remove, mounted, group], check=False)
