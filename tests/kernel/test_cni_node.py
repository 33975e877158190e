"""The plugin on a node: files that need nothing there, and a process without rights that keeps it there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from istio_iptables.cni import configuration as configuration_of_node
from istio_iptables.cni.names import PLUGIN
from istio_iptables.cni.node import tree
from istio_iptables.cni.node.broken import broken
from istio_iptables.cni.node.in_place import write_rules
from istio_iptables.errors import KernelError
from tests.support import broken_pods
from tests.support.cni import INJECTED, Recorder, configuration, variables
from tests.support.cni_node import (
    LIST,
    Agent,
    bare_root,
    calls_of_a_pods_life,
    cni,
    environment,
    folders,
    is_chained,
    launcher,
    make_node,
    why_no_launcher,
)
from tests.support.kubernetes_api import Api, certificate
from tests.support.netns import Namespace

pytestmark = pytest.mark.skipif(bool(why_no_launcher()), reason=why_no_launcher() or "-")

#: The largest tree, in bytes.
MOST = 60_000_000
#: Everything that a container of the DaemonSet may not do.
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A node with the plugin's files."""
    node = make_node(tmp_path_factory.mktemp("node"))
    assert tree.install(str(node / "bin"), str(launcher()))
    yield node
    shutil.rmtree(node)


# --- the files --------------------------------------------------------------------------------------


def test_the_tree_is_small_and_whole(installed: Path):
    found = Path(tree.installed(str(installed / "bin")))
    assert sum(path.lstat().st_size for path in found.rglob("*")) < MOST
    assert tree.install(str(installed / "bin"), str(launcher())) == []  # the same again is the same
    assert [path.name for path in found.parent.iterdir()] == [found.name]


def test_it_runs_where_there_is_nothing(installed: Path):
    """No Python, no shell, no C library: a root file system with nothing but the plugin's folder."""
    root = Path(bare_root(installed)[-1])
    assert {path.name for path in root.iterdir()} == {"opt", "proc", "run"}
    with Namespace() as pod:
        rules = calls_of_a_pods_life(installed, pod)
    assert "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001" in rules


