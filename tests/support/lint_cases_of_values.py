"""lint_cases_of_values: findings of pod lint about the values and names of annotations.

Each is a kind of finding, where it is, a part of what it says, and a manifest that has it and nothing else.
"""

from __future__ import annotations

from typing import Any

from tests.support.linting import (
    CONFIG,
    DNS,
    DOCKERS_SERVER,
    DUAL_DNS,
    REROUTE,
    SIXTH_SERVER,
    STATUS,
    allowed_init,
    labelled,
    on_the_workload,
)
from tests.support.manifests import MODE, manifest, proxy, traffic

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
    ("istio", "annotation status.sidecar.istio.io/port", "Istio's injector rejects", manifest({STATUS: ""})),
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
]
