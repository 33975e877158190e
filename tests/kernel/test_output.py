"""Where standard output or standard error takes nothing, or no process reads it: what is done is the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL

#: What a shell does to standard error.
NOWHERE = {"full": "2>/dev/full", "closed": "2>&-", "no reader": "2> >(exec true)"}


def in_shell(scratch: Scratch, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $TOOL is the tool."""
    return scratch.run("bash", "-c", line.replace("$TOOL", f"{sys.executable} -m istio_iptables"))


@pytest.mark.parametrize("redirection", NOWHERE.values(), ids=NOWHERE)
def test_rules_are_applied_though_the_log_cannot_be_written(redirection: str):
    with Scratch() as scratch:
        done = in_shell(scratch, f"$TOOL -p 1500 {redirection}")
        assert done.returncode == 0
        assert "--to-ports 1500\n" in scratch.save("legacy", "ipv4")
        assert in_shell(scratch, f"$TOOL cleanup {redirection}").returncode == 0
        assert "ISTIO" not in scratch.save("legacy", "ipv4")


@pytest.mark.parametrize("redirection", NOWHERE.values(), ids=NOWHERE)
def test_mistakes_have_their_exit_code_though_nobody_hears_of_them(redirection: str):
    with Scratch() as scratch:
        assert in_shell(scratch, f"$TOOL -p 99999 {redirection}").returncode == 2
        assert in_shell(scratch, f"$TOOL -n --help-me {redirection}").returncode == 2


def test_a_log_that_is_full_in_the_middle_changes_nothing():
    with Scratch() as scratch:
        limited = f"ulimit -f 1; $TOOL -p 1500 2>>{scratch.directory}/log"
        done = in_shell(scratch, f"head -c 900 /dev/zero >{scratch.directory}/log; trap '' XFSZ; {limited}")
        assert done.returncode == 0
        assert "--to-ports 1500\n" in scratch.save("legacy", "ipv4")


@pytest.mark.parametrize(
    "command", ["-n", "render", "render --format json", "diff --json", "validate --json"]
)
def test_standard_output_that_takes_nothing_is_an_error_that_says_so(command: str):
    with Scratch() as scratch:
        done = in_shell(scratch, f"$TOOL {command} >/dev/full")
        assert done.returncode == 1
        assert "standard output cannot be written: No space left on device" in done.stderr
        assert "what to do" in done.stderr
        assert "Traceback" not in done.stderr


def test_letters_that_standard_output_cannot_take():
    with Scratch() as scratch:
        done = in_shell(scratch, "PYTHONIOENCODING=ascii $TOOL -n -c ä")
        assert done.returncode == 1
        assert r"standard output cannot take '\xe4': its encoding is ascii" in done.stderr


def test_the_difference_comes_before_the_line_that_speaks_of_it():
    with Scratch() as scratch:
        scratch.apply()
        done = in_shell(scratch, "$TOOL -p 7 2>&1")
        assert done.returncode == 3
        lines = done.stdout.splitlines()
        assert next(i for i, line in enumerate(lines) if line.startswith("@ ")) < next(
            i for i, line in enumerate(lines) if "\terror\t" in line
        )
