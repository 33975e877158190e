"""subject: a pod as the checks of lint see it."""

from __future__ import annotations

from ...settings.config import NO_INTERCEPTION
from ...settings.declared import BY_NAME, SETTINGS
from ...settings.no_effect import NO_EFFECT
from ...settings.parsers import BadValue, members
from ...settings.texts import shown
from ..annotations import BY_SETTING, NAMES
from ..reading import CNI_DEFAULT, OWN_PORTS, always_in, read_settings
from .findings import KINDS, Finding
from .intervals import Interval, Intervals, interval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeAlias

    from ...settings.parsers import Names
    from ...settings.texts import Given
    from ..model import Pod

    #: Checks one aspect of a pod and yields findings.
    Check: TypeAlias = Callable[["Subject"], Iterator[Finding]]


def _called(setting: str) -> str:
    """Return a setting's name in a pod: the short name of its annotation, if it has one."""
    return BY_SETTING[setting].short if setting in BY_SETTING else BY_NAME[setting].flag


class Subject:
    """A pod and its parsed settings. A value that cannot be used is treated as not given."""

    def __init__(self, pod: Pod, others: Sequence[Given], names: Names) -> None:
        """Read the pod. `others` are valid settings that take precedence over its own."""
        reading = read_settings(pod, others)
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
        """Return where a setting was given, without the name of the pod."""
        given = self.given.get(setting)
        if given is None or self.is_by_default(setting):
            return f"annotation {BY_SETTING[setting].name}"
        return self.place(given)

    def is_by_default(self, setting: str) -> bool:
        """Tell whether a setting has its value although no one wrote it."""
        given = self.given.get(setting)
        return given is None or given.origin.endswith((OWN_PORTS, CNI_DEFAULT))

    def place(self, given: Given) -> str:
        """Return the origin of a setting without the name of the pod."""
        return given.origin.removeprefix(f"{self.pod.label}: ")

    def text(self, setting: str) -> str:
        """Return the text given for a setting, without the members that are always there.

        Istio's injector, and many users, list these members too, which makes no difference. The text is empty
        if the setting is not given.
        """
        given = self.given.get(setting)
        if given is None or self.is_by_default(setting):
            return ""
        always = always_in(self.pod, BY_SETTING[setting]) if setting in BY_SETTING else ()
        if not always:
            return given.text
        return ",".join(member for member in members(given.text) if member not in always)

    def intervals(self, setting: str) -> list[Interval]:
        """Return the given members of a list of ports or CIDRs; a wildcard has none."""
        text = self.text(setting)
        given = self.given.get(setting)
        if given is None or members(text) == ("*",):
            return []
        values = given.setting.parse(text, self.names)
        return [interval(m, v) for m, v in zip(members(text), values, strict=True)]  # type: ignore[call-overload]

    def finding(self, kind: str, where: str, problem: str, remedy: str) -> Finding:
        """Make a finding about the pod."""
        assert kind in KINDS
        line, column = self.pod.position(where) or (0, 0)
        texts = (shown(where), shown(problem), shown(remedy))
        return Finding(kind, self.pod.label, *texts, line=line, column=column)

    def about(self, setting: str, kind: str, problem: str, remedy: str) -> Finding:
        """Make a finding about a setting."""
        return self.finding(kind, self.where(setting), problem, remedy)

    def without_effect(self, setting: str) -> Iterator[Finding]:
        """Yield a finding if another setting leaves this one without effect."""
        for row in NO_EFFECT:
            if row.setting == setting and row.applies(self.values):
                yield self.about(setting, "no-effect", row.problem(_called), row.remedy)

    @property
    def captures_nothing(self) -> bool:
        """True if the interception mode is NONE."""
        return bool(self.values["interception_mode"] == NO_INTERCEPTION)

    @property
    def annotated(self) -> list[str]:
        """The names of the pod's annotations that are settings."""
        return [name for name in NAMES if name in self.pod.annotations]

    def searchable(self, setting: str) -> Intervals:
        """Return the given members of a list, to be searched."""
        return Intervals(self.intervals(setting))
