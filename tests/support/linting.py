"""linting: manifests of which something can be said, and what pod lint says of them."""

from __future__ import annotations

import json
from typing import Any

from istio_iptables import lint_pods
from istio_iptables.pod.lint import Finding
from tests.support.manifests import init, proxy, traffic, workload

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
