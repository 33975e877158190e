"""positions: where the parts of a JSON text are, so that one can be changed and the rest stays byte for byte.

A text is read as Go's encoding/json reads it, since that is what container runtimes use: no NaN, no comments,
no byte order mark, and of a key that is there twice the last one counts.
"""

from __future__ import annotations

from json.decoder import JSONDecodeError, JSONDecoder

from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

_BLANKS = " \t\r\n"


class NotJson(ValueError):
    """A text that is not JSON, or not of the kind that is needed."""


class Part(Record):
    """A value in a text: text[start:end] is how it is written."""

    value: Any
    start: int
    end: int


def document(text: str) -> dict[str, Part]:
    """Return the members of the object that a text consists of. Raises NotJson."""
    start = _after_blanks(text, 0)
    if text[start : start + 1] != "{":
        raise NotJson("it is not a JSON object")
    try:
        members: dict[str, Part] = {}
        end = start + 1
        for key, part in _members(text, start):
            members[key] = part
            end = part.end
        end = _after_blanks(text, end)
        if text[end : end + 1] != "}" or _after_blanks(text, end + 1) != len(text):
            raise NotJson(f"something follows it in line {_line(text, end)}")
    except JSONDecodeError as error:
        raise NotJson(f"{error.msg} in line {error.lineno}") from error
    except (RecursionError, ValueError) as error:
        raise NotJson(str(error)) from error
    return members


def elements(text: str, array: Part) -> tuple[Part, ...]:
    """Return the elements of an array of a text that `document` has read."""
    found: list[Part] = []
    at = _after_blanks(text, array.start + 1)
    while text[at] != "]":
        found.append(_value(text, at))
        at = _after_blanks(text, found[-1].end)
        if text[at] == ",":
            at = _after_blanks(text, at + 1)
    return tuple(found)


def _members(text: str, start: int) -> Iterator[tuple[str, Part]]:
    at = _after_blanks(text, start + 1)
    while text[at : at + 1] != "}":
        _expect(text, at, '"')
        name = _value(text, at)
        key, at = name.value, _after_blanks(text, name.end)
        _expect(text, at, ":")
        part = _value(text, _after_blanks(text, at + 1))
        yield key, part
        at = _after_blanks(text, part.end)
        if text[at : at + 1] == "}":
            return
        _expect(text, at, ",")
        at = _after_blanks(text, at + 1)
        _expect(text, at, '"')  # no comma before the end


def _value(text: str, start: int) -> Part:
    value, end = _DECODER.raw_decode(text, start)
    return Part(value, start, end)


def _refuse(word: str) -> NoReturn:
    raise NotJson(f"{word} is no JSON")


_DECODER = JSONDecoder(parse_constant=_refuse)


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANKS:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> None:
    if text[at : at + 1] != character:
        raise NotJson(f"{character} is expected in line {_line(text, at)}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
