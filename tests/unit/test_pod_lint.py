"""Findings: each thing that does not do what it says, and its neighbours that do."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables import Facts, SettingsError, lint_pods
from istio_iptables.pod import pods
from istio_iptables.pod.annotations import NAMES
from istio_iptables.pod.lint import KINDS, Finding, lint
from istio_iptables.pod.lint.intervals import Interval, Intervals
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.texts import Given
from tests.support.manifests import (
    MODE,
    VALUES,
    init,
    manifest,
    odd_pods,
    proxy,
    traffic,
    valid_pods,
    workload,
)

REROUTE = "istio.io/reroute-virtual-interfaces"
DNS = proxy(env=[{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}])
DUAL_DNS = proxy(env=[{"name": n, "value": "true"} for n in ("ISTIO_META_DNS_CAPTURE", "ISTIO_DUAL_STACK")])
SERVER: Any = {"dnsConfig": {"nameservers": ["10.96.0.10"]}}
SIXTH_SERVER: Any = {"dnsConfig": {"nameservers": ["fd00::a"]}}
DOCKERS_SERVER = {"nameservers": ["127.0.0.11"]}
BOTH_SERVERS = {"nameservers": ["10.96.0.10", "fd00::a"]}
ROOT_PROXY = {"runAsUser": 0, "runAsGroup": 1337, "capabilities": {"add": ["NET_ADMIN"]}}
ALLOWED = {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}}


STATUS, CONFIG = "status.sidecar.istio.io/port", "proxy.istio.io/config"
AUTO_CONFIG = 'proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true", ISTIO_META_DNS_AUTO_ALLOCATE: "true"}'
VALIDATION = {"name": "istio-validation", "args": ["istio-iptables", "--run-validation", "--skip-rule-apply"]}


def allocating(**more: str) -> dict[str, Any]:
    variables = {"ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_DNS_AUTO_ALLOCATE": "true", **more}
    return proxy(env=[{"name": name, "value": value} for name, value in variables.items()])


def app(number: int = 0, protocol: str = "TCP", **security: Any) -> dict[str, Any]:
    ports = [{"containerPort": number, "protocol": protocol}] if number else []
    return {"name": "app", "ports": ports, "securityContext": security}


def allowed_init(*arguments: str, **more: Any) -> dict[str, Any]:
    return init(*arguments, securityContext=ALLOWED, **more)


def on_the_workload(**annotations: Any) -> dict[str, Any]:
    thing = workload("Deployment", {})
    thing["metadata"]["annotations"] = traffic(**annotations)
    return thing


def labelled(thing: dict[str, Any], **labels: Any) -> dict[str, Any]:
    named = {name.replace("__", "/").replace("_", "."): text for name, text in labels.items()}
    return {**thing, "metadata": {**thing["metadata"], "labels": named}}


def found_in(thing: Any) -> list[Finding]:
    return lint_pods(json.dumps(thing))


#: Kind of finding, where it is, a part of what it says, and the manifests that have it and nothing else.
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    # --- values
    ("invalid", f"annotation {MODE}", "write TPROXY, in capitals", manifest({MODE: "tproxy"})),
    (
        "invalid",
        "includeInboundPorts",
        "'http' is not a port",
        manifest(traffic(includeInboundPorts="80,http")),
    ),
    ("invalid", "excludeInboundPorts", "'*' cannot be used", manifest(traffic(excludeInboundPorts="*"))),
    ("invalid", "excludeOutboundPorts", "'*' cannot be used", manifest(traffic(excludeOutboundPorts="*"))),
    ("invalid", "includeOutboundPorts", "'*' cannot be used", manifest(traffic(includeOutboundPorts="*"))),
    ("invalid", "excludeOutboundIPRanges", "'*' cannot be", manifest(traffic(excludeOutboundIPRanges="*"))),
    (
        "invalid",
        "includeOutboundIPRanges",
        "mixed",
        manifest(traffic(includeOutboundIPRanges="*,10.0.0.0/8")),
    ),
    ("invalid", "excludeInterfaces", "trailing '+'", manifest(traffic(excludeInterfaces="*"))),
    ("invalid", "spec.containers", "is a mapping", manifest(containers={"name": "app"})),  # type: ignore[arg-type]
    ("invalid", "container istio-init", "unknown flag", manifest(inits=[allowed_init("--nonsense")])),
    ("istio", "includeInboundPorts", "'80-90' is a range", manifest(traffic(includeInboundPorts="80-90"))),
    (
        "istio",
        "excludeOutboundIPRanges",
        "write 10.1.2.3/32",
        manifest(traffic(excludeOutboundIPRanges="10.1.2.3")),
    ),
    (
        "istio",
        "excludeOutboundIPRanges",
        "write fd00::1/128",
        manifest(traffic(excludeOutboundIPRanges="fd00::1")),
    ),
    ("unquoted", "includeInboundPorts", 'write "8080"', manifest(traffic(includeInboundPorts=8080))),
    (
        "unquoted",
        "variable INVALID_DROP",
        "a boolean",
        manifest(containers=[proxy(env=[{"name": "INVALID_DROP", "value": True}])]),
    ),
    (
        "unquoted",
        "label sidecar.istio.io/inject",
        "a boolean",
        labelled(manifest(), sidecar_istio_io__inject=False),
    ),
    (
        "host-bits",
        "excludeOutboundIPRanges",
        "10.1.2.3/8 means all of 10.0.0.0/8",
        manifest(traffic(excludeOutboundIPRanges="10.1.2.3/8")),
    ),
    (
        "host-bits",
        "includeOutboundIPRanges",
        "means all of fd00::/8",
        manifest(traffic(includeOutboundIPRanges="fd00::1/8")),
    ),
    (
        "duplicate",
        "includeInboundPorts",
        "80 appears twice",
        manifest(traffic(includeInboundPorts="80,81,80")),
    ),
    (
        "duplicate",
        "excludeInboundPorts",
        "22 appears twice",
        manifest(traffic(excludeInboundPorts="22,22")),
    ),
    (
        "duplicate",
        "excludeOutboundPorts",
        "25 appears twice",
        manifest(traffic(excludeOutboundPorts="25,25")),
    ),
    (
        "duplicate",
        "excludeOutboundIPRanges",
        "10.1.0.0/16 is in 10.0.0.0/8 already",
        manifest(traffic(excludeOutboundIPRanges="10.0.0.0/8,10.1.0.0/16")),
    ),
    (
        "duplicate",
        "excludeInterfaces",
        "net1 appears twice",
        manifest(traffic(excludeInterfaces="net1,net1")),
    ),
    (
        "duplicate",
        "container istio-init: --istio-inbound-ports (-b)",
        "85-95 and 80-90 overlap",
        manifest(inits=[allowed_init("-b", "80-90,85-95")]),
    ),
    (
        "everything",
        "excludeOutboundIPRanges",
        "no IPv4 destination",
        manifest(traffic(excludeOutboundIPRanges="0.0.0.0/0")),
    ),
    (
        "everything",
        "excludeInterfaces",
        "eth0 is the pod's interface",
        manifest(traffic(excludeInterfaces="net1,eth0")),
    ),
    (
        "everything",
        "container istio-init: --istio-exclude-interfaces (-c)",
        "e+ is the pod's interface",
        manifest(inits=[allowed_init("-c", "e+")]),
    ),
    ("invalid", "annotation status.sidecar.istio.io/port", "'x' is not a port", manifest({STATUS: "x"})),
    ("invalid", "annotation proxy.istio.io/config", "should be a mapping", manifest({CONFIG: "x"})),
    ("unquoted", "annotation status.sidecar.istio.io/port", "a number", manifest({STATUS: 15030})),
    (
        "unquoted",
        "annotation proxy.istio.io/config: proxyMetadata.ISTIO_DUAL_STACK",
        "a boolean: Istio's injector rejects it",
        manifest({CONFIG: "proxyMetadata: {ISTIO_DUAL_STACK: true}"}),
    ),
    (
        "istio",
        "excludeInterfaces",
        "'net+' is a wildcard, which Istio's injector rejects",
        manifest(traffic(excludeInterfaces="net+")),
    ),
    ("istio", REROUTE, "'vm+' is a wildcard", manifest({REROUTE: "vm+"})),
    ("interface", "excludeInterfaces", "write net1", manifest(traffic(excludeInterfaces="net1@if2"))),
    ("interface", REROUTE, "'k6t-eth0@if3' is how ip(8) shows", manifest({REROUTE: "k6t-eth0@if3"})),
    (
        "interface",
        "excludeInterfaces",
        "'net*' is no wildcard here",
        manifest(traffic(excludeInterfaces="net*")),
    ),
    (
        "interface",
        "container istio-init: --istio-exclude-interfaces (-c)",
        "write net+",
        manifest(inits=[allowed_init("-c", "net*")]),
    ),
    (
        "no-effect",
        "container istio-init: variable ISTIO_INBOUND_EXCLUDE_PORTS",
        "use ISTIO_LOCAL_EXCLUDE_PORTS",
        manifest(inits=[allowed_init(env=[{"name": "ISTIO_INBOUND_EXCLUDE_PORTS", "value": "22"}])]),
    ),
    (
        "no-effect",
        "container istio-init: --vklog",
        "leave it out",
        manifest(inits=[allowed_init("--vklog=1")]),
    ),
    # --- nothing captured, or not what Istio needs
    (
        "nothing",
        "includeInboundPorts",
        "nothing is captured: list what to capture, or set interceptionMode to NONE",
        manifest(traffic(includeInboundPorts="", includeOutboundIPRanges="")),
    ),
    (
        "nothing",
        "includeInboundPorts",
        "only DNS is captured",
        manifest(traffic(includeInboundPorts="", includeOutboundIPRanges="", includeOutboundPorts=""), [DNS]),
    ),
    (
        "dns",
        REROUTE,
        "what is behind docker0 gets no answers from DNS servers",
        manifest({REROUTE: "docker0"}, [DNS]),
    ),
    (
        "auto-allocate",
        "includeOutboundIPRanges",
        "240.240.0.0/16 is missing",
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8"), [allocating()]),
    ),
    (
        "auto-allocate",
        "includeOutboundIPRanges",
        "240.240.0.0/16 is missing",
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8,240.240.0.0/17"), [allocating()]),
    ),
    (
        "auto-allocate",
        "includeOutboundIPRanges",
        "2001:2::/48 is missing",
        manifest(traffic(includeOutboundIPRanges="fd00::/8"), [allocating()]),
    ),
    (
        "auto-allocate",
        "includeOutboundIPRanges",
        "2001:2::/48 is missing",
        manifest(
            traffic(includeOutboundIPRanges="240.0.0.0/4,fd00::/8"), [allocating(ISTIO_DUAL_STACK="true")]
        ),
    ),
    (
        "auto-allocate",
        "includeOutboundIPRanges",
        "240.240.0.0/16 is missing",
        manifest({**traffic(includeOutboundIPRanges="10.0.0.0/8"), CONFIG: AUTO_CONFIG}),
    ),
    (
        "auto-allocate",
        "excludeOutboundIPRanges",
        "240.0.0.0/4 contains addresses of 240.240.0.0/16",
        manifest(traffic(excludeOutboundIPRanges="240.0.0.0/4"), [allocating()]),
    ),
    (
        "one-family",
        "excludeOutboundIPRanges",
        "fd00::/8 has no effect",
        manifest(traffic(excludeOutboundIPRanges="10.0.0.0/8,fd00::/8")),
    ),
    # --- names
    (
        "one-family",
        "excludeOutboundIPRanges",
        "fd00::/8 has no effect",
        manifest(traffic(excludeOutboundIPRanges="10.0.0.0/8,fd00::/8"), [DNS], **SIXTH_SERVER),
    ),
    ("dns", "spec.dnsConfig", "127.0.0.11 is docker's", manifest({}, [DNS], dnsConfig=DOCKERS_SERVER)),
    ("dns", REROUTE, "behind docker0", manifest({REROUTE: "docker0"}, [DNS])),
    (
        "dns",
        "excludeOutboundIPRanges",
        "fd00::/8 contains the pod's DNS server fd00::a, but queries still go to the agent",
        manifest(traffic(excludeOutboundIPRanges="fd00::/8"), [DNS], **SIXTH_SERVER),
    ),
    (
        "dns",
        "excludeOutboundIPRanges",
        "fd00::/8 contains the pod's DNS server fd00::a, but queries still go to the agent",
        manifest(traffic(excludeOutboundIPRanges="10.0.0.0/8,fd00::/8"), [DUAL_DNS], **SIXTH_SERVER),
    ),
    (
        "unknown",
        "includeInboundPort",
        "did you mean traffic.sidecar.istio.io/includeInboundPorts?",
        manifest(traffic(includeInboundPort="80")),
    ),
    (
        "unknown",
        "excludeoutboundipranges",
        "mean traffic.sidecar.istio.io/excludeOutboundIPRanges?",
        manifest(traffic(excludeoutboundipranges="10.0.0.0/8")),
    ),
    ("unknown", "annotation traffic.sidecar.istio.io/zzz", "leave it out", manifest(traffic(zzz="80"))),
    (
        "unknown",
        "annotation sidecar.istio.io/interceptionmode",
        f"mean {MODE}?",
        manifest({"sidecar.istio.io/interceptionmode": "TPROXY"}),
    ),
    (
        "unknown",
        "annotation sidecar.istio.io/includeInboundPorts",
        "mean traffic.",
        manifest({"sidecar.istio.io/includeInboundPorts": "80"}),
    ),
    (
        "unknown",
        "annotation traffic.sidecar.istio.io/interceptionMode",
        f"mean {MODE}?",
        manifest(traffic(interceptionMode="TPROXY")),
    ),
    ("unknown", "annotation excludeInterfaces", "mean traffic.", manifest({"excludeInterfaces": "net1"})),
    (
        "unknown",
        "annotation istio.io/reroute-virtual-interface",
        f"mean {REROUTE}?",
        manifest({"istio.io/reroute-virtual-interface": "vm0"}),
    ),
    ("misplaced", "of the Deployment itself", "pod template", on_the_workload(includeInboundPorts="80")),
    (
        "misplaced",
        "label traffic.sidecar.istio.io/includeInboundPorts",
        "not a label",
        labelled(manifest(), traffic_sidecar_istio_io__includeInboundPorts="80"),
    ),
    ("deprecated", "kubevirtInterfaces", f"use {REROUTE}", manifest(traffic(kubevirtInterfaces="vm0"))),
    (
        "deprecated",
        "kubevirtInterfaces",
        "takes precedence",
        manifest({**traffic(kubevirtInterfaces="vm0"), REROUTE: "vm1"}),
    ),
    # --- lists that cannot do what they say
    (
        "no-effect",
        "excludeInboundPorts",
        "includeInboundPorts lists the ports",
        manifest(traffic(includeInboundPorts="80", excludeInboundPorts="22")),
    ),
    (
        "no-effect",
        "excludeInboundPorts",
        "includeInboundPorts is empty",
        manifest(traffic(includeInboundPorts="", excludeInboundPorts="22")),
    ),
    (
        "no-effect",
        "includeOutboundPorts",
        "includeOutboundIPRanges is '*'",
        manifest(traffic(includeOutboundPorts="80")),
    ),
    (
        "no-effect",
        "excludeOutboundIPRanges",
        "is empty, so nothing",
        manifest(traffic(includeOutboundIPRanges="", excludeOutboundIPRanges="10.0.0.0/8")),
    ),
    (
        "no-effect",
        "excludeOutboundPorts",
        "is empty, so nothing",
        manifest(traffic(includeOutboundIPRanges="", excludeOutboundPorts="25")),
    ),
    (
        "no-effect",
        "excludeOutboundIPRanges",
        "192.168.0.0/16 has no effect: it is in no CIDR",
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8", excludeOutboundIPRanges="192.168.0.0/16")),
    ),
    ("no-effect", REROUTE, "TPROXY captures", manifest({MODE: "TPROXY", REROUTE: "vm0"})),
    (
        "no-effect",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "lists the groups",
        manifest(
            inits=[
                allowed_init(
                    env=[
                        {"name": "ISTIO_OUTBOUND_OWNER_GROUPS", "value": "5"},
                        {"name": "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "value": "6"},
                    ]
                )
            ]
        ),
    ),
    (
        "contradiction",
        "excludeInboundPorts",
        "80 is still captured",
        manifest(traffic(includeInboundPorts="80,81", excludeInboundPorts="80")),
    ),
    (
        "contradiction",
        "includeOutboundPorts",
        "25 is not captured",
        manifest(
            traffic(
                includeOutboundIPRanges="10.0.0.0/8", includeOutboundPorts="25,80", excludeOutboundPorts="25"
            )
        ),
    ),
    (
        "contradiction",
        "excludeInterfaces",
        "net1 is still captured",
        manifest({**traffic(excludeInterfaces="net1"), REROUTE: "net1"}),
    ),
    (
        "shadowed",
        "includeOutboundIPRanges",
        "10.1.0.0/16 is not captured, since it is within 10.0.0.0/8",
        manifest(
            traffic(includeOutboundIPRanges="10.1.0.0/16,11.0.0.0/8", excludeOutboundIPRanges="10.0.0.0/8")
        ),
    ),
    (
        "overridden",
        "includeInboundPorts",
        "--istio-inbound-ports (-b) sets '*'",
        manifest(traffic(includeInboundPorts="80"), inits=[allowed_init("-b", "*")]),
    ),
    (
        "overridden",
        "excludeInboundPorts",
        "sets '15090,15021,15020'",
        manifest(traffic(excludeInboundPorts="22"), inits=[allowed_init("-d", "15090,15021,15020")]),
    ),
    # --- DNS and ports
    (
        "dns",
        "excludeOutboundIPRanges",
        "10.96.0.0/12 contains the pod's DNS server 10.96.0.10, but queries still go to the agent",
        manifest(traffic(excludeOutboundIPRanges="10.96.0.0/12"), [DNS], **SERVER),
    ),
    (
        "dns",
        "includeOutboundIPRanges",
        "10.0.0.0/8 contains the pod's DNS server 10.96.0.10",
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8"), **SERVER, dnsPolicy="None"),
    ),
    (
        "dns",
        "excludeOutboundPorts",
        "53 makes all DNS queries bypass",
        manifest(traffic(excludeOutboundPorts="53"), [DNS]),
    ),
    (
        "proxy-port",
        "includeInboundPorts",
        "15021 is the sidecar's own port, for health",
        manifest(traffic(includeInboundPorts="80,15021")),
    ),
    (
        "proxy-port",
        "includeInboundPorts",
        "15008 is for HBONE tunnels and is never",
        manifest(traffic(includeInboundPorts="80,15008")),
    ),
    ("proxy-port", "container app: containerPort 15006", "for inbound", manifest(containers=[app(15006)])),
    (
        "proxy-port",
        "container app: containerPort 15101",
        "for outbound",
        manifest(containers=[app(15101)], inits=[allowed_init("-p", "15101")]),
    ),
    (
        "container-port",
        "container app: containerPort 9000",
        "connections to it bypass the proxy, since includeInboundPorts does not list it",
        manifest(traffic(includeInboundPorts="8080"), [app(8080), {**app(9000), "name": "app"}]),
    ),
    (
        "not-tcp",
        "includeInboundPorts",
        "5353 is a UDP port",
        manifest(traffic(includeInboundPorts="80,5353"), [app(5353, "UDP")]),
    ),
    # --- the pod
    (
        "host-network",
        "spec.hostNetwork",
        "the whole node",
        manifest(traffic(includeInboundPorts="80"), hostNetwork=True),
    ),
    (
        "no-sidecar",
        "includeInboundPorts",
        "gets no sidecar",
        labelled(manifest(traffic(includeInboundPorts="80")), sidecar_istio_io__inject="false"),
    ),
    (
        "no-sidecar",
        "includeInboundPorts",
        "'NONE', so nothing",
        manifest({MODE: "NONE", **traffic(includeInboundPorts="80")}),
    ),
    (
        "no-sidecar",
        "proxy.istio.io/config",
        f"set the annotation {MODE}",
        manifest({CONFIG: "interceptionMode: TPROXY"}),
    ),
    (
        "no-sidecar",
        "proxy.istio.io/config",
        f"set the annotation {STATUS}",
        manifest({CONFIG: "statusPort: 1"}),
    ),
    (
        "proxy-user",
        "container app: securityContext.runAsUser",
        "1337 is the proxy's own",
        manifest(containers=[app(runAsUser=1337)]),
    ),
    (
        "proxy-user",
        "container app: securityContext.runAsGroup",
        "1337 is the proxy's own",
        manifest(containers=[app()], securityContext={"runAsGroup": 1337}),
    ),
    (
        "proxy-user",
        "container istio-proxy: securityContext.runAsUser",
        "0 is not exempt",
        manifest(containers=[proxy(securityContext={"runAsUser": 0})]),
    ),
    (
        "proxy-user",
        "container istio-proxy: securityContext.runAsUser",
        "runs as the pod's user 1001, which is not exempt",
        manifest(
            containers=[proxy(image="proxyv2")], securityContext={"runAsUser": 1001, "runAsGroup": 1001}
        ),
    ),
    (
        "owner-group",
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        "2000 is an fsGroup",
        manifest(
            inits=[allowed_init(env=[{"name": "ISTIO_OUTBOUND_OWNER_GROUPS", "value": "2000"}])],
            securityContext={"fsGroup": 2000},
        ),
    ),
    (
        "owner-group",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "7 is an fsGroup or a",
        manifest(
            inits=[allowed_init(env=[{"name": "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "value": "7"}])],
            securityContext={"supplementalGroups": [6, 7]},
        ),
    ),
    (
        "tproxy",
        "container istio-proxy: securityContext.capabilities",
        "NET_ADMIN",
        manifest({MODE: "TPROXY"}, [proxy(securityContext={**ROOT_PROXY, "capabilities": {}})]),
    ),
    (
        "tproxy",
        "container istio-proxy: securityContext.runAsUser",
        "as 1337",
        manifest({MODE: "TPROXY"}, [proxy(securityContext={**ROOT_PROXY, "runAsUser": 1337})]),
    ),
    (
        "init-privileges",
        "container istio-init: securityContext.capabilities",
        "without NET_ADMIN",
        manifest(inits=[init("-b", "*")]),
    ),
    (
        "init-privileges",
        "container istio-init: securityContext.capabilities",
        "without NET_RAW",
        manifest(inits=[init(securityContext={"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}})]),
    ),
    (
        "init-privileges",
        "container istio-init: securityContext.runAsUser",
        "as user 1000",
        manifest(inits=[init(securityContext={**ALLOWED, "runAsUser": 1000})]),
    ),
    (
        "init-order",
        "container migrate",
        "its connections are refused",
        manifest(containers=[proxy()], inits=[allowed_init(), {"name": "migrate"}]),
    ),
    (
        "init-order",
        "container migrate",
        "starts after a CNI plugin has set up the rules (istio-validation)",
        manifest(containers=[proxy()], inits=[VALIDATION, {"name": "migrate"}]),
    ),
    # The plugin sets up the rules before any container starts.
    (
        "init-order",
        "container migrate",
        "make istio-proxy a native sidecar before it",
        manifest(containers=[proxy()], inits=[{"name": "migrate"}, VALIDATION]),
    ),
]


@pytest.mark.parametrize(
    ("kind", "where", "says", "thing"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_one_finding(kind: str, where: str, says: str, thing: Any):
    found = found_in(thing)
    assert [finding.kind for finding in found] == [kind], found
    assert found[0].where.endswith(where) or where in found[0].where
    assert says in f"{found[0].problem}: {found[0].remedy}"
    assert found[0].pod in ("pod web", "deployment web")
    assert (
        str(found[0]) == f"{found[0].pod}: {found[0].where}: {found[0].problem}: {found[0].remedy} [{kind}]"
    )
    assert str(found[0]).isprintable()


def test_every_kind_of_finding_has_a_case():
    assert {case[0] for case in CASES} == set(KINDS)


@pytest.mark.parametrize(
    "thing",
    [
        manifest(),
        *(
            manifest({name: VALUES[name]})
            for name in NAMES
            if not name.endswith(("kubevirtInterfaces", "includeOutboundPorts", "includeOutboundIPRanges"))
        ),
        manifest(
            traffic(
                includeOutboundIPRanges="10.0.0.0/8", includeOutboundPorts="80", excludeOutboundPorts="25"
            )
        ),
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8", excludeOutboundIPRanges="10.1.0.0/16")),
        manifest(
            traffic(
                includeOutboundIPRanges="", includeOutboundPorts="80", excludeOutboundIPRanges="10.0.0.0/8"
            )
        ),
        manifest(traffic(includeInboundPorts="80", excludeInboundPorts="")),
        manifest(traffic(includeInboundPorts="", includeOutboundIPRanges="", includeOutboundPorts="80")),
        manifest(traffic(includeInboundPorts="", includeOutboundIPRanges="10.0.0.0/8")),
        manifest(traffic(includeInboundPorts="80", includeOutboundIPRanges="")),
        manifest({REROUTE: "docker0"}),
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8,240.240.0.0/16"), [allocating()]),
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8,240.0.0.0/4"), [allocating()]),
        manifest(
            traffic(includeOutboundIPRanges="240.240.0.0/16,2001:2::/48"),
            [allocating(ISTIO_DUAL_STACK="true")],
        ),
        manifest(containers=[allocating()]),
        manifest(
            traffic(includeOutboundIPRanges="10.0.0.0/8"),
            [allocating(ISTIO_META_DNS_AUTO_ALLOCATE="false")],
        ),
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8"), [allocating(ISTIO_META_DNS_CAPTURE="false")]),
        manifest({CONFIG: AUTO_CONFIG}),
        manifest({CONFIG: "interceptionMode: TPROXY", MODE: "REDIRECT"}),
        manifest({STATUS: "15030"}),
        manifest({STATUS: "0"}),
        manifest({STATUS: "15030"}, [app(15020)]),
        manifest(traffic(excludeInboundPorts="15030"), [app(8080)]),
        manifest({STATUS: "15030", **traffic(includeInboundPorts="8080", excludeInboundPorts="15030")}),
        manifest(inits=[allowed_init("-c", "net+")]),
        manifest(containers=[proxy(), app()], inits=[VALIDATION]),
        manifest(containers=[app()], inits=[VALIDATION, proxy(restartPolicy="Always"), {"name": "migrate"}]),
        manifest(
            containers=[proxy()],
            inits=[VALIDATION, {"name": "migrate", "securityContext": {"runAsUser": 1337}}],
        ),
        manifest({MODE: "NONE"}, [proxy()], [VALIDATION, {"name": "migrate"}]),
        # The pod's own user is the application's, whose traffic is captured (SPEC section 8).
        manifest(
            containers=[proxy(image="auto"), app()], securityContext={"runAsUser": 1001, "runAsGroup": 1001}
        ),
        manifest(
            containers=[proxy(image="proxyv2", securityContext={"runAsUser": 1337}), app()],
            securityContext={"runAsUser": 1001, "runAsGroup": 1001},
        ),
        manifest(traffic(excludeOutboundIPRanges="10.96.0.0/12"), **SERVER),
        manifest(
            traffic(includeOutboundIPRanges="10.0.0.0/8", excludeOutboundIPRanges="10.96.0.10/32"), **SERVER
        ),
        manifest(traffic(includeOutboundIPRanges="10.0.0.0/8"), [DNS], **SERVER),
        manifest(traffic(excludeOutboundPorts="53")),
        manifest(dnsConfig=DOCKERS_SERVER),
        manifest({}, [DNS], inits=[allowed_init("--dns-single-zone")], dnsConfig=DOCKERS_SERVER),
        manifest(traffic(excludeOutboundIPRanges="fd00::/8"), [DNS], dnsConfig=BOTH_SERVERS),
        *(manifest(traffic(excludeInboundPorts=text)) for text in ("15020", "15090,15021,15020", "22,15090")),
        manifest(traffic(includeInboundPorts="8080", excludeInboundPorts="15090,15021,15020")),
        manifest(traffic(excludeInboundPorts="22,8080"), [app(8080)]),
        manifest(traffic(includeInboundPorts="8080"), [app(8080), proxy(ports=[{"containerPort": 15099}])]),
        manifest(traffic(includeInboundPorts="8080"), [app(9000, "UDP")]),
        manifest(traffic(includeInboundPorts="8080"), inits=[{**app(9000), "name": "migrate"}]),
        manifest(traffic(includeInboundPorts=""), [app(8080)]),
        manifest(traffic(excludeInboundPorts="22"), [app(8080), proxy(ports=[{"containerPort": 15090}])]),
        manifest(traffic(includeInboundPorts="53"), [app(53), {**app(53, "UDP"), "name": "other"}]),
        manifest({MODE: "TPROXY"}, [proxy(securityContext=ROOT_PROXY)]),
        manifest(
            {MODE: "TPROXY"},
            [proxy(securityContext={"privileged": True, "runAsUser": 0, "runAsGroup": 1337})],
        ),
        manifest({MODE: "NONE"}),
        manifest({"sidecar.istio.io/inject": "false"}),
        labelled(manifest(traffic(includeInboundPorts="80"), [proxy()]), sidecar_istio_io__inject="false"),
        labelled(
            manifest({"sidecar.istio.io/inject": "false", **traffic(includeInboundPorts="80")}),
            sidecar_istio_io__inject="true",
        ),
        manifest(hostNetwork=True),
        manifest(
            containers=[app(8080, runAsUser=1000, runAsGroup=1000), proxy()],
            securityContext={"fsGroup": 1337},
        ),
        manifest(containers=[proxy()], inits=[{"name": "migrate"}, allowed_init()]),
        manifest(inits=[allowed_init(), proxy(restartPolicy="Always"), {"name": "migrate"}]),
        manifest(
            containers=[proxy()],
            inits=[allowed_init(), {"name": "migrate", "securityContext": {"runAsUser": 1337}}],
        ),
        manifest(containers=[proxy()], inits=[allowed_init("-i", ""), {"name": "migrate"}]),
        manifest(
            inits=[init("--run-validation=false", "--skip-rule-apply", securityContext={"runAsUser": 1337})]
        ),
        manifest(
            traffic(includeInboundPorts="80,81"),
            inits=[allowed_init("-b", "81,80", "-d", "15090,15021,15020")],
        ),
        manifest(
            inits=[allowed_init(env=[{"name": "ISTIO_OUTBOUND_OWNER_GROUPS", "value": "2000"}])],
            containers=[app(runAsGroup=2000)],
            securityContext={"fsGroup": 2000},
        ),
        manifest({"example.com/includeInboundPorts": "80", "istio.io/rev": "stable"}),
    ],
)
def test_nothing_to_find(thing: Any):
    assert found_in(thing) == []


#: Annotations and labels of Istio that are not settings (Istio's reference of resource annotations).
OTHERS = [
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/controlPlaneAuthPolicy",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/enableCoreDump",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/inject",
    "sidecar.istio.io/logLevel",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyCPULimit",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/proxyImageType",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/proxyMemoryLimit",
    "sidecar.istio.io/rewriteAppHTTPProbers",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsHistogramBuckets",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "sidecar.istio.io/status",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "readiness.status.sidecar.istio.io/applicationPorts",
    "readiness.status.sidecar.istio.io/failureThreshold",
    "readiness.status.sidecar.istio.io/initialDelaySeconds",
    "readiness.status.sidecar.istio.io/periodSeconds",
    "proxy.istio.io/overrides",
    "inject.istio.io/templates",
    "istio.io/rev",
    "istio.io/dataplane-mode",
    "istio.io/use-waypoint",
    "ambient.istio.io/redirection",
    "ambient.istio.io/bypass-inbound-capture",
    "prometheus.istio.io/merge-metrics",
    "networking.istio.io/exportTo",
    "networking.istio.io/traffic-distribution",
    "topology.istio.io/controlPlaneClusters",
]


@pytest.mark.parametrize("name", OTHERS)
def test_other_annotations_of_istio_are_not_taken_for_ours(name: str):
    assert found_in(manifest({name: "x"})) == []


def test_several_findings_at_once():
    thing = manifest(
        traffic(includeInboundPorts="80,80,15020", excludeInboundPorts=8080, includeOutboundPort="1"),
        [app(15001, runAsUser=1337)],
    )
    assert sorted(finding.kind for finding in found_in(thing)) == [
        "duplicate",
        "no-effect",
        "proxy-port",
        "proxy-port",
        "proxy-user",
        "unknown",
        "unquoted",
    ]


def test_every_pod_is_looked_at():
    text = yaml.safe_dump_all([manifest({MODE: "x"}, name=name) for name in "ab"])
    assert [finding.pod for finding in lint_pods(text)] == ["pod a", "pod b"]


def test_settings_from_elsewhere_go_before_those_of_the_pod():
    pod = pods(json.dumps(manifest(traffic(excludeOutboundPorts="53"))), "m")[0]
    assert lint(pod, Facts()) == []
    others = [Given(BY_NAME["redirect-dns"], "true", "--redirect-dns")]
    assert [finding.kind for finding in lint(pod, Facts(), others)] == ["dns"]


# --- where a finding is -----------------------------------------------------------------------

POD = """\
apiVersion: v1
kind: Service
---
kind: List
items:
- kind: Deployment
  metadata:
    name: web
    annotations:
      traffic.sidecar.istio.io/includeInboundPorts: "80"
  spec:
    template:
      metadata:
        annotations:
          traffic.sidecar.istio.io/excludeInterface: net1
          traffic.sidecar.istio.io/excludeOutboundPorts: "*"
        labels: {traffic.sidecar.istio.io/includeInboundPorts: "80"}
      spec:
        hostname: [web]
        initContainers:
        - name: istio-init
          args: [istio-iptables, -b, "80", -b, "80,80", "--proxy-uid=a b"]
        containers:
        - name: app
          securityContext:
            runAsUser: 1337
          ports:
          - containerPort: 15006
        - name: istio-proxy
          env:
          - name: INVALID_DROP
            value: true
