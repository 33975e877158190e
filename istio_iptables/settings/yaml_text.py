"""yaml_text: YAML and JSON as data in which every scalar is a string, exactly as it was written.

8000:8100 is a range of ports and `010` is a user's number, although YAML reads both as other numbers. A
scalar without quotes is marked `Unquoted`, since a reader with types may not take it for a string.
"""

from __future__ import annotations

from .positions import JsonSource, Marked, MarkedList
from .texts import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .positions import Position


class Unreadable(ValueError):
    """Text that is neither YAML nor JSON, and why; `str()` of it is one line."""


class Unquoted(str):
    """A scalar without quotes: other readers may take it for a number or a boolean; here it is a string."""

    __slots__ = ()

    @property
    def read_as(self) -> str:
        """What Kubernetes' YAML reader takes it for, if not for a string: a number or a boolean.

        >>> [Unquoted(text).read_as for text in ("15020", "false", "80,443", "8000:8100", "")]
        ['a number', 'a boolean', '', '', '']
        """
        import re

        import yaml

        # Kubernetes' reader (Go, YAML 1.1) and PyYAML do not agree on these.
        if ":" in self:  # PyYAML takes 1:30 for a number in base 60
            return ""
        if self in ("y", "Y", "n", "N"):
            return "a boolean"
        if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", self):
            return "a number"
        resolver: Any = yaml.resolver.Resolver()
        kind = resolver.resolve(yaml.ScalarNode, str(self), (True, False)).rpartition(":")[2]
        return {"int": "a number", "float": "a number", "bool": "a boolean"}.get(kind, "")


def is_null(value: object) -> bool:
    """Tell whether there is no value: JSON's null, or an unquoted scalar that YAML takes for null."""
    return value is None or (isinstance(value, Unquoted) and value in ("", "~", "null", "Null", "NULL"))


def read_documents(text: str) -> list[Any]:
    """Return the documents of a text: any number of them, all YAML or all JSON. Raises Unreadable.

    Scalars are strings. From JSON there are also True, False and None, and floats for NaN and Infinity. Where
    a value of a document is in the text, positions.position() tells.
    """
    try:
        if text.lstrip().startswith("{"):
            try:
                return _json(text)
            except Unreadable:
                raise
            except ValueError:
                pass  # a YAML mapping may begin with a brace too
        return _yaml(text)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def _json(text: str) -> list[Any]:
    """Parse JSON, for which PyYAML would take a hundred times as long. Raises ValueError.

    There may be several documents: `jq`, and `kubectl get -o json` called repeatedly, print them with only
    white space between them.
    """
    import json

    decoder = json.JSONDecoder(parse_int=Unquoted, parse_float=Unquoted, object_pairs_hook=_once)
    found: list[Any] = []
    at, end = len(text) - len(text.lstrip()), len(text.rstrip())
    while at < end:
        start = at
        document, at = decoder.raw_decode(text, at)
        if isinstance(document, dict):
            document = Marked(document)
            document.source = JsonSource(text, start)
        found.append(document)
        while text[at : at + 1].isspace():
            at += 1
    return found


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a mapping. Raises Unreadable if a key appears twice."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise Unreadable(f"the key {quoted(key)} appears twice")
        made[key] = value
    return made


def _start(node: Any) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


#: As many levels a document may have. Kubernetes' objects have about twenty.
_DEEPEST = 200


def _require_shallow(text: str, loader: Any) -> None:
    """Raise Unreadable for a document that is nested very deeply: libyaml's composer would end the process.

    Few texts are suspicious: each level takes a bracket, or a column before a line's first word.
    """
    import re

    import yaml

    if text.count("[") + text.count("{") <= _DEEPEST and not re.search(
        rf"^[ \t?-]{{{_DEEPEST}}}", text, re.M
    ):
        return
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise Unreadable("it is nested too deeply")


def _yaml(text: str) -> list[Any]:
    import yaml

    base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

    class Loader(base):  # type: ignore[misc]  # one of two
        def construct_scalar(self, node: Any) -> str:
            scalar: str = super().construct_scalar(node)
            return scalar if node.style else Unquoted(scalar)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            mapping = Marked(super().construct_mapping(node, deep=deep))
            mapping.marks = {self.construct_object(key, deep=True): _start(key) for key, _ in node.value}
            if len(mapping) != len(node.value):
                _once([(self.construct_object(key, deep=True), None) for key, _ in node.value])
            return mapping

        def construct_sequence(self, node: Any, deep: bool = False) -> Any:
            members = MarkedList(super().construct_sequence(node, deep=deep))
            members.marks = [_start(member) for member in node.value]
            return members

    try:
        _require_shallow(text, base)
        return list(yaml.load_all(text, Loader=Loader))
    except Unreadable:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())) from error
