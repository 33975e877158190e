"""Interfaces of -c and -k that do not exist where the rules are applied."""

from __future__ import annotations

import pytest

from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL


def warnings(text: str) -> list[str]:
    return [
        line.split("\t", 2)[2] for line in text.splitlines() if "\twarn\t" in line and "interface" in line
    ]


@pytest.fixture(scope="module")
def scratch():
    with Scratch() as made:
        made.ip("link", "add", "eth1", "type", "veth", "peer", "name", "other0")
        made.ip("link", "property", "add", "dev", "eth1", "altname", "uplink")
        yield made
        made.apply("cleanup")


def test_the_nearest_name_is_offered(scratch: Scratch) -> None:
    done = scratch.apply("-c", "eht1,eth1", "-k", "eth2")
    until = "until there is one, its rules match no packet"
    assert warnings(done.stderr) == [
        f"--istio-exclude-interfaces (-c): no interface here is called 'eht1' (did you mean eth1?): {until}",
        f"--kube-virt-interfaces (-k): no interface here is called 'eth2' (did you mean eth1?): {until}",
    ]
    assert "-i eht1 " in scratch.save("legacy", "ipv4")  # the rules are as asked for


def test_without_a_similar_name_all_are_listed(scratch: Scratch) -> None:
    (line,) = warnings(scratch.tool("-c", "wlan-vpn", "diff").stderr)
    assert "no interface here is called 'wlan-vpn' (interfaces: lo, other0, eth1): " in line


def test_an_alternative_name_matches_no_packet(scratch: Scratch) -> None:
    (line,) = warnings(scratch.tool("-c", "uplink", "diff").stderr)
    assert "is called 'uplink'" in line


@pytest.mark.parametrize("name", ["net+", "et1+", "eth1x+"])
def test_a_wildcard_that_matches_none(scratch: Scratch, name: str) -> None:
    (line,) = warnings(scratch.tool("-c", name, "diff").stderr)
    assert f"no interface here begins with {name[:-1]!r}" in line


@pytest.mark.parametrize("names", ["eth1", "lo,eth1", "eth+", "eth1+", "+"])
def test_no_warning_about_what_exists(scratch: Scratch, names: str) -> None:
    for flag in ("-c", "-k"):
        assert warnings(scratch.tool(flag, names, "diff").stderr) == []


def test_the_origin_is_a_variable(scratch: Scratch) -> None:
    (line,) = warnings(scratch.tool("diff", env={"ISTIO_EXCLUDE_INTERFACES": "eht1"}).stderr)
    assert line.startswith("variable ISTIO_EXCLUDE_INTERFACES: no interface here is called 'eht1'")


@pytest.mark.parametrize("arguments", [["-n"], ["render"], ["--dry-run", "diff"]], ids=" ".join)
def test_what_is_only_printed_may_be_for_another_machine(scratch: Scratch, arguments: list[str]) -> None:
    assert warnings(scratch.tool("-c", "eht1", *arguments).stderr) == []


def test_the_namespace_of_the_setting_is_looked_at(scratch: Scratch) -> None:
    with Scratch() as elsewhere:
        into = ["--network-namespace", scratch.path]
        assert warnings(elsewhere.tool("-c", "eth1", *into, "diff").stderr) == []
        assert len(warnings(elsewhere.tool("-c", "eth1", "diff").stderr)) == 1
