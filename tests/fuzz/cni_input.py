"""cni_input: what a container runtime writes to the CNI plugin, and what is in CNI_ARGS (after a NUL).

The call fails with a code of the specification, or the plugin knows what to do with the pod. Its answer is
JSON that has the result of the plugins before it, unchanged; its rules are those of settings (see argv).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from istio_iptables.cni import protocol, rules
from istio_iptables.cni.configuration import read
from istio_iptables.cni.decision import Skip, decide
from istio_iptables.cni.pod import handed_over, identity, of_annotations, why_not_handed_over
from istio_iptables.cni.protocol import CniError
from istio_iptables.settings.resolve import resolve
from tests.fuzz.holding import FACTS, allowed, rules_hold
from tests.support.cni import INJECTED, configuration, variables
from tests.support.manifests import traffic

_ENVIRON = variables()


def corpus() -> Iterator[bytes]:
    lists = traffic(
        includeInboundPorts="80,443", excludeOutboundIPRanges="10.0.0.0/8", excludeInterfaces="eth1"
    )
    tproxy = {"sidecar.istio.io/interceptionMode": "TPROXY", "proxy.istio.io/config": '{"concurrency": 2}'}
    for made in (
        configuration(),
        configuration({**INJECTED, **lists}, exclude_namespaces=["kube-system"], log_file="/var/log/cni"),
        configuration({**INJECTED, **tproxy}, settings={"dual-stack": True, "redirect-dns": "true"}),
        configuration(None, kubeconfig="/etc/cni/net.d/kubeconfig", cniVersion="0.4.0"),
    ):
        yield json.dumps(made).encode()
        yield json.dumps(made, indent=2).encode() + b"\0" + _ENVIRON["CNI_ARGS"].encode()


def check(data: bytes) -> None:
    content, _, arguments = data.partition(b"\0")
    environ = {**_ENVIRON}
    if arguments:
        environ["CNI_ARGS"] = arguments.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    document = allowed(lambda: protocol.decode(content), CniError)
    if document is None:
        return
    json.loads(protocol.versions_text(document))
    for command in protocol.COMMANDS.values():
        request = allowed(lambda: protocol.request(command, environ, document), CniError)  # noqa: B023
        if request is not None:
            allowed(lambda: _answered(request))  # noqa: B023  # both are called here


def _answered(request: protocol.Request) -> None:
    """Do what a call does before it touches the pod. Raises what the plugin answers with a code."""
    if request.command.chained:
        answer = json.loads(protocol.result_text(request.document))
        before = dict(request.document.get("prevResult"))
        assert {**answer, "cniVersion": ""} == {**before, "cniVersion": ""}
    node = read(request.document.values())
    annotations = handed_over(request.document)
    if annotations is None:
        raise why_not_handed_over(request.document)
    who = identity(request)
    str(who).encode("utf-8", "surrogateescape")
    known = of_annotations(who, annotations)
    if not isinstance(decide(who, node, lambda: known), Skip):
        rules_hold(resolve(rules.settings(node, known), FACTS)[0])
