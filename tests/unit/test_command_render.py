"""The command as a process: what render and a dry run print, and where to."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ENVIRONMENT, LOG_LINE, assert_refused, run

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
