"""json_text: read and write JSON with the C half of the json package.

The package's Python half imports re, which takes longer than all that a CNI plugin has to read (it is the
only thing on a start-up path that reads JSON). The C module `_json` has the scanner and the encoder; it is
private to the standard library, so the package is used where it is missing. Tests check that both agree.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

#: White space of JSON (RFC 8259).
_SPACE = " \t\n\r"


class Member(tuple["Any", str]):
    """A member of a JSON object: its value, and the text that the value was read from, to the letter."""

    __slots__ = ()

    @property
    def value(self) -> Any:
        """What the text means."""
        return self[0]

    @property
    def text(self) -> str:
        """The text of the value."""
        return self[1]


class _Scanner:
    """What `_json.make_scanner` asks for: how each kind of value is made (json.JSONDecoder has the same)."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012  # the attribute that the C code expects

    @staticmethod
    def parse_constant(name: str) -> float:
        """Refuse NaN and Infinity, which JSON does not have."""
        raise ValueError(f"{name} is not JSON")


def read_object(text: str) -> dict[str, Member]:
    """Return the members of the object that a text is. Raises ValueError if it is not one JSON object.

    >>> members = read_object('{"a": 1.0, "b": {"c": [null]}}')
    >>> members["a"].text, members["b"].value
    ('1.0', {'c': [None]})
    """
    scan, scan_string = _scanners()
    members: dict[str, Member] = {}
    try:
        at = _expect(text, _after_space(text, 0), "{")
        at = _after_space(text, at)
        if text[at : at + 1] == "}":
            at += 1
        else:
            at = _read_members(text, at, members, scan, scan_string)
    except StopIteration as stop:  # what the scanner raises where no value begins
        raise ValueError(f"no value at character {stop.value}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _after_space(text, at) < len(text):
        raise ValueError(f"more text after the object, at character {_after_space(text, at)}")
    return members


def _read_members(text: str, at: int, members: dict[str, Member], scan: Any, scan_string: Any) -> int:
    """Read members up to the closing brace, and return where the text goes on."""
    while True:
        key, at = scan_string(text, _expect(text, at, '"'), True)
        if key in members:
            raise ValueError(f"the key {key!r} appears twice")
        begin = _after_space(text, _expect(text, _after_space(text, at), ":"))
        value, at = scan(text, begin)
        members[key] = Member((value, text[begin:at]))
        at = _after_space(text, at)
        if text[at : at + 1] == "}":
            return at + 1
        at = _after_space(text, _expect(text, at, ","))


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    if text[at : at + 1] != character:
        raise ValueError(f"{character} is missing at character {at}")
    return at + 1


def _scanners() -> tuple[Any, Any]:
    try:
        import _json
    except ImportError:
        from json import decoder

        package: Any = decoder
        made = package.JSONDecoder(parse_constant=_Scanner.parse_constant)
        return made.scan_once, package.scanstring
    make: Any = _json.make_scanner  # typed as if it took a decoder of the json package alone
    return make(_Scanner()), _json.scanstring


def write(value: object) -> str:
    """Return a value as JSON in ASCII, in one line.

    >>> write({"code": 7, "msg": "é"})
    '{"code": 7, "msg": "\\\\u00e9"}'
    """
    return "".join(_pieces(value))


def _pieces(value: object) -> Iterator[str]:
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        from json import dumps

        return iter((dumps(value, allow_nan=False),))
    encoder = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False)
    pieces: Iterator[str] = encoder(value, 0)
    return pieces


def _refuse(value: object) -> object:
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")
