"""Manifests: which pods are in a text, and which settings each of them means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables import SettingsError, configure, pod_settings
from istio_iptables.cli.collect import collect
from istio_iptables.pod import Pod, pick, pods, read_settings
from istio_iptables.pod.annotations import ANNOTATIONS, NAMES, VARIABLES
from istio_iptables.pod.container import container_settings, for_entry
from istio_iptables.settings.config import Config
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.positions import position
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.settings.yaml_text import Unquoted, Unreadable, read_documents
from tests.support.manifests import (
    FACTS,
    TRAFFIC,
    VALUES,
    init,
    manifest,
    odd_pods,
    proxy,
    valid_pods,
    workload,
)

SIDECAR = "pod web: the sidecar's own ports"
MODE = "sidecar.istio.io/interceptionMode"
ISTIO = "pod web: the proxy's user and group in Istio"


def only(thing: Any) -> Pod:
    return pick(pods(json.dumps(thing), "manifest"), "", "manifest")


def meaning(thing: Any) -> dict[str, tuple[str, str]]:
    """The settings of a pod: setting -> its value and where it was given."""
    said = read_settings(only(thing))
    assert said.mistakes == said.refusals == ()
    return {item.setting.name: (item.text, item.origin) for item in said.given}


def mistakes_of(thing: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        pod_settings(json.dumps(thing))
    return list(caught.value.mistakes)


# --- documents --------------------------------------------------------------------------------


def test_scalars_are_the_texts_that_were_written():
    text = "a: 010\nb: 'x'\nc: 8000:8100\nd: yes\ne: |\n  t\nf:\n"
    assert read_documents(text) == [{"a": "010", "b": "x", "c": "8000:8100", "d": "yes", "e": "t\n", "f": ""}]
    assert read_documents('{"a": 8080, "b": 1.50, "c": true}') == [{"a": "8080", "b": "1.50", "c": True}]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("8080", "a number"),
        ("1e3", "a number"),
        ("y", "a boolean"),
        ("1.5", "a number"),
        ("0x1F", "a number"),
        ("true", "a boolean"),
        ("False", "a boolean"),
        ("no", "a boolean"),
        ("80,443", ""),
        ("1:30", ""),
        ("10.0.0.0/8", ""),
        ("", ""),
        ("*", ""),
    ],
)
def test_what_kubernetes_takes_a_text_without_quotes_for(text: str, kind: str):
    assert Unquoted(text).read_as == kind


def test_what_has_quotes_is_known():
    document = read_documents("a: 1\nb: '1'\nc: \"1\"\nd: >\n  1\n")[0]
    assert {key: isinstance(value, Unquoted) for key, value in document.items()} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
    }
    document = read_documents('{"a": 1, "b": "1"}')[0]
    assert isinstance(document["a"], Unquoted)
    assert not isinstance(document["b"], Unquoted)


@pytest.mark.parametrize(
    "text",
    ["a: [", "{", "a: &x [*x]", "a: *b", "a\x00b", pytest.param("[" * 20_000, marks=pytest.mark.slow)],
)
def test_text_that_is_no_document(text: str):
    with pytest.raises(Unreadable) as caught:
        read_documents(text)
    assert "\n" not in str(caught.value)


WHERE = """\
kind: Pod
items: [one, two,
  {a: 1}]
common: &common
  b: 1
merged:
  <<: *common
