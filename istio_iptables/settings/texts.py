"""texts: what users wrote: a text that was given for a setting, a value as a text, and texts in messages."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .declared import Setting


class Given(Record):
    """The text given for a setting, and where it was given, as messages about it begin."""

    setting: Setting
    text: str
    origin: str


#: A message shows no more characters of a text of a user: a file may be one line of many megabytes.
_MOST_SHOWN = 200


def shown(text: str) -> str:
    """Return a user's text so that it fits into one line of output: unprintable characters are escaped."""
    beginning = text[:_MOST_SHOWN]
    return _cut(beginning if beginning.isprintable() else ascii(beginning)[1:-1], len(text))


def quoted(text: object) -> str:
    """Return a user's text in quotes, unprintable characters escaped, and of a long one the beginning."""
    whole = str(text)
    return _cut(repr(whole[:_MOST_SHOWN]), len(whole))


def _cut(beginning: str, length: int) -> str:
    if length <= _MOST_SHOWN:
        return beginning
    return f"{beginning}... ({length} characters)"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known word that is most similar to `name`, or an empty string."""
    import difflib

    matches = difflib.get_close_matches(name, tuple(known), n=1, cutoff=0.6)
    return f" (did you mean {matches[0]}?)" if matches else ""


def as_text(value: object) -> str:
    """Return a value as a user would write it on a command line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return ",".join(_member(member) for member in value)
    raise ValueError("a value must be a string, a number, true, false or a list of these")


def _member(value: object) -> str:
    if isinstance(value, (list, tuple, dict)):
        raise ValueError("a list cannot contain lists or mappings")
    return as_text(value)
