"""output: the two places where a user reads: standard output (rules, plans, reports) and standard error.

What cannot be printed is an error that says so. What cannot be said on standard error, because it is closed
or full or nobody reads it, must not change what is done: a log is no reason to leave a pod without its rules.
"""

from __future__ import annotations

import os
import sys

from ..errors import KernelError


def write(text: str) -> None:
    """Print text on standard output at once, before any line on standard error that comes after it.

    Raises KernelError if it cannot be printed, BrokenPipeError if nobody reads.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _give_up_standard_output()
        raise KernelError(
            f"standard output cannot be written: {error.strerror}", "make room there, or send it elsewhere"
        ) from error
    except UnicodeEncodeError as error:
        raise KernelError(
            f"standard output cannot take {error.object[error.start : error.end]!a}: its encoding is "
            f"{error.encoding}",
            "set PYTHONIOENCODING=utf-8",
        ) from error


def _give_up_standard_output() -> None:
    """Have the interpreter not try again, and complain, when it ends."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process


def complain(text: str) -> None:
    """Write lines on standard error, if anybody can read them."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process
