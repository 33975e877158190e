"""decision: which pods get rules. The order is that of Istio's own plugin, so the same reason is given."""

from __future__ import annotations

from ..pod.annotations import (
    AMBIENT,
    AMBIENT_DATA_PLANE,
    AMBIENT_ON,
    DATA_PLANE,
    DISABLE_ENVOY,
    INIT,
    INJECT,
    MODE_ANNOTATION,
    PROXY,
    STATUS,
)
from ..pod.reading import proxy_variable
from ..settings.config import NO_INTERCEPTION
from ..settings.parsers import FALSE, TRUE
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..pod import Pod
    from .configuration import Node
    from .pod import Identity, KnownPod


class Skip(Record):
    """Why a pod gets no rules: `reason` is for programs (one of REASONS), `why` is for people."""

    reason: str
    why: str


#: Every reason, in the order in which they are looked for. They are labels of a metric: do not rename them.
REASONS = (
    NO_POD := "no-pod-name",
    OWN_POD := "own-pod",
    EXCLUDED := "namespace-excluded",
    IN_AMBIENT := "ambient",
    HAS_INIT := "istio-init",
    NO_ENVOY := "envoy-disabled",
    NO_PROXY := "no-istio-proxy",
    NO_SIDECAR := "not-a-sidecar",
    NOT_INJECTED := "injection-off",
    NO_STATUS := "no-status",
    NO_CAPTURE := "mode-none",
)


def decide(who: Identity, node: Node, look_up: Callable[[], KnownPod]) -> Skip | KnownPod:
    """Return the pod if it gets rules, else why it gets none.

    `look_up` returns what is known of the pod, or raises CniError; it is not called where the name decides.
    """
    if not who.name:
        return Skip(NO_POD, "CNI_ARGS has no K8S_POD_NAME: it is not a pod of Kubernetes")
    if _is_own(who, node):
        return Skip(OWN_POD, "it is one of the plugin's own pods")
    if who.namespace in node.exclude_namespaces:
        return Skip(EXCLUDED, f"the namespace {who.namespace} is in exclude_namespaces")
    known = look_up()
    pod = known.pod
    if _in_ambient(known):
        return Skip(IN_AMBIENT, "Istio's ambient mode takes its traffic")
    if pod.container(INIT):
        return Skip(HAS_INIT, f"it has the container {INIT}, which makes the rules")
    if (proxy_variable(pod, DISABLE_ENVOY)[0] or "") in TRUE:
        return Skip(NO_ENVOY, f"the variable {DISABLE_ENVOY} of the proxy is true: there is no Envoy")
    if known.containers_known and not pod.container(PROXY):
        return Skip(NO_PROXY, f"it has no container {PROXY}")
    kind = _kind_of_proxy(pod)
    if kind not in ("", "sidecar"):
        return Skip(NO_SIDECAR, f"its proxy is a {kind} and not a sidecar")
    if pod.labels.get(INJECT, pod.annotations.get(INJECT, "")) in FALSE:
        return Skip(
            NOT_INJECTED, f"its {'label' if INJECT in pod.labels else 'annotation'} {INJECT} is false"
        )
    if not known.injected:
        return Skip(NO_STATUS, f"it has no annotation {STATUS}: no sidecar was injected")
    if pod.annotations.get(MODE_ANNOTATION) == NO_INTERCEPTION:
        return Skip(NO_CAPTURE, f"its annotation {MODE_ANNOTATION} is {NO_INTERCEPTION}")
    return known


def _is_own(who: Identity, node: Node) -> bool:
    """Tell whether a pod is the plugin's own: it has to start where the plugin cannot work yet."""
    there = bool(node.plugin_namespace) and who.namespace == node.plugin_namespace
    return there and who.name.startswith(node.plugin_pods)


def _in_ambient(known: KnownPod) -> bool:
    """Tell whether ambient mode takes a pod's traffic; a sidecar goes before the label that asks for it."""
    pod = known.pod
    asks = pod.labels.get(DATA_PLANE) == AMBIENT_DATA_PLANE
    return pod.annotations.get(AMBIENT) == AMBIENT_ON or (asks and not known.injected)


def _kind_of_proxy(pod: Pod) -> str:
    """Return what a proxy is started as (`proxy sidecar`, `proxy router`), nothing if that is not known."""
    proxy = pod.container(PROXY)
    if proxy is None:
        return ""
    words = proxy.command_line[1:] if proxy.has_command else proxy.command_line
    if len(words) < 2 or words[0] != "proxy" or words[1].startswith("-"):
        return ""
    return words[1]
