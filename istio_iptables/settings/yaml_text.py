"""yaml_text: YAML and JSON text as data in which every scalar is the text that was written.

8000:8100 is a range of ports and `010` a user's number, whatever YAML makes of them. What a reader with types
would not take for a text, because it has no quotes, is marked `Unquoted`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Unreadable(ValueError):
    """Text that is neither YAML nor JSON, and why; `str()` of it is one line."""


class Unquoted(str):
    """A scalar without quotes: maybe a number or a boolean to others, here the text that it is."""

    __slots__ = ()

    @property
    def read_as(self) -> str:
        """What Kubernetes' YAML reader takes it for, if that is no text: a number or a boolean.

        >>> [Unquoted(text).read_as for text in ("15020", "false", "80,443", "8000:8100", "")]
        ['a number', 'a boolean', '', '', '']
        """
        import re

        import yaml

        # Go's reader (YAML 1.1, as Kubernetes has it) and PyYAML do not agree on these.
        if ":" in self:  # 1:30 is no number to the base of 60
            return ""
        if self in ("y", "Y", "n", "N"):
            return "a boolean"
        if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", self):
            return "a number"
        resolver: Any = yaml.resolver.Resolver()
        kind = resolver.resolve(yaml.ScalarNode, str(self), (True, False)).rpartition(":")[2]
        return {"int": "a number", "float": "a number", "bool": "a boolean"}.get(kind, "")


def is_null(value: object) -> bool:
    """Tell whether there is no value: JSON's null, or what YAML takes for it where nothing is quoted."""
    return value is None or (isinstance(value, Unquoted) and value in ("", "~", "null", "Null", "NULL"))


def read_documents(text: str) -> list[Any]:
    """Return the documents of a text, YAML or JSON, any number of either. Raises Unreadable.

    Scalars are texts; of JSON also True, False, None and what Python makes of NaN.
    """
    try:
        if text.lstrip().startswith("{"):
            try:
                return _json(text)
            except Unreadable:
                raise
            except ValueError:
                pass  # YAML has such braces too
        return _yaml(text)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def _json(text: str) -> list[Any]:
    """Parse JSON, which PyYAML would take a hundred times as long for. Raises ValueError.

    Programs that print several texts of it (`jq`, `kubectl get -o json` again and again) put nothing but
    space between them.
    """
    import json

    decoder = json.JSONDecoder(parse_int=Unquoted, parse_float=Unquoted, object_pairs_hook=_once)
    found: list[Any] = []
    rest = text.strip()
    at = 0
    while at < len(rest):
        document, at = decoder.raw_decode(rest, at)
        found.append(document)
        while rest[at : at + 1].isspace():
            at += 1
    return found


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a mapping in which no key stands twice. Raises Unreadable."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise Unreadable(f"the key {str(key)!r} stands there twice")
        made[key] = value
    return made


def _yaml(text: str) -> list[Any]:
    import yaml

    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

    class Loader(base):  # type: ignore[misc]  # one of two
        def construct_scalar(self, node: Any) -> str:
            scalar: str = super().construct_scalar(node)
            return scalar if node.style else Unquoted(scalar)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = super().construct_mapping(node, deep=deep)
            if len(mapping) != len(node.value):
                _once([(self.construct_object(key, deep=True), None) for key, _ in node.value])
            return mapping

    try:
        return list(yaml.load_all(text, Loader=Loader))
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())) from error