def test_programs_of_the_node_are_not_used(installed: Path):
    """Another iptables would be given the tree's extensions. What is there now cannot run at all."""
    prefix = bare_root(installed)
    folder = Path(prefix[-1]) / "usr/sbin"
    folder.mkdir(parents=True)
    for name in ("iptables-nft-save", "iptables-nft-restore", "xtables-nft-multi", "nft"):
        (folder / name).write_text("no program")
        (folder / name).chmod(0o755)
    try:
        with Namespace() as pod:
            pod.ip("link add eth0 type veth peer name p0", "addr add 10.1.0.5/16 dev eth0")
            call = variables(CNI_NETNS=f"/run/netns/{pod.name}", PATH="/usr/sbin")
            for settings in ({"force-iptables-binary": "nft"}, {"native-nftables": True}):
                asked = json.dumps(configuration(settings=settings))
                done = subprocess.run(
                    [*prefix, f"/opt/cni/bin/{PLUGIN}"],
                    input=asked,
                    env={**call, "PATH": os.environ["PATH"]},
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, done.stdout
                assert pod.run(["nft", "flush", "ruleset"]).returncode == 0
    finally:
        shutil.rmtree(folder.parent)


def test_it_asks_the_kubernetes_api_from_there(installed: Path, tmp_path: Path):
    """Where the runtime hands over no annotations: by the part of the client library that is in the tree."""
    pytest.importorskip("kubernetes")
    certificate(tmp_path)
    api = Api(tmp_path)
    try:
        found = broken_pods.pod("web")
        found["metadata"]["annotations"] = INJECTED
        api.put(found)
        prefix = bare_root(installed)
        (Path(prefix[-1]) / "tmp").mkdir(exist_ok=True)
        shutil.copy(api.kubeconfig(), Path(prefix[-1]) / "tmp/kubeconfig")
        asked = json.dumps(configuration(None, kubeconfig="/tmp/kubeconfig", api_timeout="60s"))
        command = [*prefix, f"/opt/cni/bin/{PLUGIN}"]
        call = {**variables(), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command, input=asked, env=call, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        api.stop()
    assert done.returncode == 0, done.stdout
    assert "it has no container istio-proxy" in done.stderr  # which no annotation tells
    assert [path for path, _, _ in api.asked("GET")] == ["/api/v1/namespaces/shop/pods/web"]


@pytest.mark.parametrize("program", ["iptables-legacy-restore", "ip6tables-nft-save", "nft"])
def test_its_programs_run_there_too(installed: Path, program: str):
    path = f"/opt/cni/bin/{tree.TREES}/{Path(tree.installed(str(installed / 'bin'))).name}/bin/{program}"
    command = [*bare_root(installed), path, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "v1." in done.stdout


def test_it_starts_as_fast_as_the_interpreter_here(installed: Path):
    """The same work by the interpreter of this environment with -I -S: processor time, the least of a few."""
    script = f"import sys; sys.path += {sys.path!r}; from istio_iptables.__main__ import cni; sys.exit(cni())"
    here = [sys.executable, "-I", "-S", "-c", script]
    there = [str(installed / "bin" / PLUGIN)]
    times = {True: 1e9, False: 1e9}
    for _ in range(15):
        for is_there, command in ((True, there), (False, here)):
            times[is_there] = min(times[is_there], processor_time(command))
    assert times[True] < times[False] * 1.25, times


def processor_time(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_new_version_replaces_the_files_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The one before stays for runs that began with it; earlier ones go."""
    monkeypatch.setattr(tree, "_modules", lambda _: iter(()))  # most of the files, and nothing new here
    node = make_node(tmp_path / "node")
    seen: list[str] = []
    for version in (b"one", b"two", b"six"):
        other = tmp_path / "launcher"
        other.write_bytes(
            launcher().read_bytes().replace(b"cannot be started", b"cannot be sta" + version + b"d")
        )
        tree.install(str(node / "bin"), str(other))
        seen.append(Path(tree.installed(str(node / "bin"))).name)
        assert {path.name for path in (node / "bin" / tree.TREES).iterdir()} == set(seen[-2:])
    assert len(set(seen)) == 3


# --- the process that keeps it there -------------------------------------------------------------------


def read_only(node: Path, *capabilities: str) -> list[str]:
    """The beginning of a command that has the container's rights: a read-only root, and no capabilities."""
    script = 'mount --bind "$0" "$0"; mount -o remount,bind,ro /; exec "$@"'
    kept = [f"--bounding-set=-all,{','.join(f'+{name}' for name in capabilities)}"] if capabilities else []
    rights = ["setpriv", *(kept or WITHOUT_RIGHTS[1:2]), *WITHOUT_RIGHTS[2:]]
    return ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, str(node), *rights]


def test_the_agent_keeps_it_there_without_any_right(tmp_path: Path):
    node = make_node(tmp_path / "node")
    launcher()
    with Agent(node, prefix=read_only(node)) as agent:
        agent.wait_for(agent.is_ready)
        assert is_chained(node)
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        for name in ("10-net.conflist", "05-other.conflist"):
            (node / "conf/new").write_text(LIST.replace("portmap", name))
            (node / "conf/new").rename(node / "conf" / name)
            agent.wait_for(partial(is_chained, node, name))
        agent.wait_for(lambda: not is_chained(node))  # another list is used now
        (node / "bin" / tree.TREES).rename(node / "gone")  # in one step: it is put back at once
        agent.wait_for(lambda: bool(tree.installed(str(node / "bin"))))
        agent.wait_for(agent.is_ready)
        assert agent.get("/healthz") == (200, "ok\n")
        assert agent.get("/nothing")[0] == 404
        code, metrics = agent.get("/metrics")
        assert code == 200
        for line in ("istio_iptables_cni_in_place 1", 'istio_iptables_cni_adds_total{result="captured"} 0'):
            assert line in metrics.splitlines()
        assert agent.terminate() == 0
    assert PLUGIN in (node / "conf/05-other.conflist").read_text()  # nothing is taken out when it ends
    done = cni("status", *folders(node))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_waits_for_the_network(tmp_path: Path):
    node = make_node(tmp_path / "node", "{")
    with Agent(node) as agent:
        agent.wait_for(lambda: "has no valid network configuration" in agent.log)
        agent.wait_for(lambda: os.path.exists(agent.address))
        code, text = agent.get("/readyz")
        assert (code, "no valid network" in text) == (503, True)
        assert "istio_iptables_cni_in_place 0" in agent.get("/metrics")[1]
        (node / "conf/10-net.conflist").write_text(LIST)
        agent.wait_for(agent.is_ready)
    assert is_chained(node)


@pytest.mark.parametrize(
    ("capabilities", "mode", "code", "owner"),
    [
        ((), 0o600, 1, 1001),  # a file of another user that may not be read
        (("dac_override",), 0o600, 0, 0),
        (("dac_override", "chown"), 0o600, 0, 1001),
        ((), 0o644, 0, 0),
    ],
)
def test_which_capabilities_a_node_with_files_of_others_needs(
    tmp_path: Path, capabilities: tuple[str, ...], mode: int, code: int, owner: int
):
    node = make_node(tmp_path / "node")
    path = node / "conf/10-net.conflist"
    os.chown(path, 1001, 1001)
    path.chmod(mode)
    script = (
        "import sys; from istio_iptables.cni.node.folder import Folder; "
        "from istio_iptables.cni.node.placement import put; "
        f"put(Folder(sys.argv[1]), 'chained', {{'type': {PLUGIN!r}}})"
    )
    command = [*read_only(node, *capabilities), sys.executable, "-c", script, str(node / "conf")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert path.stat().st_uid == owner
    assert is_chained(node) is (code == 0)


# --- the commands ---------------------------------------------------------------------------------------


def test_install_status_and_uninstall(tmp_path: Path):
    node = make_node(tmp_path / "node")
    before = cni("status", *folders(node))
    assert before.returncode == 3
    assert [line.split(": ")[-1] for line in before.stdout.splitlines()] == [
        "the plugin cannot be started from there",
        f"{PLUGIN} is not in it",
    ]
    (node / "plugin.yaml").write_text("settings: {redirect-dns: true}\nexclude_namespaces: [a, b]\n")
    more = [f"--plugin-config={node / 'plugin.yaml'}"]
    assert cni("install", *folders(node), *more, f"--launcher={launcher()}").returncode == 0
    entry = json.loads((node / "conf/10-net.conflist").read_text())["plugins"][-1]
    assert (entry["settings"], entry["exclude_namespaces"]) == ({"redirect-dns": True}, ["a", "b"])
    assert cni("status", *folders(node), *more).returncode == 0
    other = cni("status", "--json", *folders(node))  # other settings are wanted
    assert other.returncode == 3
    assert "not in it as it should be" in json.loads(other.stdout)["problems"][0]
    assert cni("uninstall", *folders(node)).returncode == 0
    assert (node / "conf/10-net.conflist").read_text() == LIST
    assert tree.installed(str(node / "bin"))
    assert cni("uninstall", "--remove-files", *folders(node)).returncode == 0
    assert list((node / "bin").iterdir()) == []


def test_mistakes_are_named_and_nothing_is_changed(tmp_path: Path):
    node = make_node(tmp_path / "node")
    (node / "plugin.yaml").write_text("settings: {redirect-dns: maybe, envoy-prt: 1}\nexclude: []\n")
    done = cni("install", *folders(node), f"--plugin-config={node / 'plugin.yaml'}")
    assert done.returncode == 2
    assert sorted(line.split(": ")[0] for line in done.stderr.splitlines()) == [
        "exclude",
        "settings",
        "settings",
    ]
    for wrong in (["--listen=:1"], ["--repair=label"], ["--mode=other"]):
        assert cni("install", *folders(node), *wrong).returncode == 2
    assert cni("install", "--watch", "--listen=nowhere", *folders(node)).returncode == 2
    (node / "plugin.yaml").write_text("[")
    assert cni("install", *folders(node), f"--plugin-config={node / 'plugin.yaml'}").returncode == 2
    assert cni("install", f"--conf-dir={node / 'none'}").returncode == 1
    assert not is_chained(node)
    assert list((node / "bin").iterdir()) == []


def test_doctor_looks_at_the_node(tmp_path: Path, installed: Path):
    node = make_node(tmp_path / "node")
    done = doctor(node)
    assert {name for name, status in done.items() if status == "FAIL"} >= {"cni-configuration", "cni-files"}
    assert cni("install", *folders(node), f"--launcher={launcher()}").returncode == 0
    assert doctor(node) == {"cni-configuration": "OK", "cni-files": "OK", "cni-status": "OK"}
    (node / "conf/00-first.conflist").write_text(LIST)
    assert doctor(node)["cni-configuration"] == "FAIL"


def doctor(node: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "istio_iptables", "doctor", "--json", *folders(node)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    checks = json.loads(done.stdout)["checks"]
    return {check["name"]: check["status"] for check in checks if check["name"].startswith("cni-")}


def test_the_rules_of_a_running_pod_are_written_in_place():
    """Found by the control group of its process, which kubelet names after the pod's UID."""
    found = broken_pods.injected()
    pod = broken(found)
    assert pod
    node = configuration_of_node.read(configuration_of_node.entry({"metrics_file": ""}))
    with pytest.raises(KernelError, match="no process of it is seen here"):
        write_rules(pod, json.dumps(found), node, Recorder())
    with Namespace() as network, broken_pods.running(found, network):
        network.ip(
            "link add eth0 type veth peer name p0", "addr add 10.1.0.5/16 dev eth0", "link set eth0 up"
        )
        write_rules(pod, json.dumps(found), node, Recorder())
        rules = network.run(["iptables-legacy-save"]).stdout + network.run(["iptables-nft-save"]).stdout
    assert "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001" in rules
    found["metadata"]["annotations"] = {}
    with pytest.raises(KernelError, match="it gets no rules"):
        write_rules(pod, json.dumps(found), node, Recorder())