"""


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        (("kind",), 1, 1),
        (("items", 1), 2, 14),
        (("items", 2, "a"), 3, 4),
        (("items", 2, "none"), 3, 3),
        (("items", 9), 2, 1),
        (("merged", "b"), 5, 3),
    ],
)
def test_where_a_value_of_yaml_is(path: tuple[str | int, ...], line: int, column: int):
    assert position(read_documents(WHERE)[0], path) == (line, column)
    assert position(read_documents(f"x: 1\n---\n{WHERE}")[1], path) == (line + 2, column)


@pytest.mark.parametrize("indent", [None, 2])
def test_where_a_value_of_json_is(indent: int | None):
    """Each value is found by its path, in the second of two documents."""
    thing = {"a b": {"c": [1, [], {}, {"d": "x,]}"}]}, "e": [True, None, {"f": {"g": 1.5}}]}
    text = '\n {"x": 1}\n' + json.dumps(thing, indent=indent)
    lines = text.splitlines()
    document = read_documents(text)[1]
    for path, begins in (
        ((), "{"),
        (("a b",), '"a b"'),
        (("a b", "c", 0), "1"),
        (("a b", "c", 3, "d"), '"d": "x,]}"'),
        (("e", 1), "null"),
        (("e", 2, "f", "g"), '"g": 1.5'),
        (("e", 2, "f", "none"), '"f"'),
        (("e", 7), '"e"'),
    ):
        line, column = position(document, path) or (0, 0)
        assert lines[line - 1][column - 1 :].startswith(begins), path


# --- which pods there are ---------------------------------------------------------------------

TEMPLATES = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
    "Job": "batch/v1",
    "Rollout": "argoproj.io/v1alpha1",
}


@pytest.mark.parametrize("kind", [*TEMPLATES, "CronJob", "PodTemplate"])
def test_the_pod_templates_of_workloads(kind: str):
    found = only(workload(kind, {f"{TRAFFIC}includeInboundPorts": "80"}, namespace="shop"))
    assert (found.kind, found.name, found.namespace) == (kind, "web", "shop")
    said = {item.setting.name: item for item in read_settings(found).given}
    assert said["istio-inbound-ports"].text == "80"
    assert said["istio-inbound-ports"].origin.startswith(f"{kind.lower()} web: annotation ")
    assert [container.name for container in found.containers] == ["app"]


def test_annotations_of_the_workload_itself_do_not_count():
    thing = workload("Deployment", {})
    thing["metadata"]["annotations"] = {f"{TRAFFIC}includeInboundPorts": "80"}
    assert "istio-inbound-ports" not in {item.setting.name for item in read_settings(only(thing)).given}


LISTS = [
    {"kind": "List", "items": [manifest(name="a"), {"kind": "Service"}, workload("Job", {})]},
    {"kind": "PodList", "items": [{k: v for k, v in manifest(name="a").items() if k != "kind"}]},
    {
        "kind": "List",
        "items": [
            {"kind": "List", "items": [manifest(name="a"), {"kind": "List", "items": [manifest(name="b")]}]},
            {"kind": "PodList", "items": [{"metadata": {"name": "c"}}]},
            manifest(name="d"),
        ],
    },
]


@pytest.mark.parametrize(
    ("thing", "names"), [*zip(LISTS, [["a", "web"], ["a"], ["a", "b", "c", "d"]], strict=True)]
)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_lists(thing: Any, names: list[str], form: str):
    text = json.dumps(thing) if form == "json" else yaml.safe_dump(thing)
    assert [pod.name for pod in pods(text, "manifest")] == names


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("between", ["\n", "", "\n\n  "])
def test_several_texts_of_json(indent: int | None, between: str):
    """What `jq` prints, and `kubectl get -o json` several times; it need not be a line each."""
    things = [manifest({f"{TRAFFIC}includeInboundPorts": 8080}, name="a"), LISTS[0], manifest(name="b")]
    text = between.join(json.dumps(thing, indent=indent) for thing in things)
    found = pods(f"\n{text}\n", "manifest")
    assert [pod.name for pod in found] == ["a", "a", "web", "b"]
    assert isinstance(found[0].annotations[f"{TRAFFIC}includeInboundPorts"], Unquoted)
    with pytest.raises(SettingsError, match="m is neither YAML nor JSON"):
        pods(f"{text}\n{{", "m")


def test_several_documents_and_other_objects():
    things = [{"kind": "ConfigMap"}, manifest(name="a"), None, LISTS[0], workload("CronJob", {})]
    found = pods(yaml.safe_dump_all(things), "manifest")
    assert [(pod.kind, pod.name) for pod in found] == [
        ("Pod", "a"),
        ("Pod", "a"),
        ("Job", "web"),
        ("CronJob", "web"),
    ]


def test_a_pod_without_a_name_can_be_told():
    assert only({"kind": "Pod", "metadata": {"generateName": "web-"}}).label == "pod web-"
    assert only({"kind": "Pod"}).label == "pod number 1"


def test_merge_keys_of_yaml():
    text = f"""
