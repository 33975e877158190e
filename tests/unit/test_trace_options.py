"""Options of `trace` that do nothing beside others are not accepted in silence."""

from __future__ import annotations

from istio_iptables.cli.context import Context
from istio_iptables.cli.trace_handler import _without_effect
from istio_iptables.settings.go_flags import read_arguments
from tests.support.cases import all_cases
from tests.support.command import assert_refused, run

PACKET = ("trace", "out", "--to", "10.1.2.3:80")


def warnings(*options: str) -> list[str]:
    return _without_effect(Context(read_arguments([*PACKET, *options]), {}))


def test_an_endpoint_is_an_address_and_a_port():
    assert_refused(run(*PACKET, "--endpoint", "10.0.0.2"), "--endpoint: needs an address and a port")


@all_cases(
    ("options", "names"),
    [
        (["--endpoint", "10.0.0.2:80", "--proxy-runs-as", "5"], ["endpoint", "proxy-runs-as"]),
        (["--count", "3"], ["count"]),
        (["--count", "0"], ["count"]),
        (["--follow", "--endpoint", "10.0.0.2:80"], []),
        (["--watch", "--count", "3"], []),
        (["--follow=false"], []),
    ],
)
def test_an_option_that_belongs_to_another_one(options: list[str], names: list[str]):
    wanted = {"count": "watch"}
    expected = [f"--{name} has no effect without --{wanted.get(name, 'follow')}" for name in names]
    assert warnings(*options) == expected


@all_cases(
    "option",
    [
        ["--follow"],
        ["--expect", "direct"],
        ["--endpoint", "10.0.0.2:80"],
        ["--proxy-runs-as", "5"],
        ["--ctstate", "NEW"],
        ["--zone", "1"],
    ],
)
def test_an_option_that_foretells_is_nothing_for_real_packets(option: list[str]):
    [warning] = warnings("--watch", *option)
    assert warning == f"{option[0]} has no effect with --watch, which shows what packets really do"


def test_packets_without_a_socket_cannot_be_picked():
    [warning] = warnings("--watch", "--uid", "none")
    assert warning.startswith("--uid none has no effect with --watch")
    assert warnings("--uid", "none") == []


def test_the_command_warns():
    done = run(*PACKET, "--count", "5", "--own", "10.0.0.2")
    assert done.status == 0
    assert "--count has no effect without --watch" in done.errors
