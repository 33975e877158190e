"""The plugin in a chain with those of others: bridge or ptp, host-local, portmap, and real connections."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import cni
from tests.support.cni import APP, INJECTED, PROXY, arrives, listen
from tests.support.cni_runtime import Container, Failed, Runtime
from tests.support.failing import hidden
from tests.support.netns import Namespace

#: Where the node can be reached from anywhere, and how the pod's port 80 can be reached at the node.
NODE = "192.0.2.1"
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
TPROXY = {"sidecar.istio.io/interceptionMode": "TPROXY"}


class Cluster:
    """A node with a network of these plugins and ours, and pods on it."""

    def __init__(self, node: Namespace, folder: Path, others: Path, stack: ExitStack) -> None:
        self.node = node
        self._folder, self._others, self._stack = folder, others, stack
        node.listen("node", tcp=[80])
        cni.install(folder)

    def runtime(
        self, first: str = "bridge", version: str = "1.0.0", *, dual_stack: bool = False, **ours: Any
    ) -> Runtime:
        """Return a runtime with one network."""
        ranges = [[{"subnet": "10.77.0.0/24"}], *([[{"subnet": "fd77::/64"}]] if dual_stack else [])]
        routes = [{"dst": "0.0.0.0/0"}, *([{"dst": "::/0"}] if dual_stack else [])]
        ipam = {
            "type": "host-local",
            "dataDir": str(self._folder / "ipam"),
            "ranges": ranges,
            "routes": routes,
        }
        kinds: dict[str, dict[str, Any]] = {
            "bridge": {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam},
            "ptp": {"type": "ptp", "ipam": ipam},
        }
        capabilities = {"io.kubernetes.cri.pod-annotations": True}
        own = {"type": "istio-iptables-cni", "capabilities": capabilities, "metrics_file": "", **ours}
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
        self.node.ip(f"addr replace {NODE}/32 dev lo")
        self.node.sysctl("net/ipv4/ip_forward", 1)
        return Runtime(self.node, [self._folder, self._others], [kinds[first], portmap, own], version)

    def pod(self, annotations: dict[str, str] | None = None, **more: Any) -> tuple[Namespace, Container]:
        """Return a network namespace for a pod, and the container that a runtime attaches."""
        namespace = self._stack.enter_context(Namespace("p"))
        found = INJECTED if annotations is None else annotations
        path = f"/run/netns/{namespace.name}"
        return namespace, Container(namespace.name, path, annotations=found, ports=PORTS, **more)


@pytest.fixture
def cluster(node: Namespace, plugins: Path, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(node, tmp_path, plugins, stack)


def address(result: Any, version: int = 4) -> str:
    found: list[str] = [ip["address"].split("/")[0] for ip in result["ips"]]
    return next(each for each in found if (":" in each) == (version == 6))


@pytest.mark.parametrize("first", ["bridge", "ptp"])
@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_a_pod_of_a_chain_is_captured(cluster: Cluster, first: str, version: str) -> None:
    runtime = cluster.runtime(first, version)
    pod, container = cluster.pod()
    result = runtime.add(container)
    assert result["cniVersion"] == version
    assert runtime.answers[-1] == json.dumps(json.loads(runtime.answers[-2])) + "\n"  # as it was handed on
    listen(pod)
    assert arrives(pod.connect(NODE, 80, uid=APP)) == "outbound"
    assert arrives(pod.connect(NODE, 80, uid=PROXY, gid=PROXY)) == "node"
    assert arrives(cluster.node.connect(address(result), 80)) == "inbound"
    assert arrives(cluster.node.connect(NODE, 8080)) == "inbound"  # portmap goes on working
    if version != "0.3.1":
        runtime.check(container)
    runtime.delete(container)
    runtime.delete(container)


@pytest.mark.parametrize("backend", [{}, {"force-iptables-binary": "nft"}, {"native-nftables": True}])
def test_dual_stack(cluster: Cluster, backend: dict[str, object]) -> None:
    runtime = cluster.runtime(dual_stack=True, settings={"dual-stack": True, **backend})
    pod, container = cluster.pod()
    result = runtime.add(container)
    listen(pod)
    for version in (4, 6):
        assert arrives(cluster.node.connect(address(result, version), 80)) == "inbound"
    runtime.check(container)
    runtime.delete(container)


@pytest.mark.parametrize("native", [False, True])
def test_tproxy_by_annotation_and_by_node(cluster: Cluster, native: bool) -> None:
    by_node = {"istio-inbound-interception-mode": "TPROXY"}
    for of_pod, settings in ((TPROXY, {}), ({}, by_node)):
        runtime = cluster.runtime(settings={**settings, "native-nftables": native})
        pod, container = cluster.pod({**INJECTED, **of_pod})
        result = runtime.add(container)
        listen(pod, transparent=True)
        call = cluster.node.connect(address(result), 80)
        assert arrives(call) == "inbound"
        assert call.arrival
        assert call.arrival.local == (address(result), 80)  # of TPROXY alone: the destination is kept
        runtime.check(container)
        runtime.delete(container)


@pytest.mark.parametrize(
    ("annotations", "more"),
    [
        ({}, {}),
        ({**INJECTED, "sidecar.istio.io/interceptionMode": "NONE"}, {}),
        (INJECTED, {"kubernetes_namespace": "kube-system"}),
        (INJECTED, {"name": ""}),
    ],
)
def test_a_pod_that_is_skipped_gets_a_network_and_no_rules(
    cluster: Cluster, annotations: dict[str, str], more: dict[str, str]
) -> None:
    runtime = cluster.runtime()
    pod, container = cluster.pod(annotations, **more)
    before = snapshot(pod)
    result = runtime.add(container)
    runtime.check(container)
    listen(pod)
    assert arrives(pod.connect(NODE, 80, uid=APP)) == "node"
    assert arrives(cluster.node.connect(address(result), 80)) == "app"
    assert snapshot(pod) == before
    runtime.delete(container)


def snapshot(pod: Namespace) -> str:
    """Return all rules, without counters, and the routing rules."""
    saved = [pod.save(variant, family) for variant in ("legacy", "nft") for family in ("ipv4", "ipv6")]
    lines = [line for text in saved for line in text.splitlines() if not line.startswith(("#", ":"))]
    native = pod.run(["nft", "-s", "list", "ruleset"]).stdout
    routing = pod.run(["ip", "rule"]).stdout + pod.run(["ip", "-6", "addr", "show", "dev", "lo"]).stdout
    return "\n".join([*(line for line in lines if line[0] == "-"), native, routing])


# --- what fails, fails closed ---------------------------------------------------------------


def without(pod: Namespace, runtime: Runtime, container: Container, code: int) -> Failed:
    """Have ADD fail, and see that the pod's network namespace is as it was before our plugin was called."""
    others = runtime.plugins[:-1]
    all_of_them, runtime.plugins = runtime.plugins, others
    runtime.add(container)
    runtime.delete(container)
    before = snapshot(pod)
    runtime.plugins = all_of_them
    with pytest.raises(Failed) as caught:
        runtime.add(container)
    assert (caught.value.plugin, caught.value.code) == ("istio-iptables-cni", code), caught.value
    assert snapshot(pod) == before
    runtime.delete(container)
    return caught.value


