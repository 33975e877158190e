"""The command as a process: what is logged, at which level, as text and as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command import assert_refused, run

pytestmark = pytest.mark.slow  # a process for each test: left out of `make quick`


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
