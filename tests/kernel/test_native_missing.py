"""Native nftables rules: in another namespace, without nft or its privileges, and several runs at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.applying import ALL_SORTS
from tests.support.failing import OTHER, at_once, everything_stays, failed, hidden
from tests.support.native import LOCATIONS, NATIVE, in_place_of_nft, iptables, native, network

from ..support.scratch import KERNEL, SETPRIV, Result, Scratch

pytestmark = KERNEL

#: Something that this tool does not write, so that it has nft show the table.
BY_OTHERS = "add rule inet istio-proxy-nat istio-output limit rate 3/hour counter accept\n"


# --- elsewhere --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["path", "name"])
def test_another_network_namespace(way: str) -> None:
    with Scratch() as caller, Scratch(addresses=True) as target:
        name = {"path": target.path, "name": target.name}[way]
        before = caller.state(counters=True)
        arguments = [*NATIVE, "--network-namespace", name, "--dual-stack", "-m", "TPROXY"]
        caller.apply(*arguments)
        assert set(native(target)) == {"istio-proxy-mangle", "istio-proxy-nat"}
        assert "::6/128" in target.ip("-6", "address", "show", "dev", "lo")
        assert "nothing to do" in caller.apply(*arguments).stderr
        caller.apply("--network-namespace", name, "cleanup")
        assert native(target) == {}
        assert "lookup 133" not in target.ip("rule", "show")
        assert caller.state(counters=True) == before


def test_ipv6_switched_off_in_the_namespace() -> None:
    with Scratch() as scratch:
        scratch.check("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
        for arguments in (["-m", "TPROXY"], ["--reconcile", "--redirect-dns", "--capture-all-dns"]):
            scratch.apply(*NATIVE, *arguments)
            assert "meta nfproto ipv4" in "".join(native(scratch)["istio-proxy-nat"])
        scratch.apply("cleanup")
        assert native(scratch) == {}


def test_ipv6_switched_off_for_lo_is_named() -> None:
    """The address of captured IPv6 traffic comes before all rules: nothing is begun."""
    with Scratch() as scratch:
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        scratch.give("eth0", "10.1.0.1/24", "fd01::1/64")
        scratch.check("sysctl", "-q", "net.ipv6.conf.lo.disable_ipv6=1")
        with everything_stays(scratch):
            failed(scratch.tool(*NATIVE, *ALL_SORTS), "net.ipv6.conf.lo.disable_ipv6", "::6/128")


# --- what is missing --------------------------------------------------------------------------


def test_without_nft_all_works_that_has_nothing_foreign() -> None:
    without = hidden("/usr/sbin/nft")
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        empty = scratch.state()
        for arguments, says in (
            (ALL_SORTS, "done"),
            (ALL_SORTS, "nothing to do"),
            (["diff", *ALL_SORTS], ""),
            ([*OTHER, "--reconcile"], "done"),
            (["status", *OTHER], ""),
            (["doctor", *OTHER, "--reconcile"], ""),
        ):
            done = scratch.tool(*NATIVE, *arguments, prefix=without)
            assert done.returncode == 0, (done.stdout, done.stderr)
            assert says in done.stderr
        fresh.apply(*NATIVE, *OTHER)
        assert native(scratch) == native(fresh)
        assert scratch.tool("cleanup", prefix=without).returncode == 0
        assert scratch.state() == empty


def test_missing_nft_is_named_if_it_has_to_show_something() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        scratch.nft(script=BY_OTHERS)
        with everything_stays(scratch):
            for arguments in (["--reconcile", "-b", "80"], ["cleanup"], NATIVE, [*NATIVE, "diff"]):
                done = scratch.tool(*arguments, prefix=hidden("/usr/sbin/nft"))
                failed(
                    done,
                    "nft is not installed, and the table inet istio-proxy-nat has something that only nft",
                    "install the package nftables",
                )
        shown = scratch.tool(*NATIVE, "doctor", prefix=hidden("/usr/sbin/nft"))
        assert shown.returncode == 3
        assert "nft is not installed" in shown.stdout


def test_missing_capabilities_are_named() -> None:
    with Scratch(addresses=True) as scratch, everything_stays(scratch):
        for arguments in ([], ["diff"]):
            done = scratch.tool(*NATIVE, *arguments, prefix=[SETPRIV, "--bounding-set=-net_admin"])
            failed(
                done, "the capability NET_ADMIN is missing" if "NET_RAW" not in done.stderr else "NET_ADMIN"
            )


def test_net_admin_and_net_raw_are_enough() -> None:
    prefix = [SETPRIV, "--bounding-set=-all,+net_admin,+net_raw"]
    with Scratch(addresses=True) as scratch:
        before = scratch.state(counters=True)
        for arguments in (ALL_SORTS, ALL_SORTS, [*OTHER, "--reconcile"], ["diff", *OTHER], ["cleanup"]):
            done = scratch.tool(*NATIVE, *arguments, prefix=prefix)
            assert done.returncode == 0, done.stderr
        assert scratch.state(counters=True) == before


def test_an_nft_that_cannot_print_json(tmp_path: Path) -> None:
    """Not to be had here for real: nft says what it says then."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        scratch.nft(script=BY_OTHERS)
        instead = in_place_of_nft(tmp_path / "bin", "echo 'Error: JSON support not compiled-in' >&2; exit 1")
        with everything_stays(scratch):
            done = scratch.tool(*NATIVE, "--reconcile", "-b", "80", prefix=instead)
            failed(done, "JSON support", "built with JSON support")


def test_an_nft_that_prints_something_else(tmp_path: Path) -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        scratch.nft(script=BY_OTHERS)
        for printed in ("", "{}", "table inet x {}", '{"nftables": [1]}', '{"nftables": []}'):
            folder = tmp_path / f"bin{len(printed)}"
            instead = in_place_of_nft(folder, f"echo '{printed}'")
            with everything_stays(scratch):
                failed(scratch.tool(*NATIVE, prefix=instead), "istio-proxy-nat", "built with JSON support")


@pytest.mark.parametrize("name", ['a"b', "a\\"])
def test_an_interface_that_nft_cannot_name_is_refused_before_anything_is_touched(name: str) -> None:
    with Scratch(addresses=True) as scratch:
        for before in ([], NATIVE):
            if before:
                scratch.apply(*before, "-m", "TPROXY")
            with everything_stays(scratch):
                done: Result = scratch.tool(*NATIVE, *ALL_SORTS, "-c", name, "--reconcile")
                assert done.returncode == 2
                (error,) = done.stderr.splitlines()
                assert error.startswith(f"--istio-exclude-interfaces (-c): {name!r} cannot be written with")


# --- several at once --------------------------------------------------------------------------


def test_different_runs_at_once_end_as_one_of_them() -> None:
    ends = []
    for arguments in ([*NATIVE, *ALL_SORTS], LOCATIONS["nft"]):
        with Scratch(addresses=True) as fresh:
            fresh.apply(*arguments)
            ends.append((native(fresh), sorted(iptables(fresh)), network(fresh)))
    with Scratch(addresses=True) as scratch:
        runs = [[*NATIVE, *ALL_SORTS, "--reconcile"], [*LOCATIONS["nft"], "--reconcile"]]
        for _ in range(3):
            assert at_once(scratch, *runs) == [0, 0]
            assert (native(scratch), sorted(iptables(scratch)), network(scratch)) in ends
