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


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("")
    path.chmod(0o755)
    return path


def test_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert which("own-command") == ""
    (tmp_path / "own-command").write_text("")
    assert which("own-command") == ""  # not executable
    (tmp_path / "own-folder").mkdir()
    assert which("own-folder") == ""
    program(tmp_path, "own-command")
    assert which("own-command") == str(tmp_path / "own-command")


def test_the_system_s_own_programs_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    program(tmp_path, "sh")
    for path in (str(tmp_path), "", f"{tmp_path}:/bin"):
        monkeypatch.setenv("PATH", path)
        assert which("sh") in ("/usr/bin/sh", "/bin/sh")


@pytest.mark.parametrize("entry", ["", ".", "here", "./here"])
def test_an_entry_of_path_that_is_not_absolute_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: str
):
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):
        program(folder, "own-command")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"/usr/bin:{entry}")
    assert which("own-command") == ""


def test_the_environment_of_a_command_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in (
        "LD_AUDIT",
        "LD_PRELOAD",
        "BASH_ENV",
        "GCONV_PATH",
        "PYTHONPATH",
        "HOME",
        "SECRET",
        "LANG",
        "LC_ALL",
    ):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PATH", f".:{tmp_path}::here")
    monkeypatch.setenv("XTABLES_LIBDIR", "/usr/lib/xtables")
    monkeypatch.setenv("XTABLES_LOCKFILE", "/run/a-lock")
    found = dict(line.split("=", 1) for line in run((which("env"),)).output.splitlines())
    *system, last = found.pop("PATH").split(":")
    assert last == str(tmp_path)
    assert all(entry.startswith("/") for entry in system)
    assert found == {
        "LC_ALL": "C",
        "XTABLES_LIBDIR": "/usr/lib/xtables",
        "XTABLES_LOCKFILE": "/run/a-lock",
    }
