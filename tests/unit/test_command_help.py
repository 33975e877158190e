"""The command as a process: help, version and completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import istio_iptables
from istio_iptables.settings.commands import COMMANDS, GROUPS, Command
from istio_iptables.settings.declared import SETTINGS, SOURCES, Setting
from istio_iptables.settings.go_flags import read_arguments
from tests.support.command import ENVIRONMENT, assert_refused, run

pytestmark = pytest.mark.slow  # a process for each test: left out of `make quick`


@pytest.fixture(scope="module")
def help_text() -> str:
    process = run("--help", COLUMNS="80")
    assert process.status == 0
    assert process.errors == ""
    return process.output


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_help_lists_every_setting(setting: Setting, help_text: str):
    words = " ".join(help_text.split())
    name = f"--{setting.name}" if setting.has_flag else setting.name
    assert re.search(rf"(?m)^  (-{setting.short or '.'}, )?(--)?{re.escape(name.lstrip('-'))}\b", help_text)
    for variable in (setting.variable, *setting.aliases):
        assert re.search(rf"[\[ ]{variable}[\],]", words) or not setting.has_flag
    if setting.default:
        assert f"default: {setting.default})" in words.replace("- ", "-")


def test_help_has_every_group_and_every_command(help_text: str):
    for group in {setting.group for setting in SETTINGS}:
        assert f"\n{group}:\n" in help_text
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command.name} ", help_text)
    for source in SOURCES:
        assert re.search(rf"--{source.name}[ [=]", help_text)
    assert "Exit codes: 0 " in " ".join(help_text.split())
    assert max(map(len, help_text.splitlines())) <= 80


def test_the_list_of_commands_has_no_sentences(help_text: str):
    commands = help_text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(commands) >= len(COMMANDS)
    assert [line for line in commands if line.endswith(".")] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_has_its_options(command: Command):
    process = run(*command.words, "--help")
    assert process.status == 0
    assert process.errors == ""
    assert command.help.split(":")[0] in " ".join(process.output.split())
    for option in command.options:
        assert f"--{option.name}" in process.output
    if command.operand:
        assert f"{command.operand.usage}  " in process.output
    assert run("-h", *command.words).output == process.output


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_of_a_command_says_where_the_settings_are(command: Command):
    assert "`istio-iptables --help`" in " ".join(run(*command.words, "--help").output.split())


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_has_its_commands(group: str):
    process = run(group, "--help")
    assert process.status == 0
    for command in COMMANDS:
        if command.words[0] == group:
            assert re.search(rf"(?m)^  {command.words[1]} ", process.output)


@pytest.mark.parametrize("arguments", [["-h"], ["istio-iptables", "--help"], ["-p0", "--help"]], ids=" ".join)
def test_help_however_it_is_asked_for(arguments: list[str], help_text: str):
    process = run(*arguments, COLUMNS="80")
    assert (process.status, process.output) == (0, help_text)


def test_a_mistake_takes_precedence_over_help():
    assert_refused(run("--bogus", "--help"), "--bogus: unknown flag")
    assert_refused(run("--version", "rendr"), "'rendr': unknown command")
    assert_refused(run("help", "rendr"), "'rendr': unknown command (did you mean render?)")


def test_help_has_commands_and_three_examples_before_the_settings(help_text: str):
    headings = re.findall(r"(?m)^(\S.*):$", help_text)
    assert headings[:3] == ["Commands", "Examples", SETTINGS[0].group]
    examples = help_text.partition("Examples:\n")[2].partition("\n\n")[0]
    lines = re.findall(r"(?m)^  istio-iptables (.*)$", examples)
    assert len(lines) == 3
    for line in lines:
        assert read_arguments(line.split()).mistakes == ()


def test_help_uses_the_width_of_the_terminal():
    for columns in (60, 80, 150):
        widths = [len(line) for line in run("--help", COLUMNS=str(columns)).output.splitlines()]
        assert columns - 12 <= max(widths) <= columns


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("variables", "bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_help_is_bold_on_a_terminal_only(variables: dict[str, str], bold: bool, help_text: str):
    import pty

    outer, inner = pty.openpty()
    try:
        environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "80", **variables}
        child = subprocess.Popen(
            [sys.executable, "-m", "istio_iptables", "help"], stdout=inner, stderr=inner, env=environment
        )
        os.close(inner)
        shown = b""
        try:
            while part := os.read(outer, 4096):
                shown += part
        except OSError:  # EIO: the other end is closed
            pass
        assert child.wait(60) == 0
    finally:
        os.close(outer)
    text = shown.decode().replace("\r\n", "\n")
    assert ("\x1b[1mCommands\x1b[22m:" in text) is bold
    assert ("\x1b[1m-p, --envoy-port PORT\x1b[22m  " in text) is bold
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == help_text  # bold takes no room
    assert "\x1b" not in help_text


def test_the_command_help(help_text: str):
    assert run("help", COLUMNS="80").output == help_text
    for words in (["render"], ["pod", "lint"], ["pod"]):
        assert run("help", *words).output == run(*words, "--help").output


@pytest.mark.parametrize("arguments", [["version"], ["-V"], ["istio-iptables", "version"]], ids=" ".join)
def test_version_by_other_names(arguments: list[str]):
    process = run(*arguments, DRY_RUN="not a boolean")
    assert (process.status, process.output) == (0, run("--version").output)


def test_version():
    process = run("--version")
    assert (process.status, process.output, process.errors) == (
        0,
        f"istio-iptables {istio_iptables.__version__}\n",
        "",
    )


@pytest.mark.parametrize("arguments", [["--version", "render"], ["render", "--version"]], ids=" ".join)
def test_version_beside_a_command(arguments: list[str]):
    assert run(*arguments).output == f"istio-iptables {istio_iptables.__version__}\n"


def test_completion():
    process = run(
        _ISTIO_IPTABLES_COMPLETE="complete_bash", COMP_WORDS="istio-iptables --envoy-p", COMP_CWORD="1"
    )
    assert process.status == 0
    assert "--envoy-port" in process.output
    assert "Traceback" not in process.errors
