"""Messages: every text by which the package tells a user that something is wrong, found in its sources.

What varies in a message is written as an ellipsis, `the command … is not installed`, as in the index of
docs/troubleshooting.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from istio_iptables.settings.ignored import IGNORED
from istio_iptables.settings.no_effect import NO_EFFECT

from .sources import modules

#: Calls whose first argument is a message (after a code, the second), by the name of what is called, and
#: the kind of message.
_CALLS = {
    "KernelError": "error",
    "Busy": "error",
    "CniError": "error",
    "Differs": "error",
    "DumpError": "error",
    "SettingsError": "mistake",
    "BadValue": "mistake",
    "warn": "warning",
    "error": "error",
}
#: Calls of these methods add a message to a list of this name.
_LISTS = {"warnings": "warning", "mistakes": "mistake", "problems": "mistake"}
#: Shorter ones, such as `…: …`, say nothing by which they could be found.
_SHORTEST = 8


class Message(NamedTuple):
    """A message, where it is made, and whether it is an error (exit 1 or 3), a mistake (2) or a warning."""

    kind: str
    text: str
    where: str


@cache
def messages() -> list[Message]:
    """Return all messages of the package, by file and line."""
    # The fake kernel's are for programmers, in their tests.
    names = [name for name in modules() if not name.startswith("testing/")]
    found = [message for name in names for message in _of_module(name)]
    found += [Message("warning", row.warning, f"NO_EFFECT: {row.setting}") for row in NO_EFFECT]
    return [*found, *(Message("warning", f"…: {row.warning}", f"IGNORED: {row.name}") for row in IGNORED)]


def _of_module(name: str) -> Iterator[Message]:
    for node in ast.walk(modules()[name]):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        kind = _kind(node.func)
        has_code = isinstance(node.func, ast.Name) and node.func.id == "CniError" and len(node.args) > 1
        given = node.args[1 if has_code else 0]
        texts = _constants().get(given.id, []) if isinstance(given, ast.Name) else _texts(given)
        for text in texts if kind else ():
            if len(text.replace("…", "").strip(": ")) >= _SHORTEST:
                yield Message(kind, text, f"istio_iptables/{name}:{node.lineno}")


@cache
def _constants() -> Mapping[str, list[str]]:
    """Return the texts of the package's constants, which stand at the level of a module, by their names."""
    return {
        target.id: _texts(statement.value)
        for module in modules().values()
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id.isupper()
    }


def _kind(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return _CALLS.get(function.id, "")
    if not isinstance(function, ast.Attribute):
        return ""
    if function.attr in ("append", "extend") and isinstance(function.value, (ast.Name, ast.Attribute)):
        name = function.value.id if isinstance(function.value, ast.Name) else function.value.attr
        return _LISTS.get(name, "")
    is_log = isinstance(function.value, ast.Name) and function.value.id == "log"
    return _CALLS.get(function.attr, "") if is_log else ""


def _texts(argument: ast.expr) -> list[str]:
    """Return the texts that an expression may be, with an ellipsis for what is filled in."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.JoinedStr):
        return ["".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in argument.values)]
    if isinstance(argument, ast.IfExp):
        return [*_texts(argument.body), *_texts(argument.orelse)]
    if isinstance(argument, (ast.List, ast.Tuple)):
        return [text for member in argument.elts for text in _texts(member)]
    if isinstance(argument, ast.GeneratorExp):
        return _texts(argument.elt)
    return []
