"""Which pods the CNI plugin makes rules for: each reason not to, in Istio's order, and what is not known."""

from __future__ import annotations

import json

import pytest

from istio_iptables.cni.configuration import read
from istio_iptables.cni.decision import REASONS, Skip, decide
from istio_iptables.cni.pod import Identity, KnownPod, of_annotations, of_api
from istio_iptables.cni.protocol import CniError
from tests.support.cni import INJECTED, RESULT, STATUS, call, configuration, variables

WHO = Identity("web", "shop")
NODE = {"plugin_namespace": "istio-system", "exclude_namespaces": ["kube-system", "monitoring"]}
AMBIENT = {"ambient.istio.io/redirection": "enabled"}
NONE = {"sidecar.istio.io/interceptionMode": "NONE"}
OFF = {"sidecar.istio.io/inject": "false"}
DISABLED = {"proxy.istio.io/config": '{"proxyMetadata": {"DISABLE_ENVOY": "true"}}'}


def status(**lists: object) -> dict[str, str]:
    return {STATUS: json.dumps(lists)}


def reason(annotations: dict[str, str], who: Identity = WHO) -> str:
    """Return why a pod with these annotations gets no rules, nothing if it gets some."""
    found = decide(who, read(NODE), lambda: of_annotations(who, annotations))
    return found.reason if isinstance(found, Skip) else ""


def manifest(
    annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, **proxy: object
) -> str:
    """Return a pod as the API has it; `proxy` are fields of its container istio-proxy, none means no such."""
    containers = [{"name": "app", "image": "app"}]
    if proxy:
        containers.append({"name": "istio-proxy", **proxy})  # type: ignore[dict-item]
    return json.dumps(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations, "labels": labels},
            "spec": {"containers": containers},
        }
    )


def reason_by_api(text: str) -> str:
    found = decide(WHO, read(NODE), lambda: of_api(text, WHO))
    return found.reason if isinstance(found, Skip) else ""


# --- by annotations -------------------------------------------------------------------------


def test_an_injected_pod_gets_rules():
    assert reason(INJECTED) == ""
    assert reason(status(initContainers=["istio-validation", "istio-proxy"], containers=None)) == ""


@pytest.mark.parametrize(
    ("wanted", "who", "annotations"),
    [
        ("no-pod-name", Identity("", ""), INJECTED),
        ("own-pod", Identity("istio-iptables-cni-x7k2p", "istio-system"), INJECTED),
        ("namespace-excluded", Identity("web", "monitoring"), INJECTED),
        ("ambient", WHO, {**INJECTED, **AMBIENT}),
        ("istio-init", WHO, status(initContainers=["istio-init"], containers=["istio-proxy"])),
        ("envoy-disabled", WHO, {**INJECTED, **DISABLED}),
        ("no-istio-proxy", WHO, status(initContainers=["istio-validation"], containers=["app"])),
        ("no-istio-proxy", WHO, status(initContainers=None, containers=None)),
        ("injection-off", WHO, {**INJECTED, **OFF}),
        ("no-status", WHO, {}),
        ("mode-none", WHO, {**INJECTED, **NONE}),
    ],
)
def test_a_reason_by_annotations(wanted, who, annotations):
    assert reason(annotations, who) == wanted


@pytest.mark.parametrize(
    "annotations",
    [
        {**INJECTED, "sidecar.istio.io/inject": "true"},
        {**INJECTED, "sidecar.istio.io/inject": "no"},  # not a boolean of Go: Istio ignores it
        {**INJECTED, "sidecar.istio.io/inject": ""},
        {**INJECTED, "ambient.istio.io/redirection": "disabled"},
        {**INJECTED, "proxy.istio.io/config": '{"proxyMetadata": {"DISABLE_ENVOY": "yes"}}'},
        status(initContainers=["istio-validation"]),  # which containers there are is not known
    ],
)
def test_what_is_no_reason(annotations):
    assert reason(annotations) == ""


@pytest.mark.parametrize(
    "who",
    [
        Identity("istio-iptables-cni-x7k2p", "shop"),  # anybody may call a pod so, elsewhere
        Identity("web", "istio-system"),
    ],
)
def test_a_pod_of_another_name_or_namespace_is_not_the_plugins_own(who):
    assert reason(INJECTED, who) == ""


def test_nothing_is_asked_for_a_pod_that_its_name_decides():
    def ask() -> KnownPod:
        raise AssertionError("asked")

    for who in (
        Identity("", ""),
        Identity("istio-iptables-cni-x", "istio-system"),
        Identity("a", "kube-system"),
    ):
        assert isinstance(decide(who, read(NODE), ask), Skip)


