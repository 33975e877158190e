"""The configuration of a node: what may be in it, all mistakes at once, and what it means for a pod."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.cni import configuration as cni_configuration
from istio_iptables.cni import protocol, rules
from istio_iptables.cni.configuration import KEYS, NO_NAMES, SETTINGS_OF_NODE, entry, read
from istio_iptables.cni.decision import REASONS
from istio_iptables.cni.names import MAX_CONFIGURATION
from istio_iptables.cni.pod import Identity, of_annotations, of_api
from istio_iptables.errors import SettingsError
from istio_iptables.pod import read_settings
from istio_iptables.settings.declared import BY_NAME, SETTINGS
from istio_iptables.settings.resolve import parse
from istio_iptables.settings.texts import Given
from tests.support.cni import INJECTED, Recorder, call, configuration, variables
from tests.support.manifests import annotation_texts, manifest, proxy
from tests.support.netns import ROOT
from tests.support.pods import only

TRAFFIC = "traffic.sidecar.istio.io/"


def mistakes(document: dict[str, object]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        read(document)
    return caught.value.mistakes


def values(settings: Mapping[str, object], annotations: dict[str, str] | None = None) -> dict[str, object]:
    """Return the values of all settings for a pod on a node with these settings."""
    node = read({"settings": settings})
    known = of_annotations(Identity("web", "shop"), {**INJECTED, **(annotations or {})})
    return dict(rules.settings(node, known).values)


def test_an_entry_without_keys_has_the_defaults():
    node = read({"type": "istio-iptables-cni", "cniVersion": "1.0.0", "name": "x"})
    assert node.exclude_namespaces == ("kube-system",)
    assert node.metrics_file == "/run/istio-iptables-cni/metrics.prom"
    assert (node.kubeconfig, node.log_file, node.plugin_namespace) == ("", "", "")
    assert node.plugin_pods == "istio-iptables-cni-"
    assert node.api_timeout == 5
    assert node.given == ()


def test_all_mistakes_are_told_at_once_each_by_its_key(monkeypatch):
    bad: dict[str, Any] = {
        "exclude_namespace": ["a"],
        "exclude_namespaces": ["", "kube_system"],
        "plugin_namespace": "Kube System",
        "plugin_pods": 7,
        "kubeconfig": "etc/kubeconfig",
        "api_timeout": "soon",
        "metrics_file": ["/run/x"],
        "log_file": "log",
        "settings": {
            "istio-inbound-interception-mode": "MAGIC",
            "istio-inbound-ports": "0",
            "redirect_dns": True,
            "dual-stack": None,
            "dry-run": True,
            "capture-all-dns": True,
            "proxy-uid": {"a": 1},
        },
    }
    found = call(monkeypatch, variables(), configuration(**bad))
    assert found.code == 7
    lines = found.document["details"].splitlines()
    begins = [line.split(": ")[0] + ": " + line.split(": ")[1] for line in lines]
    assert begins == [
        "exclude_namespace: unknown key (did you mean exclude_namespaces?)",
        "exclude_namespaces: '' is not the name of a namespace",
        "exclude_namespaces: 'kube_system' is not the name of a namespace",
        "plugin_namespace: 'Kube System' is not the name of a namespace",
        "plugin_pods: is a number and should be a string",
        "kubeconfig: 'etc/kubeconfig' is not an absolute path",
        "api_timeout: 'soon' is not a duration",
        "metrics_file: is a list and should be a string",
        "log_file: 'log' is not an absolute path",
        "settings: redirect_dns",
        "settings: dual-stack",
        "settings: dry-run",
        "settings: capture-all-dns",
        "settings: proxy-uid",
        "settings: istio-inbound-interception-mode",
        "settings: istio-inbound-ports",
    ]


def test_mistakes_are_logged_and_counted_where_the_configuration_says(monkeypatch, tmp_path):
    files: dict[str, Any] = {"log_file": str(tmp_path / "log"), "metrics_file": str(tmp_path / "metrics")}
    log = Recorder()
    found = call(monkeypatch, variables(), configuration(api_timeout="soon", **files), log)
    assert (found.code, log.file) == (7, files["log_file"])
    assert 'failures_total{code="7"} 1' in (tmp_path / "metrics").read_text()


def test_a_list_has_to_be_a_list():
    told = ("exclude_namespaces: is a string and should be a list of names",)
    assert mistakes({"exclude_namespaces": "kube-system"}) == told


def test_settings_have_to_be_an_object():
    assert mistakes({"settings": ["redirect-dns"]}) == ("settings: is a list and should be an object",)


@pytest.mark.parametrize(
    "key", ["cni.dev/valid-attachments", "cni.dev/attachments", "io.example", "ipam", "dns", "args", "ipMasq"]
)
def test_keys_of_runtimes_are_none_of_ours(key):
    read({key: {}})


@pytest.mark.parametrize("name", ["proxy-uid", "proxy-gid", "ISTIO_OUTBOUND_OWNER_GROUPS"])
def test_users_and_groups_are_numbers_since_names_differ_between_container_and_node(name):
    read({"settings": {name: "1337"}})
    assert name in mistakes({"settings": {name: "root"}})[0]


def test_a_node_sets_rules_and_not_how_a_command_runs():
    assert {s.name for s in SETTINGS if s not in SETTINGS_OF_NODE and not s.ignored} == {
        "capture-all-dns",  # redirect-dns says it
        "cni-mode",  # always on
        "ENVOY_USER",  # the proxy is user 1337 unless proxy-uid is given
        "DRY_RUN_FILE_PATH",
        "cleanup-only",
        "dry-run",
        "force-apply",
        "iptables-probe-port",
        "network-namespace",
        "probe-timeout",
        "prove",
        "reconcile",
        "run-validation",
        "skip-rule-apply",
        "log_caller",
        "log_stacktrace_level",
        "log_target",
    }


# --- what they mean for a pod ---------------------------------------------------------------


def test_a_pod_without_annotations_has_what_istios_plugin_would_give_it():
    found = values({})
    assert str(found["inbound_ports_excluded"][0]) == "15020"  # type: ignore[index]
    assert [str(port) for port in found["outbound_ports_excluded"]] == ["15020"]  # type: ignore[attr-defined]
    assert (found["proxy_uids"], found["proxy_gids"]) == ((1337,), (1337,))
    assert found["interception_mode"] == "REDIRECT"
    assert not found["redirect_dns"]


@pytest.mark.parametrize(
    ("setting", "value", "field", "wanted"),
    [
        ("istio-inbound-interception-mode", "TPROXY", "interception_mode", "TPROXY"),
        ("dual-stack", True, "dual_stack", True),
        ("native-nftables", True, "native_nftables", True),
        ("drop-invalid", True, "drop_invalid", True),
        ("proxy-uid", 2000, "proxy_uids", (2000,)),
        ("force-iptables-binary", "nft", "forced_variant", "nft"),
    ],
)
def test_the_node_sets_what_the_pod_does_not(setting, value, field, wanted):
    assert values({setting: value})[field] == wanted


def test_the_pod_goes_before_the_node():
    node = {"istio-inbound-interception-mode": "TPROXY", "istio-local-exclude-ports": "9999"}
    assert values(node, {"sidecar.istio.io/interceptionMode": "REDIRECT"})["interception_mode"] == "REDIRECT"
    of_pod = values(node, {f"{TRAFFIC}excludeInboundPorts": "7777"})["inbound_ports_excluded"]
    assert [str(port) for port in of_pod] == ["7777", "15020", "15021", "15090"]  # type: ignore[attr-defined]
    of_node = values(node)["inbound_ports_excluded"]
    assert [str(port) for port in of_node] == ["9999", "15020", "15021", "15090"]  # type: ignore[attr-defined]


def test_variables_of_the_runtime_are_no_settings(monkeypatch):
    """The plugin gets the environment of a daemon, which may have been set for other things."""
    for name in ("ISTIO_DUAL_STACK", "DRY_RUN", "ISTIO_META_DNS_CAPTURE", "NATIVE_NFTABLES"):
        monkeypatch.setenv(name, "true")
    found = values({})
    assert not any(found[f] for f in ("dual_stack", "dry_run", "redirect_dns", "native_nftables"))


def test_dns_of_a_pod_is_all_dns_since_the_nodes_servers_are_not_its_own():
    for found in (
        values({"redirect-dns": True}),
        values({}, {"proxy.istio.io/config": '{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}'}),
    ):
        assert found["redirect_dns"]
        assert found["capture_all_dns"]
    off = {"proxy.istio.io/config": '{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "false"}}'}
    assert not values({"redirect-dns": True}, off)["redirect_dns"]


@given(annotation_texts(), st.booleans())
def test_annotations_mean_what_they_mean_to_the_command(annotations: dict[str, str], by_api: bool):
    """The settings are those of `istio-iptables --pod FILE --cni-mode`."""
    pod = manifest({**annotations, **INJECTED}, [proxy()])
    who = Identity("web", "")
    known = of_api(json.dumps(pod), who) if by_api else of_annotations(who, {**annotations, **INJECTED})
    wanted = read_settings(only(pod), [Given(BY_NAME["cni-mode"], "true", "")])
    found = rules.settings(read({}), known)
    assert dict(found.values) == dict(parse(wanted.given, NO_NAMES).values)


# --- for `cni install` ----------------------------------------------------------------------


def test_the_entry_has_the_capability_and_what_was_given():
    assert entry({"log_file": "/var/log/x", "settings": {"redirect-dns": True}}) == {
        "type": "istio-iptables-cni",
        "capabilities": {"io.kubernetes.cri.pod-annotations": True},
        "settings": {"redirect-dns": True},
        "log_file": "/var/log/x",
    }


@pytest.mark.parametrize("keys", [{"type": "x"}, {"capabilities": {}}, {"log_file": "x"}, {"nonsense": 1}])
def test_an_entry_that_the_plugin_would_refuse_is_not_made(keys):
    with pytest.raises(SettingsError, match=next(iter(keys))):
        entry(keys)


def test_the_page_has_every_key_with_its_default():
    page = (ROOT / "docs/cni-plugin.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [(key.name, json.dumps(key.default), key.help) for key in KEYS]
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    shown = json.loads(example)
    assert shown == entry({key: value for key, value in shown.items() if key not in ("type", "capabilities")})
    assert set(shown) == {"type", "capabilities", *(key.name for key in KEYS)}


def test_the_page_has_every_reason_and_every_code():
    page = (ROOT / "docs/cni-plugin.md").read_text()
    table = page.partition("| reason |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == REASONS
    codes = [value for name, value in vars(protocol).items() if name.isupper() and type(value) is int]
    codes.remove(MAX_CONFIGURATION)
    table = page.partition("| code |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == [str(code) for code in codes]


def test_every_key_has_a_default_that_it_accepts_and_help():
    for key in KEYS:
        key.read(key.default)
        assert key.help.endswith(".")
    assert len({key.name for key in KEYS}) == len(KEYS)
    assert not {key.name for key in KEYS} & {*BY_NAME, *cni_configuration._OF_PROTOCOL}
