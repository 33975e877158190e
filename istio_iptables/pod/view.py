"""view: a place in a manifest, and its value in the type that is expected."""

from __future__ import annotations

from ..settings.declared import shown
from ..settings.yaml_text import Unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: The key whose value's members are a mapping's own, unless it has them itself (YAML's merge key).
_MERGE = "<<"


class View:
    """A place in a manifest. A value of the wrong type is added to `problems`, and treated as absent.

    >>> problems = []
    >>> pod = View({"spec": {"containers": {"name": "app"}}}, "", problems)
    >>> pod.at("spec", "containers").members(), bool(pod.at("spec", "volumes"))
    ([], False)
    >>> problems
    ['spec.containers: is a mapping and should be a list']
    """

    def __init__(self, value: Any, path: str, problems: list[str]) -> None:
        self._value = value
        self._path = path
        self._problems = problems

    def __bool__(self) -> bool:
        """Tell whether there is a value; an empty YAML scalar is none."""
        return self._value is not None and self._value != ""

    def at(self, *keys: str) -> View:
        """Return the place below this one."""
        view = self
        for key in keys:
            path = f"{view._path}.{key}" if view._path else key
            view = View(view._mapping().get(key), path, self._problems)
        return view

    def members(self) -> list[View]:
        """Return the places of a list's members."""
        if not self:
            return []
        if not isinstance(self._value, list):
            self._wrong("a list")
            return []
        return [View(each, f"{self._path}[{i}]", self._problems) for i, each in enumerate(self._value)]

    def text(self) -> str:
        """Return the scalar as a string, an empty one if there is no value."""
        if not self:
            return ""
        if isinstance(self._value, bool):
            return Unquoted(str(self._value).lower())
        if isinstance(self._value, str):
            return self._value
        self._wrong("a string")
        return ""

    def truth(self) -> bool:
        """Tell whether the value is `true`."""
        text = self.text()
        if text not in ("", "true", "false"):
            self._wrong("true or false")
        return text == "true"

    def texts(self) -> dict[str, str]:
        """Return a mapping of strings."""
        return {str(key): self.at(str(key)).text() for key in self._mapping()}

    def _mapping(self) -> Mapping[Any, Any]:
        if not self:
            return {}
        if not isinstance(self._value, dict):
            self._wrong("a mapping")
            return {}
        merged = self._value.get(_MERGE)
        if merged is None:
            return self._value
        below = [m for m in (merged if isinstance(merged, list) else [merged]) if isinstance(m, dict)]
        together = {key: value for mapping in reversed(below) for key, value in mapping.items()}
        return {key: value for key, value in {**together, **self._value}.items() if key != _MERGE}

    def _wrong(self, wanted: str) -> None:
        kinds: Mapping[type, str] = {dict: "a mapping", list: "a list", bool: "a boolean"}
        found = kinds.get(type(self._value), "a string" if isinstance(self._value, str) else "a number")
        problem = f"{shown(self._path) or 'it'}: is {found} and should be {wanted}"
        if problem not in self._problems:
            self._problems.append(problem)