# --- by the API -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("", manifest(INJECTED, args=["proxy", "sidecar"])),
        ("", manifest(INJECTED, args=["proxy", "--domain", "x"])),
        ("", manifest(INJECTED, command=["/usr/local/bin/pilot-agent"], args=["proxy", "sidecar"])),
        ("ambient", manifest(AMBIENT, args=["proxy", "sidecar"])),
        ("ambient", manifest({}, {"istio.io/dataplane-mode": "ambient"})),
        ("", manifest(INJECTED, {"istio.io/dataplane-mode": "ambient"}, args=["proxy", "sidecar"])),
        ("envoy-disabled", manifest(INJECTED, env=[{"name": "DISABLE_ENVOY", "value": "1"}])),
        ("no-istio-proxy", manifest(INJECTED)),
        ("no-istio-proxy", manifest({})),
        ("not-a-sidecar", manifest(INJECTED, args=["proxy", "router"])),
        ("not-a-sidecar", manifest(INJECTED, command=["pilot-agent", "proxy", "waypoint"])),
        ("injection-off", manifest(INJECTED, {"sidecar.istio.io/inject": "false"}, args=["proxy"])),
        ("", manifest({**INJECTED, **OFF}, {"sidecar.istio.io/inject": "true"}, args=["proxy"])),
        ("no-status", manifest({}, args=["proxy", "sidecar"])),
        ("mode-none", manifest({**INJECTED, **NONE}, args=["proxy", "sidecar"])),
    ],
)
def test_a_reason_by_the_api(wanted, text):
    assert reason_by_api(text) == wanted


def test_a_container_istio_init_is_seen_in_the_pod_itself():
    pod = json.loads(manifest(INJECTED, args=["proxy", "sidecar"]))
    pod["spec"]["initContainers"] = [{"name": "istio-init"}]
    assert reason_by_api(json.dumps(pod)) == "istio-init"


@pytest.mark.parametrize("text", ["x: [", "{}", '{"kind": "Pod", "metadata": {"name": "other"}, "spec": {}}'])
def test_another_answer_of_the_api_is_tried_again(text):
    with pytest.raises(CniError) as caught:
        of_api(text, WHO)
    assert caught.value.code == 11


# --- the order ------------------------------------------------------------------------------

#: What gives a pod each reason, in Istio's order; together they give it all.
IN_ORDER = (
    ("ambient", lambda pod: pod["metadata"]["annotations"].update(AMBIENT)),
    ("istio-init", lambda pod: pod["spec"].update(initContainers=[{"name": "istio-init"}])),
    (
        "envoy-disabled",
        lambda pod: pod["spec"]["containers"][1].update(env=[{"name": "DISABLE_ENVOY", "value": "true"}]),
    ),
    ("not-a-sidecar", lambda pod: pod["spec"]["containers"][1].update(args=["proxy", "router"])),
    ("injection-off", lambda pod: pod["metadata"]["annotations"].update(OFF)),
    ("no-status", lambda pod: pod["metadata"]["annotations"].pop(STATUS)),
    ("mode-none", lambda pod: pod["metadata"]["annotations"].update(NONE)),
)


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_the_first_reason_in_istios_order_is_given(first):
    pod = json.loads(manifest(dict(INJECTED), args=["proxy", "sidecar"]))
    for _, give in IN_ORDER[first:]:
        give(pod)
    assert reason_by_api(json.dumps(pod)) == IN_ORDER[first][0]


def test_a_pod_without_proxy_is_told_so_before_its_annotations_are_looked_at():
    assert reason_by_api(manifest({**OFF, **NONE})) == "no-istio-proxy"
    assert reason({**AMBIENT, **status(initContainers=["istio-init"], containers=[])}) == "ambient"
    excluded = Identity("istio-iptables-cni-x", "kube-system")
    assert reason({**INJECTED, **AMBIENT}, excluded) == "namespace-excluded"
    assert reason(status(initContainers=["istio-init"], containers=[])) == "istio-init"
    assert reason({**status(initContainers=[], containers=[]), **DISABLED}) == "envoy-disabled"


def test_the_order_is_that_of_the_list():
    names = [name for name, _ in IN_ORDER]
    assert [r for r in REASONS if r in names] == names
    assert REASONS.index("envoy-disabled") < REASONS.index("no-istio-proxy") < REASONS.index("not-a-sidecar")
    assert REASONS[:3] == ("no-pod-name", "own-pod", "namespace-excluded")


# --- what a runtime and an operator see -----------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "environ", "annotations"),
    [
        ("no-pod-name", variables(name=""), INJECTED),
        ("own-pod", variables(name="istio-iptables-cni-x", namespace="istio-system"), INJECTED),
        ("namespace-excluded", variables(namespace="kube-system"), INJECTED),
        ("ambient", variables(), {**INJECTED, **AMBIENT}),
        ("istio-init", variables(), status(initContainers=["istio-init"], containers=["istio-proxy"])),
        ("envoy-disabled", variables(), {**INJECTED, **DISABLED}),
        ("no-istio-proxy", variables(), status(initContainers=[], containers=[])),
        ("injection-off", variables(), {**INJECTED, **OFF}),
        ("no-status", variables(), {}),
        ("mode-none", variables(), {**INJECTED, **NONE}),
    ],
)
@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_skipped_pod_passes_on_the_result_with_one_log_line(
    monkeypatch, command, wanted, environ, annotations
):
    given = configuration(annotations, plugin_namespace="istio-system")
    found = call(monkeypatch, {**environ, "CNI_COMMAND": command}, given)
    assert found.status == 0
    assert found.document == (RESULT if command == "ADD" else None)
    assert [line for line in found.log if f"({wanted})" in line] == list(found.log)
    assert found.log[0].startswith("info ")
