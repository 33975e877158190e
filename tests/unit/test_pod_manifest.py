"""Manifests: which documents and which pods are in a text, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from istio_iptables import SettingsError
from istio_iptables.pod import read_settings
from istio_iptables.pod.manifest import pick, pods
from istio_iptables.settings.positions import position
from istio_iptables.settings.yaml_text import Unquoted, Unreadable, read_documents
from tests.support.cases import all_cases
from tests.support.manifests import TRAFFIC, manifest, workload
from tests.support.pods import only

# --- documents --------------------------------------------------------------------------------


def test_scalars_are_the_texts_that_were_written():
    text = "a: 010\nb: 'x'\nc: 8000:8100\nd: yes\ne: |\n  t\nf:\n"
    assert read_documents(text) == [{"a": "010", "b": "x", "c": "8000:8100", "d": "yes", "e": "t\n", "f": ""}]
    assert read_documents('{"a": 8080, "b": 1.50, "c": true}') == [{"a": "8080", "b": "1.50", "c": True}]


@all_cases(
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


@all_cases("kind", [*TEMPLATES, "CronJob", "PodTemplate"])
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


@all_cases("null", ["null", "~", "", "Null", "NULL"])
@all_cases(
    "line",
    ["spec: {}", "spec: {{containers: {}}}", "spec: {{hostNetwork: {}, dnsConfig: {{nameservers: {}}}}}"],
)
def test_null_is_no_value_however_it_is_written(line: str, null: str):
    """As in Kubernetes, and as in JSON."""
    text = f"kind: Pod\nmetadata: {{name: web, namespace: {null}}}\n{line.format(null, null)}\n"
    [pod] = pods(text, "m")
    assert (pod.problems, pod.containers, pod.host_network, pod.dns_servers) == ((), (), False, ())
    assert pod.names[-1] == "default/pod/web"


def test_null_in_quotes_is_a_text():
    [pod] = pods('{kind: Pod, metadata: {name: "null"}, spec: "null"}', "m")
    assert (pod.name, pod.problems) == ("null", ("spec: is a string and should be a mapping",))


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


@all_cases(
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
