"""Manifests: which settings a pod means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from istio_iptables import SettingsError, configure, pod_settings
from istio_iptables.cli.collect import collect
from istio_iptables.pod import read_settings
from istio_iptables.pod.annotations import ANNOTATIONS, NAMES, VARIABLES
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse
from tests.support.cases import all_cases
from tests.support.manifests import FACTS, TRAFFIC, VALUES, init, manifest, proxy
from tests.support.pods import configured, meaning, mistakes_of, only

SIDECAR = "pod web: the sidecar's own ports"
MODE = "sidecar.istio.io/interceptionMode"
ISTIO = "pod web: the proxy's user and group in Istio"


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


@all_cases("name", NAMES)
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


@all_cases(
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
@all_cases("native", [False, True])
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
        ({STATUS: ""}, "15020,15021,15090"),
        ({STATUS: "", f"{TRAFFIC}excludeInboundPorts": "22"}, "22,15020,15021,15090"),
        ({STATUS: "15030", f"{TRAFFIC}excludeInboundPorts": "22,15030"}, "22,15030,15021,15090"),
        ({STATUS: "0", f"{TRAFFIC}excludeInboundPorts": "22"}, "22,15021,15090"),
        ({STATUS: "15020"}, "15020,15021,15090"),
    ],
)
def test_the_agents_port_replaces_15020(annotations: dict[str, str], ports: str):
    assert meaning(manifest(annotations))["istio-local-exclude-ports"][0] == ports


@pytest.mark.parametrize("text", ["x", " ", "65536", "-1", "1.5"])
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


@all_cases(
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
