"""pod: what is known of the pod that a call is about.

From annotations that the runtime hands over, the pod's containers are known by name only, since the injector
lists them in an annotation. From the API all of it is known.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..pod import Container, Pod
from ..pod.annotations import STATUS
from ..settings.texts import shown
from ..startup import json_text
from ..startup.record import Record
from .names import ANNOTATIONS
from .protocol import BAD_CONFIGURATION, TRY_AGAIN, UNDECODABLE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .protocol import Document, Request

#: The names that kubelet gives to these in CNI_ARGS.
_NAME, _NAMESPACE, _UID = "K8S_POD_NAME", "K8S_POD_NAMESPACE", "K8S_POD_UID"


class Identity(Record):
    """Which pod a call is about, as kubelet names it in CNI_ARGS; all are empty for what is no pod."""

    name: str
    namespace: str
    uid: str = ""

    def __str__(self) -> str:
        return shown(f"pod {self.namespace}/{self.name}") if self.name else "no pod"


class KnownPod(Record):
    """What is known of a pod. `containers_known`: it has no other containers than `pod.containers`.

    `injected` is True if it has the annotation STATUS.
    """

    pod: Pod
    containers_known: bool

    @property
    def injected(self) -> bool:
        """True if the injector says that it has been here."""
        return bool(self.pod.annotations.get(STATUS))


def identity(request: Request) -> Identity:
    """Return which pod a call is about."""
    return Identity(*(request.arguments.get(name, "") for name in (_NAME, _NAMESPACE, _UID)))


def handed_over(document: Document) -> dict[str, str] | None:
    """Return the annotations that the runtime handed over, None if it does not do that.

    Raises CniError if they are no mapping of texts.
    """
    runtime = document.get("runtimeConfig")
    if runtime is None:
        return None
    if not isinstance(runtime, dict):
        raise CniError(BAD_CONFIGURATION, "runtimeConfig: is not an object")
    if ANNOTATIONS not in runtime:
        return None
    found: Any = runtime[ANNOTATIONS] or {}  # Go's empty map may be null
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CniError(UNDECODABLE, f"runtimeConfig: {ANNOTATIONS} is not an object of strings")
    return found


def why_not_handed_over(document: Document) -> CniError:
    """Return the error for a pod whose annotations are not known."""
    capabilities = document.get("capabilities")
    if isinstance(capabilities, dict) and capabilities.get(ANNOTATIONS) is True:
        why = "the runtime does not hand them over, as containerd 1.5, CRI-O 1.29 and later do"
    else:
        why = f'the plugin\'s entry does not ask for them: it lacks "capabilities": {{"{ANNOTATIONS}": true}}'
    return CniError(
        TRY_AGAIN,
        "the annotations of the pod are not known",
        f"{why}; set `kubeconfig` in the plugin's entry to have it ask the Kubernetes API",
    )


def of_annotations(who: Identity, annotations: Mapping[str, str]) -> KnownPod:
    """Return what annotations alone tell. Raises CniError if the injector's cannot be read."""
    initial, others = _listed(annotations.get(STATUS, ""))
    containers = (
        *(Container(name, init=True) for name in initial or ()),
        *(Container(name) for name in others or ()),
    )
    pod = Pod("Pod", who.name, who.namespace, annotations, containers=containers)
    return KnownPod(pod, containers_known=others is not None)


def _listed(text: str) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Return the injector's lists of init containers and of containers, None for one that is not there."""
    if not text:
        return None, None
    try:
        members = json_text.read_object(text)
    except ValueError as error:
        raise CniError(UNDECODABLE, f"annotation {STATUS}: is not a JSON object", str(error)) from error
    lists = []
    for key in ("initContainers", "containers"):
        found = members[key].value if key in members else ()
        if found is None:  # Go's empty list may be null
            found = []
        if found != () and not (isinstance(found, list) and all(isinstance(name, str) for name in found)):
            raise CniError(UNDECODABLE, f"annotation {STATUS}: {key} is not a list of names")
        lists.append(None if found == () else tuple(found))
    return lists[0], lists[1]


def of_api(text: str, who: Identity) -> KnownPod:
    """Return what the API's answer, a Pod in JSON, tells. Raises CniError if it is not that pod."""
    from ..pod.manifest import pods  # annotations are no manifest

    try:
        found = pods(text, "the API's answer")
    except SettingsError as error:
        raise CniError(TRY_AGAIN, "the API's answer cannot be read", str(error)) from error
    if len(found) != 1 or found[0].name != who.name:
        raise CniError(TRY_AGAIN, f"the API's answer is not {who}")
    _listed(found[0].annotations.get(STATUS, ""))
    return KnownPod(found[0], containers_known=True)
