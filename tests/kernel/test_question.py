"""The question before the machine's own network is captured: at a real terminal, in namespaces made for it.

Process 1 of a PID namespace stands for the machine's. The PID namespace is not the kernel's first one, and
this may be a container: only these two checks are told otherwise (SEEN). The host's network is never used.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL

SEEN = """
import os, sys
from istio_iptables.kernel import own_network
own_network.FIRST_PID_NAMESPACE = os.readlink("/proc/self/ns/pid")
files = [file for file in own_network._FILES if file != "/.dockerenv"]
own_network._FILES = (*files, "/run/sign-of-a-container")
from istio_iptables.__main__ import main
sys.exit(main())
"""
#: sh is process 1, as init is; it starts the tool and hands on how that ended.
MACHINE = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh"]
QUESTION = "this is the machine's own network"


class Terminal:
    """A command at a terminal of its own, and what has appeared there."""

    def __init__(self, scratch: Scratch, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.text = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            try:
                path = f"--net={scratch.path}"
                os.execvpe("nsenter", ["nsenter", path, *command], {**scratch._environment(None), **env})
            finally:
                os._exit(70)

    def until(self, text: str) -> None:
        """Read until a text has appeared; give up after a minute, or at the end."""
        limit = time.monotonic() + 60
        while text not in self.text and time.monotonic() < limit and self._read():
            pass
        assert text in self.text, self.text

    def _read(self) -> bool:
        if not select.select([self._terminal], [], [], 1)[0]:
            return True
        try:
            part = os.read(self._terminal, 4096)
        except OSError:  # EIO: all processes that had it open have ended
            return False
        self.text += part.decode(errors="replace").replace("\r\n", "\n")
        return bool(part)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Read to the end and return the exit code."""
        limit = time.monotonic() + 60
        while self._read():
            assert time.monotonic() < limit, self.text
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        os.close(self._terminal)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


@contextmanager
def terminal(
    scratch: Scratch, *arguments: str, prefix: Sequence[str] = MACHINE, **env: str
) -> Iterator[Terminal]:
    made = Terminal(scratch, [*prefix, sys.executable, "-c", SEEN, *arguments], env)
    try:
        yield made
    finally:
        made.close()


def is_captured(scratch: Scratch) -> bool:
    return "ISTIO_OUTPUT" in scratch.save("legacy", "ipv4")


@pytest.mark.parametrize("answer", ["y\n", "yes\n", " Y \n"])
def test_yes_applies(answer: str) -> None:
    with Scratch() as scratch, terminal(scratch) as person:
        person.until("apply? [y/N] ")
        assert QUESTION in person.text
        assert "15001 and 15006" in person.text
        assert not is_captured(scratch)
        assert "planned" not in person.text
        person.type(answer)
        assert person.end() == 0
        assert is_captured(scratch)


@pytest.mark.parametrize("answer", ["n\n", "\n", "maybe\n", "\x04"], ids=["no", "empty", "other", "end"])
def test_any_other_answer_changes_nothing(answer: str) -> None:
    with Scratch() as scratch:
        before = scratch.state()
        with terminal(scratch, "--run-validation") as person:
            person.until("apply? [y/N] ")
            person.type(answer)
            assert person.end() == 1
            assert "not applied: nothing was changed; --yes applies without asking" in person.text
        assert scratch.state() == before


def test_ctrl_c_at_the_question_changes_nothing() -> None:
    with Scratch() as scratch:
        before = scratch.state()
        with terminal(scratch) as person:
            person.until("apply? [y/N] ")
            person.type("\x03")
            assert person.end() != 0
            assert "Traceback" not in person.text
        assert scratch.state() == before


def test_no_lock_is_held_while_it_asks() -> None:
    with Scratch() as scratch, terminal(scratch) as person:
        person.until("apply? [y/N] ")
        assert scratch.tool("-p", "1500").returncode == 0  # another run, which need not wait
        person.type("n\n")
        assert person.end() == 1