def test_no_annotations_are_no_reason_to_start_a_pod_without_rules(cluster: Cluster) -> None:
    runtime = cluster.runtime(capabilities={})
    pod, container = cluster.pod()
    found = without(pod, runtime, container, 11)
    assert "capabilities" in found.answer["details"]


def test_a_bad_annotation(cluster: Cluster) -> None:
    pod, container = cluster.pod({**INJECTED, "traffic.sidecar.istio.io/includeInboundPorts": "http"})
    found = without(pod, cluster.runtime(), container, 7)
    assert "traffic.sidecar.istio.io/includeInboundPorts" in found.answer["details"]


def test_a_kernel_that_refuses_in_the_middle(cluster: Cluster) -> None:
    """The route of TPROXY, which is made last, is taken: rules that were made before it are taken back."""
    pod, container = cluster.pod({**INJECTED, **TPROXY})
    pod.ip("link set lo up", "route add blackhole default table 133")
    without(pod, cluster.runtime(), container, 5)


def test_foreign_rules_under_our_names(cluster: Cluster) -> None:
    pod, container = cluster.pod()
    match = '-p tcp -m comment --comment "a\x1b[2Jb"'  # clears a terminal
    rule = f"*nat\n:ISTIO_OUTPUT -\n-A ISTIO_OUTPUT {match} -j DNAT --to-destination 10.9.9.9:1\nCOMMIT\n"
    pod.run(["iptables-nft-restore", "--noflush"], stdin=rule)
    found = without(pod, cluster.runtime(), container, 5)
    assert "10.9.9.9" in found.answer["msg"]
    assert r"a\x1b[2Jb" in found.answer["msg"]


