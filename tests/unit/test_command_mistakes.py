"""The command as a process: bad usage is one line a mistake and exit code 2, and nothing else."""

from __future__ import annotations

import sys

import pytest

from tests.support.command import assert_refused, only_linux, run

pytestmark = pytest.mark.slow  # a process for each test: left out of `make quick`


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
