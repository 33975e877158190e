"""Native nftables rules, step by step, as an operator has them: SPEC section 5 holds as for iptables."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.applying import ALL_SORTS, NOBODY, ip_commands, readable_by_nobody, traffic
from tests.support.failing import OTHER, at_once, everything_stays, failed, hidden
from tests.support.foreign import FOREIGN, foreign_rules
from tests.support.native import LOCATIONS, NATIVE, in_place_of_nft, native, network
from tests.support.oracle import normalise_save

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    PACKAGE_FOLDER,
    SETPRIV,
    VARIANTS,
    Result,
    Scratch,
    owned,
    wait_until,
)

pytestmark = KERNEL

TABLES = ("istio-proxy-raw", "istio-proxy-mangle", "istio-proxy-nat")


def iptables(scratch: Scratch) -> list[str]:
    """Return all owned rules in the tables of iptables."""
    return [
        line for variant in VARIANTS for family in FAMILIES for line in owned(scratch.save(variant, family))
    ]


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


def test_the_script_is_applied_to_the_letter(tmp_path: Path) -> None:
    """What nft gets is what a dry run prints, but for the ip commands: tried first, then done."""
    log = tmp_path / "log"
    log.mkdir()
    with Scratch(addresses=True) as scratch:
        shown = scratch.apply(*NATIVE, *ALL_SORTS, "--dry-run").stdout
        path = in_place_of_nft(tmp_path / "bin", f'tee "$(mktemp {log}/XXXXXX)-$2" | "$NFT" "$@"')
        assert scratch.tool(*NATIVE, *ALL_SORTS, env={"PATH": path}).returncode == 0
        scripts = [file.read_text() for file in log.iterdir() if file.stat().st_size]
        assert (
            scripts
            == ["".join(f"{line}\n" for line in shown.splitlines() if not line.startswith("# ip"))] * 2
        )


@pytest.mark.skipif(not readable_by_nobody(), reason="nobody may not read this checkout")
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


# --- what another program puts into owned tables -------------------------------------------------

NAT = "inet istio-proxy-nat"
BY_HAND: dict[str, str] = {
    "a rule": f"insert rule {NAT} istio-output tcp dport 22 counter accept",
    "a rule in a base chain": f"add rule {NAT} prerouting meta l4proto {{ tcp, udp }} counter return",
    "a rule without a counter": f"add rule {NAT} istio-output return",
    "a mark on a connection": f"add rule {NAT} istio-output ct mark set 0x1",
    "a mark, then a match": f"add rule {NAT} istio-output meta mark set 0x7 tcp dport 80 counter",
    "states": f"add rule {NAT} istio-output ct state {{ new, established }} counter return",
    "not a protocol": f"add rule {NAT} istio-output meta l4proto != tcp counter return",
    "a limit": f"add rule {NAT} istio-redirect limit rate 3/hour counter accept",
    "a map": f"add rule {NAT} istio-output tcp dport vmap {{ 80 : accept, 81 : return }}",
    "a comment": f'insert rule {NAT} istio-output counter return comment "mine"',
    "a chain": f"add chain {NAT} mine; add rule {NAT} mine counter accept",
    "an empty chain": f"add chain {NAT} mine",
    "a base chain": f"add chain {NAT} late {{ type nat hook prerouting priority -90; policy accept; }}",
    "a policy": f"add chain {NAT} output {{ policy drop; }}",
    "a set": f"add set {NAT} mine {{ type ipv4_addr; elements = {{ 10.0.0.1 }}; }}",
    "a set that is used": f"add set {NAT} mine {{ type ipv4_addr; timeout 1h; }}\n"
    f"insert rule {NAT} istio-output ip daddr @mine counter return",
    "a counter": f"add counter {NAT} mine",
    "a quota": f"add quota {NAT} mine {{ over 5 mbytes; }}",
    "a table": "add table inet istio-proxy-raw",
    "less": f"flush chain {NAT} istio-output",
    "a table asleep": f"add table {NAT} {{ flags dormant; }}",
}


#: Those that a tool of Istio's could have made, too. Everything else in the tables is foreign.
DIFFERENCES = ("not a protocol", "a comment", "a table", "less")


@pytest.mark.parametrize("case", DIFFERENCES)
def test_changes_by_hand_are_a_difference_and_are_reconciled(case: str) -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack")
        wanted = native(scratch)
        scratch.nft(script=BY_HAND[case])
        changed = scratch.nft("list", "ruleset")
        generation = scratch.generation()
        shown = scratch.tool(*NATIVE, "--dual-stack")
        assert shown.returncode == 3, shown.stderr
        assert shown.stdout
        assert (scratch.nft("list", "ruleset"), scratch.generation()) == (changed, generation)
        scratch.apply(*NATIVE, "--dual-stack", "--reconcile")
        assert native(scratch) == wanted


@pytest.mark.parametrize("case", sorted(BY_HAND.keys() - set(DIFFERENCES)))
def test_something_foreign_in_the_tables_is_refused(case: str) -> None:
    """A table is not owned by its name alone: nothing is changed until the foreign part is gone."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack")
        scratch.nft(script=BY_HAND[case])
        changed = scratch.nft("list", "ruleset")
        generation = scratch.generation()
        for arguments in ([], ["--reconcile"], ["cleanup"]):
            refused = scratch.tool(*NATIVE, "--dual-stack", *arguments)
            assert refused.returncode == 1, refused.stderr
            assert "foreign" in refused.stderr
        assert (scratch.nft("list", "ruleset"), scratch.generation()) == (changed, generation)