def test_the_namespace_of_the_node_is_not_touched(cluster: Cluster) -> None:
    runtime = cluster.runtime()
    runtime.plugins = runtime.plugins[-1:]
    before = snapshot(cluster.node)
    own = Container("node", f"/run/netns/{cluster.node.name}", annotations=INJECTED)
    environment = {"prevResult": cni.RESULT}
    runtime.plugins[0] = {**runtime.plugins[0], **environment}
    with pytest.raises(Failed) as caught:
        runtime.add(own)
    assert caught.value.code == 4
    assert snapshot(cluster.node) == before


@pytest.mark.parametrize("capability", ["net_admin", "net_raw", "sys_admin"])
def test_a_capability_that_is_missing(cluster: Cluster, tmp_path: Path, capability: str) -> None:
    pod, container = cluster.pod()
    before = snapshot(pod)
    environment = {"CNI_CONTAINERID": "a", "CNI_NETNS": container.namespace, "CNI_IFNAME": "eth0"}
    for command, code in (("ADD", 5), ("STATUS", 50)):
        variables = {**environment, "CNI_COMMAND": command, "CNI_ARGS": container.arguments}
        words = ["setpriv", f"--bounding-set=-{capability}", str(tmp_path / "istio-iptables-cni")]
        given = json.dumps(cni.configuration(cniVersion="1.1.0"))
        done = cluster.node.run(words, stdin=given, check=False, env={**os.environ, **variables})
        answer = json.loads(done.stdout)
        assert (done.returncode, answer["code"]) == (1, code)
        assert capability.upper() in f"{answer['msg']} {answer['details']}"
    assert snapshot(pod) == before


# --- CHECK, DEL, GC, STATUS -----------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda pod: pod.run(["iptables-legacy", "-t", "nat", "-D", "OUTPUT", "-j", "ISTIO_OUTPUT"]),
        lambda pod: pod.run(["iptables-legacy", "-t", "nat", "-F", "ISTIO_OUTPUT"]),
        lambda pod: pod.run(["iptables-legacy", "-t", "nat", "-I", "ISTIO_INBOUND", "-j", "RETURN"]),
        lambda pod: pod.tool("cleanup", "--cni-mode"),
    ],
    ids=["jump", "flushed", "more", "cleanup"],
)
def test_check_finds_what_is_missing(cluster: Cluster, damage: Callable[[Namespace], object]) -> None:
    runtime = cluster.runtime(settings={"force-iptables-binary": "legacy"})
    pod, container = cluster.pod()
    runtime.add(container)
    runtime.check(container)
    damage(pod)
    with pytest.raises(Failed) as caught:
        runtime.check(container)
    assert (caught.value.plugin, caught.value.code) == ("istio-iptables-cni", 100)
    assert "ISTIO_" in caught.value.answer["details"]


def test_add_again_is_the_same(cluster: Cluster) -> None:
    """A runtime that lost the answer calls again."""
    runtime = cluster.runtime()
    pod, container = cluster.pod()
    result = runtime.add(container)
    before = snapshot(pod)
    runtime.plugins = [{**runtime.plugins[-1], "prevResult": result}]
    assert runtime.add(container) == result
    assert snapshot(pod) == before


def test_add_again_with_other_settings_replaces_the_rules(cluster: Cluster) -> None:
    """What a call that was killed has left in the network namespace is not in the way."""
    runtime = cluster.runtime()
    _, container = cluster.pod()
    changed = container._replace(
        annotations={**INJECTED, "traffic.sidecar.istio.io/includeInboundPorts": "8080"}
    )
    result = runtime.add(container)
    runtime.plugins = [{**runtime.plugins[-1], "prevResult": result}]
    runtime.add(changed)
    runtime.check(changed)
    with pytest.raises(Failed) as caught:
        runtime.check(container)
    assert caught.value.code == 100


