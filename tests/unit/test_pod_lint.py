"""Findings: each thing that does not do what it says, and its neighbours that do."""

from __future__ import annotations

import json
from typing import Any

import yaml

from istio_iptables import Facts, lint_pods
from istio_iptables.pod.annotations import NAMES
from istio_iptables.pod.lint import KINDS, lint
from istio_iptables.pod.manifest import pods
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.texts import Given
from tests.support import lint_cases_of_pods, lint_cases_of_values
from tests.support.cases import all_cases
from tests.support.linting import (
    AUTO_CONFIG,
    BOTH_SERVERS,
    CONFIG,
    DNS,
    DOCKERS_SERVER,
    REROUTE,
    ROOT_PROXY,
    SERVER,
    STATUS,
    VALIDATION,
    allocating,
    allowed_init,
    app,
    found_in,
    labelled,
)
from tests.support.manifests import MODE, VALUES, init, manifest, proxy, traffic

CASES = [*lint_cases_of_values.CASES, *lint_cases_of_pods.CASES]


@all_cases(("kind", "where", "says", "thing"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
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


@all_cases(
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


@all_cases("name", OTHERS)
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
