"""lint_cases_of_pods: findings of pod lint about what a pod captures, and about its containers.

Each is a kind of finding, where it is, a part of what it says, and a manifest that has it and nothing else.
"""

from __future__ import annotations

from typing import Any

from tests.support.linting import (
    ALLOWED,
    AUTO_CONFIG,
    CONFIG,
    DNS,
    REROUTE,
    ROOT_PROXY,
    SERVER,
    STATUS,
    VALIDATION,
    allocating,
    allowed_init,
    app,
    labelled,
)
from tests.support.manifests import MODE, init, manifest, proxy, traffic

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
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
