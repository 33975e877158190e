"""The program that pip installs: what it loads, and a Ctrl-C at any moment from its first instruction on."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import ROOT

PROGRAMS = ("istio-iptables", "istio-clean-iptables", "istio-iptables-cni")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs, as they are installed for this Python."""
    source = (ROOT / "tools" / "launcher").read_text()
    assert source.startswith("#!python\n")
    for name in PROGRAMS:
        (tmp_path / name).write_text(source.replace("#!python", f"#!{sys.executable}", 1))
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(program: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1", **more}
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=program.parent,
    )


def test_each_name_is_a_command_of_its_own(programs: Path) -> None:
    for name, arguments, words in (
        ("istio-iptables", ["--version"], "istio-iptables "),
        ("istio-clean-iptables", ["validate"], "istio-clean-iptables takes no command"),
        ("istio-iptables-cni", [], "CNI_COMMAND"),
    ):
        done = run(programs / name, *arguments)
        assert words in done.stdout + done.stderr, name


def test_pip_installs_it() -> None:
    installed = shutil.which("istio-iptables", path=str(Path(sys.executable).parent))
    assert installed
    launcher = (ROOT / "tools" / "launcher").read_text()
    assert Path(installed).read_text().partition("\n")[2] == launcher.partition("\n")[2]


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONUSERBASE"])
def test_nothing_that_the_environment_names_is_loaded(programs: Path, tmp_path: Path, variable: str) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for folder in (tmp_path / "evil", tmp_path / "evil" / "lib" / version / "site-packages"):
        (folder / "istio_iptables").mkdir(parents=True)
        for module in ("istio_iptables/__init__.py", "gc.py", "struct.py", "yaml.py"):
            (folder / module).write_text("raise SystemExit('loaded')")
    done = run(programs / "istio-iptables", "--dry-run", **{variable: str(tmp_path / "evil")})
    assert done.returncode == 0, done.stderr
    assert "loaded" not in done.stderr


def test_nothing_of_the_current_folder_is_loaded(programs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "istio_iptables").mkdir(parents=True)
    (elsewhere / "istio_iptables" / "__init__.py").write_text("raise SystemExit('loaded')")
    done = subprocess.run(
        [programs / "istio-iptables", "--version"], capture_output=True, text=True, check=False, cwd=elsewhere
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_ctrl_c_at_any_moment_shows_no_traceback(programs: Path) -> None:
    chance = random.Random(0)
    launcher = (ROOT / "tools" / "launcher").read_text()
    told = launcher.partition("signal.signal(")[0].count("\n") + 1
    for _ in range(60):
        process = subprocess.Popen(
            [programs / "istio-iptables", "--dry-run"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(chance.uniform(0, 0.06))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        # Until it is told what to do, the interpreter ends by the signal, or shows where it was.
        lines = [int(line) for line in re.findall(r'istio-iptables", line (\d+), in', errors)]
        too_early = "Fatal Python error" in errors  # before it runs anything
        too_early |= (
            "Traceback" in errors and "istio_iptables" not in errors and max(lines, default=0) <= told
        )
        assert too_early or "Traceback" not in errors, errors
        assert too_early or process.returncode in (0, 130, -signal.SIGINT)