def test_a_rule_that_moved_is_a_difference() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        chain = scratch.nft("-a", "list", "chain", *NAT.split(), "istio-inbound")
        [handle] = re.findall(r"dport 15008 .*# handle (\d+)", chain)
        scratch.nft("delete", "rule", *NAT.split(), "istio-inbound", "handle", handle)
        scratch.nft("add", "rule", *NAT.split(), "istio-inbound", "tcp dport 15008 counter return")
        done = scratch.tool(*NATIVE, "diff", "--json")
        assert done.returncode == 3
        (part,) = json.loads(done.stdout)["parts"]
        moved = "istio-inbound: tcp dport 15008 counter return"
        assert (part["removed"], part["added"]) == ([moved], [moved])


# --- foreign rules --------------------------------------------------------------------------------


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


# --- moving between locations --------------------------------------------------------------------

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


def test_missing_nft_is_named() -> None:
    with Scratch(addresses=True) as scratch:
        for arguments in ([], ["diff"]):
            done = scratch.tool(*NATIVE, *arguments, prefix=hidden("/usr/sbin/nft"))
            failed(done, "the command nft is not installed", "install the package nftables")
        scratch.apply(*NATIVE)
        with everything_stays(scratch):
            for arguments in (["--reconcile", "-b", "80"], ["cleanup"], [*NATIVE, "--reconcile", "-b", "80"]):
                failed(scratch.tool(*arguments, prefix=hidden("/usr/sbin/nft")), "nft is not installed")


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


@pytest.mark.parametrize(
    ("says", "cause", "remedy"),
    [
        ("Error: JSON support not compiled-in", "JSON support", "built with JSON support"),
        ("Error: Could not process rule: Operation not supported", "not supported", "needs Linux 5.2"),
    ],
)
def test_an_nft_or_kernel_that_cannot_do_it(tmp_path: Path, says: str, cause: str, remedy: str) -> None:
    """Not to be had here for real: nft says what it says then."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        path = in_place_of_nft(tmp_path / "bin", f"echo '{says}' >&2; exit 1")
        with everything_stays(scratch):
            failed(scratch.tool(*NATIVE, "--reconcile", "-b", "80", env={"PATH": path}), cause, remedy)


def test_an_nft_that_prints_something_else(tmp_path: Path) -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        for printed in ("", "{}", "table inet x {}", '{"nftables": [1]}', '{"nftables": []}'):
            folder = tmp_path / f"bin{len(printed)}"
            path = in_place_of_nft(folder, f"echo '{printed}'")
            with everything_stays(scratch):
                failed(
                    scratch.tool(*NATIVE, env={"PATH": path}), "istio-proxy-nat", "built with JSON support"
                )


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


@pytest.mark.parametrize("many", [2, 4])
def test_runs_at_once_end_as_one(many: int) -> None:
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        fresh.apply(*NATIVE, *ALL_SORTS)
        assert at_once(scratch, *[[*NATIVE, *ALL_SORTS]] * many) == [0] * many
        assert native(scratch) == native(fresh)
        assert network(scratch) == network(fresh)


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


# --- the tests themselves ---------------------------------------------------------------------


def test_what_tells_that_nothing_was_written_tells_it() -> None:
    with Scratch() as scratch:
        generation = scratch.generation()
        scratch.nft("add", "table", "inet", "x")
        assert scratch.generation() == generation + 1
        wait_until(lambda: os.path.exists(scratch.path))
