"""streams: standard output (rules, plans, reports) and standard error, on which a user reads.

If standard output cannot be written, the command fails with an error that says so. If standard error cannot
be written, because it is closed or full or has no reader, the command goes on: a lost log line is no reason
to leave a pod without its rules.
"""

from __future__ import annotations

import os
import sys

from ..errors import KernelError
from ..visible import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def write(text: str) -> None:
    """Print text on standard output and flush it, so that later lines on standard error come after it.

    Control characters are escaped, but for styles where these are used. Raises KernelError if it cannot be
    written, BrokenPipeError if the reader is gone.
    """
    try:
        sys.stdout.write(visible(text, styled="\x1b" in text and is_styled()))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_standard_output()
        raise KernelError(
            f"standard output cannot be written: {error.strerror}",
            "free some space there, or redirect the output elsewhere",
        ) from error
    except UnicodeEncodeError as error:
        raise KernelError(
            f"standard output cannot take {error.object[error.start : error.end]!a}: its encoding is "
            f"{error.encoding}",
            "set PYTHONIOENCODING=utf-8",
        ) from error


def _give_up_standard_output() -> None:
    """Keep the interpreter from flushing again, and complaining, when it exits."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process


def is_styled() -> bool:
    """Tell whether to use colours and bold: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def complain(text: str) -> None:
    """Write lines on standard error, if it can be written; if not, the next ones are tried again."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = _standard_error()


def _standard_error() -> TextIO:
    """Return standard error anew, since the object that failed keeps what it could not write."""
    try:
        return open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    except OSError:  # it is closed
        return open(os.devnull, "w", encoding="utf-8")


def append(path: str, text: str) -> str:
    """Append text to a file, and return why that could not be done, or nothing.

    It is opened anew for each text, so a program that rotates it may rename or remove it, and written in one
    piece, so lines of several processes do not mix (open(2), O_APPEND).
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, text.encode("utf-8", "replace"))
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.strerror or str(error)
    return ""
