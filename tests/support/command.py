"""command: run the command line in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


#: `make coverage` measures processes that have its variables.
_MEASURED = {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}

ENVIRONMENT = {
    "PATH": os.defpath,
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    **_MEASURED,
}


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\t(debug|info|warn|error)\t.*")

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="about Linux' capabilities and namespaces")

#: Give up all capabilities (capset(2)), so that a test that root runs does not touch the machine.
UNPRIVILEGED = """\
import ctypes, sys
if sys.platform == "linux":
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
"""


MAIN = "import runpy; runpy.run_module('istio_iptables', run_name='__main__', alter_sys=True)"


class Process:
    """What `python -m istio_iptables` does without privileges: how it ended, and what it said."""

    def __init__(self, code: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED + code, *arguments],
            cwd=ROOT,
            env={**ENVIRONMENT, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=60,
        )
        self.status, self.output, self.errors = done.returncode, done.stdout, done.stderr


def run(*arguments: str, code: str = MAIN, **variables: str) -> Process:
    return Process(code, arguments, variables)


def assert_refused(process: Process, *mistakes: str) -> None:
    """Bad usage: standard error holds one line a mistake, which begins so, and nothing else."""
    assert process.status == 2
    assert process.output == ""
    lines = process.errors.splitlines()
    assert len(lines) == len(mistakes), process.errors
    for line, mistake in zip(lines, mistakes, strict=True):
        assert line.startswith(mistake)
    for trace in ("Usage", "Traceback", "Try '", "\u256d", "\u2502", "\x1b", "\t"):
        assert trace not in process.errors
