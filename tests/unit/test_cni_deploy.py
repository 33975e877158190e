"""deploy/cni and cni-uninstall: objects that Kubernetes takes, rights that are needed, arguments that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from istio_iptables.cni import configuration
from istio_iptables.cni.names import METRICS_FILE
from istio_iptables.settings.go_flags import read_arguments
from tests.support.cases import all_cases
from tests.support.kubernetes import built, validate

CNI = Path(__file__).parents[2] / "deploy/cni"
UNINSTALL = CNI.with_name("cni-uninstall")


def documents(name: str) -> list[Any]:
    return [document for document in yaml.safe_load_all((CNI / name).read_text()) if document]


(DAEMONSET,) = documents("daemonset.yaml")
RBAC = documents("rbac.yaml")


@pytest.fixture(scope="module")
def uninstall() -> Any:
    """The DaemonSet that deploy/cni-uninstall makes of the installer's."""
    return daemonset(built(UNINSTALL))


def daemonset(things: list[Any]) -> Any:
    (found,) = (thing for thing in things if thing["kind"] == "DaemonSet")
    return found


@all_cases("thing", [DAEMONSET, *RBAC], ids=lambda thing: thing["kind"])
def test_kubernetes_takes_it(thing: Any):
    validate(thing)


def test_no_right_that_is_not_needed():
    require_no_right(DAEMONSET)


def require_no_right(daemonset: Any) -> None:
    spec = daemonset["spec"]["template"]["spec"]
    assert not any(spec.get(name) for name in ("hostPID", "hostIPC", "shareProcessNamespace"))
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
        assert context["readOnlyRootFilesystem"] is True
    written = {v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    assert written == {"/etc/cni/net.d", "/opt/cni/bin", str(Path(METRICS_FILE).parent)}


def test_it_runs_on_every_node_before_others_and_one_node_is_upgraded_first():
    spec = DAEMONSET["spec"]
    pod = spec["template"]["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["hostNetwork"] is True  # no plugin is called for it, ours neither
    (container,) = pod["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


def test_the_arguments_are_those_of_the_tool_and_of_the_mounts():
    (container,) = DAEMONSET["spec"]["template"]["spec"]["containers"]
    found = read_arguments(container["args"])
    assert found.mistakes == ()
    options = {given.setting.name: given.text for given in found.options}
    assert (found.command, options["watch"], options["repair"]) == ("cni install", "true", "delete")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (options["conf-dir"], options["bin-dir"]) == (mounts["conf"], mounts["bin"])
    assert options["plugin-config"].startswith(mounts["plugin"])
    assert options["listen"] == f":{container['ports'][0]['containerPort']}"


def test_the_rights_are_those_of_what_repair_does():
    (role,) = [thing for thing in RBAC if thing["kind"] == "ClusterRole"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]}]
    names = {thing["metadata"]["name"] for thing in (*RBAC, DAEMONSET)}
    assert names == {DAEMONSET["spec"]["template"]["spec"]["serviceAccountName"]}


def test_the_plugins_configuration_is_one():
    (keys,) = documents("plugin.yaml")
    assert configuration.read(configuration.entry(keys)).exclude_namespaces == ("kube-system", "istio-system")


# --- what kustomize makes of it -----------------------------------------------------------------


@pytest.mark.parametrize("folder", [CNI, UNINSTALL], ids=lambda path: path.name)
def test_kubernetes_takes_what_kustomize_makes(folder: Path):
    things = built(folder)
    assert sorted(thing["kind"] for thing in things) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "ServiceAccount",
    ]
    for thing in things:
        validate(thing)


@pytest.mark.parametrize("folder", [CNI, UNINSTALL], ids=lambda path: path.name)
def test_names_fit_each_other(folder: Path):
    """One namespace, one image, and the ConfigMap by the name that its content has given it."""
    things = {thing["kind"]: thing for thing in built(folder)}
    namespaces = {thing["metadata"].get("namespace") for kind, thing in things.items() if "Role" not in kind}
    assert namespaces == {"istio-system"}
    assert things["ClusterRoleBinding"]["subjects"][0]["namespace"] == "istio-system"
    spec = things["DaemonSet"]["spec"]["template"]["spec"]
    assert spec["volumes"][-1]["configMap"]["name"] == things["ConfigMap"]["metadata"]["name"]
    assert things["ConfigMap"]["data"] == {"plugin.yaml": (CNI / "plugin.yaml").read_text()}
    (named,) = documents("kustomization.yaml")[0]["images"]
    images = {container["image"] for container in (*spec.get("initContainers", ()), *spec["containers"])}
    assert images == {f"{named['newName']}:{named['newTag']}"}


def test_the_way_out_takes_the_plugin_out_with_the_folders_and_the_rights_of_the_installer(uninstall: Any):
    require_no_right(uninstall)
    spec = uninstall["spec"]["template"]["spec"]
    (first,), (then,) = spec["initContainers"], spec["containers"]
    found = read_arguments(first["args"])
    assert (found.mistakes, found.command) == ((), "cni uninstall")
    (installer,) = DAEMONSET["spec"]["template"]["spec"]["containers"]
    options = [word for word in first["args"] if word.startswith(("--conf-dir", "--bin-dir"))]
    assert set(options) <= set(installer["args"])
    assert first["volumeMounts"] == [m for m in installer["volumeMounts"] if m["name"] in ("conf", "bin")]
    assert then["command"] == ["sleep", "infinity"]
    assert not any(name.endswith("Probe") for name in then)
    assert uninstall["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%"}