"""
#: A part of the finding's place -> line and column of what is to be changed.
PLACES = {
    "annotation traffic.sidecar.istio.io/includeInboundPorts of the Deployment itself": (10, 7),
    "annotation traffic.sidecar.istio.io/excludeInterface": (15, 11),
    "annotation traffic.sidecar.istio.io/excludeOutboundPorts": (16, 11),
    "label traffic.sidecar.istio.io/includeInboundPorts": (17, 18),
    "container istio-init: securityContext.capabilities": (21, 11),
    "container istio-init: --istio-inbound-ports (-b)": (22, 44),
    "container istio-init: --proxy-uid": (22, 57),
    "container app: securityContext.runAsUser": (26, 13),
    "container app: containerPort 15006": (28, 13),
    "container istio-proxy: variable INVALID_DROP": (31, 13),
}


def test_a_finding_says_line_and_column():
    found = {finding.where: (finding.line, finding.column) for finding in lint_pods(POD)}
    assert found.items() >= PLACES.items()


def test_a_finding_about_a_whole_pod_has_the_pods_place():
    text = "kind: Service\n---\n" + yaml.safe_dump(manifest({CONFIG: "statusPort: 1"}, hostNetwork=True))
    assert [(f.where, f.line > 2) for f in lint_pods(text)] == [(f"annotation {CONFIG}", True)]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_finding_in_json_says_line_and_column(indent: int | None):
    things = [manifest(), {"kind": "List", "items": [on_the_workload(), manifest({MODE: "tproxy"})]}]
    text = "\n".join(json.dumps(thing, indent=indent) for thing in things)
    [finding] = lint_pods(text)
    assert text.splitlines()[finding.line - 1][finding.column - 1 :].startswith(f'"{MODE}": "tproxy"')


def test_a_line_begins_with_the_place():
    [finding] = [f for f in lint_pods(POD) if f.kind == "unknown"]
    assert str(finding.replace(file="a\nb.yaml")).startswith("a\\nb.yaml:15:11: deployment web: annotation ")
    assert str(finding.replace(file="web.yaml", line=0)).startswith("web.yaml: deployment web: annotation ")


@pytest.mark.slow
def test_long_lists_are_not_looked_at_in_pairs():
    networks = ",".join(f"10.{i >> 8 & 255}.{i & 255}.0/24" for i in range(20_000))
    thing = manifest(
        traffic(excludeOutboundIPRanges=networks, includeOutboundIPRanges=networks + ",11.0.0.0/8")
    )
    assert len([f for f in found_in(thing) if f.kind == "shadowed"]) == 20_000


def test_spans_of_one_version_do_not_meet_those_of_another():
    spans = Intervals([Interval("a", 4, 1, 5), Interval("b", 6, 1, 5), Interval("c", 4, 7, 9)])
    assert spans.repeated == []
    assert [getattr(spans.meeting(Interval("x", 4, n, n)), "text", "") for n in (0, 1, 5, 6, 7, 9, 10)] == [
        *("", "a", "a", "", "c", "c", "")
    ]
    assert spans.covering(Interval("x", 4, 4, 6)) is None
    assert spans.meeting(Interval("x", 0, 1, 5)) is None


numbers = st.integers(0, 30)
some_spans = st.builds(
    lambda version, first, length: Interval(f"{first}+{length}", version, first, first + length),
    st.sampled_from([0, 4]),
    numbers,
    st.integers(0, 9),
)


@given(st.lists(some_spans, max_size=8), some_spans)
@example([Interval("0+9", 0, 0, 9), Interval("1+1", 0, 1, 2)], Interval("5+0", 0, 5, 5))
def test_spans_that_meet_are_found(members: list[Interval], other: Interval):
    spans = Intervals(members)

    def meet(one: Interval) -> bool:
        return one.version == other.version and one.first <= other.last and other.first <= one.last

    met = spans.meeting(other)
    assert (met is not None) == any(map(meet, members))
    assert met is None or meet(met)
    pairs = [(a, b) for i, a in enumerate(members) for b in members[:i]]
    overlap = any(a.version == b.version and a.first <= b.last and b.first <= a.last for a, b in pairs)
    assert bool(spans.repeated) == overlap


@given(valid_pods())
def test_a_pod_that_can_be_read_has_nothing_invalid(thing: Any):
    assert not [finding for finding in found_in(thing) if finding.kind == "invalid"]


@given(odd_pods())
def test_whatever_is_in_a_manifest_is_linted(thing: Any):
    found: list[Finding] = []
    with contextlib.suppress(SettingsError):
        found = lint_pods(yaml.safe_dump(thing, allow_unicode=True))
    assert all(str(finding).isprintable() for finding in found)
    assert {finding.kind for finding in found} <= set(KINDS)
