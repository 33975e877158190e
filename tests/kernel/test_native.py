"""Native nftables rules, step by step, as an operator has them: SPEC section 5 holds as for iptables."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.applying import ALL_SORTS, NOBODY, ip_commands, traffic
from tests.support.failing import OTHER, everything_stays, hidden
from tests.support.foreign import FOREIGN, foreign_rules
from tests.support.native import LOCATIONS, NATIVE, in_place_of_nft, iptables, native, network
from tests.support.saved import normalise_save

from ..support.scratch import FAMILIES, KERNEL, PACKAGE_FOLDER, VARIANTS, Scratch, wait_until

pytestmark = KERNEL

TABLES = ("istio-proxy-raw", "istio-proxy-mangle", "istio-proxy-nat")


def counted(tables: Mapping[str, list[str]]) -> list[str]:
    lines = "\n".join(text for parts in tables.values() for text in parts).splitlines()
    return [line.strip() for line in lines if "counter packets" in line and "packets 0" not in line]


# --- applying ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--dual-stack"], ALL_SORTS], ids=["ipv4", "simple", "all sorts"])
def test_what_is_rendered_is_what_is_applied(arguments: list[str]) -> None:
    """`nft -f` of it, and the ip commands, give the same state as apply, and the tool finds nothing to do."""
    with Scratch(addresses=True) as applied, Scratch(addresses=True) as rendered:
        applied.apply(*NATIVE, *arguments)
        script = rendered.apply(*NATIVE, *arguments, "--dry-run").stdout
        assert script == rendered.apply(*NATIVE, *arguments, "render").stdout
        assert script == rendered.apply(*arguments, "render", "--format", "nft").stdout
        rendered.nft(script=script)
        for command in ip_commands(script):
            rendered.ip(*command.split()[1:])
        assert native(rendered) == native(applied)
        assert network(rendered) == network(applied)
        assert "nothing to do" in rendered.apply(*NATIVE, *arguments).stderr
        assert not iptables(applied)
        assert applied.legacy_tables() == set()


def test_explained_rules_are_the_same_rules() -> None:
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as explained:
        scratch.apply(*NATIVE, *ALL_SORTS)
        explained.nft(script=explained.apply(*ALL_SORTS, "render", "--format", "nft", "--explain").stdout)
        assert native(explained) == native(scratch)


def test_no_program_is_started(tmp_path: Path) -> None:
    """The tool speaks with the kernel itself: nft is for what other programs put into its tables."""
    instead = in_place_of_nft(tmp_path / "bin", f"touch {tmp_path}/called")
    with Scratch(addresses=True) as scratch:
        for arguments in (
            ALL_SORTS,
            ALL_SORTS,
            ["diff", *ALL_SORTS],
            ["-b", "80", "--reconcile"],
            ["cleanup"],
        ):
            assert scratch.tool(*NATIVE, *arguments, prefix=instead).returncode == 0
        assert not (tmp_path / "called").exists()
        scratch.tool(*NATIVE, "doctor", prefix=instead)
        assert (tmp_path / "called").exists(), "or this test sees nothing"


def test_a_dry_run_needs_neither_privilege_nor_nft() -> None:
    script = f"import os, sys; sys.path.insert(0, {str(PACKAGE_FOLDER)!r}); os.environ['PATH'] = '/nowhere'\n"
    script += "from istio_iptables.__main__ import main; sys.exit(main())"
    with Scratch(addresses=True) as scratch:
        wanted = scratch.apply(*NATIVE, *ALL_SORTS, "render").stdout
        for arguments in ([*NATIVE, *ALL_SORTS, "--dry-run"], [*ALL_SORTS, "render", "--format", "nft"]):
            nobody = [*hidden("/usr/sbin/nft"), *NOBODY, sys.executable, "-c", script]
            done = scratch.run(*nobody, *arguments)
            assert (done.returncode, done.stdout) == (0, wanted), done.stderr


@pytest.mark.parametrize("arguments", [["--dual-stack"], ALL_SORTS], ids=["simple", "all sorts"])
def test_second_run_writes_nothing(arguments: list[str]) -> None:
    """Neither does diff; counters survive, and no transaction is made."""
    with Scratch(addresses=True) as scratch:
        first = scratch.apply(*NATIVE, *arguments)
        assert "backend nftables: native nftables rules were requested" in first.stderr
        assert re.search(r"planned: nftables istio-proxy-\S.*: write \d+ rules", first.stderr)
        traffic(scratch)
        before, generation = scratch.state(counters=True), scratch.generation()
        assert len(counted(native(scratch, counters=True))) >= 2
        again = scratch.apply(*NATIVE, *arguments)
        assert "nothing to do" in again.stderr
        assert again.stdout == ""
        assert scratch.apply(*NATIVE, *arguments, "diff").stdout == ""
        found = json.loads(scratch.apply(*NATIVE, *arguments, "diff", "--json").stdout)
        assert found == {"differs": False, "parts": []}
        assert scratch.state(counters=True) == before
        assert scratch.generation() == generation


def test_force_apply_writes_again_and_keeps_what_is_counted() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, *ALL_SORTS)
        traffic(scratch)
        before, generation = native(scratch, counters=True), scratch.generation()
        scratch.apply(*NATIVE, *ALL_SORTS, "--force-apply")
        assert native(scratch, counters=True) == before
        assert scratch.generation() > generation


# --- changes ----------------------------------------------------------------------------------


def test_changed_settings_are_shown_and_change_nothing() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack", "-b", "80", "-x", "10.0.0.0/8")
        before, generation = scratch.state(counters=True), scratch.generation()
        other = [*NATIVE, "--dual-stack", "-b", "81", "-x", "10.0.0.0/8,192.0.2.1", "--drop-invalid"]
        shown = scratch.tool(*other)
        assert shown.returncode == 3
        assert "--reconcile replaces them" in shown.stderr
        lines = shown.stdout.splitlines()
        for line in (
            "@ inet istio-proxy-nat (nftables)",
            "-istio-inbound: tcp dport 80 counter jump istio-in-redirect",
            "+istio-inbound: tcp dport 81 counter jump istio-in-redirect",
            "-istio-output: ip daddr 10.0.0.0/8 counter return",
            "+istio-output: ip daddr { 10.0.0.0/8, 192.0.2.1 } counter return",
            "@ inet istio-proxy-mangle (nftables)",
            "+table inet istio-proxy-mangle",
        ):
            assert line in lines
        diff = scratch.tool(*other, "diff")
        assert (diff.returncode, diff.stdout) == (3, shown.stdout)
        done = scratch.tool(*other, "diff", "--json")
        found = json.loads(done.stdout)
        assert done.returncode == 3
        assert found["differs"]
        assert [part["part"] for part in found["parts"]] == [
            "inet istio-proxy-nat (nftables)",
            "inet istio-proxy-mangle (nftables)",
        ]
        assert "istio-inbound: tcp dport 80 counter jump istio-in-redirect" in found["parts"][0]["removed"]
        assert "table inet istio-proxy-mangle" in found["parts"][1]["added"]
        assert (scratch.state(counters=True), scratch.generation()) == (before, generation)


@pytest.mark.parametrize(
    ("first", "second"), [([], ALL_SORTS), (ALL_SORTS, []), (OTHER, ALL_SORTS), (ALL_SORTS, OTHER)]
)
def test_reconcile_makes_it_as_if_freshly_applied(first: list[str], second: list[str]) -> None:
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        scratch.apply(*NATIVE, *first)
        scratch.apply(*NATIVE, *second, "--reconcile")
        fresh.apply(*NATIVE, *second)
        assert native(scratch) == native(fresh)
        assert network(scratch) == network(fresh)
        assert "nothing to do" in scratch.apply(*NATIVE, *second).stderr


def test_rules_that_stay_keep_their_counters() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack", "-x", "192.0.2.0/24,192.0.3.1")
        traffic(scratch)
        before = counted(native(scratch, counters=True))
        assert len(before) >= 2
        scratch.apply(*NATIVE, "--dual-stack", "-x", "192.0.2.0/24,192.0.4.1", "--reconcile")
        assert counted(native(scratch, counters=True)) == before


def test_a_table_that_is_no_longer_needed_goes_in_the_same_transaction() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--drop-invalid", "--redirect-dns", "--capture-all-dns")
        assert set(native(scratch)) == set(TABLES)
        generation = scratch.generation()
        scratch.apply(*NATIVE, "-b", "80", "--reconcile")
        assert set(native(scratch)) == {"istio-proxy-nat"}
        assert scratch.generation() == generation + 1


def test_all_three_tables_come_in_one_transaction() -> None:
    with Scratch(addresses=True) as scratch:
        generation = scratch.generation()
        scratch.apply(*NATIVE, *ALL_SORTS)
        assert set(native(scratch)) == set(TABLES)
        assert scratch.generation() == generation + 1


# --- foreign rules ----------------------------------------------------------------------------


def test_what_is_others_stays_byte_for_byte() -> None:
    """Foreign nft tables, some named nearly like owned ones, and iptables rules, with counters."""
    with Scratch(addresses=True) as scratch:
        scratch.nft(script=FOREIGN)
        for variant in VARIANTS:
            for family in FAMILIES:
                scratch.restore(variant, family, foreign_rules(family), "--counters")
        with everything_stays(scratch):
            before = scratch.state(counters=True)
            scratch.apply(*NATIVE, *ALL_SORTS)
            scratch.apply(*NATIVE, *OTHER, "--reconcile")
            during = scratch.state(counters=True)
            for key in (f"{family} {variant}" for family in FAMILIES for variant in VARIANTS):
                assert during[key] == before[key]
            assert set(native(scratch)) >= {"istio-proxy-nat", "istio-proxy-mangle"}
            scratch.apply("cleanup")
        assert scratch.state(counters=True) == before


# --- moving between locations -----------------------------------------------------------------


MOVES = [
    (start, end) for start in LOCATIONS for end in LOCATIONS if start != end and "native" in (start, end)
]


@pytest.mark.parametrize("sort", [["--dual-stack"], ALL_SORTS], ids=["simple", "all sorts"])
@pytest.mark.parametrize(("start", "end"), MOVES)
def test_moving_is_a_change_like_any_other(start: str, end: str, sort: list[str]) -> None:
    """Exit 3; with --reconcile one clean move: nothing is left in the old location; routes and ::6 stay."""
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        scratch.apply(*LOCATIONS[start], *sort)
        before, generation, untouched = scratch.state(counters=True), scratch.generation(), scratch.network()
        for arguments in ([], ["diff"]):
            shown = scratch.tool(*LOCATIONS[end], *sort, *arguments)
            assert shown.returncode == 3
            assert "@ inet istio-proxy-nat (nftables)" in shown.stdout
            assert f"@ ipv6 nat (iptables-{end if start == 'native' else start})" in shown.stdout
        assert (scratch.state(counters=True), scratch.generation()) == (before, generation)
        moved = scratch.apply(*LOCATIONS[end], *sort, "--reconcile")
        planned = [line for line in moved.stderr.splitlines() if "planned: ip " in line]
        assert planned == []
        fresh.apply(*LOCATIONS[end], *sort)
        assert scratch.network() == untouched
        assert network(scratch) == network(fresh)
        assert native(scratch) == native(fresh)
        for variant in VARIANTS:
            for family in FAMILIES:
                found, wanted = (normalise_save(space.save(variant, family)) for space in (scratch, fresh))
                assert found == wanted
        assert "nothing to do" in scratch.apply(*LOCATIONS[end], *sort).stderr


@pytest.mark.parametrize(("start", "end"), MOVES)
def test_moving_with_other_settings(start: str, end: str) -> None:
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        scratch.apply(*LOCATIONS[start], *OTHER)
        scratch.apply(*LOCATIONS[end], *ALL_SORTS, "--reconcile")
        fresh.apply(*LOCATIONS[end], *ALL_SORTS)
        assert network(scratch) == network(fresh)
        assert native(scratch) == native(fresh)
        assert sorted(iptables(scratch)) == sorted(iptables(fresh))


def test_without_the_flag_native_rules_are_not_chosen_and_the_log_names_them() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        shown = scratch.tool()
        assert shown.returncode == 3
        assert (
            "only native nftables rules of istio-iptables are in place (see --native-nftables)"
            in shown.stderr
        )
        warned = scratch.apply(*NATIVE, *LOCATIONS["legacy"])
        assert "--force-iptables-binary has no effect with --native-nftables" in warned.stderr
        assert "nothing to do" in warned.stderr


# --- the tests themselves ---------------------------------------------------------------------


def test_what_tells_that_nothing_was_written_tells_it() -> None:
    with Scratch() as scratch:
        generation = scratch.generation()
        scratch.nft("add", "table", "inet", "x")
        assert scratch.generation() == generation + 1
        wait_until(lambda: os.path.exists(scratch.path))
