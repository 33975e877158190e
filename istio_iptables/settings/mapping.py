"""mapping: settings from a mapping of long flag names to values: a --config file, a node's configuration."""

from __future__ import annotations

from .declared import BY_NAME
from .texts import Given, as_text, nearest, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .declared import Setting


def from_mapping(
    values: Mapping[str, object], where: str, refusal: Callable[[Setting], str] | None = None
) -> tuple[list[Given], list[str]]:
    """Return the settings, and what is wrong with names and types; the values' texts are not parsed here.

    `where` is what messages begin with. `refusal` returns why a setting may not be in this mapping, or
    nothing.
    """
    given: list[Given] = []
    mistakes: list[str] = []
    if not values:
        return given, mistakes
    from .yaml_text import is_null

    for name, value in values.items():
        origin = f"{where}: {shown(name)}"
        setting = BY_NAME.get(name)
        if setting is None:
            mistakes.append(f"{origin}: unknown setting{_nearest(name) if len(mistakes) < _FEW else ''}")
            continue
        why = refusal(setting) if refusal else ""
        if why:
            mistakes.append(f"{origin}: {why}")
            continue
        if is_null(value):
            mistakes.append(f'{origin}: has no value: write "" for an empty one, or leave it out')
            continue
        try:
            given.append(Given(setting, as_text(value), origin))
        except ValueError as error:
            mistakes.append(f"{origin}: {error}")
    return given, mistakes


#: After so many mistakes no hint is looked for: that takes longer than all the rest.
_FEW = 20


def _nearest(name: str) -> str:
    """Return a hint with the right name. The key may be spelled as a variable instead of a flag."""
    flag = name.lower().replace("_", "-")
    return f" (did you mean {flag}?)" if flag in BY_NAME else nearest(name, BY_NAME)
