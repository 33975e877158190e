"""The plugin called by podman 4.3 with its CNI backend: a runtime that hands over no annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support import cni, foreign_programs, sandbox
from tests.support.cni import ANNOTATIONS, APP, INJECTED, PROXY, arrives, listen
from tests.support.foreign_programs import FETCHED
from tests.support.netns import Attached, Namespace
from tests.support.sandbox import Sandbox

WHY_NOT = foreign_programs.why_not() or sandbox.why_no_systemd()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.skipif(not (FETCHED / "root/usr/bin/podman").exists(), reason="no package has podman"),
    pytest.mark.xdist_group("podman"),  # one sandbox for all
]

NODE = "192.0.2.1"
_SET_UP = r"""
set -e
cp -R --preserve=mode,links {files}/. / && ldconfig
# In a sandbox with a systemd /proc/sys is read-only; of the network it is the namespace's own.
mount -t proc proc /mnt && mount --bind /mnt/sys/net /proc/sys/net && umount -l /mnt
rm -rf /etc/containers/libpod.conf /etc/cni/net.d && mkdir -p /etc/cni/net.d /container
cp -L --parents /bin/sleep $(ldd /bin/sleep | grep -o '/[^ ]*') /container
cat >/containers.conf <<'END'
[network]
network_backend = "cni"
cni_plugin_dirs = ["{ours}", "/usr/lib/cni"]
[containers]
pids_limit = 0
default_ulimits = []
[engine]
runtime = "runc"
events_logger = "file"
cgroup_manager = "cgroupfs"
END
"""
_PODMAN = (
    "CONTAINERS_CONF=/containers.conf podman --root /storage --runroot /running --storage-driver vfs {words}"
)


def network(name: str, number: int, **ours: Any) -> dict[str, Any]:
    """Return a network of podman's with our plugin at its end."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{number}.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": f"cni-{name}", "isGateway": True, "ipMasq": True, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    log = {"log_file": "/plugin.log", "metrics_file": ""}
    own = {"type": "istio-iptables-cni", "capabilities": {ANNOTATIONS: True}, **log, **ours}
    return {"cniVersion": "0.4.0", "name": name, "plugins": [bridge, portmap, own]}


class Podman:
    """podman in a sandbox."""

    def __init__(self, place: Sandbox, node: Namespace) -> None:
        self.place, self.node = place, node

    def run(self, words: str) -> tuple[int, str]:
        done = self.place.run(_PODMAN.format(words=words), merged=True)
        return done.returncode, done.stdout.strip()

    def attached(self, container: str) -> Attached:
        """Return the network namespace of a container."""
        code, path = self.run(f"inspect --format '{{{{.NetworkSettings.SandboxKey}}}}' {container}")
        assert code == 0, path
        return Attached(self.place.seen_from_outside(path))


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    folder = tmp_path_factory.mktemp("podman")
    (folder / "ours").mkdir()
    folder.chmod(0o755)
    cni.install(folder / "ours")
    networks = [
        network("asked", 91),
        network("told", 92, runtimeConfig={ANNOTATIONS: INJECTED}),
        network("plain", 93, runtimeConfig={ANNOTATIONS: {}}),
    ]
    with ExitStack() as stack:
        node = stack.enter_context(Namespace("n"))
        node.ip(f"addr add {NODE}/32 dev lo")
        node.listen("node", tcp=[80])
        place = stack.enter_context(Sandbox(node, systemd=True))
        done = place.run(_SET_UP.format(files=FETCHED / "root", ours=folder / "ours"), merged=True)
        assert done.returncode == 0, done.stdout
        for each in networks:
            path = f"/etc/cni/net.d/{each['name']}.conflist"
            done = place.run(f"cat >{path} <<'END'\n{json.dumps(each)}\nEND", merged=True)
            assert done.returncode == 0, done.stdout
        yield Podman(place, node)


def create(podman: Podman, name: str, network: str) -> tuple[int, str]:
    """Create and start a container in a network: return the exit code, and what podman says."""
    words = f"create --name {name} --network {network} --publish 8080:80 --rootfs /container /bin/sleep 600"
    code, out = podman.run(words)
    assert code == 0, out
    return podman.run(f"start {name}")


def test_a_container_of_which_nothing_is_known_does_not_start(podman: Podman) -> None:
    code, out = create(podman, "unknown", "asked")
    assert code != 0
    assert "the annotations of the pod are not known" in out
    assert podman.run("rm --force --time 0 unknown")[0] == 0


def test_a_network_may_say_what_its_containers_are(podman: Podman) -> None:
    """`runtimeConfig` in the plugin's entry: a runtime that hands over annotations replaces it."""
    code, out = create(podman, "web", "told")
    assert code == 0, out
    with podman.attached("web") as pod:
        listen(pod)
        assert arrives(pod.connect(NODE, 80, uid=APP)) == "outbound"
        assert arrives(pod.connect(NODE, 80, uid=PROXY, gid=PROXY)) == "node"
        assert arrives(podman.node.connect(NODE, 8080)) == "inbound"
    assert (
        "pod /web: done" in podman.place.run("cat /plugin.log").stdout
    )  # podman gives the name, and no namespace
    assert podman.run("stop --time 0 web")[0] == 0
    code, out = podman.run("start web")  # a network namespace of its own again, with rules of its own
    assert code == 0, out
    with podman.attached("web") as pod:
        listen(pod)
        assert arrives(pod.connect(NODE, 80, uid=APP)) == "outbound"
    assert podman.run("rm --force --time 0 web")[0] == 0


def test_a_container_without_a_sidecar(podman: Podman) -> None:
    code, out = create(podman, "plain", "plain")
    assert code == 0, out
    with podman.attached("plain") as pod:
        listen(pod)
        assert arrives(pod.connect(NODE, 80, uid=APP)) == "node"
    assert podman.run("rm --force --time 0 plain")[0] == 0
