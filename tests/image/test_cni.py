"""The image of the CNI plugin's installer, with the rights of the DaemonSet, and what it puts on a node."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from istio_iptables.cni.names import PLUGIN
from tests.image.podman import ALONE, CNI_IMAGE, IMAGE, engine, new_name, remove, run
from tests.support.cni_node import LIST, calls_of_a_pods_life, is_chained, make_node
from tests.support.kubernetes_api import certificate
from tests.support.netns import ROOT, Namespace, Outcome

#: The largest tree that is put on a node, in bytes.
MOST = 60_000_000


def container_of_the_daemonset() -> Any:
    text = (ROOT / "deploy/cni/daemonset.yaml").read_text()
    return yaml.safe_load(text)["spec"]["template"]["spec"]["containers"][0]


def rights() -> list[str]:
    """The options that give a container the rights of the DaemonSet's; podman's names for what is there."""
    context = container_of_the_daemonset()["securityContext"]
    assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
    who = f"--user={context['runAsUser']}:{context['runAsGroup']}"
    dropped = [f"--cap-drop={name.lower()}" for name in context["capabilities"]["drop"]]
    return [who, *dropped, "--read-only", "--read-only-tmpfs=false", "--security-opt=no-new-privileges"]


def folders(node: Path) -> list[str]:
    """The options that mount a node's folders where the DaemonSet has them."""
    mounts = {m["name"]: m["mountPath"] for m in container_of_the_daemonset()["volumeMounts"]}
    return [f"--volume={node / name}:{mounts[name]}" for name in ("conf", "bin")]


def in_the_daemonset(node: Path, *words: str) -> Outcome:
    """Run a command of `istio-iptables cni` in the image, with a node's folders as the DaemonSet has them."""
    given = container_of_the_daemonset()["args"]
    where = [word for word in given if word.startswith(("--conf-dir=", "--bin-dir="))]
    options = (*ALONE, *rights(), *folders(node))
    return run("istio-iptables", "cni", *words, *where, options=options, image=CNI_IMAGE)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node on which the image has installed the plugin."""
    made = make_node(tmp_path_factory.mktemp("node"))
    done = in_the_daemonset(made, "install")
    assert done.code == 0, done
    return made


@pytest.mark.parametrize("image", [IMAGE, CNI_IMAGE])
def test_the_plugin_answers_in_the_image(image: str) -> None:
    done = run(
        options=(*ALONE, *rights()),
        entrypoint=PLUGIN,
        env={"CNI_COMMAND": "VERSION"},
        image=image,
    )
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["supportedVersions"][0] == "0.3.1"


def test_it_puts_the_plugin_on_a_node(node: Path) -> None:
    assert is_chained(node)
    assert (node / "bin" / PLUGIN).readlink().parts[-1] == "launch"
    assert sum(path.lstat().st_size for path in (node / "bin").rglob("*")) < MOST
    assert in_the_daemonset(node, "status").code == 0
    assert "nothing to do" in in_the_daemonset(node, "install").err


def test_what_is_on_the_node_needs_nothing_there(node: Path) -> None:
    with Namespace() as pod:
        rules = calls_of_a_pods_life(node, pod)
    assert "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001" in rules


def test_it_goes_away_again(tmp_path: Path) -> None:
    there = make_node(tmp_path / "node")
    assert in_the_daemonset(there, "install").code == 0
    assert in_the_daemonset(there, "uninstall", "--remove-files").code == 0
    assert (there / "conf/10-net.conflist").read_text() == LIST
    assert os.listdir(there / "bin") == []


def test_the_daemonsets_container_gets_ready_while_the_api_does_not_answer(tmp_path: Path) -> None:
    """Its arguments and its probes, as they are; the API has an address that nobody answers at."""
    there = make_node(tmp_path / "node")
    (there / "token").write_text("secret")
    certificate(there)
    wanted = container_of_the_daemonset()
    (plugin,) = (m["mountPath"] for m in wanted["volumeMounts"] if m["name"] == "plugin")
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    files = {
        there / "token": f"{account}/token",
        there / "cert.pem": f"{account}/ca.crt",
        ROOT / "deploy/cni/plugin.yaml": f"{plugin}/plugin.yaml",
    }
    volumes = [f"--volume={here}:{inside}:ro" for here, inside in files.items()]
    variables = {"NODE_NAME": "n1", "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    env = [f"--env={name}={value}" for name, value in variables.items()]
    name, options = new_name(), [*ALONE, *rights(), *folders(there), *volumes, *env]
    port = wanted["ports"][0]["containerPort"]
    try:
        engine("run", "--detach", f"--name={name}", *options, CNI_IMAGE, *wanted["args"])
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = wanted[probe]["httpGet"]["path"]
            done = engine(
                "exec", name, "python3", "-c", _PROBE, f"http://127.0.0.1:{port}{path}", check=False
            )
            assert done.out == "ok\n", (probe, done, engine("logs", name))
        assert is_chained(there)
        assert "the Kubernetes API cannot be reached" in engine("logs", name).err
        engine("stop", "--time=5", name)
        assert engine("inspect", "--format={{.State.ExitCode}}", name).out == "0\n"
    finally:
        remove(name)


#: Asks until the answer is that all is well, for half a minute.
_PROBE = """
import sys, time, urllib.request
for _ in range(300):
    try:
        sys.exit(sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode()) and 0)
    except OSError:
        time.sleep(0.1)
"""


#: Prints the processor time that each of some programs takes to answer VERSION, the least of a few.
_MEASURE = """
import json, os, resource, subprocess, sys
def once(words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = {"CNI_COMMAND": "VERSION"}
    subprocess.run(words, env=asked, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
least = {}
for _ in range(25):
    for words in sys.argv[1:]:
        least[words] = min(once(words.split()), least.get(words, 1e9))
print(json.dumps(list(least.values())))
"""


def test_it_starts_on_a_node_as_fast_as_in_the_image(node: Path) -> None:
    """By turns in one container, each with the interpreter and the bytecode that it is shipped with."""
    programs = (f"/opt/istio-iptables/bin/{PLUGIN}", f"/host/bin/{PLUGIN}")
    options = (*ALONE, *rights(), f"--volume={node / 'bin'}:/host/bin:ro")
    measured = run("-c", _MEASURE, *programs, options=options, entrypoint="python3")
    assert measured.code == 0, measured
    image, tree = json.loads(measured.out)
    assert tree < image * 1.25