@pytest.mark.parametrize(
    "arguments",
    [["--yes"], ["apply", "--yes"], ["--yes=true"], ["--network-namespace", "/proc/self/ns/net"]],
    ids=" ".join,
)
def test_who_says_that_it_is_intended_is_not_asked(arguments: list[str]) -> None:
    with Scratch() as scratch, terminal(scratch, *arguments) as person:
        assert person.end() == 0
        assert QUESTION not in person.text
        assert is_captured(scratch)


def test_the_last_answer_counts() -> None:
    with Scratch() as scratch, terminal(scratch, "--yes", "--yes=false") as person:
        person.until("apply? [y/N] ")
        person.type("n\n")
        assert person.end() == 1


@pytest.mark.parametrize(
    "arguments", [["-n"], ["render"], ["diff"], ["--skip-rule-apply"], ["cleanup"]], ids=" ".join
)
def test_what_captures_nothing_asks_nothing(arguments: list[str]) -> None:
    with Scratch() as scratch, terminal(scratch, *arguments) as person:
        assert person.end() in (0, 3)
        assert QUESTION not in person.text


def test_with_rules_in_place_it_was_decided_before() -> None:
    with Scratch() as scratch:
        scratch.apply()
        with terminal(scratch, "-p", "1500", "--reconcile") as person:
            assert person.end() == 0
            assert QUESTION not in person.text
        assert "--to-ports 1500\n" in scratch.save("legacy", "ipv4")


@pytest.mark.parametrize(
    "redirection", ["</dev/null", ">/dev/null", "2>/dev/null", "| cat", "2>&1 | cat", "<&-"]
)
def test_a_script_is_never_asked(redirection: str) -> None:
    """Not even one that is started at a terminal, if it handles one of the streams."""
    with Scratch() as scratch:
        line = ["sh", "-c", f'"$@" {redirection}', "sh"]
        with terminal(scratch, prefix=[*MACHINE, *line]) as person:
            assert person.end() == 0
            assert QUESTION not in person.text
        assert is_captured(scratch)


def test_a_background_job_is_never_asked() -> None:
    with Scratch() as scratch:
        code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], process_group=0))"
        line = [sys.executable, "-c", code]
        with terminal(scratch, prefix=[*MACHINE, *line]) as person:
            assert person.end() == 0
            assert QUESTION not in person.text
        assert is_captured(scratch)


@pytest.mark.parametrize(
    ("prefix", "env"),
    [
        ([*MACHINE, "unshare", "--net"], {}),
        ([*MACHINE, "unshare", "--mount"], {}),
        (MACHINE, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}),
        (MACHINE, {"container": "podman"}),
    ],
    ids=["a network namespace of its own", "a file system of its own", "in Kubernetes", "podman"],
)
def test_elsewhere_nothing_is_asked(prefix: list[str], env: dict[str, str]) -> None:
    with Scratch() as scratch, terminal(scratch, prefix=prefix, **env) as person:
        assert person.end() == 0
        assert QUESTION not in person.text


def test_a_file_that_only_containers_have() -> None:
    with Scratch() as scratch:
        hidden = ["sh", "-c", 'mount -t tmpfs none /run && touch /run/sign-of-a-container && "$@"', "sh"]
        with terminal(scratch, "--cni-mode", prefix=[*MACHINE, *hidden]) as person:
            assert person.end() == 0
            assert QUESTION not in person.text


def test_this_process_here_is_left_alone() -> None:
    """Whatever this runs on: in a namespace of its own the real check asks nothing."""
    with Scratch() as scratch:
        command = [sys.executable, "-m", "istio_iptables"]
        person = Terminal(scratch, command, {"PYTHONPATH": str(Path(__file__).parents[2])})
        try:
            assert person.end() == 0
            assert QUESTION not in person.text
        finally:
            person.close()
