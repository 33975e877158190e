"""own_network: whether this process is in the machine's own network namespace, outside a container.

There the rules capture the traffic of a whole machine instead of that of one pod.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Files that docker, podman, and systemd-nspawn or LXC put into a container.
_FILES = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
#: Variables of every container in Kubernetes, and of those of podman, LXC and systemd-nspawn.
_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container")
#: The PID namespace that the kernel starts with (PROC_PID_INIT_INO in linux/proc_ns.h).
FIRST_PID_NAMESPACE = "pid:[4026531836]"


def is_machines_own(environ: Mapping[str, str] = os.environ, root: str = "") -> bool:
    """Tell whether this is the machine's own network, and no container: True only if both are certain.

    It is if process 1 has the same network and mount namespaces, is the machine's own process 1, and nothing
    tells of a container. Only root may read what process 1 has. `root` is a directory to read instead of /.
    """
    if any(environ.get(name) for name in _VARIABLES):
        return False
    if any(os.path.exists(root + path) for path in _FILES):
        return False
    try:
        if os.readlink(f"{root}/proc/self/ns/pid") != FIRST_PID_NAMESPACE:
            return False
        return all(
            os.readlink(f"{root}/proc/self/ns/{kind}") == os.readlink(f"{root}/proc/1/ns/{kind}")
            for kind in ("net", "mnt")
        )
    except OSError:
        return False
