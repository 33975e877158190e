"""manifests: manifests of pods and workloads, plain, odd and generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from istio_iptables import Facts
from istio_iptables.pod.annotations import VARIABLES
from tests.support import strategies

FACTS = Facts(ipv4=True)


TRAFFIC = "traffic.sidecar.istio.io/"


def manifest(
    annotations: Mapping[str, Any] | None = None,
    containers: list[dict[str, Any]] | None = None,
    inits: list[dict[str, Any]] | None = None,
    kind: str = "Pod",
    name: str = "web",
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {"containers": containers or [{"name": "app"}], "initContainers": inits or [], **spec},
    }


def workload(kind: str, annotations: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": dict(annotations)}, "spec": manifest()["spec"]}
    spec: dict[str, Any] = {"template": template}
    if kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    whole = {"template": template} if kind == "PodTemplate" else {"spec": spec}
    return {"kind": kind, "metadata": {"name": "web", **metadata}, **whole}


VALUES = {
    "sidecar.istio.io/interceptionMode": "TPROXY",
    f"{TRAFFIC}includeOutboundIPRanges": "10.0.0.0/8,fd00::/8",
    f"{TRAFFIC}excludeOutboundIPRanges": "10.1.0.0/16",
    f"{TRAFFIC}includeInboundPorts": "80,443",
    f"{TRAFFIC}excludeInboundPorts": "9090",
    f"{TRAFFIC}includeOutboundPorts": "27017",
    f"{TRAFFIC}excludeOutboundPorts": "3306",
    f"{TRAFFIC}excludeInterfaces": "net1,net2",
    "istio.io/reroute-virtual-interfaces": "vm0",
    f"{TRAFFIC}kubevirtInterfaces": "vm0",
}


def proxy(**more: Any) -> dict[str, Any]:
    return {"name": "istio-proxy", **more}


def init(*arguments: str, **more: Any) -> dict[str, Any]:
    return {"name": "istio-init", "args": list(arguments), **more}


def annotation_texts() -> st.SearchStrategy[dict[str, str]]:
    """Annotations with valid values."""
    lists = strategies.listed
    return st.fixed_dictionaries(
        {},
        optional={
            "sidecar.istio.io/interceptionMode": st.sampled_from(["REDIRECT", "TPROXY", ""]),
            f"{TRAFFIC}includeOutboundIPRanges": st.just("*") | lists(strategies.cidrs()),
            f"{TRAFFIC}excludeOutboundIPRanges": lists(strategies.cidrs()),
            f"{TRAFFIC}includeInboundPorts": st.just("*") | lists(strategies.ports()),
            f"{TRAFFIC}excludeInboundPorts": lists(strategies.ports()),
            f"{TRAFFIC}includeOutboundPorts": lists(strategies.ports()),
            f"{TRAFFIC}excludeOutboundPorts": lists(strategies.ports()),
            f"{TRAFFIC}excludeInterfaces": lists(strategies.interfaces()),
            "istio.io/reroute-virtual-interfaces": lists(strategies.interfaces()),
            f"{TRAFFIC}kubevirtInterfaces": lists(strategies.interfaces()),
        },
    )


@st.composite
def valid_pods(draw: st.DrawFn) -> dict[str, Any]:
    """Pods of which nothing is wrong for a reader of settings."""
    ids = st.integers(0, 5000)
    security = st.fixed_dictionaries({}, optional={"runAsUser": ids, "runAsGroup": ids})
    flags = st.sampled_from(["true", "false", "1", "0"])
    variables = [
        {"name": name, "value": draw(flags)} for name in draw(st.sets(st.sampled_from([*VARIABLES])))
    ]
    container = proxy(securityContext=draw(security), env=variables)
    inits = (
        [init(*draw(st.sampled_from([(), ("-b", "80"), ("-p5", "--redirect-dns")])))]
        if draw(st.booleans())
        else []
    )
    there = draw(st.booleans())
    return manifest(
        draw(annotation_texts()),
        [container] if there else [{"name": "app"}],
        inits,
        securityContext=draw(security),
    )


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def odd_pods(draw: st.DrawFn) -> Any:
    """Pods in which some things are not as they should be."""
    thing = draw(valid_pods())
    for _ in range(draw(st.integers(1, 3))):
        place: Any = thing
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], (dict, list)) or not place[key] or draw(st.integers(0, 3)) == 0:
                place[key] = draw(anything | st.sampled_from(["*", "x", "80,80", "10.0.0.1/8", "TPROXY\n"]))
                break
            place = place[key]
    return thing


MODE = "sidecar.istio.io/interceptionMode"


def traffic(**texts: Any) -> dict[str, Any]:
    return {f"{TRAFFIC}{name}": text for name, text in texts.items()}
