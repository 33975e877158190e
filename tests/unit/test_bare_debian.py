"""tools/bare_debian.py: what goes with it into the bare system, and that nothing is left when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bare_debian
import elsewhere
import pytest

TOOL = Path(bare_debian.__file__)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: A debootstrap that goes on writing until it is killed. Its fourth argument is the folder.
ENDLESS = """#!/bin/sh
echo "$4" >"$TOLD"
while :; do echo x >"$4/$((n += 1))"; sleep 0.01; done
"""


def test_what_a_terminal_and_a_proxy_need_goes_with_it() -> None:
    of_here = {
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "TERM": "vt100",
        "ENVOY_PORT": "1",
        "VIRTUAL_ENV": "/here",
        "PATH": "/here/bin",
        "HOME": "/home/somebody",
    }
    assert bare_debian.environment(of_here) == {
        "https_proxy": "http://proxy:3128",
        "NO_PROXY": "localhost",
        "TERM": "vt100",
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_what_pip_is_told_here_it_is_told_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///opt/packages /opt/more https://more.example/simple")
    monkeypatch.setenv("PIP_CERT", "/here/ca.pem")
    lines = elsewhere.pip_settings("/there/ca.pem").splitlines()
    assert lines[0] == "[global]"
    assert set(lines) >= {
        "index-url = https://index.example/simple",
        "extra-index-url = https://more.example/simple",
        "cert = /there/ca.pem",
    }
    assert "/opt" not in str(lines)
    assert "/here" not in str(lines)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes namespaces")
@pytest.mark.skipif(not KEYRING.exists(), reason="Debian's keys are not here, and it would install them")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_it_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    told = tmp_path / "folder"
    program = tmp_path / "debootstrap"
    program.write_text(ENDLESS)
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    tool = subprocess.Popen([sys.executable, str(TOOL)], env={**os.environ, "PATH": path, "TOLD": str(told)})
    try:
        until(lambda: told.exists() and told.read_text().endswith("\n"))
        folder = Path(told.read_text().strip())
        until(lambda: any(folder.iterdir()))
    finally:
        tool.send_signal(how)
        tool.wait()
    until(lambda: not runs(program))
    until(lambda: not folder.parent.exists())
    assert str(folder.parent) not in Path("/proc/self/mountinfo").read_text()


def runs(program: Path) -> bool:
    """Tell whether a process anywhere on this machine has a program in its command line."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if str(program).encode() in file.read_bytes().split(b"\0"):
                return True
    return False


def until(condition) -> None:
    """Wait until something holds, which it does in an instant."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
