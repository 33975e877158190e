"""sources: collect what was given for the settings, from files, variables and flags, weakest first."""

from __future__ import annotations

from .errors import SettingsError
from .resolve import from_environment
from .settings import BY_NAME, Given, nearest, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .goflags import Invocation


def collect(invocation: Invocation, environ: Mapping[str, str]) -> tuple[list[Given], list[str]]:
    """Return everything given, the strongest last, and the mistakes made in giving it."""
    given: list[Given] = []
    mistakes = list(invocation.mistakes)
    for source in invocation.sources:
        if source.setting.name != "config":
            mistakes.append(f"{source.origin}: not available yet")
            continue
        try:
            said, wrong = from_file(source.text)
        except SettingsError as error:
            mistakes += error.mistakes
        else:
            given += said
            mistakes += wrong
    return [*given, *from_environment(environ), *invocation.settings], mistakes


def from_file(path: str) -> tuple[list[Given], list[str]]:
    """Return what a YAML or JSON file says, a mapping of long flag names to values, and its mistakes.

    Raises SettingsError if it is no such file.
    """
    given, mistakes = [], []
    for name, value in _mapping(path).items():
        origin = f"{path}: {shown(name)}"
        setting = BY_NAME.get(name)
        if setting is None:
            mistakes.append(f"{origin}: unknown setting{nearest(name, BY_NAME)}")
            continue
        try:
            given.append(Given(setting, as_text(value), origin))
        except ValueError as error:
            mistakes.append(f"{origin}: {error}")
    return given, mistakes


def _mapping(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise SettingsError([f"--config: {path!r} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"--config: {path!r} is not UTF-8 text"]) from error
    try:
        values = _json(text) if text.lstrip().startswith("{") else None
        if values is None:
            values = _yaml(text, path)
    except RecursionError:
        raise SettingsError(
            [f"--config: {path!r} is nested too deeply to be a mapping of settings"]
        ) from None
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise SettingsError([f"--config: {path!r} is not a mapping of long flag names to values"])
    return {str(name): value for name, value in values.items()}


def _json(text: str) -> Any:
    """Parse JSON, which PyYAML would take a hundred times as long for; None if it is not JSON."""
    import json

    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return None


def _yaml(text: str, path: str) -> Any:
    """Parse YAML with every scalar as the text that it is: 8000:8100 is a range of ports, not a number."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingsError([f"--config: {path!r} is neither YAML nor JSON: {reason}"]) from error


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
    raise ValueError("a value is a text, a number, true, false or a list of such")


def _member(value: object) -> str:
    if isinstance(value, (list, tuple, dict)):
        raise ValueError("a list cannot hold lists or mappings")
    return as_text(value)
