"""Manifest: from the text of Kubernetes objects to the pods in it, typed.

A Pod is a pod, or the pod template of a workload (Deployment, CronJob ...): either has annotations,
containers and security contexts in the same places (the Kubernetes API reference, core/v1 PodSpec). All
scalars are texts. What is not shaped as it should be is a problem of the pod, in words, and no exception.
"""

from __future__ import annotations

from ..errors import SettingsError
from ..settings import yaml_text
from ..settings.declared import nearest, shown
from ..startup.record import Record
from .view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any


class Identity(Record):
    """Users and groups of a security context, as they are written; nothing where nothing is."""

    user: str = ""
    group: str = ""


class Port(Record):
    """A port that a container says it listens on."""

    number: str
    protocol: str


class Container(Record):
    """A container of a pod.

    `init` is true for those of initContainers, `sidecar` for those of them that keep running. `command_line`
    is its command and arguments; `has_command` is true if the first of them is the command. A variable's
    value is None if it is not in the manifest (valueFrom). `identity` is the pod's where the container has
    none.
    """

    name: str
    init: bool = False
    sidecar: bool = False
    command_line: tuple[str, ...] = ()
    has_command: bool = False
    variables: Mapping[str, str | None] = {}
    ports: tuple[Port, ...] = ()
    identity: Identity = Identity()
    capabilities: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    privileged: bool = False


class Pod(Record):
    """A pod, or the pod template of a workload.

    `workload_annotations` are those of a workload's own metadata, where Istio does not look.
    `problems` says what in the manifest is not shaped as Kubernetes has it.
    """

    kind: str
    name: str
    namespace: str = ""
    annotations: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    workload_annotations: Mapping[str, str] = {}
    containers: tuple[Container, ...] = ()
    host_network: bool = False
    dns_servers: tuple[str, ...] = ()
    other_groups: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The pod in the words of a message: `pod web`, `deployment web`."""
        return shown(f"{self.kind.lower()} {self.name}")

    @property
    def names(self) -> tuple[str, ...]:
        """What --pod-name may call it, the shortest first."""
        short = f"{self.kind.lower()}/{self.name}"
        return self.name, short, f"{self.namespace or 'default'}/{short}"

    def container(self, name: str) -> Container | None:
        """Return a container by its name."""
        return next((c for c in self.containers if c.name == name), None)


#: Where the pod template is, in the kinds of workloads that do not have it in the usual place.
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
_USUAL_TEMPLATE = ("spec", "template")


def pods(text: str, what: str) -> tuple[Pod, ...]:
    """Return all pods and pod templates of a manifest, in its order; other objects are passed over.

    `what` is the manifest in the words of a message. Raises SettingsError if the text is none.
    """
    try:
        found = yaml_text.read_documents(text)
    except yaml_text.Unreadable as error:
        raise SettingsError([f"{what} is neither YAML nor JSON: {error}"]) from error
    objects = [thing for document in found for thing in _objects(document)]
    if any(document not in (None, "") for document in found) and not objects:
        raise SettingsError([f"{what} holds no Kubernetes object: a mapping with the key `kind`"])
    made = (_pod(thing, number) for number, thing in enumerate(objects, 1))
    return tuple(pod for pod in made if pod is not None)


def _objects(document: Any) -> Iterator[Mapping[str, Any]]:
    """Return the objects of a document: itself, or those of a list and of the lists in it, in order."""
    left = [document]
    while left:
        thing = left.pop()
        if not isinstance(thing, dict) or not isinstance(thing.get("kind"), str):
            continue
        kind, items = thing["kind"], thing.get("items")
        if not kind.endswith("List") or not isinstance(items, list):
            yield thing
            continue
        for item in reversed(items):
            if isinstance(item, dict):
                own_kind = item.get("kind")
                left.append(
                    {**item, "kind": own_kind if isinstance(own_kind, str) else kind.removesuffix("List")}
                )


def _pod(thing: Mapping[str, Any], number: int) -> Pod | None:
    """Return the pod of an object, None if it is about something else."""
    problems: list[str] = []
    whole = View(thing, "", problems)
    kind = str(thing["kind"])
    path = () if kind == "Pod" else _TEMPLATES.get(kind, _USUAL_TEMPLATE)
    template = whole.at(*path)
    spec = template.at("spec")
    if kind != "Pod" and not spec.at("containers"):
        return None
    meta, own = whole.at("metadata"), template.at("metadata")
    security = spec.at("securityContext")
    identity = Identity(security.at("runAsUser").text(), security.at("runAsGroup").text())
    containers = [_container(view, identity, init=True) for view in spec.at("initContainers").members()]
    containers += [_container(view, identity, init=False) for view in spec.at("containers").members()]
    groups = [security.at("fsGroup"), *security.at("supplementalGroups").members()]
    name = meta.at("name").text() or meta.at("generateName").text() or f"number {number}"
    return Pod(
        kind=kind,
        name=name,
        namespace=meta.at("namespace").text(),
        annotations=own.at("annotations").texts(),
        labels=own.at("labels").texts(),
        workload_annotations=meta.at("annotations").texts() if path else {},
        containers=tuple(containers),
        host_network=spec.at("hostNetwork").truth(),
        dns_servers=tuple(view.text() for view in spec.at("dnsConfig", "nameservers").members()),
        other_groups=tuple(filter(None, (view.text() for view in groups))),
        problems=tuple(problems),
    )


def _container(view: View, pods_identity: Identity, *, init: bool) -> Container:
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
    return Container(
        name=view.at("name").text(),
        init=init,
        sidecar=init and view.at("restartPolicy").text() == "Always",
        command_line=(*command, *(word.text() for word in view.at("args").members())),
        has_command=bool(command),
        variables=variables,
        ports=tuple(ports),
        identity=Identity(
            security.at("runAsUser").text() or pods_identity.user,
            security.at("runAsGroup").text() or pods_identity.group,
        ),
        capabilities=tuple(c.text() for c in security.at("capabilities", "add").members()),
        dropped=tuple(c.text() for c in security.at("capabilities", "drop").members()),
        privileged=security.at("privileged").truth(),
    )


# --- which pod ------------------------------------------------------------------------------

#: How many names a message lists.
_ENOUGH_NAMES = 20


def pick(found: Sequence[Pod], name: str, what: str) -> Pod:
    """Return the pod that is called `name`, or the only one. Raises SettingsError that says which there are.

    `what` is the manifest in the words of a message.
    """
    if not found:
        raise SettingsError([f"{what} holds no pod and no workload with a pod template"])
    called = [pod for pod in found if name in pod.names] if name else found
    if not called:
        hint = nearest(name, {n for pod in found for n in pod.names})
        raise SettingsError([f"--pod-name: {what} holds no pod {name!r}{hint}: it holds {_listed(found)}"])
    if len(called) > 1:
        said = f"--pod-name: {name!r} is the name of several" if name else "--pod-name has to say which"
        raise SettingsError([f"{what} holds {len(found)} pods, {said}: {_listed(called)}"])
    return called[0]


def _listed(found: Sequence[Pod]) -> str:
    """Return the pods by their shortest names that no other pod has."""
    everyone = [name for pod in found for name in pod.names]
    names = [next((n for n in pod.names if everyone.count(n) == 1), pod.names[-1]) for pod in found]
    more = f" and {len(names) - _ENOUGH_NAMES} more" if len(names) > _ENOUGH_NAMES else ""
    return ", ".join(shown(name) for name in names[:_ENOUGH_NAMES]) + more
