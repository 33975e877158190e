"""deploy/cni: objects that Kubernetes takes, no more rights than needed, arguments that the tool takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from istio_iptables.cni import configuration
from istio_iptables.cni.names import METRICS_FILE
from istio_iptables.settings.go_flags import read_arguments
from tests.support.cases import all_cases
from tests.support.kubernetes import validate

CNI = Path(__file__).parents[2] / "deploy/cni"


def documents(name: str) -> list[Any]:
    return [document for document in yaml.safe_load_all((CNI / name).read_text()) if document]


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge of what the patch here has: mappings, null, and lists of things with names."""
    if isinstance(base, dict) and isinstance(patch, dict):
        keys = [key for key in (*base, *patch) if patch.get(key, base.get(key)) is not None]
        return {
            key: merged(base.get(key), patch[key]) if key in patch else base[key]
            for key in dict.fromkeys(keys)
        }
    if isinstance(patch, list) and patch and isinstance(patch[0], dict) and isinstance(base, list):
        found = {member["name"]: member for member in base}
        for member in patch:
            found[member["name"]] = merged(found.get(member["name"], {}), member)
        return list(found.values())
    return patch


(DAEMONSET,) = documents("daemonset.yaml")
(PATCH,) = documents("uninstall/uninstall.yaml")
UNINSTALL = merged(DAEMONSET, PATCH)
RBAC = documents("rbac.yaml")


@all_cases("thing", [DAEMONSET, UNINSTALL, *RBAC], ids=lambda thing: thing["kind"])
def test_kubernetes_takes_it(thing: Any):
    validate(thing)


@pytest.mark.parametrize("daemonset", [DAEMONSET, UNINSTALL], ids=["install", "uninstall"])
def test_no_right_that_is_not_needed(daemonset: Any):
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
    (uninstall,) = UNINSTALL["spec"]["template"]["spec"]["initContainers"]
    assert read_arguments(uninstall["args"]).mistakes == ()
    assert read_arguments(uninstall["args"]).command == "cni uninstall"
    assert [c["command"] for c in UNINSTALL["spec"]["template"]["spec"]["containers"]] == [
        ["sleep", "infinity"]
    ]


def test_the_rights_are_those_of_what_repair_does():
    (role,) = [thing for thing in RBAC if thing["kind"] == "ClusterRole"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]}]
    names = {thing["metadata"]["name"] for thing in (*RBAC, DAEMONSET)}
    assert names == {DAEMONSET["spec"]["template"]["spec"]["serviceAccountName"]}


def test_the_plugins_configuration_is_one():
    (keys,) = documents("plugin.yaml")
    assert configuration.read(configuration.entry(keys)).exclude_namespaces == ("kube-system", "istio-system")


def test_kustomize_names_files_that_are_there():
    (base,) = documents("kustomization.yaml")
    (way_out,) = documents("uninstall/kustomization.yaml")
    files = [*base["resources"], *base["configMapGenerator"][0]["files"]]
    files += [f"uninstall/{patch['path']}" for patch in way_out["patches"]]
    assert all((CNI / name).is_file() for name in files)
    assert (
        base["configMapGenerator"][0]["name"]
        == DAEMONSET["spec"]["template"]["spec"]["volumes"][-1]["configMap"]["name"]
    )
    assert base["images"][0]["name"] == DAEMONSET["spec"]["template"]["spec"]["containers"][0]["image"]
