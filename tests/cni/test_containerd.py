"""The plugin called by Debian's containerd, which is told what to do as kubelet tells it: over its CRI."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import cni, containerd
from tests.support.cni import APP, INJECTED, PROXY, arrives, listen
from tests.support.containerd import Containerd
from tests.support.foreign_programs import FETCHED
from tests.support.netns import Namespace

pytestmark = [
    pytest.mark.skipif(bool(containerd.why_not()), reason=containerd.why_not()),
    pytest.mark.xdist_group("containerd"),  # one daemon for all
]

NODE = "192.0.2.1"


def network(folder: Path) -> dict[str, Any]:
    """Return a node's network, as a network provider and `cni install` leave it."""
    ipam = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": "10.77.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    ours = {
        "type": "istio-iptables-cni",
        "capabilities": {"io.kubernetes.cri.pod-annotations": True},
        "metrics_file": str(folder / "metrics.prom"),
        "log_file": str(folder / "cni.log"),
    }
    plugins = [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ours,
    ]
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    folder = tmp_path_factory.mktemp("containerd", numbered=True)
    (folder / "ours").mkdir()
    (folder / "containerd").mkdir()
    cni.install(folder / "ours")
    others = FETCHED / "root/usr/lib/cni"
    with Namespace("n") as node:
        node.ip(f"addr add {NODE}/32 dev lo")
        node.sysctl("net/ipv4/ip_forward", 1)
        node.listen("node", tcp=[80])
        with Containerd(node, folder / "containerd", [others, folder / "ours"], network(folder)) as made:
            yield made


def end(runtime: Containerd, sandbox: str) -> None:
    """Stop and remove a sandbox, twice, as kubelet may."""
    for _ in range(2):
        runtime.service.call("StopPodSandbox", pod_sandbox_id=sandbox)
    for _ in range(2):
        runtime.service.call("RemovePodSandbox", pod_sandbox_id=sandbox)


def check(runtime: Containerd, sandbox: str) -> subprocess.CompletedProcess[str]:
    """Call CHECK with what containerd's CNI library has kept of ADD, as that library would.

    containerd 1.6 has CHECK in its library and never calls it.
    """
    kept = json.loads(
        Path(runtime.seen_from_outside(f"/var/lib/cni/results/pods-{sandbox}-eth0")).read_text()
    )
    offered = kept["capabilityArgs"]
    ours = network(runtime.folder.parent)["plugins"][-1]
    given = {
        **ours,
        "cniVersion": kept["result"]["cniVersion"],
        "name": kept["networkName"],
        "runtimeConfig": {name: offered[name] for name in ours["capabilities"]},
        "prevResult": kept["result"],
    }
    variables = {
        "CNI_COMMAND": "CHECK",
        "CNI_CONTAINERID": sandbox,
        "CNI_NETNS": runtime.namespace_path(sandbox),
        "CNI_IFNAME": kept["ifName"],
        "CNI_ARGS": ";".join("=".join(pair) for pair in kept["cniArgs"]),
        "CNI_PATH": str(runtime.folder / "bin"),
    }
    words = ["env", *(f"{name}={value}" for name, value in variables.items())]
    program = str(runtime.folder / "bin/istio-iptables-cni")
    return subprocess.run(
        runtime.inside(*words, program),
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_pod_from_its_start_to_its_end(runtime: Containerd) -> None:
    """Captured at once; and still, checked, and gone without a trace, when containerd was restarted."""
    ports = [{"protocol": 0, "container_port": 80, "host_port": 8080}]
    sandbox = runtime.run_sandbox("web", INJECTED, ports)
    address, _ = runtime.status(sandbox)
    with runtime.attached(sandbox) as pod:
        listen(pod)
        for _ in range(2):
            assert arrives(pod.connect(NODE, 80, uid=APP)) == "outbound"
            assert arrives(pod.connect(NODE, 80, uid=PROXY, gid=PROXY)) == "node"
            assert arrives(runtime.node.connect(address, 80)) == "inbound"
            assert arrives(runtime.node.connect(NODE, 8080)) == "inbound"
            done = check(runtime, sandbox)
            assert (done.returncode, done.stdout) == (0, ""), done.stdout
            runtime.restart()
        pod.run(["iptables-legacy", "-t", "nat", "-F", "ISTIO_OUTPUT"], check=False)
        pod.run(["iptables-nft", "-t", "nat", "-F", "ISTIO_OUTPUT"], check=False)
        done = check(runtime, sandbox)
        assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 100)
    end(runtime, sandbox)
    assert not Path(runtime.seen_from_outside(f"/var/lib/cni/results/pods-{sandbox}-eth0")).exists()
    assert not list(runtime.service.call("ListPodSandbox").items)


def test_a_pod_without_a_sidecar(runtime: Containerd) -> None:
    sandbox = runtime.run_sandbox("plain", {"team": "a"})
    address, _ = runtime.status(sandbox)
    with runtime.attached(sandbox) as pod:
        listen(pod)
        assert arrives(pod.connect(NODE, 80, uid=APP)) == "node"
        assert arrives(runtime.node.connect(address, 80)) == "app"
        assert "ISTIO" not in pod.save("legacy", "ipv4") + pod.save("nft", "ipv4")
    end(runtime, sandbox)
    assert (
        "ADD pod shop/plain: no rules: it has no annotation"
        in (runtime.folder.parent / "cni.log").read_text()
    )


def test_a_pod_whose_rules_cannot_be_made_does_not_start(runtime: Containerd) -> None:
    import grpc

    bad = {**INJECTED, "traffic.sidecar.istio.io/excludeOutboundPorts": "http"}
    with pytest.raises(grpc.RpcError) as caught:
        runtime.run_sandbox("bad", bad)
    told = caught.value.details()
    assert (
        "annotation traffic.sidecar.istio.io/excludeOutboundPorts" in told
    )  # what `kubectl describe pod` shows
    left = [item.id for item in runtime.service.call("ListPodSandbox").items if item.state == 0]
    assert left == []
    for item in runtime.service.call("ListPodSandbox").items:
        end(runtime, item.id)


def test_thirty_pods_at_once(runtime: Containerd) -> None:
    """All are captured and counted, and all are gone afterwards."""
    count = 30
    metrics = runtime.folder.parent / "metrics.prom"
    before = captured(metrics)
    with ThreadPoolExecutor(count) as at_once:
        sandboxes = list(at_once.map(lambda n: runtime.run_sandbox(f"many-{n}", INJECTED), range(count)))
    assert len(set(sandboxes)) == count
    addresses = [runtime.status(sandbox)[0] for sandbox in sandboxes]
    assert len(set(addresses)) == count
    assert captured(metrics) == before + count
    assert [check(runtime, sandbox).stdout for sandbox in sandboxes[::7]] == [""] * len(sandboxes[::7])
    with runtime.attached(sandboxes[-1]) as pod:
        listen(pod)
        assert arrives(runtime.node.connect(addresses[-1], 80)) == "inbound"
    runtime.restart()
    with ThreadPoolExecutor(count) as at_once:
        list(at_once.map(lambda sandbox: end(runtime, sandbox), sandboxes))
    assert not list(runtime.service.call("ListPodSandbox").items)


def captured(metrics: Path) -> int:
    """Return how many pods have got rules, as the plugin counts."""
    if not metrics.exists():
        return 0
    (line,) = (line for line in metrics.read_text().splitlines() if 'result="captured"' in line)
    return int(line.split()[-1])
