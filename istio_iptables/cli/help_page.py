"""help_page: the pages of --help.

All that they show is declared in settings/declared.py and settings/commands.py. Typer could make such pages
too, but its import alone takes longer than all of this (startup/__init__.py has the figure).
"""

from __future__ import annotations

import os
import sys

from ..rules import istio
from ..rules.istio import PROGRAM
from ..settings.commands import COMMAND_BY_NAME, COMMANDS, EXAMPLES, EXIT_CODES, GROUPS, Command
from ..settings.declared import BY_NAME, SETTINGS, SOURCES, Setting
from ..settings.go_flags import COMPLETION
from .streams import is_styled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    #: What is explained, and the explanation.
    Entry: TypeAlias = tuple[str, str]

SUMMARY = (
    f"Write the rules that send a pod's TCP traffic through its Envoy sidecar: outbound to port "
    f"{istio.OUTBOUND_PORT}, inbound to port {istio.INBOUND_PORT}. Envoy's own traffic (UID "
    f"{istio.PROXY_ID}) is left alone."
)
_SOURCES_OF_SETTINGS = (
    "Every setting can be given by its flag, by the variable shown, in a --config file, or by a --pod "
    "manifest. A flag takes precedence over a variable, a variable over a file. "
    f"Exit codes: {'; '.join(f'{code} {text}' for code, text in EXIT_CODES.items())}."
)
_ALL_SETTINGS = f"All settings can be given with this command: `{PROGRAM} --help` lists them."
#: Flags that are not settings, of every page and of the first one alone.
_HELP_FLAG: Entry = ("-h, --help", "Show this message and exit.")
_META_FLAGS: tuple[Entry, ...] = (("-V, --version", "Print the version."), *COMPLETION.items(), _HELP_FLAG)

#: Lines are as long as the terminal is wide, two columns less, but not shorter than _NARROWEST.
_NARROWEST, _NO_TERMINAL, _MARGIN = 50, 80, 2
#: Explanations begin in one column, below what they explain where that is longer. Any variable fits there.
_WIDEST_TERM, _LEAST_TEXT, _GAP, _INDENT = 30, 36, 2, 2


def page(name: str) -> str:
    """Return the help of a command, of a group of commands, or of the program if there is no name."""
    columns = _Columns()
    command = COMMAND_BY_NAME.get(name)
    if command:
        columns.usage(f"{PROGRAM} {name}", f"[OPTIONS] {_operand(command)}")
        columns.paragraph(command.help)
        _of_command(command, columns)
    else:
        columns.usage(f"{PROGRAM} {name}".strip(), "[OPTIONS] COMMAND [ARGS]...")
        columns.paragraph(GROUPS.get(name, SUMMARY))
        columns.entries("Commands", _commands(name))
    if not name:
        _of_program(columns)
    columns.paragraph(_ALL_SETTINGS if name else _SOURCES_OF_SETTINGS)
    return columns.text()


def short(command: Command) -> str:
    """Return the help of a command for a list of commands: its beginning."""
    return command.help.partition(":")[0].partition(",")[0].partition(" (")[0].removesuffix(".")


def described(setting: Setting) -> str:
    """Return the help of a setting with its default."""
    return f"{setting.help} (default: {setting.default})" if setting.default else setting.help


def _operand(command: Command) -> str:
    operand = command.operand
    if operand is None:
        return ""
    return operand.usage if operand.least else f"[{operand.usage}]"


def _commands(group: str) -> Iterator[Entry]:
    for command in COMMANDS:
        if not group:
            yield command.name, short(command)
        elif command.words[0] == group:
            yield command.words[-1], short(command)


def _of_command(command: Command, columns: _Columns) -> None:
    if command.options:
        columns.entries("Options", map(_flag, command.options))
    operand = [(command.operand.usage, command.operand.help)] if command.operand else []
    columns.entries("This command", [*operand, _HELP_FLAG])


def _of_program(columns: _Columns) -> None:
    columns.title("Examples")
    for line, text in EXAMPLES.items():
        columns.line(_INDENT, line, is_bold=True)
        columns.wrapped(text, 2 * _INDENT)
    groups: dict[str, list[Entry]] = {}
    for setting in SETTINGS:
        if setting.has_flag:
            groups.setdefault(setting.group, []).append(_flag(setting))
    groups["Operation"] += map(_flag, SOURCES)
    for setting in SETTINGS:
        if not setting.has_flag:
            syntax = f"{setting.variable}={setting.metavar}"
            groups[setting.group].append((syntax, f"Variable only. {described(setting)}"))
    for group, entries in groups.items():
        columns.entries(group, entries)
    columns.entries("This command", _META_FLAGS)


def _flag(setting: Setting) -> Entry:
    short_flag = f"-{setting.short}, " if setting.short else ""
    value = "[=BOOL]" if setting.is_boolean else f" {setting.metavar}"
    variables = f" [{', '.join(setting.variables)}]" if setting.name in BY_NAME else ""
    return f"{short_flag}--{setting.name}{value}", f"{described(setting)}{variables}"


def _width() -> int:
    """Return how long lines may be: as shutil.get_terminal_size, without its import."""
    try:
        columns = int(os.environ["COLUMNS"])
    except (KeyError, ValueError):
        columns = 0
    if columns <= 0:
        try:
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):  # closed, or not a terminal
            columns = 0
    return max((columns or _NO_TERMINAL) - _MARGIN, _NARROWEST)


class _Columns:
    """A page as it grows: paragraphs, and entries in two columns, in lines that fit the terminal."""

    def __init__(self) -> None:
        self._width = _width()
        self._bold = ("\x1b[1m", "\x1b[22m") if is_styled() else ("", "")  # ECMA-48
        self._lines: list[str] = []

    def text(self) -> str:
        """Return the page."""
        return "".join(f"{line}\n" for line in self._lines)

    def line(self, indent: int, text: str, *, is_bold: bool = False) -> None:
        """Add a line."""
        on, off = self._bold if is_bold else ("", "")
        self._lines.append(f"{' ' * indent}{on}{text}{off}")

    def usage(self, program: str, arguments: str) -> None:
        """Add the first line."""
        first = f"Usage: {program} "
        parts = _wrap(arguments, self._width - len(first))
        self._lines += [
            f"{first if not number else ' ' * len(first)}{part}" for number, part in enumerate(parts)
        ]

    def wrapped(self, text: str, indent: int) -> None:
        """Add text as lines."""
        for part in _wrap(text, self._width - indent):
            self.line(indent, part)

    def paragraph(self, text: str) -> None:
        """Add text after an empty line."""
        self._lines.append("")
        self.wrapped(text, _INDENT)

    def title(self, title: str) -> None:
        """Add a heading after an empty line."""
        on, off = self._bold
        self._lines += ["", f"{on}{title}{off}:"]

    def entries(self, title: str, entries: Iterable[Entry]) -> None:
        """Add a heading, and entries below it."""
        self.title(title)
        entries = list(entries)
        least = self._width - _LEAST_TEXT - _GAP - _INDENT
        column = min(max(len(term) for term, _ in entries), _WIDEST_TERM, least) + _GAP
        for term, text in entries:
            self.line(_INDENT, term, is_bold=True)
            first, *rest = _wrap(text, self._width - column - _INDENT)
            if len(term) <= column - _GAP:
                self._lines[-1] += " " * (column - len(term)) + first
            else:
                rest.insert(0, first)
            for part in rest:
                self.line(column + _INDENT, part)


def _wrap(text: str, width: int) -> list[str]:
    """Split text at spaces into lines that are at most so long, unless a word is longer."""
    first, *words = text.split()
    lines = [first]
    for word in words:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
