"""The manual page: current, complete, and without a warning of the programs that show it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest

from istio_iptables.settings.commands import COMMANDS, EXIT_CODES
from istio_iptables.settings.declared import SETTINGS, SOURCES
from tests.support.command import ROOT

PAGE = ROOT / "docs/istio-iptables.8"


def test_the_page_is_what_make_man_writes():
    code = "import runpy; print(runpy.run_path('tools/man.py')['page'](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert PAGE.read_text(encoding="utf-8") == done.stdout, "make man"


@pytest.mark.parametrize(
    "command",
    [
        ["groff", "-man", "-ww", "-z", "-Tutf8", PAGE],
        ["man", "--warnings=w", "--encoding=UTF-8", "-l", PAGE],
        ["mandoc", "-T", "lint", "-W", "warning", PAGE],
    ],
    ids=lambda command: command[0],
)
def test_no_program_warns(command: list[str]):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "mandoc:" not in done.stdout  # it writes warnings there


def shown() -> str:
    for program in (["groff", "-man", "-Tascii", "-P-cbou"], ["mandoc", "-T", "ascii"]):
        if shutil.which(program[0]):
            done = subprocess.run([*program, PAGE], capture_output=True, text=True, timeout=60, check=True)
            return " ".join(done.stdout.split())
    pytest.skip("neither groff nor mandoc is installed")


def test_the_page_shows_all_commands_settings_and_exit_codes():
    text = shown()
    for command in COMMANDS:
        assert f" {command.name} " in text
        for option in command.options:
            assert f"--{option.name}" in text
    for setting in SETTINGS:
        assert f"--{setting.name}" in text if setting.has_flag else f"{setting.name}=" in text
        assert not setting.has_flag or all(variable in text for variable in setting.variables)
    for source in SOURCES:
        assert f"--{source.name}" in text
    for code in EXIT_CODES:
        assert f" {code} " in text


def test_the_package_installs_it():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options.data_files"]["share/man/man8"].split() == ["docs/istio-iptables.8"]
    assert "!docs/istio-iptables.8" in (ROOT / ".dockerignore").read_text().splitlines()