kind: List
common: &common {{{TRAFFIC}includeInboundPorts: "80", {TRAFFIC}excludeInterfaces: net1}}
items:
- kind: Pod
  metadata:
    name: web
    annotations:
      <<: *common
      {TRAFFIC}includeInboundPorts: "81"
"""
    assert pick(pods(text, "m"), "", "m").annotations == {
        f"{TRAFFIC}includeInboundPorts": "81",
        f"{TRAFFIC}excludeInterfaces": "net1",
    }


SEVERAL = [
    manifest(name="api"),
    workload("Deployment", {}),
    {**workload("Deployment", {}), "metadata": {"name": "web", "namespace": "shop"}},
    workload("CronJob", {}),
]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("api", 0),
        ("pod/api", 0),
        ("default/pod/api", 0),
        ("default/deployment/web", 1),
        ("shop/deployment/web", 2),
        ("cronjob/web", 3),
    ],
)
def test_picking_a_pod(name: str, number: int):
    found = pods(yaml.safe_dump_all(SEVERAL), "manifest")
    assert pick(found, name, "manifest") is found[number]


@pytest.mark.parametrize(
    ("things", "name", "mistake"),
    [
        (
            SEVERAL,
            "",
            "m contains 4 pods, choose one with --pod-name: "
            "api, default/deployment/web, shop/deployment/web, cronjob/web",
        ),
        (
            SEVERAL,
            "deployment/web",
            "m contains 4 pods, --pod-name: 'deployment/web' is the name of several: "
            "default/deployment/web, shop/deployment/web",
        ),
        (SEVERAL, "apu", "--pod-name: m contains no pod 'apu' (did you mean api?): it contains api, "),
        ([manifest()], "zzzz", "--pod-name: m contains no pod 'zzzz': it contains web"),
        ([{"kind": "Service"}], "", "m contains no pod, and no workload with a pod template"),
        ([], "web", "m contains no pod, and no workload with a pod template"),
        ([manifest(), manifest()], "", "m contains 2 pods, choose one with --pod-name: default/pod/web, "),
        (
            [manifest(name=f"p{i}") for i in range(30)],
            "",
            "m contains 30 pods, choose one with --pod-name: p0",
        ),
    ],
)
def test_no_pod_or_more_than_one(things: list[Any], name: str, mistake: str):
    with pytest.raises(SettingsError) as caught:
        pick(pods(yaml.safe_dump_all(things), "m"), name, "m")
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith(mistake)
    assert len(things) < 30 or caught.value.mistakes[0].endswith("p19 and 10 more")


@pytest.mark.parametrize("text", ["just words", "- a\n- b\n", "a: 1\n", "kind: [Pod]\n", "[1, 2]"])
def test_what_is_no_manifest(text: str):
    with pytest.raises(SettingsError, match="m contains no Kubernetes object"):
        pods(text, "m")


def test_what_is_no_yaml():
    with pytest.raises(SettingsError, match=r"^m is neither YAML nor JSON: ") as caught:
        pods("metadata: {{ .Values.x }}\n  y: [\n", "m")
    assert "\n" not in str(caught.value)


# --- what an annotation means -----------------------------------------------------------------

#: SPEC section 8: annotation -> flag and default.
TABLE = {
    "sidecar.istio.io/interceptionMode": ("m", "REDIRECT"),
    f"{TRAFFIC}includeOutboundIPRanges": ("i", "*"),
    f"{TRAFFIC}excludeOutboundIPRanges": ("x", ""),
    f"{TRAFFIC}includeInboundPorts": ("b", "*"),
    f"{TRAFFIC}excludeInboundPorts": ("d", "15020,15021,15090"),
    f"{TRAFFIC}includeOutboundPorts": ("q", ""),
    f"{TRAFFIC}excludeOutboundPorts": ("o", ""),
    f"{TRAFFIC}excludeInterfaces": ("c", ""),
    "istio.io/reroute-virtual-interfaces": ("k", ""),
}


def test_the_table_is_that_of_the_specification():
    assert {a.name: (a.setting.short, a.default) for a in ANNOTATIONS} == TABLE
    old = {a.deprecated: a.name for a in ANNOTATIONS if a.deprecated}
    assert old == {f"{TRAFFIC}kubevirtInterfaces": "istio.io/reroute-virtual-interfaces"}
    assert set(VALUES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_annotation_is_a_setting(name: str):
    setting = NAMES[name].setting
    text, origin = meaning(manifest({name: VALUES[name]}))[setting.name]
    assert origin == f"pod web: annotation {name}"
    assert text == VALUES[name] + (",15020,15021,15090" if setting.short == "d" else "")


def test_a_pod_without_annotations_means_the_defaults():
    assert meaning(manifest()) == {
        "istio-local-exclude-ports": ("15020,15021,15090", SIDECAR),
        "proxy-uid": ("1337", ISTIO),
        "proxy-gid": ("1337", ISTIO),
    }
    settings = pod_settings(json.dumps(manifest()))
    expected = configure({"proxy-uid": 1337, "istio-local-exclude-ports": "15020,15021,15090"})
    assert configure(settings) == expected


def test_the_ports_of_the_sidecar_are_not_listed_twice():
    thing = manifest({f"{TRAFFIC}excludeInboundPorts": "15021,22"})
    assert meaning(thing)["istio-local-exclude-ports"][0] == "15021,22,15020,15090"
    assert meaning(manifest({f"{TRAFFIC}excludeInboundPorts": ""}))["istio-local-exclude-ports"] == (
        "15020,15021,15090",
        f"pod web: annotation {TRAFFIC}excludeInboundPorts",
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [("includeInboundPorts", "inbound_ports"), ("includeOutboundIPRanges", "outbound_cidrs")],
)
def test_an_empty_annotation_captures_nothing(name: str, field: str):
    settings = pod_settings(json.dumps(manifest({f"{TRAFFIC}{name}": ""})))
    assert getattr(configure(settings, environment=FACTS), field) == ()


def test_numbers_and_booleans_without_quotes_are_the_texts_that_they_are():
    text = f"kind: Pod\nmetadata: {{annotations: {{{TRAFFIC}includeInboundPorts: 0080}}}}"
    assert pod_settings(text)["istio-inbound-ports"] == "0080"
    assert "'true' is not a port" in mistakes_of(manifest({f"{TRAFFIC}includeInboundPorts": True}))[0]


def test_the_new_name_goes_before_the_deprecated_one():
    thing = manifest({f"{TRAFFIC}kubevirtInterfaces": "old", "istio.io/reroute-virtual-interfaces": "new"})
    assert meaning(thing)["kube-virt-interfaces"][0] == "new"


# --- what the containers mean -----------------------------------------------------------------


def test_the_user_of_the_proxy():
    assert (
        meaning(manifest(containers=[proxy(securityContext={"runAsUser": 2000, "runAsGroup": 3000})])).items()
        >= {
            "proxy-uid": ("2000", "pod web: container istio-proxy: securityContext.runAsUser"),
            "proxy-gid": ("3000", "pod web: container istio-proxy: securityContext.runAsGroup"),
        }.items()
    )


@pytest.mark.parametrize(
    ("pods_own", "containers", "uid", "gid"),
    [
        ({}, {}, "1337", "1337"),
        # The pod's own are the application's (SPEC section 8): Istio's injector gives the proxy its own.
        ({"runAsUser": 5, "runAsGroup": 6}, {}, "1337", "1337"),
        ({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 7}, "7", "1337"),
        ({"runAsUser": 5, "runAsGroup": 6}, {"runAsGroup": 7}, "1337", "7"),
        ({"runAsUser": 5}, {"runAsUser": 0, "runAsGroup": 0}, "1337", "1337"),
        ({}, {"runAsUser": "00", "runAsGroup": 8}, "1337", "8"),
    ],
)
@pytest.mark.parametrize("native", [False, True])
def test_only_the_container_says_who_the_proxy_is(
    pods_own: Any, containers: Any, uid: str, gid: str, native: bool
):
    container = proxy(securityContext=containers, restartPolicy="Always")
    inits, others = ([container], []) if native else ([], [container])
    found = meaning(manifest(None, others, inits, securityContext=pods_own))
    assert (found["proxy-uid"][0], found["proxy-gid"][0]) == (uid, gid)


def test_a_proxy_that_is_yet_to_be_injected_will_not_run_as_the_pod_does():
    found = meaning(manifest(securityContext={"runAsUser": 1000}))
    assert found["proxy-uid"] == ("1337", ISTIO)


def test_tproxy_exempts_user_1337_however_the_proxy_runs():
    container = proxy(securityContext={"runAsUser": 0, "runAsGroup": 1337})
    thing = manifest({"sidecar.istio.io/interceptionMode": "TPROXY"}, [container])
    config = configure(pod_settings(json.dumps(thing)), environment=FACTS)
    assert (config.tproxy, config.proxy_uids, config.proxy_gids) == (True, (1337,), (1337,))


def test_the_variables_of_the_proxy():
    names = {"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_DUAL_STACK": "1", "INVALID_DROP": "T"}
    assert set(names) == set(VARIABLES)
    variables = [{"name": name, "value": value} for name, value in names.items()]
    found = meaning(manifest(containers=[proxy(env=variables)]))
    where = "pod web: container istio-proxy: variable"
    assert (
        found.items()
        >= {
            "redirect-dns": ("true", f"{where} ISTIO_META_DNS_CAPTURE"),
            "dual-stack": ("1", f"{where} ISTIO_DUAL_STACK"),
            "drop-invalid": ("T", f"{where} INVALID_DROP"),
        }.items()
    )
    assert "capture-all-dns" not in found
    assert "redirect-dns" not in meaning(manifest(containers=[{"name": "app", "env": variables}]))


def test_an_empty_variable_of_the_proxy_is_not_set():
    variables = [{"name": name, "value": ""} for name in VARIABLES]
    assert meaning(manifest(containers=[proxy(env=variables)])) == meaning(manifest(containers=[proxy()]))


CONFIG = "proxy.istio.io/config"


@pytest.mark.parametrize("containers", [[proxy()], None], ids=["injected", "not yet injected"])
def test_the_metadata_of_the_proxy_are_variables(containers: list[dict[str, Any]] | None):
    text = 'proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: "true"\n  ISTIO_DUAL_STACK: "1"\n  OTHER: x\n'
    found = meaning(manifest({CONFIG: text}, containers))
    where = f"pod web: annotation {CONFIG}: proxyMetadata"
    assert found["redirect-dns"] == ("true", f"{where}.ISTIO_META_DNS_CAPTURE")
    assert found["dual-stack"] == ("1", f"{where}.ISTIO_DUAL_STACK")
    assert "drop-invalid" not in found


@pytest.mark.parametrize("value", ["false", ""])
def test_the_metadata_do_not_replace_what_the_container_has(value: str):
    thing = manifest(
        {CONFIG: '{"proxyMetadata": {"INVALID_DROP": "true"}}'},
        [proxy(env=[{"name": "INVALID_DROP", "value": value}])],
    )
    assert configure(pod_settings(json.dumps(thing)), environment=FACTS).drop_invalid is False


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is neither YAML nor JSON: "),
        ("a: 1\n---\nb: 1\n", "has several documents"),
        ("x", "it: is a string and should be a mapping"),
        ("proxyMetadata: [a]", "proxyMetadata: is a list and should be a mapping"),
        (
            "proxyMetadata: {INVALID_DROP: [a]}",
            "proxyMetadata.INVALID_DROP: is a list and should be a string",
        ),
    ],
)
def test_a_proxy_config_that_cannot_be_read(text: str, problem: str):
    [mistake] = mistakes_of(manifest({CONFIG: text}))
    assert mistake.startswith(f"pod web: annotation {CONFIG}: {problem}")


# --- as Istio's CNI plugin reads it -----------------------------------------------------------

OUT = "istio-local-outbound-ports-exclude"
DNS_AND_CNI = {"env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]}


def with_flags(thing: Any, *arguments: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    others, mistakes = collect(read_arguments(arguments), environ or {})
    said = read_settings(only(thing), others)
    assert [*mistakes, *said.mistakes, *said.refusals] == []
    return {item.setting.name: item.text for item in said.given}


@pytest.mark.parametrize(
    ("arguments", "environ", "by_cni"),
    [
        (["--cni-mode"], {}, True),
        (["--cni-mode=T"], {}, True),
        ([], {"CNI_MODE": "true"}, True),
        ([], {}, False),
        ([], {"CNI_MODE": ""}, False),
        (["--cni-mode=false"], {"CNI_MODE": "true"}, False),
    ],
)
def test_the_plugin_excludes_a_port_and_captures_all_dns(
    arguments: list[str], environ: dict[str, str], by_cni: bool
):
    found = with_flags(manifest(containers=[proxy(**DNS_AND_CNI)]), *arguments, environ=environ)
    assert found["redirect-dns"] == "true"
    assert found.get("capture-all-dns") == ("true" if by_cni else None)
    assert found.get(OUT) == ("15020" if by_cni else None)
    without_dns = with_flags(manifest(containers=[proxy()]), *arguments, environ=environ)
    assert "capture-all-dns" not in without_dns


def test_an_istio_init_with_the_lock_of_the_namespace_is_no_plugin():
    """What `pod init-container` prints has --cni-mode, and is read back as what it will apply."""
    thing = manifest(containers=[proxy(**DNS_AND_CNI)], inits=[init("--cni-mode")])
    assert not {"capture-all-dns", OUT} & set(with_flags(thing))
    assert {"capture-all-dns", OUT} <= set(with_flags(thing, "--cni-mode"))


@pytest.mark.parametrize("text", ["25", ""])
def test_the_default_of_the_plugin_is_a_default(text: str):
    assert with_flags(manifest({f"{TRAFFIC}excludeOutboundPorts": text}), "--cni-mode")[OUT] == text


# --- the agent's port -------------------------------------------------------------------------

STATUS = "status.sidecar.istio.io/port"


@pytest.mark.parametrize(
    ("annotations", "ports"),
    [
        ({STATUS: "15030"}, "15030,15021,15090"),
        ({STATUS: "0"}, "15021,15090"),
        ({STATUS: "15030", f"{TRAFFIC}excludeInboundPorts": "22,15030"}, "22,15030,15021,15090"),
        ({STATUS: "0", f"{TRAFFIC}excludeInboundPorts": "22"}, "22,15021,15090"),
        ({STATUS: "15020"}, "15020,15021,15090"),
    ],
)
def test_the_agents_port_replaces_15020(annotations: dict[str, str], ports: str):
    assert meaning(manifest(annotations))["istio-local-exclude-ports"][0] == ports


@pytest.mark.parametrize("text", ["x", "", "65536", "-1", "1.5"])
def test_an_agents_port_that_is_none(text: str):
    assert mistakes_of(manifest({STATUS: text})) == [
        f"pod web: annotation {STATUS}: {text!r} is not a port: use a number from 0 (none) to 65535"
    ]


# --- no interception --------------------------------------------------------------------------


def test_no_interception_is_a_mode_of_pods_alone():
    thing = manifest({MODE: "NONE"})
    said = read_settings(only(thing))
    assert said.mistakes == said.refusals == ()
    mode = parse(said.given, FACTS).no_capture
    assert mode is not None
    assert mode.origin == f"pod web: annotation {MODE}"
    assert parse(read_settings(only(manifest())).given, FACTS).no_capture is None
    with pytest.raises(SettingsError, match="'NONE' is not one of REDIRECT, TPROXY"):
        configured("-m", "NONE")


@pytest.mark.parametrize("inits", [[init("-m", "REDIRECT")], []])
def test_what_is_stronger_than_a_pod_is_stronger_than_no_interception(
    inits: list[dict[str, Any]], tmp_path: Path
):
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(manifest({MODE: "NONE"}, inits=inits)))
    more = [] if inits else ["-m", "REDIRECT"]
    given, mistakes = collect(read_arguments(["--pod", str(file), *more]), {})
    parsed = parse(given, FACTS, mistakes)
    assert parsed.no_capture is None
    assert parsed.values["interception_mode"] == "REDIRECT"


def test_an_istio_init_goes_before_the_annotations():
    thing = manifest(
        {f"{TRAFFIC}includeInboundPorts": "80", f"{TRAFFIC}excludeOutboundPorts": "25"},
        inits=[init("istio-iptables", "-b", "81", "-p", "1", "-d", "15090")],
    )
    found = meaning(thing)
    where = "pod web: container istio-init:"
    assert found["istio-inbound-ports"] == ("81", f"{where} --istio-inbound-ports (-b)")
    assert found["envoy-port"] == ("1", f"{where} --envoy-port (-p)")
    assert found["istio-local-exclude-ports"] == ("15090", f"{where} --istio-local-exclude-ports (-d)")
    assert found["istio-local-outbound-ports-exclude"][0] == "25"


@pytest.mark.parametrize(
    "more",
    [
        {"args": ["-p", "1"]},
        {"args": ["istio-iptables", "-p", "1"]},
        {"command": ["istio-iptables", "-p", "1"]},
        {"command": ["/usr/local/bin/istio-iptables"], "args": ["-p", "1"]},
        {"command": ["/usr/local/bin/pilot-agent"], "args": ["istio-iptables", "-p", "1"]},
        {"command": ["/usr/local/bin/pilot-agent", "istio-iptables"], "args": ["apply", "-p", "1"]},
        {"args": [], "env": [{"name": "ENVOY_PORT", "value": "1"}]},
        {"args": ["-p", "1"], "env": [{"name": "ENVOY_PORT", "value": "2"}]},
    ],
)
def test_how_an_istio_init_may_be_called(more: dict[str, Any]):
    assert meaning(manifest(inits=[{"name": "istio-init", **more}]))["envoy-port"][0] == "1"


# --- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_are_reported_by_annotation_in_one_go():
    thing = manifest(
        {
            f"{TRAFFIC}includeInboundPorts": "x,70000",
            f"{TRAFFIC}excludeOutboundIPRanges": "*",
            "sidecar.istio.io/interceptionMode": "tproxy",
        },
        [proxy(env=[{"name": "INVALID_DROP", "value": "yes"}], securityContext={"runAsUser": "root"})],
        [init("-p", "0", "--nonsense", "--config=x")],
    )
    where = "pod web: annotation"
    starts = [
        "pod web: container istio-proxy: securityContext.runAsUser: 'root' is not a number",
        "pod web: container istio-init: --nonsense: unknown flag",
        "pod web: container istio-init: --config: 'x' is a file in the container",
        f"{where} sidecar.istio.io/interceptionMode: 'tproxy' is not one of REDIRECT, TPROXY",
        f"{where} {TRAFFIC}excludeOutboundIPRanges: '*' cannot be used here",
        f"{where} {TRAFFIC}includeInboundPorts: 'x' is not a port",
        f"{where} {TRAFFIC}includeInboundPorts: '70000' is not a port",
        "pod web: container istio-proxy: variable INVALID_DROP: 'yes' is not a boolean",
        "pod web: container istio-init: --envoy-port (-p): '0' is not a port",
    ]
    found = mistakes_of(thing)
    assert len(found) == len(starts)
    for mistake, start in zip(found, starts, strict=True):
        assert mistake.startswith(start)


PROXY, INIT = "container istio-proxy", "container istio-init"
BARE = {"kind": "Pod", "metadata": {"name": "web"}}
ELSEWHERE = [{"name": "INVALID_DROP", "valueFrom": {"x": 1}}]
OTHER_PROGRAM = {"name": "istio-init", "command": ["sh", "-c", "x"]}


@pytest.mark.parametrize(
    ("thing", "mistake"),
    [
        (manifest(hostNetwork=True), "hostNetwork: "),
        (manifest({MODE: "NONE"}), f"annotation {MODE}: 'NONE' captures nothing: no settings mean that"),
        (manifest(inits=[init("cleanup")]), f"{INIT}: 'cleanup': a command that sets up no"),
        (manifest(inits=[init("--help=\n")]), f"{INIT}: --help=\\n: sets up no rules"),
        (manifest(inits=[OTHER_PROGRAM]), f"{INIT}: command: 'sh' is not istio-iptables"),
        (manifest(containers=[proxy(env=ELSEWHERE)]), f"{PROXY}: variable INVALID_DROP: its value is not in"),
        (manifest(inits=[init(env=ELSEWHERE)]), f"{INIT}: variable INVALID_DROP: its value is not in"),
        ({**BARE, "metadata": {"name": "web", "annotations": ["a"]}}, "metadata.annotations: is a list and"),
        ({**BARE, "spec": "x"}, "spec: is a string and should be a mapping"),
        (manifest(containers={"name": "app"}), "spec.containers: is a mapping and should be a list"),  # type: ignore[arg-type]
        (manifest(hostNetwork="perhaps"), "spec.hostNetwork: is a string and should be true or false"),
    ],
)
def test_one_mistake(thing: Any, mistake: str):
    found = mistakes_of(thing)
    assert len(found) == 1
    assert found[0].startswith(f"pod web: {mistake}")
    assert found[0].isprintable()


def test_values_that_are_not_in_the_manifest_and_are_no_settings_do_not_matter():
    variables = [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    assert meaning(manifest(containers=[proxy(env=variables)], inits=[init(env=variables)]))


# --- as a source of settings ------------------------------------------------------------------


def configured(*arguments: str, environ: Mapping[str, str] | None = None) -> Config:
    given, mistakes = collect(read_arguments(arguments), environ or {})
    return resolve(parse(given, FACTS, mistakes), FACTS)[0]


@pytest.fixture
def web(tmp_path: Path) -> str:
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump(manifest({f"{TRAFFIC}includeInboundPorts": "80"})))
    return str(file)


def test_a_pod_is_weaker_than_variables_files_and_flags(web: str, tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("istio-inbound-ports: 81\n")
    assert [str(port) for port in configured("--pod", web).inbound_ports] == ["80"]  # type: ignore[union-attr]
    for arguments, environ, port in (
        (["--config", str(file), "--pod", web], {}, "81"),
        (["--pod", web, "--config", str(file)], {}, "81"),
        (["--pod", web], {"ISTIO_INBOUND_PORTS": "82"}, "82"),
        (["-b", "83", "--pod", web], {"ISTIO_INBOUND_PORTS": "82"}, "83"),
    ):
        assert [str(p) for p in configured(*arguments, environ=environ).inbound_ports] == [port]  # type: ignore[union-attr]


def test_the_operand_of_a_command_is_a_pod_too(web: str):
    assert (
        configured("pod", "args", web) == configured("--pod", web) == configured("pod", "init-container", web)
    )


def test_which_pod_of_several(tmp_path: Path):
    file = tmp_path / "all.yaml"
    things = [manifest({f"{TRAFFIC}includeInboundPorts": str(i)}, name=f"p{i}") for i in (1, 2)]
    file.write_text(yaml.safe_dump_all(things))
    assert [str(p) for p in configured("--pod", str(file), "--pod-name=p2").inbound_ports] == ["2"]  # type: ignore[union-attr]
    _, mistakes = collect(read_arguments(["--pod", str(file), "-b", "80"]), {})
    assert mistakes == [f"--pod: {str(file)!r} contains 2 pods, choose one with --pod-name: p1, p2"]


# --- properties -------------------------------------------------------------------------------


@given(valid_pods())
def test_the_arguments_of_a_pod_mean_what_the_pod_means(thing: dict[str, Any]):
    text = json.dumps(thing)
    wanted = configure(pod_settings(text), environment=FACTS)
    found = container_settings(read_settings(only(thing)).given)
    operation = parse(found.settings, FACTS).operation()
    for arguments in (found.arguments(), for_entry(found, operation).arguments()):
        invocation = read_arguments(arguments)
        assert invocation.mistakes == ()
        assert configured(*arguments, environ=found.variables()) == wanted


@given(odd_pods(), st.booleans())
def test_whatever_is_in_a_manifest_is_settings_or_mistakes(thing: Any, as_yaml: bool):
    text = yaml.safe_dump(thing, allow_unicode=True) if as_yaml else json.dumps(thing)
    mistakes: tuple[str, ...] = ()
    try:
        settings = pod_settings(text)
    except SettingsError as error:
        mistakes = error.mistakes
    if mistakes:
        assert all(mistake.isprintable() for mistake in mistakes)
    else:
        configure(settings, environment=FACTS)
        assert set(settings) <= set(BY_NAME)


@given(st.text() | st.text(alphabet="kind: Pod{}[]\n-&*!|>\"'#,"))
def test_any_text_is_a_manifest_or_a_mistake(text: str):
    mistakes: tuple[str, ...] = ("one",)
    try:
        pods(text, "m")
    except SettingsError as error:
        mistakes = error.mistakes
    assert len(mistakes) == 1
