"""Subject: a pod as the checks of lint see it, and what they find."""

from __future__ import annotations

from ...settings.declared import BY_NAME, SETTINGS, shown
from ...settings.no_effect import NO_EFFECT
from ...settings.parsers import BadValue, members
from ...startup.record import Record
from ..annotations import BY_SETTING, NAMES
from ..reading import read_settings
from .intervals import Interval, Intervals, interval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from ...settings.declared import Given
    from ...settings.parsers import Names
    from ..manifest import Pod

    #: Looks at one thing of a pod and yields what it finds.
    Check: TypeAlias = Callable[["Subject"], Iterator["Finding"]]

#: What each kind of finding is about: `--ignore` takes these words, docs/pods.md lists them.
KINDS: Mapping[str, str] = {
    "invalid": "a value or a shape that cannot be used",
    "istio": "a value that this tool takes and Istio's injector refuses",
    "unquoted": "a number or a boolean where Kubernetes wants a text",
    "unknown": "an annotation that does not exist and is like one that does",
    "misplaced": "an annotation where nobody looks: on a workload, or as a label",
    "deprecated": "the old name of an annotation",
    "host-network": "a pod in the node's network namespace",
    "no-sidecar": "annotations of a pod that gets no sidecar, or captures nothing",
    "overridden": "an annotation that the arguments of istio-init contradict",
    "no-effect": "a list that another setting makes pointless",
    "contradiction": "the same thing both included and excluded",
    "duplicate": "the same thing twice in a list",
    "shadowed": "a network that lies in an excluded one",
    "host-bits": "a network with bits set beyond its mask",
    "everything": "an exclusion of everything",
    "one-family": "IPv6 networks where IPv6 is not captured",
    "dns": "the pod's DNS servers, or port 53, and where queries really go",
    "proxy-port": "ports that the sidecar listens on itself",
    "container-port": "a container's port that is not captured",
    "not-tcp": "a port that is not TCP, which is never captured",
    "proxy-user": "users and groups that are taken for the proxy, or not",
    "owner-group": "groups by which no process can be told",
    "tproxy": "a proxy that is not allowed to do TPROXY",
    "init-privileges": "an istio-init that is not allowed to write rules",
    "init-order": "containers that start between the rules and the proxy",
}


class Finding(Record):
    """One thing that does not do what it says: where it stands, what it does and what to do instead."""

    kind: str
    pod: str
    where: str
    problem: str
    remedy: str
    file: str = ""

    def __str__(self) -> str:
        """Return the finding as a line."""
        start = f"{shown(self.file)}: " if self.file else ""
        return f"{start}{self.pod}: {self.where}: {self.problem}: {self.remedy} [{self.kind}]"


def _called(setting: str) -> str:
    """Return what a setting is called in a pod: the short name of its annotation, if it has one."""
    return BY_SETTING[setting].short if setting in BY_SETTING else BY_NAME[setting].flag


class Subject:
    """A pod and what its settings come to; a value that cannot be used counts as not given."""

    def __init__(self, pod: Pod, others: Sequence[Given], names: Names) -> None:
        """Read the pod; `others` are settings that go before its own, all of them valid."""
        reading = read_settings(pod)
        self.pod = pod
        self.mistakes = reading.mistakes
        self.bad: list[tuple[Given, str]] = []
        self.given: dict[str, Given] = {}
        self.values: dict[str, Any] = {s.field: s.parse(s.default, names) for s in SETTINGS if s.field}
        self.names = names
        for given in (*reading.given, *others):
            try:
                value = given.setting.parse(given.text, names)
            except BadValue as bad:
                self.bad += [(given, problem) for problem in bad.problems]
                continue
            self.given[given.setting.name] = given
            if given.setting.field:
                self.values[given.setting.field] = value

    def where(self, setting: str) -> str:
        """Return where a setting was given, in words that go without the pod's name."""
        given = self.given.get(setting)
        if given is None or given.origin.endswith("the sidecar's own ports"):
            return f"annotation {BY_SETTING[setting].name}"
        return self.place(given)

    def place(self, given: Given) -> str:
        """Return where something was given."""
        return given.origin.removeprefix(f"{self.pod.label}: ")

    def text(self, setting: str) -> str:
        """Return what somebody wrote for a setting, without what is there anyway; nothing if nobody did.

        What is there anyway many write too, as Istio's injector does: it means no more and no less.
        """
        given = self.given.get(setting)
        if given is None:
            return ""
        always = BY_SETTING[setting].always if setting in BY_SETTING else ()
        if not always:
            return given.text
        return ",".join(member for member in members(given.text) if member not in always)

    def spans(self, setting: str) -> list[Interval]:
        """Return the members of a list of ports or networks that somebody wrote; none of a wildcard."""
        text = self.text(setting)
        given = self.given.get(setting)
        if given is None or members(text) == ("*",):
            return []
        values = given.setting.parse(text, self.names)
        return [interval(m, v) for m, v in zip(members(text), values, strict=True)]  # type: ignore[call-overload]

    def finding(self, kind: str, where: str, problem: str, remedy: str) -> Finding:
        """Make a finding about the pod."""
        assert kind in KINDS
        return Finding(kind, self.pod.label, shown(where), shown(problem), shown(remedy))

    def about(self, setting: str, kind: str, problem: str, remedy: str) -> Finding:
        """Make a finding about a setting."""
        return self.finding(kind, self.where(setting), problem, remedy)

    def without_effect(self, setting: str) -> Iterator[Finding]:
        """Make a finding if another setting leaves a setting without effect."""
        for row in NO_EFFECT:
            if row.setting == setting and row.applies(self.values):
                yield self.about(setting, "no-effect", row.problem(_called), row.remedy)

    @property
    def annotated(self) -> list[str]:
        """The names of the annotations that the pod has, of those that are settings."""
        return [name for name in NAMES if name in self.pod.annotations]

    def searchable(self, setting: str) -> Intervals:
        """Return the members of a list as spans that can be searched."""
        return Intervals(self.spans(setting))
