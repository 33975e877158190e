"""manifest: the pods in the text of Kubernetes objects, typed (model.py).

A value of the wrong type is reported in the `problems` of the pod, not by an exception.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..settings import yaml_text
from ..settings.texts import nearest, quoted, shown
from ..startup.record import Record
from .annotations import PROXY
from .model import Container, Identity, Pod, Port
from .view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from ..settings.positions import Path
    from .view import Places


#: Where the pod template is, in the kinds of workloads that do not have it at _USUAL_TEMPLATE.
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
_USUAL_TEMPLATE = ("spec", "template")


def pods(text: str, what: str) -> tuple[Pod, ...]:
    """Return all pods and pod templates of a manifest, in its order. Other objects are skipped.

    `what` is the manifest's name in messages. Raises SettingsError if the text is not a manifest.
    """
    try:
        found = yaml_text.read_documents(text)
    except yaml_text.Unreadable as error:
        raise SettingsError([f"{what} is neither YAML nor JSON: {error}"]) from error
    objects = [thing for document in found for thing in _objects(document)]
    if any(document not in (None, "") for document in found) and not objects:
        raise SettingsError([f"{what} contains no Kubernetes object (a mapping with the key `kind`)"])
    made = (_pod(thing, number) for number, thing in enumerate(objects, 1))
    return tuple(pod for pod in made if pod is not None)


class _Object(Record):
    """An object of Kubernetes in a document, and the path to it."""

    kind: str
    value: Mapping[str, Any]
    document: object
    path: Path


def _objects(document: Any) -> Iterator[_Object]:
    """Return the objects of a document: itself, or the items of a list and of lists in it, in order."""
    left: list[tuple[Any, str, Path]] = [(document, "", ())]
    while left:
        value, kind, path = left.pop()
        if not isinstance(value, dict) or not isinstance(value.get("kind", kind), str):
            continue
        kind = value.get("kind", kind)
        items = value.get("items")
        if kind.endswith("List") and isinstance(items, list):
            of_items = "" if kind == "List" else kind.removesuffix("List")
            left += [(item, of_items, (*path, "items", i)) for i, item in reversed([*enumerate(items)])]
        elif kind:
            yield _Object(kind, value, document, path)


def _pod(thing: _Object, number: int) -> Pod | None:
    """Return the pod of an object, None if it has no pod."""
    problems: list[str] = []
    places: Places = {"": thing.path}
    whole = View(thing.value, "", problems, thing.path, places)
    kind = thing.kind
    path = () if kind == "Pod" else _TEMPLATES.get(kind, _USUAL_TEMPLATE)
    template = whole.at(*path)
    spec = template.at("spec")
    if kind != "Pod" and not spec.at("containers"):
        return None
    meta, own = whole.at("metadata"), template.at("metadata")
    security = spec.at("securityContext")
    identity = Identity(security.at("runAsUser").text(), security.at("runAsGroup").text())
    containers = [
        _container(view, identity, places, init=key == "initContainers")
        for key in ("initContainers", "containers")
        for view in spec.at(key).members()
    ]
    groups = [security.at("fsGroup"), *security.at("supplementalGroups").members()]
    name = meta.at("name").text() or meta.at("generateName").text() or f"number {number}"
    places["spec.hostNetwork"] = spec.at("hostNetwork").keys
    return Pod(
        kind=kind,
        name=name,
        namespace=meta.at("namespace").text(),
        annotations=_named(own.at("annotations"), "annotation {}", places),
        labels=_named(own.at("labels"), "label {}", places),
        workload_annotations=_named(meta.at("annotations"), f"annotation {{}} of the {kind} itself", places)
        if path
        else {},
        containers=tuple(containers),
        identity=identity,
        host_network=spec.at("hostNetwork").truth(),
        dns_servers=tuple(view.text() for view in spec.at("dnsConfig", "nameservers").members()),
        other_groups=tuple(filter(None, (view.text() for view in groups))),
        problems=tuple(problems),
        document=thing.document,
        places=places,
    )


def _named(view: View, place: str, places: Places) -> dict[str, str]:
    """Return a mapping of strings, and add the place of each."""
    found = view.texts()
    places.update({place.format(name): view.at(name).keys for name in found})
    return found


def _container(view: View, pods_identity: Identity, places: Places, *, init: bool) -> Container:
    security = view.at("securityContext")
    command = tuple(word.text() for word in view.at("command").members())
    ports = [
        Port(port.at("containerPort").text(), port.at("protocol").text() or "TCP")
        for port in view.at("ports").members()
    ]
    variables = {
        each.at("name").text(): None if each.at("valueFrom") else each.at("value").text()
        for each in view.at("env").members()
    }
    name = view.at("name").text()
    inherited = Identity() if name == PROXY else pods_identity
    for place, below in _places(view):
        places.setdefault(f"container {name}{place}", below.keys)
    return Container(
        name=name,
        init=init,
        sidecar=init and view.at("restartPolicy").text() == "Always",
        image=view.at("image").text(),
        command_line=(*command, *(word.text() for word in view.at("args").members())),
        has_command=bool(command),
        variables=variables,
        ports=tuple(ports),
        identity=Identity(
            security.at("runAsUser").text() or inherited.user,
            security.at("runAsGroup").text() or inherited.group,
        ),
        capabilities=tuple(c.text() for c in security.at("capabilities", "add").members()),
        dropped=tuple(c.text() for c in security.at("capabilities", "drop").members()),
        privileged=security.at("privileged").truth(),
    )


def _places(view: View) -> Iterator[tuple[str, View]]:
    """Yield what the places in a container are called in findings, after its name."""
    yield "", view
    security = view.at("securityContext")
    yield ": securityContext", security
    for key in security.names():
        yield f": securityContext.{key}", security.at(key)
    for each in view.at("env").members():
        yield f": variable {each.at('name').text()}", each
    for port in view.at("ports").members():
        yield f": containerPort {port.at('containerPort').text()}", port.at("containerPort")
    from ..settings.go_flags import flag_of  # the CNI plugin, which is told annotations alone, does without

    # The last of several equal flags is the one that counts, and the first place of a name stays.
    for word in reversed((*view.at("command").members(), *view.at("args").members())):
        setting = flag_of(word.text())
        if setting:
            yield f": {setting}", word


# --- which pod ------------------------------------------------------------------------------

#: How many names a message lists.
_ENOUGH_NAMES = 20


def pick(found: Sequence[Pod], name: str, what: str) -> Pod:
    """Return the pod with this name, or the only one. Raises SettingsError that lists the pods there are.

    `what` is the manifest's name in messages.
    """
    if not found:
        raise SettingsError([f"{what} contains no pod, and no workload with a pod template"])
    called = [pod for pod in found if name in pod.names] if name else found
    if not called:
        hint = nearest(name, {n for pod in found for n in pod.names})
        raise SettingsError(
            [f"--pod-name: {what} contains no pod {quoted(name)}{hint}: it contains {_listed(found)}"]
        )
    if len(called) > 1:
        what_to_do = (
            f"--pod-name: {quoted(name)} is the name of several" if name else "choose one with --pod-name"
        )
        raise SettingsError([f"{what} contains {len(found)} pods, {what_to_do}: {_listed(called)}"])
    return called[0]


def _listed(found: Sequence[Pod]) -> str:
    """Return the pods, each by its shortest unique name."""
    everyone = [name for pod in found for name in pod.names]
    names = [next((n for n in pod.names if everyone.count(n) == 1), pod.names[-1]) for pod in found]
    more = f" and {len(names) - _ENOUGH_NAMES} more" if len(names) > _ENOUGH_NAMES else ""
    return ", ".join(shown(name) for name in names[:_ENOUGH_NAMES]) + more
