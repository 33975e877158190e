"""in_place: write the rules of a pod that is running already, found by its processes on this node."""

from __future__ import annotations

import os

from ...errors import KernelError
from ...kernel.namespace import network_namespace
from ...kernel.proc import root_remedy
from ..decision import Skip, decide
from ..pod import Identity, of_api
from ..protocol import CniError
from ..rules import put_in_place, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..configuration import Node
    from ..log import Log
    from .broken import BrokenPod

_OWN_NAMESPACE = "/proc/self/ns/net"


def write_rules(pod: BrokenPod, document: str, node: Node, log: Log) -> None:
    """Put the rules into a pod's network, by the pod's JSON of the API and the node's configuration.

    Raises KernelError if its network is not found here, or if the rules cannot be written: then nothing is
    changed.
    """
    who = Identity(pod.name, pod.namespace, pod.uid)
    try:
        found = decide(who, node, lambda: of_api(document, who))
        if isinstance(found, Skip):
            raise KernelError(f"it gets no rules: {found.why}", "have its istio-validation removed")
        wanted = settings(node, found)
        with network_namespace(_namespace_of(pod)) as inside:
            inside.run(put_in_place, wanted, log)
    except CniError as error:
        raise KernelError(error.message, error.details) from error


def _namespace_of(pod: BrokenPod) -> str:
    """Return the path of a pod's network namespace, by the control group of one of its processes.

    Kubelet names the group after the pod's UID, with underscores where systemd makes it.
    """
    names = (pod.uid, pod.uid.replace("-", "_"))
    may_not_look = False
    for process in filter(str.isdigit, os.listdir("/proc")):
        path = f"/proc/{process}/ns/net"
        try:
            with open(f"/proc/{process}/cgroup", encoding="utf-8") as file:
                groups = file.read()
            if any(f"pod{name}" in groups for name in names) and not os.path.samefile(path, _OWN_NAMESPACE):
                return path
        except PermissionError:
            may_not_look = True
        except OSError:
            continue  # it has ended
    if may_not_look:
        raise KernelError(
            "its processes may not be looked at",
            root_remedy("SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN", "NET_RAW"),
        )
    raise KernelError(
        "no process of it is seen here",
        "run this on the pod's node, in the node's process namespace (hostPID), as root",
    )
