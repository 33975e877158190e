"""log: what the plugin needs of a log; cli/log.py has one. A run does not import it: it imports typing."""

from __future__ import annotations

from typing import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Log(Protocol):
    """A log with levels, whose lines may go to a file too."""

    def configure(self, levels: Iterable[tuple[str, str]], *, as_json: bool = False) -> None:
        """Set the levels by scope, and the format."""

    def name(self, subject: str) -> None:
        """Begin every line from now on with what it is about."""

    def append_to(self, path: str) -> None:
        """Append every line from now on to a file too."""

    def debug(self, message: str) -> None:
        """Write what helps to find a bug in this tool."""

    def info(self, message: str) -> None:
        """Write what is done and why."""

    def warn(self, message: str) -> None:
        """Write what may not be as the operator expects."""

    def error(self, message: str) -> None:
        """Write what failed and what to do."""
