"""model: a pod, typed.

A Pod is a pod, or the pod template of a workload (Deployment, CronJob ...): both have annotations, containers
and security contexts in the same places (the Kubernetes API reference, core/v1 PodSpec). All scalars are
strings.
"""

from __future__ import annotations

from ..settings.texts import shown
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..settings.positions import Path, Position


class Identity(Record):
    """The user and group of a security context, as they are written; empty if they are not set."""

    user: str = ""
    group: str = ""


class Port(Record):
    """A port that a container declares (containerPort)."""

    number: str
    protocol: str


class Container(Record):
    """A container of a pod.

    `init` is true for one of initContainers, `sidecar` for one of these that keeps running. `command_line`
    is its command and arguments; `has_command` is true if the first of them is the command. A variable's
    value is None if it is not in the manifest (valueFrom). `identity` is the pod's where the container has
    none, except for the proxy: the pod's is the application's, and Istio's injector gives the proxy its own.
    """

    name: str
    init: bool = False
    sidecar: bool = False
    image: str = ""
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

    `workload_annotations` are those of a workload's own metadata, which Istio does not read. `identity` is
    that of the pod's own security context.
    `problems` has a message for each value of a type that Kubernetes does not accept. `places` are the paths
    in the document by what they are called in findings; the pod's own is called "".
    """

    kind: str
    name: str
    namespace: str = ""
    annotations: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    workload_annotations: Mapping[str, str] = {}
    containers: tuple[Container, ...] = ()
    identity: Identity = Identity()
    host_network: bool = False
    dns_servers: tuple[str, ...] = ()
    other_groups: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    document: object = None
    places: Mapping[str, Path] = {}

    @property
    def label(self) -> str:
        """The pod's name in messages: `pod web`, `deployment web`."""
        return shown(f"{self.kind.lower()} {self.name}")

    def position(self, place: str) -> Position | None:
        """Return where a place is in the text of the manifest: of `a: b: c` what is known, else the pod."""
        from ..settings.positions import position  # what has no text needs no positions

        while place and place not in self.places:
            place = place.rpartition(": ")[0]
        return position(self.document, self.places.get(place, ()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names that --pod-name accepts for it, the shortest first."""
        short = f"{self.kind.lower()}/{self.name}"
        return self.name, short, f"{self.namespace or 'default'}/{short}"

    def container(self, name: str) -> Container | None:
        """Return a container by its name."""
        return next((c for c in self.containers if c.name == name), None)
