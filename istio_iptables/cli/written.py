"""written: write an answer that is nothing but text, such as a page of help."""

from __future__ import annotations

import os
import sys

from .. import __version__
from ..errors import KernelError
from ..rules import PROGRAM
from .streams import complain, write


def written(text: str) -> int:
    """Write text on standard output and return the exit code. A mistake is one line."""
    try:
        write(text)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KernelError as error:
        complain(f"{error}\n")
        return 1
    return 0


def version() -> int:
    """Write the version and return the exit code."""
    return written(f"{PROGRAM} {__version__}\n")
