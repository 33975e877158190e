"""The command as a process without privileges: exit codes, and what goes to which stream."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import istio_iptables
from istio_iptables import __main__
from istio_iptables.settings.commands import COMMANDS, GROUPS, Command
from istio_iptables.settings.declared import SETTINGS, SOURCES, Setting
from istio_iptables.settings.go_flags import read_arguments
from tests.support.command import ENVIRONMENT, MAIN, ROOT, assert_refused, run

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\t(debug|info|warn|error)\t.*")

CLEAN = "import sys; from istio_iptables.__main__ import clean; sys.exit(clean())"
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="about Linux' capabilities and namespaces")


# --- bad usage --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["apply"], ["render"], ["cleanup"], ["diff"], ["-n"]], ids=" ".join)
def test_bad_settings(command: list[str]):
    process = run(
        *("istio-iptables", *command, "-p", "0", "--proxy-iud", "1337", "-b", "80,x,*"), DRY_RUN="yes"
    )
    assert_refused(
        process,
        "--proxy-iud: unknown flag (did you mean --proxy-uid?)",
        "variable DRY_RUN: 'yes' is not a boolean",
        "--envoy-port (-p): '0' is not a port",
        "--istio-inbound-ports (-b): 'x' is not a port",
        "--istio-inbound-ports (-b): '*' cannot be used here",
    )


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        (["--nonsense"], "--nonsense: unknown flag"),
        (["-y"], "-y: unknown flag"),
        (["-p"], "--envoy-port (-p): needs a value"),
        (["aply"], "'aply': unknown command (did you mean apply?)"),
        (["render", "diff"], "'diff': unexpected argument"),
        (["render", "--format=yaml"], "--format: 'yaml' is not one of restore, nft, commands, json"),
        (["render", "--family", "ipv5"], "--family: 'ipv5' is not one of ipv4, ipv6"),
        (["render", "--explain=yes"], "--explain: 'yes' is not a boolean"),
        (["diff", "--json=maybe"], "--json: 'maybe' is not a boolean"),
        (["diff", "--format=json"], "--format: unknown flag"),
        (["--format=json"], "--format: unknown flag"),
        (["render", "--format=json", "--nonsense"], "--nonsense: unknown flag"),
        (["render", "--explain", "-p"], "--envoy-port (-p): needs a value"),
        (["--log_output_level=loud"], "--log_output_level: 'loud' is not a log level"),
        (["--config", "/does/not/exist"], "--config: '/does/not/exist' cannot be read: No such file"),
        (["validate", "--json=maybe"], "--json: 'maybe' is not a boolean"),
        (["--run-validation=yes"], "--run-validation: 'yes' is not a boolean"),
        (["--pod", "-"], "--pod: '-' contains no pod, and no workload with a pod template"),
        (["--pod", "/does/not/exist"], "--pod: '/does/not/exist' cannot be read: No such file"),
        (["--pod-name", "x"], "--pod-name: there is no manifest to pick a pod from: give --pod FILE"),
        (["pod"], "pod: needs a subcommand"),
        (["pod", "lint"], "pod lint: needs FILE..."),
        (["pod", "args", "/does/not/exist"], "FILE: '/does/not/exist' cannot be read: No such file"),
        (["pod", "lint", "--ignore=dnss", "-"], "--ignore: 'dnss': unknown kind (did you mean dns?)"),
        (["-c", "a\nb"], "--istio-exclude-interfaces (-c): 'a\\nb' is not an interface"),
        (
            ["--network-namespace", "/does/not/exist"],
            "--network-namespace: '/does/not/exist' cannot be opened",
        ),
        (
            ["-n", "--network-namespace", "no-such-ns"],
            "--network-namespace: '/var/run/netns/no-such-ns' cannot",
        ),
        (
            ["-n", "--network-namespace", "/dev/null"],
            "--network-namespace: '/dev/null' is not a network namespace",
        ),
    ],
    ids=str,
)
@only_linux
def test_one_mistake(arguments: list[str], mistake: str):
    assert_refused(run(*arguments), mistake)


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are bytes on POSIX only")
@pytest.mark.parametrize(
    "flag", ["-c", "-i", "-u", "-p", "--log_output_level", "--config", "--nonsense", "-m"]
)
def test_bytes_that_are_no_text(flag: str):
    process = run(flag, "\udcff\udcfe")
    assert process.status == 2
    assert len(process.errors.splitlines()) == 1
    assert "Traceback" not in process.errors


@pytest.mark.parametrize(
    "arguments",
    [["-n", "--run-validation"], ["-n", "validate"], ["-n", "validate", "--json"], ["-n"]],
    ids=" ".join,
)
def test_a_dry_run_validates_nothing_and_says_so(arguments: list[str]):
    asked = arguments != ["-n"]
    process = run(*arguments)
    assert process.status == 0
    assert ("--dry-run: nothing is validated" in process.errors) is asked
    assert ("*nat" in process.output) is ("validate" not in arguments)
    assert run(*arguments, RUN_VALIDATION="1").errors.count("nothing is validated") == 1


# --- help and version -------------------------------------------------------------------------


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


# --- render -----------------------------------------------------------------------------------


def test_render():
    process = run("render", "--family=ipv4")
    assert process.status == 0
    assert process.output.startswith("*nat\n:ISTIO_INBOUND - [0:0]\n")
    assert process.output.endswith("COMMIT\n")
    assert all(LOG_LINE.fullmatch(line) for line in process.errors.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "--family", "ipv4", "-p", "1"],
        ["-p1", "render", "--family=ipv4"],
        ["istio-iptables", "-p=1", "render", "--format=restore", "--family=ipv4", "--explain=false"],
    ],
    ids=" ".join,
)
def test_render_with_settings_on_either_side(arguments: list[str]):
    process = run(*arguments)
    assert process.status == 0
    assert "-j REDIRECT --to-ports 1\n" in process.output
    assert "\tinfo\tsetting envoy-port = '1' (--envoy-port" in process.errors


def test_render_as_commands():
    process = run("render", "--format", "commands", "--family", "ipv4")
    assert process.status == 0
    assert process.output.startswith("#!/bin/sh\nset -e\n")
    assert "iptables -t nat -A OUTPUT -j ISTIO_OUTPUT\n" in process.output
    explained = run("render", "--format=commands", "--family=ipv4", "--explain").output
    assert len(explained.splitlines()) > len(process.output.splitlines())
    assert [line for line in explained.splitlines() if line[0] != "#"] == [
        line for line in process.output.splitlines() if line[0] != "#"
    ]


@pytest.mark.parametrize("option", [[], ["--format=restore"], ["--explain=false"], ["--family", ""]], ids=str)
def test_options_of_a_command_do_not_change_how_settings_are_read(option: list[str], tmp_path: Path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("envoy-port: 1111\nistio-inbound-ports: 80\n")
    other.write_text("istio-service-cidr: 10.0.0.0/8\n")
    files = ("--config", str(one), "--config", str(other))
    process = run(*files, "-z", "1", "-z", "2222", "render", *option)
    for words in ("--to-ports 1111", "--dport 80 ", "-d 10.0.0.0/8", "--to-ports 2222"):
        assert words in process.output
    assert f"setting envoy-port = '1111' ({one}: envoy-port)" in process.errors
    assert "setting inbound-capture-port = '2222' (--inbound-capture-port (-z))" in process.errors
    assert_refused(run("-p", "99999", "-p", "15001", "render", *option), "--envoy-port (-p): '99999'")


def test_render_as_json():
    process = run("render", "--format=json", "-m", "TPROXY", "--family=ipv4")
    assert process.status == 0
    document = json.loads(process.output)
    assert [table["name"] for table in document["tables"]] == ["mangle", "nat"]
    assert [item["family"] for item in document["routing"]] == ["ipv4", "ipv4"]


def test_explain_is_a_comment_above_every_rule():
    plain = run("render", "--family=ipv4", "-k", "net1").output.splitlines()
    explained = run("render", "--family=ipv4", "-k", "net1", "--explain").output.splitlines()
    assert [line for line in explained if not line.startswith("# ")] == plain
    for above, line in itertools.pairwise(explained):
        assert above.startswith("# ") is line.startswith(("-A ", "-I ")), line
    document = json.loads(run("render", "--family=ipv4", "-k", "net1", "--format=json").output)
    reasons = {
        rule["reason"] for table in document["tables"] for chain in table["chains"] for rule in chain["rules"]
    }
    assert {line[2:] for line in explained if line.startswith("# ")} == reasons


def test_explain_with_json_says_that_it_is_there_anyway():
    process = run("render", "--format=json", "--explain")
    warning = "\twarn\t--explain has no effect with --format json, which has the reason for each rule anyway"
    assert warning in process.errors
    assert process.output == run("render", "--format=json").output
    assert "--explain" not in run("render", "--explain").errors
    assert "--explain" not in run("render", "--format=json").errors


def test_render_of_a_family_that_is_off_is_empty():
    process = run("render", "--family=ipv6", "--dual-stack=false")
    assert process.status == 0
    assert process.output == "" or process.output.startswith("*nat\n")  # a machine with IPv6 alone


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes")
def test_a_reader_that_has_seen_enough():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "istio_iptables", "render", "--log_output_level=none"],
            env=ENVIRONMENT,
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == b""


# --- dry run ----------------------------------------------------------------------------------


def test_dry_run_prints_what_render_prints():
    arguments = ["-m", "TPROXY", "-b", "80", "-k", "net1"]
    process = run("istio-iptables", "--dry-run", *arguments)
    assert process.status == 0
    assert process.output == run("render", *arguments).output
    assert "# ip rule add fwmark 1337 lookup 133\n" in process.output
    assert all(LOG_LINE.fullmatch(line) for line in process.errors.splitlines())


def test_settings_from_a_file(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("dry-run: true\nenvoy-port: 1\nproxy-uid: 2\n")
    process = run("--config", str(file), "-u", "3")
    assert process.status == 0
    assert "-j REDIRECT --to-ports 1\n" in process.output
    assert "--uid-owner 3:3 " in process.output
    assert f"\tinfo\tsetting envoy-port = '1' ({file}: envoy-port)" in process.errors


def test_dry_run_by_variable():
    assert run(DRY_RUN="true").output == run("-n").output == run("apply", "-n").output != ""


def test_dry_run_file(tmp_path: Path):
    path = tmp_path / "script"
    process = run("-n", DRY_RUN_FILE_PATH=str(path))
    assert process.status == 0
    assert path.read_text(encoding="utf-8") == process.output != ""


def test_dry_run_file_that_cannot_be_written():
    process = run("-n", DRY_RUN_FILE_PATH="/does/not/exist")
    assert process.status == 1
    assert "error\tDRY_RUN_FILE_PATH: '/does/not/exist' cannot be written" in process.errors
    assert "Traceback" not in process.errors


def test_skipping_the_rules_needs_no_privilege():
    process = run("--skip-rule-apply")
    assert (process.status, process.output) == (0, "")
    assert "--skip-rule-apply: no rules are changed" in process.errors


@pytest.mark.parametrize("arguments", [["-n"], ["render"], ["--skip-rule-apply"]])
def test_what_has_no_effect_is_warned_about_once(arguments: list[str]):
    process = run(*arguments, "--vklog", "9", "--restore-format", VKLOG="8", ISTIO_INBOUND_EXCLUDE_PORTS="22")
    assert process.status == 0
    found = [line for line in process.errors.splitlines() if "ignored" in line]
    assert [line.partition("\twarn\t")[2].partition(": ")[0] for line in found] == [
        "--vklog",
        "--restore-format",
        "variable ISTIO_INBOUND_EXCLUDE_PORTS",
    ]


# --- without privileges -----------------------------------------------------------------------


@only_linux
@pytest.mark.parametrize(
    "arguments", [[], ["apply"], ["cleanup"], ["diff"], ["cleanup", "-n"], ["--cleanup-only"]]
)
def test_without_capabilities_nothing_is_done(arguments: list[str]):
    process = run(*arguments)
    assert process.status == 1
    assert process.output == ""
    lines = process.errors.splitlines()
    assert all(LOG_LINE.fullmatch(line) for line in lines)
    assert "\terror\tthe capabilities NET_ADMIN and NET_RAW are missing" in process.errors
    assert "what to do: " in lines[-1]


@only_linux
def test_a_bad_network_namespace_is_reported_with_all_other_mistakes():
    process = run("--network-namespace", "/nowhere", "-p", "99999")
    assert_refused(process, "--network-namespace: '/nowhere' cannot be opened", "--envoy-port (-p): '99999'")


@only_linux
@pytest.mark.parametrize("name", ["network-namespace", "DRY_RUN_FILE_PATH"])
def test_paths_that_no_file_can_have(name: str, tmp_path: Path):
    file = tmp_path / "settings.json"
    for text in (r"a\u0000b", r"\ud800"):
        file.write_text(f'{{"{name}": "{text}"}}')
        process = run("-n", "--config", str(file))
        assert process.status == (2 if name == "network-namespace" else 1)
        assert name in process.errors
        assert "Traceback" not in process.errors


def test_what_nobody_has_thought_of_is_one_line_and_a_traceback_only_for_debugging():
    code = "import istio_iptables.cli.handlers as module\n"
    code += "def build(_): raise RuntimeError('two\\nlines')\nmodule.build = build\n"
    process = run("-n", code=code + MAIN)
    assert (process.status, process.output) == (1, "")
    (line,) = [line for line in process.errors.splitlines() if "\terror\t" in line]
    assert "unexpected RuntimeError two lines: bug in istio-iptables: please report it" in line
    assert "Traceback" not in process.errors
    assert "Traceback" in run("-n", "--log_output_level=debug", code=code + MAIN).errors


@only_linux
def test_what_the_network_namespace_is_needs_no_privilege_to_find_out():
    process = run("--network-namespace", "/proc/self/ns/net")
    assert process.status == 1
    assert "\terror\tthe network namespace /proc/self/ns/net may not be entered" in process.errors
    process = run("-n", "--network-namespace", "/proc/self/ns/net")
    assert process.status == 0
    assert "\twarn\tthe network namespace /proc/self/ns/net may not be entered" in process.errors
    assert process.output == run("-n").output


# --- log --------------------------------------------------------------------------------------


def test_effective_settings_are_logged_with_their_sources():
    process = run("-n", "-p=1", "-z", "15006", "--drop-invalid=false", PROXY_UID="2", INVALID_DROP="1")
    settings = [line.split("\t")[2] for line in process.errors.splitlines() if "\tsetting " in line]
    assert sorted(settings) == [
        "setting dry-run = 'true' (--dry-run (-n))",
        "setting envoy-port = '1' (--envoy-port (-p))",
        "setting proxy-uid = '2' (variable PROXY_UID)",
    ]


def test_a_long_list_is_not_logged_whole():
    many = ",".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(5000))
    process = run("-n", "-x", many)
    (line,) = [line for line in process.errors.splitlines() if "istio-service-exclude-cidr" in line]
    assert len(line) < 400
    assert line.endswith(f"... (5000 members, {len(many)} characters) (--istio-service-exclude-cidr (-x))")
    assert "-d 10.19.135.0/24 " in process.output


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("none", False),
        ("error", False),
        ("default:warn", False),
        ("info", True),
        ("default:debug", True),
        ("ads:none", True),
        ("ads:none,default:none", False),
        ("all:none", False),
        ("", True),
    ],
)
def test_log_levels(level: str, shown: bool):
    process = run("-n", "--dual-stack", f"--log_output_level={level}")
    assert process.status == 0
    assert ("\tinfo\tsetting dry-run" in process.errors) == shown
    if level == "none":
        assert process.errors == ""


def test_log_as_json():
    process = run("-n", "--log_as_json", "-c", "é\"'")
    assert process.status == 0
    lines = [json.loads(line) for line in process.errors.splitlines()]
    assert len(lines) >= 3
    for line in lines:
        assert set(line) == {"level", "time", "scope", "msg"}
        assert line["scope"] == "default"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert "setting istio-exclude-interfaces = 'é\"\\'' (--istio-exclude-interfaces (-c))" in [
        line["msg"] for line in lines
    ]


@pytest.mark.parametrize(
    "asked",
    [
        (["--log_as_json"], {}),
        (["--log_as_json=false", "--log_as_json=1"], {}),
        ([], {"LOG_AS_JSON": "true"}),
        (["--log_output_level=none", "--log_as_json"], {}),
    ],
    ids=str,
)
def test_mistakes_are_json_lines_too(asked: tuple[list[str], dict[str, str]]):
    """Those found while reading arguments, while parsing values, and in files."""
    arguments, variables = asked
    process = run("--bogus", "-p", "0", "--config", "/does/not/exist", *arguments, "rendr", **variables)
    assert (process.status, process.output) == (2, "")
    lines = [json.loads(line) for line in process.errors.splitlines()]
    assert {line["level"] for line in lines} == {"error"}
    plain = run("--bogus", "-p", "0", "--config", "/does/not/exist", "rendr").errors.splitlines()
    assert [line["msg"] for line in lines] == plain
    assert len(plain) == 4


def test_mistakes_are_json_lines_if_a_file_says_so(tmp_path: Path):
    file = tmp_path / "settings.yaml"
    file.write_text("log_as_json: true\nenvoy-port: 0\n")
    (line,) = run("--config", str(file)).errors.splitlines()
    assert json.loads(line)["msg"].startswith(f"{file}: envoy-port: '0' is not a port")


def test_mistakes_are_plain_lines_if_json_is_not_asked_for_rightly():
    assert_refused(
        run("--log_as_json=yes", "-p", "0"), "--log_as_json: 'yes' is not", "--envoy-port (-p): '0' is not"
    )
    assert_refused(run("--log_as_json=false", "-p", "0", LOG_AS_JSON="true"), "--envoy-port (-p): '0' is not")


def test_yes_is_a_flag_alone():
    assert run("--yes", "-n", YES="please").output == run("-n").output != ""
    assert_refused(run("--yes=maybe", "-p", "0"), "--yes: 'maybe' is not a boolean", "--envoy-port (-p): '0'")


def test_other_log_settings_are_accepted():
    flags = ["--log_target=stdout", "--log_caller", "default", "--log_stacktrace_level", "default:none"]
    assert run("-n", *flags).status == 0


# --- entry points -----------------------------------------------------------------------------


def test_entry_points():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options.entry_points"]["console_scripts"].strip().splitlines()
    assert dict(line.split(" = ") for line in lines) == {
        "istio-iptables": "istio_iptables.__main__:main",
        "istio-clean-iptables": "istio_iptables.__main__:clean",
    }
    assert callable(__main__.main)
    assert callable(__main__.clean)


@only_linux
def test_istio_clean_iptables_is_cleanup():
    process, cleanup = run("-p", "1", "--dual-stack", code=CLEAN), run("-p", "1", "--dual-stack", "cleanup")
    assert (process.status, process.output) == (cleanup.status, cleanup.output) == (1, "")
    assert [line.split("\t")[1:] for line in process.errors.splitlines()] == [
        line.split("\t")[1:] for line in cleanup.errors.splitlines()
    ]
    assert_refused(run("-p", "0", code=CLEAN), "--envoy-port (-p): '0' is not a port")
    assert_refused(run("--nonsense", code=CLEAN), "--nonsense: unknown flag")
    assert run("--help", code=CLEAN).output == run("cleanup", "--help").output


@only_linux
@pytest.mark.parametrize("flag", ["--log_target", "--network-namespace", "-p"])
def test_istio_clean_iptables_is_never_apply(flag: str):
    assert_refused(
        run(flag, code=CLEAN), f"--{'envoy-port (-p)' if flag == '-p' else flag[2:]}: needs a value"
    )
