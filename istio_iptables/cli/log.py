"""log: log lines on standard error, where `kubectl logs` finds those of an init container, and in a file.

The logging package is not used: its import is expensive (startup/__init__.py has the figure), and only a
level, a time and JSON are needed here.
"""

from __future__ import annotations

import time

from ..settings.parsers import DEFAULT_LOG_LEVEL, LOG_LEVELS, LOG_SCOPE
from ..visible import visible
from .streams import append, complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


#: So many mistakes are written at most: a file may have a million.
_MOST_MISTAKES = 100


class Logger:
    """Writes the lines whose level is at least the configured one."""

    def __init__(self) -> None:
        self._threshold = LOG_LEVELS.index(DEFAULT_LOG_LEVEL)
        self._as_json = False
        self._subject = ""
        self._file = ""

    def configure(self, levels: Iterable[tuple[str, str]], *, as_json: bool = False) -> None:
        """Set the levels by scope, and the format. There is one scope, `default`; others are accepted."""
        for scope, level in levels:
            if scope in (LOG_SCOPE, "all"):
                self._threshold = LOG_LEVELS.index(level)
        self._as_json = as_json

    def name(self, subject: str) -> None:
        """Begin every message from now on with what it is about: a log of a node is about many pods."""
        self._subject = f"{subject}: "

    def append_to(self, path: str) -> None:
        """Append every line from now on to a file too; an empty path is none."""
        self._file = path

    def enabled(self, level: str) -> bool:
        """Tell whether lines of a level are written, so that the work of making them can be saved."""
        return LOG_LEVELS.index(level) >= self._threshold

    def debug(self, message: str) -> None:
        """Write what helps to find a bug in this tool: tracebacks, and the state before and after."""
        self._write("debug", message)

    def info(self, message: str) -> None:
        """Write what is done and why."""
        self._write("info", message)

    def warn(self, message: str) -> None:
        """Write what may not be as the operator expects."""
        self._write("warn", message)

    def error(self, message: str) -> None:
        """Write what failed and what to do."""
        self._write("error", message)

    def mistakes(self, lines: Iterable[str]) -> None:
        """Write the mistakes in settings, whatever the level: bare lines, or JSON like every other line.

        Of very many the first are written, and how many more there are.
        """
        every = tuple(lines)
        lines = every[:_MOST_MISTAKES]
        if len(every) > len(lines):
            lines = (*lines, f"{len(every) - len(lines)} more mistakes: correct these first")
        if self._as_json:
            for line in lines:
                self._put("error", line)
        else:
            complain("".join(f"{visible(line)}\n" for line in lines))

    def _write(self, level: str, message: str) -> None:
        if self.enabled(level):
            self._put(level, message)

    def _put(self, level: str, message: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        if self._as_json:
            import json

            values = {"level": level, "time": stamp, "scope": LOG_SCOPE, "msg": self._subject + message}
            line = json.dumps(values, ensure_ascii=False)
            lines = [line if line.isprintable() else json.dumps(values)]  # a terminal obeys no ASCII of JSON
        else:
            shown = visible(message).splitlines() or [""]
            lines = [f"{stamp}\t{level}\t{self._subject}{line}" for line in shown]
        text = "".join(f"{line}\n" for line in lines)
        complain(text)
        if self._file:
            why_not = append(self._file, text)
            if why_not:
                path, self._file = self._file, ""
                self.warn(f"the log file {path} cannot be written: {why_not}")


log = Logger()
