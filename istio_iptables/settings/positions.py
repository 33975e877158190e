"""positions: the line and column of a value in the text that it was read from.

YAML's reader gives each key and member its position, which `Marked` and `MarkedList` carry. JSON's reader,
which is a hundred times as fast, gives none: `JsonSource` looks for one when it is wanted.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    #: The keys and indexes from a document to a value in it.
    Path: TypeAlias = tuple[str | int, ...]
    #: Line and column, both from 1.
    Position: TypeAlias = tuple[int, int]

#: The key whose value's members are a mapping's own, unless it has them itself (YAML's merge key).
MERGE = "<<"


class Marked(dict[str, "Any"]):
    """A mapping with the positions of its keys. For a document of JSON it has the source instead."""

    marks: dict[str, Position]
    source: JsonSource | None = None


class MarkedList(list["Any"]):
    """A list with the positions of its members."""

    marks: list[Position]


def position(document: object, path: Path) -> Position | None:
    """Return where a value of a document is: its key, or the member of a list itself.

    It is the position of the nearest value above if the document does not have it, and None without any.
    """
    source = getattr(document, "source", None)
    if source is not None:
        return source.position(path)  # type: ignore[no-any-return]
    found: Position | None = None
    for key in path:
        document = _holder(document, key)
        marks: Any = getattr(document, "marks", None)
        try:
            found, document = marks[key], document[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            break
    return found


def _holder(value: Any, key: str | int) -> object:
    """Return the mapping that has a key: the value itself, or one that it merges."""
    merged = value.get(MERGE) if isinstance(value, dict) and key not in value else None
    below = merged if isinstance(merged, list) else [merged]
    return next((mapping for mapping in below if isinstance(mapping, dict) and key in mapping), value)


class JsonSource:
    """A document of JSON in its text, from the offset `start`. The text is valid.

    >>> source = JsonSource('{"a":\\n  [1, {"b": 2}]}', 0)
    >>> source.position(("a",)), source.position(("a", 1, "b")), source.position(("a", 1, "c"))
    ((1, 2), (2, 8), (2, 7))
    """

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._values: dict[Path, int] = {(): start}
        self._children: dict[Path, dict[str | int, int]] = {}
        self._lines: list[int] = []

    def position(self, path: Path) -> Position:
        """Return the position of a value, or of the nearest one above that there is."""
        offset = self._values[()]
        for length in range(len(path)):
            children = self._read(path[:length])
            if path[length] not in children:
                break
            offset = children[path[length]]
        return self._line_and_column(offset)

    def _line_and_column(self, offset: int) -> Position:
        import re
        from bisect import bisect_right

        self._lines = self._lines or [0, *(match.end() for match in re.finditer("\n", self._text))]
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def _read(self, path: Path) -> dict[str | int, int]:
        """Return the offsets of the keys or members of a value, and note those of their own values."""
        if path not in self._children:
            self._children[path] = {}
            for key, offset, value in self._scan(self._values[path]):
                self._children[path][key] = offset
                self._values[*path, key] = value
        return self._children[path]

    def _scan(self, at: int) -> Iterator[tuple[str | int, int, int]]:
        """Yield each key or index of the value at an offset, with its own offset and that of its value."""
        import json

        text, value_at = self._text, json.JSONDecoder().raw_decode
        is_mapping, number = text[at] == "{", 0
        if text[at] not in "{[":
            return
        at = self._after_space(at + 1)
        while text[at] not in "}]":
            start, key = at, number
            if is_mapping:
                key, at = value_at(text, at)
                at = self._after_space(self._after_space(at) + 1)  # the colon
            yield key, start, at
            at = self._after_space(value_at(text, at)[1])
            if text[at] == ",":
                at = self._after_space(at + 1)
            number += 1

    def _after_space(self, at: int) -> int:
        while self._text[at].isspace():
            at += 1
        return at