def test_del_takes_away_what_add_made_and_nothing_else(cluster: Cluster) -> None:
    runtime = cluster.runtime()
    pod, container = cluster.pod()
    pod.run(["iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.9", "-j", "ACCEPT"])
    pod.run(["iptables-legacy", "-t", "nat", "-N", "OTHER"])
    before = snapshot(pod)
    runtime.add(container)
    runtime.plugins = runtime.plugins[-1:]  # so that the others leave the interface
    runtime.delete(container)
    assert snapshot(pod) == before
    runtime.delete(container)
    runtime.delete(container._replace(namespace=""))
    runtime.delete(container._replace(namespace="/run/netns/gone"))


def test_del_leaves_rules_that_an_init_container_made(cluster: Cluster) -> None:
    runtime = cluster.runtime()
    has_init = {cni.STATUS: json.dumps({"initContainers": ["istio-init"], "containers": ["istio-proxy"]})}
    pod, container = cluster.pod(has_init)
    runtime.add(container)
    assert pod.tool("-p", "15001").code == 0
    made = snapshot(pod)
    runtime.delete(container)
    assert snapshot(pod).count("ISTIO_") == made.count("ISTIO_") > 0


def test_status_and_gc(cluster: Cluster) -> None:
    runtime = cluster.runtime(version="1.1.0")
    runtime.version = "1.1.0"
    before = snapshot(cluster.node)
    done = runtime.ask("STATUS", "istio-iptables-cni")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    done = runtime.ask("GC", "istio-iptables-cni", **{"cni.dev/valid-attachments": []})
    assert (done.returncode, done.stdout) == (0, "")
    assert snapshot(cluster.node) == before


def test_status_of_a_node_without_the_program_for_the_rules(cluster: Cluster, tmp_path: Path) -> None:
    given = json.dumps(
        {
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "istio-iptables-cni",
            "settings": {"force-iptables-binary": "nft"},
        }
    )
    words = ["env", "CNI_COMMAND=STATUS", str(tmp_path / "istio-iptables-cni")]
    program = shutil.which("iptables-nft-restore") or ""
    done = cluster.node.run([*hidden(program), *words], stdin=given, check=False)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["code"]) == (1, 50)
    assert "iptables-nft" in answer["details"]


# --- many at once, and the log --------------------------------------------------------------


def test_many_pods_at_once(cluster: Cluster) -> None:
    from concurrent.futures import ThreadPoolExecutor

    metrics = cluster.node.directory / "metrics.prom"
    runtime = cluster.runtime(metrics_file=str(metrics))
    # portmap makes its chains in the node's network with the first pod, and fails where two do that at once.
    runtime.add(cluster.pod()[1])
    pods = [cluster.pod() for _ in range(8)]
    with ThreadPoolExecutor(8) as at_once:
        results = list(at_once.map(lambda each: runtime.add(each[1]), pods))
    assert len({address(result) for result in results}) == len(pods)
    assert {pod.save("legacy", "ipv4").count("ISTIO_OUTPUT") for pod, _ in pods} == {
        pods[0][0].save("legacy", "ipv4").count("ISTIO_OUTPUT")
    }
    assert f'adds_total{{result="captured"}} {len(pods) + 1}' in metrics.read_text()
    for _, container in pods:
        runtime.check(container)


def test_the_log_file_has_every_pod(cluster: Cluster) -> None:
    log = cluster.node.directory / "cni.log"
    runtime = cluster.runtime(log_file=str(log))
    runtime.add(cluster.pod()[1])
    runtime.add(cluster.pod({}, name="plain")[1])
    lines = log.read_text().splitlines()
    assert any("ADD pod shop/web: done" in line for line in lines)
    assert any("ADD pod shop/plain: no rules: " in line and "(no-status)" in line for line in lines)
    assert all(line[:4].isdigit() and line.split("\t")[1] in ("info", "warn", "error") for line in lines)
