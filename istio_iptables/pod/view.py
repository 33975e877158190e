"""view: a place in a manifest, and its value in the type that is expected."""

from __future__ import annotations

from ..settings.positions import MERGE
from ..settings.texts import shown
from ..settings.yaml_text import Unquoted, is_null

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    from ..settings.positions import Path

    #: What a place in a pod is called in messages, and where it is in the document.
    Places: TypeAlias = dict[str, Path]


class View:
    """A place in a manifest. A value of the wrong type is added to `problems`, and treated as absent.

    >>> problems = []
    >>> pod = View({"spec": {"containers": {"name": "app"}}}, "", problems)
    >>> pod.at("spec", "containers").members(), bool(pod.at("spec", "volumes"))
    ([], False)
    >>> problems
    ['spec.containers: is a mapping and should be a list']
    """

    def __init__(
        self, value: Any, path: str, problems: list[str], keys: Path = (), places: Places | None = None
    ) -> None:
        """Make a view of a value. `keys` lead to it, and `path` is the same for messages.

        Where a value of the wrong type is, is added to `places` by its path.
        """
        self._value = value
        self._path = path
        self._problems = problems
        self._places: Places = {} if places is None else places
        self.keys = keys

    def __bool__(self) -> bool:
        """Tell whether there is a value; null, however YAML writes it, and an empty text are none."""
        return not is_null(self._value) and self._value != ""

    def at(self, *keys: str) -> View:
        """Return the place below this one."""
        view = self
        for key in keys:
            path = f"{view._path}.{key}" if view._path else key
            view = self._below(view, view._mapping().get(key), path, key)
        return view

    def members(self) -> list[View]:
        """Return the places of a list's members."""
        if not self:
            return []
        if not isinstance(self._value, list):
            self._wrong("a list")
            return []
        return [self._below(self, each, f"{self._path}[{i}]", i) for i, each in enumerate(self._value)]

    def _below(self, view: View, value: Any, path: str, key: str | int) -> View:
        return View(value, path, self._problems, (*view.keys, key), self._places)

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

    def names(self) -> tuple[str, ...]:
        """Return the keys of a mapping."""
        return tuple(map(str, self._mapping()))

    def texts(self) -> dict[str, str]:
        """Return a mapping of strings."""
        return {str(key): self.at(str(key)).text() for key in self._mapping()}

    def _mapping(self) -> Mapping[Any, Any]:
        if not self:
            return {}
        if not isinstance(self._value, dict):
            self._wrong("a mapping")
            return {}
        merged = self._value.get(MERGE)
        if merged is None:
            return self._value
        below = [m for m in (merged if isinstance(merged, list) else [merged]) if isinstance(m, dict)]
        together = {key: value for mapping in reversed(below) for key, value in mapping.items()}
        return {key: value for key, value in {**together, **self._value}.items() if key != MERGE}

    def _wrong(self, wanted: str) -> None:
        kinds: Mapping[type, str] = {dict: "a mapping", list: "a list", bool: "a boolean", str: "a string"}
        found = next((word for kind, word in kinds.items() if isinstance(self._value, kind)), "a number")
        if isinstance(self._value, Unquoted):
            found = self._value.read_as or found
        problem = f"{shown(self._path) or 'it'}: is {found} and should be {wanted}"
        self._places.setdefault(self._path, self.keys)
        if problem not in self._problems:
            self._problems.append(problem)
