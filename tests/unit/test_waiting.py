"""What takes long says so: tests, and what `make` installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import StillRunning

ROOT = Path(__file__).parents[2]


def test_tests_that_take_long_say_so():
    said: list[str] = []
    now = 0.0
    running = StillRunning(said.append, lambda: now)
    running.pytest_runtest_logstart("slow")
    running.pytest_runtest_logstart("quick")
    now = 29
    running.pytest_runtest_logfinish("quick")
    running.tick()
    assert said == []
    now = 31
    running.tick()
    running.tick()
    assert said == ["still running after 31 s: slow"]
    now = 95
    running.tick()
    running.tick()
    assert said[1:] == ["still running after 95 s: slow"]
    running.pytest_runtest_logfinish("slow")
    now = 500
    running.tick()
    assert len(said) == 2


def waiting(log: Path, *command: str) -> subprocess.CompletedProcess[str]:
    words = ["env", "WAITING_INTERVAL=1", str(ROOT / "tools/waiting"), "making it", str(log), *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_that_is_quick_says_one_line(tmp_path):
    done = waiting(tmp_path / "log", "echo", "something")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "making it ...\n")
    assert (tmp_path / "log").read_text() == "something\n"


@pytest.mark.slow  # its command waits for a second
def test_a_command_that_takes_long_says_so_again(tmp_path):
    """It ends when the second line has been written: it waits for nothing else."""
    log, seen = tmp_path / "log", tmp_path / "seen"
    command = [sys.executable, "-c", f"open({str(seen)!r}).read()"]
    subprocess.run(["mkfifo", seen], check=True)
    words = ["env", "WAITING_INTERVAL=1", ROOT / "tools/waiting", "making it", log, *command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = [process.stderr.readline(), process.stderr.readline()]
        seen.write_text("go on")
        assert process.wait(60) == 0
    assert lines == ["making it ...\n", f"making it: 1 s so far; {log} has what it prints\n"]


def test_a_command_that_fails_shows_what_it_printed(tmp_path):
    done = waiting(tmp_path / "log", "sh", "-c", "echo why; exit 7")
    assert (done.returncode, done.stderr) == (7, "making it ...\nwhy\n")
