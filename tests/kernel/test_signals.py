"""Ctrl-C and termination, for real: nothing is ever left half done."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL

ARGUMENTS = ("--dual-stack", "-m", "TPROXY", "--redirect-dns", "--capture-all-dns")


def rules(scratch):
    """The rules of both families; an empty table is no rules."""
    return [
        [line for line in scratch.save("legacy", family).splitlines() if line.startswith("-A")]
        for family in ("ipv4", "ipv6")
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_leaves_everything_as_before_or_as_after(number, whole_group):
    outcomes = set()
    with Scratch(addresses=True) as scratch:
        before = rules(scratch), scratch.network()
        scratch.apply(*ARGUMENTS)
        after = rules(scratch), scratch.network()
        scratch.apply("cleanup")
        for attempt in range(12):
            child = subprocess.Popen(
                ["nsenter", f"--net={scratch.path}", sys.executable, "-m", "istio_iptables", *ARGUMENTS],
                stderr=subprocess.PIPE,
                text=True,
                env=scratch._environment(None),
                start_new_session=True,
            )
            assert child.stderr
            for line in child.stderr:
                if "planned" in line:
                    break
            time.sleep(attempt * 0.0015)
            if whole_group:
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)
            errors = child.communicate(timeout=30)[1]
            assert "Traceback" not in errors, errors
            found = rules(scratch), scratch.network()
            assert found in (before, after), (attempt, child.returncode, errors)
            if child.returncode == 1:
                assert found == before, errors
                assert "interrupted" in errors
            outcomes.add((found == after, child.returncode))
            scratch.apply("cleanup")
            assert (rules(scratch), scratch.network()) == before
    assert outcomes
