"""log: what an init container leaves behind for `kubectl logs`. Lines go to standard error.

The standard logging package is not used: importing it costs as much as bare Python needs to start
half its modules, for the three things that are needed here, a level, a time and JSON.
"""

from __future__ import annotations

import time

from ..settings.parsers import LOG_LEVELS, LOG_SCOPE
from .streams import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Logger:
    """Writes lines of a level that is high enough."""

    def __init__(self) -> None:
        self._threshold = LOG_LEVELS.index("info")
        self._as_json = False

    def configure(self, levels: Iterable[tuple[str, str]], *, as_json: bool = False) -> None:
        """Set the levels, by scope (there is one, `default`; others are accepted), and the form."""
        for scope, level in levels:
            if scope in (LOG_SCOPE, "all"):
                self._threshold = LOG_LEVELS.index(level)
        self._as_json = as_json

    def enabled(self, level: str) -> bool:
        """Tell whether lines of a level are written: what they take to make may be spared."""
        return LOG_LEVELS.index(level) >= self._threshold

    def debug(self, message: str) -> None:
        """Write what helps to find a mistake in this tool, or the state before and after."""
        self._write("debug", message)

    def info(self, message: str) -> None:
        """Write what is done and why."""
        self._write("info", message)

    def warn(self, message: str) -> None:
        """Write what may not be as the operator thinks."""
        self._write("warn", message)

    def error(self, message: str) -> None:
        """Write what failed and what to do."""
        self._write("error", message)

    def _write(self, level: str, message: str) -> None:
        if not self.enabled(level):
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        if self._as_json:
            import json

            values = {"level": level, "time": stamp, "scope": LOG_SCOPE, "msg": message}
            lines = [json.dumps(values, ensure_ascii=False)]
        else:
            lines = [f"{stamp}\t{level}\t{line}" for line in message.splitlines() or [""]]
        complain("".join(f"{line}\n" for line in lines))


log = Logger()
