"""Running commands: what goes in, what comes out, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from istio_iptables.errors import KernelError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
if sys.platform == "linux":
    from istio_iptables.kernel.process import run, which


def sh(script: str, text: str = "", **options: bool) -> tuple[int, str, str]:
    result = run(("/bin/sh", "-c", script), text, **options)
    return result.status, result.output, result.errors


def test_a_command_reads_writes_and_ends():
    assert sh("cat; echo oops >&2; exit 3", "ä\n") == (3, "ä\n", "oops\n")


def test_nothing_to_read():
    assert sh("cat") == (0, "", "")


def test_more_than_a_pipe_holds_in_both_directions():
    text = "0123456789abcdef\n" * 100_000
    assert sh("cat; cat /proc/self/fd/0 >&2", text) == (0, text, text)


def test_output_that_is_not_utf_8():
    assert sh("printf '\\377'") == (0, "\N{REPLACEMENT CHARACTER}", "")


def test_a_command_that_a_signal_ends():
    assert sh("kill -TERM $$")[0] == -signal.SIGTERM


def test_the_locale_is_c_and_the_rest_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SOMETHING", "else")
    assert sh("echo $LC_ALL $SOMETHING") == (0, "C else\n", "")


def test_a_lock_of_its_own_can_be_locked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XTABLES_LOCKFILE", "/nowhere")
    status, output, _ = sh('echo $XTABLES_LOCKFILE; : >>"$XTABLES_LOCKFILE"', private_lock=True)
    assert status == 0
    assert output.startswith("/proc/self/fd/")
    assert sh("echo $XTABLES_LOCKFILE")[1] == "/nowhere\n"


def test_a_command_that_does_not_exist():
    with pytest.raises(KernelError, match="the command /no/such/command cannot be run: No such file"):
        run(("/no/such/command",))


def test_a_file_that_is_no_program(tmp_path: Path):
    file = tmp_path / "nft"
    file.write_text("garbage")
    file.chmod(0o755)
    with pytest.raises(KernelError, match=r"cannot be run: Exec format error\n  what to do: "):
        run((str(file),))


def test_how_a_silent_command_ended():
    assert run(("/bin/sh", "-c", "exit 3")).ended == "its exit code is 3"
    assert run(("/bin/sh", "-c", "kill -9 $$")).ended == "a signal ended it (9)"


def test_no_files_stay_open():
    before = os.listdir("/proc/self/fd")
    sh("true", private_lock=True)
    with pytest.raises(KernelError):
        run(("/no/such/command",), private_lock=True)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_standard_files_that_are_closed():
    code = (
        "from istio_iptables.kernel.process import run; r = run(('/bin/cat',), 'x'); assert r.output == 'x'"
    )
    command = f'"$0" -c "{code}" <&- >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", command, sys.executable], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_ctrl_c_ends_the_command_too(tmp_path: Path):
    pid_file = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"echo $$ > {pid_file}; exec sleep 60")
    code = f"from istio_iptables.kernel.process import run; run({command!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert not Path(f"/proc/{int(pid_file.read_text())}").exists()


def test_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert which("no-such-command") == ""
    assert which("sh") in ("/usr/bin/sh", "/bin/sh")  # system directories count without PATH
    (tmp_path / "sh").write_text("")
    assert which("sh") != str(tmp_path / "sh")  # not executable
    (tmp_path / "ip").mkdir()
    assert which("ip") != str(tmp_path / "ip")  # a folder
    (tmp_path / "sh").chmod(0o755)
    assert which("sh") == str(tmp_path / "sh")
