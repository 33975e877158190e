"""Applying, step by step, as an operator does it: SPEC section 5, with the tool as a process of its own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.support.applying import (
    ALL_SORTS,
    BACKENDS,
    NOBODY,
    every_backend,
    ip_commands,
    readable_by_nobody,
    rules_of,
    traffic,
)
from tests.support.foreign import foreign_rules
from tests.support.oracle import expected, normalise_save

from ..support.scratch import (
    CHAINS,
    FAMILIES,
    KERNEL,
    SETPRIV,
    VARIANTS,
    Family,
    Scratch,
    Variant,
    foreign_lines,
    needs_seccomp,
    owned,
    refuse_replacing,
    wait_until,
)

pytestmark = KERNEL

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def counted(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("[") and not line.startswith("[0:0]")]


def only_writing_fails() -> None:
    refuse_replacing("ipv4", "ipv6", error=errno.EPERM)


# --- nothing to do --------------------------------------------------------------------------


@needs_seccomp
@every_backend
@pytest.mark.parametrize("arguments", [["--dual-stack"], ALL_SORTS], ids=["simple", "all sorts"])
def test_second_run_writes_nothing(backend: str, arguments: list[str]) -> None:
    """Rule counters survive; and it works where the kernel would refuse to write."""
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, *arguments)
        traffic(scratch)
        before = scratch.state(counters=True)
        assert len(counted(before[f"ipv4 {variant}"])) >= 2
        assert len(counted(before[f"ipv6 {variant}"])) >= 2
        handles, generation = scratch.nft("-a", "list", "ruleset"), scratch.generation()
        again = scratch.tool(*options, *arguments, preexec_fn=only_writing_fails)
        assert again.returncode == 0, again.stderr
        assert "nothing to do" in again.stderr
        assert again.stdout == ""
        assert scratch.state(counters=True) == before
        assert scratch.nft("-a", "list", "ruleset") == handles
        assert scratch.generation() == generation


@needs_seccomp
def test_the_filter_that_shows_that_nothing_is_written_does_show_it() -> None:
    with Scratch() as scratch:
        for options in ([], ["--force-iptables-binary", "legacy"]):
            assert scratch.tool(*options, preexec_fn=only_writing_fails).returncode == 1
        assert not owned(scratch.save("legacy", "ipv4"))


@every_backend
def test_diff_after_apply_finds_none_and_writes_nothing(backend: str) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, *ALL_SORTS)
        before, generation = scratch.state(counters=True), scratch.generation()
        assert scratch.apply(*options, *ALL_SORTS, "diff").stdout == ""
        assert json.loads(scratch.apply(*options, *ALL_SORTS, "diff", "--json").stdout) == {
            "differs": False,
            "parts": [],
        }
        assert (scratch.state(counters=True), scratch.generation()) == (before, generation)


@every_backend
def test_force_apply_writes_again(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, *ALL_SORTS)
        fresh = scratch.save(variant, "ipv4")
        traffic(scratch)
        generation = scratch.generation()
        assert any(line.split()[2] in CHAINS for line in counted(scratch.save(variant, "ipv4", True)))
        scratch.apply(*options, *ALL_SORTS, "--force-apply")
        now = counted(scratch.save(variant, "ipv4", True))
        assert not [line for line in now if line.split()[2] in CHAINS]
        again = scratch.save(variant, "ipv4")
        assert again == fresh
        if variant == "nft":
            assert scratch.generation() > generation


# --- something differs ----------------------------------------------------------------------


@every_backend
def test_changed_settings_are_shown_and_change_nothing(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, "--dual-stack", "-b", "80")
        traffic(scratch)
        before, generation = scratch.state(counters=True), scratch.generation()
        for more in ([], ["diff"], ["--force-apply"]):
            other = scratch.tool(*options, "--dual-stack", "-b", "81", *more)
            assert other.returncode == 3, other.stderr
            lines = other.stdout.splitlines()
            for family in FAMILIES:
                assert f"@ {family} nat (iptables-{variant})" in lines
            assert lines.count("--A ISTIO_INBOUND -p tcp -m tcp --dport 80 -j ISTIO_IN_REDIRECT") == 2
            assert lines.count("+-A ISTIO_INBOUND -p tcp -m tcp --dport 81 -j ISTIO_IN_REDIRECT") == 2
            assert scratch.state(counters=True) == before
            assert scratch.generation() == generation
        assert "--reconcile" in scratch.tool(*options, "--dual-stack", "-b", "81").stderr


@every_backend
@pytest.mark.parametrize("first", [[], ALL_SORTS], ids=["simple", "all sorts"])
def test_reconcile_makes_it_as_if_freshly_applied(backend: str, first: list[str]) -> None:
    options, _ = BACKENDS[backend]
    second = ["-b", "80,443", "-x", "10.2.0.0/16", "-c", "eth5", "--redirect-dns", "--capture-all-dns"]
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        fresh.apply(*options, *second)
        scratch.apply(*options, *first)
        scratch.apply(*options, *second, "--reconcile")
        assert rules_of(scratch) == rules_of(fresh)
        assert scratch.network() == fresh.network()
        assert "nothing to do" in scratch.apply(*options, *second).stderr
        want = {"istio-inbound-ports": "80,443", "istio-service-exclude-cidr": "10.2.0.0/16"}
        more = {"istio-exclude-interfaces": "eth5", "redirect-dns": "true", "capture-all-dns": "true"}
        assert rules_of(scratch) == expected({**want, **more}, ipv6=False)


#: Changes to owned rules by hand: commands of iptables, after `-t nat`.
BY_HAND = {
    "rule deleted": ["-D ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"],
    "last rule deleted": ["-D ISTIO_OUTPUT -j ISTIO_REDIRECT"],
    "rule added": ["-A ISTIO_OUTPUT -p tcp --dport 9 -j RETURN"],
    "rule twice": ["-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"],
    "rule moved": ["-D ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN", "-I ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"],
    "rule changed": ["-R ISTIO_REDIRECT 1 -p tcp -j REDIRECT --to-ports 15002"],
    "chain emptied": ["-F ISTIO_INBOUND"],
    "jump deleted": ["-D OUTPUT -j ISTIO_OUTPUT"],
    "jump twice": ["-A OUTPUT -j ISTIO_OUTPUT"],
    "jump narrowed": ["-R OUTPUT 2 -p tcp -j ISTIO_OUTPUT"],
    "jump before the exception": ["-D OUTPUT -j ISTIO_OUTPUT", "-I OUTPUT -j ISTIO_OUTPUT"],
    "exception deleted": ["-D PREROUTING -i eth1 -m comment --comment istio-iptables -j RETURN"],
    "jump from another chain": ["-A PREROUTING -j ISTIO_REDIRECT"],
    "jump with a strange match": ["-A OUTPUT -m statistic --mode random --probability 0.5 -j ISTIO_REDIRECT"],
}


#: Changes by hand that put something foreign into an owned chain.
FOREIGN_BY_HAND = {
    "strange rule added": ["-I ISTIO_OUTPUT 3 -m limit --limit 3/hour -m comment --comment x -j ACCEPT"],
    "rule without a target added": ["-I ISTIO_INBOUND -p tcp"],
    "owned chain that is not wanted": ["-N ISTIO_OUTPUT_DNS", "-A ISTIO_OUTPUT_DNS -j RETURN"],
}


@pytest.mark.parametrize("case", BY_HAND)
@every_backend
def test_what_was_changed_by_hand_is_found_and_put_right(backend: str, case: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch() as scratch:
        scratch.apply(*options, "-c", "eth1")
        right = scratch.save(variant, "ipv4")
        for command in BY_HAND[case]:
            scratch.check(f"iptables-{variant}", "-t", "nat", *command.split())
        wrong = scratch.save(variant, "ipv4")
        assert wrong != right
        found = scratch.tool(*options, "-c", "eth1")
        assert found.returncode == 3, found.stderr
        assert re.search(r"^[-+]-A ", found.stdout, re.MULTILINE)
        assert scratch.save(variant, "ipv4") == wrong
        scratch.apply(*options, "-c", "eth1", "--reconcile")
        assert scratch.save(variant, "ipv4") == right
        scratch.apply(*options, "cleanup")
        assert not owned(scratch.save(variant, "ipv4"))


@pytest.mark.parametrize("case", FOREIGN_BY_HAND)
@every_backend
def test_something_foreign_in_an_owned_chain_is_refused_until_it_is_gone(backend: str, case: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch() as scratch:
        scratch.apply(*options, "-c", "eth1")
        right = scratch.save(variant, "ipv4")
        for command in FOREIGN_BY_HAND[case]:
            scratch.check(f"iptables-{variant}", "-t", "nat", *command.split())
        wrong = scratch.save(variant, "ipv4")
        for arguments in ([], ["--reconcile"], ["cleanup"]):
            refused = scratch.tool(*options, "-c", "eth1", *arguments)
            assert refused.returncode == 1, refused.stderr
            assert "foreign" in refused.stderr
            assert scratch.save(variant, "ipv4") == wrong
        chain = FOREIGN_BY_HAND[case][-1].split()[1]
        scratch.check(f"iptables-{variant}", "-t", "nat", "-F", chain)
        scratch.apply(*options, "-c", "eth1", "--reconcile")
        assert scratch.save(variant, "ipv4") == right


@every_backend
def test_all_of_one_table_deleted_by_hand_is_found(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch() as scratch:
        scratch.apply(*options, "--redirect-dns", "--capture-all-dns")
        right = scratch.save(variant, "ipv4")
        scratch.check(f"iptables-{variant}", "-t", "raw", "-F")
        assert scratch.tool(*options, "--redirect-dns", "--capture-all-dns").returncode == 3
        scratch.apply(*options, "--redirect-dns", "--capture-all-dns", "--reconcile")
        assert scratch.save(variant, "ipv4") == right


@every_backend
def test_an_empty_chain_that_is_left_over_is_no_difference(backend: str) -> None:
    """What holds no rule does nothing: a first time stays a first time."""
    options, variant = BACKENDS[backend]
    with Scratch() as scratch:
        scratch.check(f"iptables-{variant}", "-t", "nat", "-N", "ISTIO_OUTPUT")
        scratch.apply(*options)
        assert normalise_save(scratch.save(variant, "ipv4"))["nat"] == expected({}, ipv6=False)["ipv4", "nat"]


# --- foreign rules ------------------------------------------------------------------------------


LATER = """\
*nat
[21:2100] -I OUTPUT {after_first} -p udp -m udp --dport 5353 -j RETURN
[22:2200] -A OUTPUT -j ACCEPT
[23:2300] -I PREROUTING 1 -p tcp -m tcp --dport 22 -j ACCEPT
[24:2400] -A PREROUTING -m comment --comment ISTIO_INBOUND -j ACCEPT
COMMIT
*mangle
[25:2500] -A OUTPUT -o eth1 -j RETURN
COMMIT
"""


def others(scratch: Scratch, variant: Variant, family: Family) -> list[str]:
    """Return foreign lines with counters. (In `filter` all rules are foreign, whatever their names.)"""
    tables = re.split(r"^(?=\*)", scratch.save(variant, family, counters=True), flags=re.MULTILINE)
    found: list[str] = []
    for table in filter(None, tables):
        found += table.splitlines() if table.startswith("*filter") else foreign_lines(table)
    return found


@every_backend
def test_foreign_rules_survive_byte_for_byte_with_counters(backend: str) -> None:
    """Before, between and after owned rules; through apply, reconcile and cleanup; in order."""
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        for family in FAMILIES:
            scratch.restore(variant, family, foreign_rules(family), "--counters")
        alone = {family: scratch.save(variant, family, True) for family in FAMILIES}
        scratch.apply(*options, *ALL_SORTS)
        assert {f: others(scratch, variant, f) for f in FAMILIES} == {
            f: text.splitlines() for f, text in alone.items()
        }
        for family in FAMILIES:
            scratch.restore(variant, family, LATER.format(after_first=4), "--counters")
        mixed = {family: others(scratch, variant, family) for family in FAMILIES}
        assert all("--dport 5353" in "".join(lines) for lines in mixed.values())
        assert "nothing to do" in scratch.apply(*options, *ALL_SORTS).stderr
        for arguments in (["--dual-stack", "--reconcile"], [*ALL_SORTS, "--reconcile"], ["cleanup"]):
            scratch.apply(*options, *arguments)
            assert {family: others(scratch, variant, family) for family in FAMILIES} == mixed, arguments
        for family in FAMILIES:
            assert scratch.save(variant, family, True).splitlines() == mixed[family]


@every_backend
def test_cleanup_leaves_what_was_there_before(backend: str) -> None:
    """No owned rule is left and no foreign one is missing, as any command prints them."""
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        hook = "type filter hook input priority 0"
        scratch.nft(script=f"table inet filter {{ chain input {{ {hook}; counter; }}; }}")
        for family in FAMILIES:
            scratch.restore(variant, family, foreign_rules(family), "--counters")
        before = scratch.state(counters=True)
        scratch.apply(*options, *ALL_SORTS)
        assert scratch.state(counters=True) != before
        scratch.apply("cleanup")
        assert scratch.state(counters=True) == before


def test_cleanup_takes_the_empty_base_chains_that_it_made() -> None:
    with Scratch() as scratch:
        scratch.restore("nft", "ipv4", "*nat\n-A OUTPUT -p udp -j RETURN\nCOMMIT\n")
        before = scratch.nft("list", "ruleset")
        scratch.apply()
        scratch.apply("cleanup")
        assert scratch.nft("list", "ruleset") == before


def test_policies_of_other_programs_stay() -> None:
    """Also in a table that holds nothing else. (Their counters do not: libiptc itself sets them to zero.)"""
    for options, variant in BACKENDS.values():
        with Scratch() as scratch:
            scratch.restore(variant, "ipv4", "*mangle\n:FORWARD DROP [0:0]\nCOMMIT\n")
            before = scratch.save(variant, "ipv4", True)
            scratch.apply(*options, "-m", "TPROXY")
            scratch.apply(*options, "cleanup")
            # An empty legacy table cannot be taken away again; it has no rules.
            left = scratch.save(variant, "ipv4", True)
            assert ":FORWARD DROP [0:0]" in left
            assert left.partition("*nat")[0] == before


def test_foreign_rules_and_routes_stay() -> None:
    """The well-known example of TPROXY's documentation, and others that look like owned ones."""
    with Scratch(addresses=True) as scratch:
        for option in ("-4", "-6"):
            scratch.ip(option, "rule", "add", "fwmark", "1", "lookup", "100")
            scratch.ip(option, "route", "add", "local", "default", "dev", "lo", "table", "100")
            scratch.ip(option, "rule", "add", "fwmark", "1400/0xffff", "lookup", "140")
            scratch.ip(option, "rule", "add", "fwmark", "1337", "iif", "lo", "lookup", "133")
            scratch.ip(option, "rule", "add", "fwmark", "1400", "lookup", "200")
            network = "10.6.0.0/16" if option == "-4" else "fd06::/16"
            scratch.ip(option, "route", "add", network, "dev", "lo", "table", "200")
        scratch.give("lo", "127.0.0.6/8", "fd00::6/128")
        before = scratch.network()
        for arguments in (ALL_SORTS, ["-m", "TPROXY", "--dual-stack"]):
            scratch.apply(*arguments)
            assert scratch.network() != before
            assert "nothing to do" in scratch.apply(*arguments).stderr
            scratch.apply("cleanup")
            assert scratch.network() == before
        scratch.apply("cleanup")
        assert scratch.network() == before


def test_a_foreign_rule_for_the_same_mark_and_another_table_stays() -> None:
    with Scratch() as scratch:
        scratch.ip("rule", "add", "fwmark", "1", "lookup", "100")
        scratch.ip("route", "add", "local", "default", "dev", "lo", "table", "100")
        scratch.apply("-m", "TPROXY", "-t", "1")
        assert "nothing to do" in scratch.tool("-m", "TPROXY", "-t", "1").stderr


def test_a_foreign_route_in_our_table_does_not_make_every_run_a_change() -> None:
    with Scratch() as scratch:
        scratch.ip("route", "add", "10.5.0.0/16", "dev", "lo", "table", "133")
        scratch.apply("-m", "TPROXY")
        assert "nothing to do" in scratch.tool("-m", "TPROXY").stderr


# --- cleanup --------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize(
    "how",
    [
        ["cleanup"],
        ["--cleanup-only"],
        ["--cleanup-only", "-t", "7", "-r", "8", "-b", "9"],
        ["cleanup", "-m", "REDIRECT"],
    ],
    ids=" ".join,
)
def test_cleanup_needs_no_flags(backend: str, how: list[str]) -> None:
    """From the live state alone: TPROXY mark and table, -c, -k, DNS, both families, routes and ::6."""
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        before = {**scratch.network(), "nft": scratch.nft("list", "ruleset")}
        scratch.apply(*options, *ALL_SORTS)
        assert "fwmark 0x578 lookup 140" in scratch.ip("rule", "show")
        assert "::6/128" in scratch.ip("-6", "address", "show", "dev", "lo")
        scratch.apply(*how)
        assert rules_of(scratch) == {}
        assert {**scratch.network(), "nft": scratch.nft("list", "ruleset")} == before
        assert not re.search("ISTIO|istio", "".join(scratch.state().values()))
        generation, state = scratch.generation(), scratch.state(counters=True)
        assert "nothing to do" in scratch.apply("cleanup").stderr
        assert (scratch.generation(), scratch.state(counters=True)) == (generation, state)


def test_cleanup_takes_everything_in_every_backend_at_once() -> None:
    """legacy, nft and native, with foreign rules in all of them."""
    with Scratch(addresses=True) as scratch:
        script = scratch.apply(*ALL_SORTS, "--dry-run").stdout
        foreign = "*nat\n-A OUTPUT -p udp -j RETURN\nCOMMIT\n"
        scratch.nft(script="table inet mine { chain istio-output { counter; }; }")
        for variant in VARIANTS:
            for family in FAMILIES:
                scratch.restore(variant, family, foreign)
        before = scratch.state(counters=True)
        native = scratch.apply(*ALL_SORTS, "render", "--format", "nft").stdout
        for variant in VARIANTS:
            for family, part in families_of(script).items():
                scratch.restore(variant, family, part)
        scratch.nft(script=native)
        for command in ip_commands(script):
            scratch.ip(*command.split()[1:])
        assert "istio-proxy-nat" in scratch.nft("list", "tables")
        done = scratch.apply("cleanup")
        assert "istio-proxy-nat" in done.stderr
        after = scratch.state(counters=True)
        assert "table inet mine" in after["nft"]
        assert not re.search("ISTIO|istio-proxy", after["nft"])
        assert after["nft"] == before["nft"]
        # Tables that legacy rules were put into cannot be taken away again; they are empty.
        assert rules_in(after) == rules_in(before)
        assert scratch.network() == {key: before[key] for key in scratch.network()}


def rules_in(state: dict[str, str]) -> dict[str, dict[str, list[str]]]:
    return {key: normalise_save(text) for key, text in state.items() if key.startswith("ipv")}


def test_apply_takes_native_tables_away_and_says_so() -> None:
    """Owned rules in another location are a difference; --reconcile moves them in one go."""
    with Scratch() as scratch:
        rule = "meta l4proto tcp counter redirect to :15001"
        scratch.nft(script=f"table inet istio-proxy-nat {{ chain istio-redirect {{ {rule}; }}; }}")
        shown = scratch.tool()
        assert shown.returncode == 3
        assert "-table inet istio-proxy-nat" in shown.stdout
        assert not owned(scratch.save("legacy", "ipv4"))
        scratch.apply("--reconcile")
        assert scratch.nft("list", "ruleset") == ""
        assert "nothing to do" in scratch.apply().stderr


def test_cleanup_of_a_fresh_namespace_makes_no_table() -> None:
    with Scratch() as scratch:
        generation = scratch.generation()
        assert "nothing to do" in scratch.apply("cleanup").stderr
        assert scratch.legacy_tables() == set()
        assert scratch.generation() == generation


@pytest.mark.parametrize("options", [*(o for o, _ in BACKENDS.values()), ["--native-nftables"]], ids=str)
def test_cleanup_dry_run_changes_nothing_and_shows_what_would_do_it(options: list[str]) -> None:
    """Each part of what it prints is for one tool: done by these tools, it cleans up."""
    with Scratch(addresses=True) as scratch:
        network = scratch.network()
        scratch.apply(*options, *ALL_SORTS)
        before = scratch.state(counters=True)
        shown = scratch.apply("cleanup", "--dry-run").stdout
        assert scratch.state(counters=True) == before
        for part in re.split(r"(?m)^(?=# )", shown)[1:]:
            heading, _, script = part.partition("\n")
            command = heading.removeprefix("# ").rpartition(": for ")[2]
            scratch.check(*shlex.split(command), stdin=script)
        assert rules_of(scratch) == {}
        assert scratch.network() == network
        assert scratch.apply("cleanup", "--dry-run").stdout == ""


def test_istio_clean_iptables() -> None:
    """The name that Istio shipped for years, with flags that it ignores."""
    code = "import sys; from istio_iptables.__main__ import clean; sys.exit(clean())"
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        scratch.apply(*ALL_SORTS)
        done = scratch.python(code, "-p", "15001", "-u", "1337", "-i", "*", "-b", "*")
        assert done.returncode == 0, done.stderr
        assert rules_of(scratch) == {}
        assert scratch.network() == before
        assert scratch.python(code, "-n").returncode == 0
        assert scratch.python(code, "--no-such-flag").returncode == 2


# --- routes and addresses -------------------------------------------------------------------


@every_backend
def test_tproxy_twice_leaves_one_rule_and_one_route(backend: str) -> None:
    options, _ = BACKENDS[backend]
    arguments = [*options, "-m", "TPROXY", "--dual-stack"]
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        for more in ([], [], ["--force-apply"], ["--reconcile"]):
            scratch.apply(*arguments, *more)
            for option in ("-4", "-6"):
                rules = scratch.ip(option, "rule", "show").splitlines()
                assert len([line for line in rules if "fwmark 0x539 lookup 133" in line]) == 1
                routes = scratch.ip(option, "route", "show", "table", "133").splitlines()
                assert len(routes) == 1
                assert routes[0].startswith("local default dev lo")
        scratch.apply("cleanup")
        assert scratch.network() == before


@every_backend
def test_tproxy_to_redirect_to_tproxy(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        empty = scratch.network()
        scratch.apply(*options, "-m", "TPROXY")
        tproxy = scratch.state()
        scratch.apply(*options, "--reconcile")
        assert scratch.network() == empty
        assert set(normalise_save(scratch.save(variant, "ipv4"))) == {"nat"}
        scratch.apply(*options, "-m", "TPROXY", "--reconcile")
        assert {**scratch.state(), "nft": ""} == {**tproxy, "nft": ""}
        scratch.apply(*options, "-m", "TPROXY", "-t", "1400", "-r", "140", "--reconcile")
        rules = scratch.ip("rule", "show")
        assert "fwmark 0x578 lookup 140" in rules
        assert "133" not in rules
        assert scratch.ip("route", "show", "table", "133") == ""


def test_ipv6_switched_on_and_off() -> None:
    """A family that is no longer on goes away, its address with it."""
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        scratch.apply()
        only_ipv4 = scratch.save("legacy", "ipv4")
        scratch.apply("--dual-stack", "--reconcile")
        assert normalise_save(scratch.save("legacy", "ipv6")) != {}
        assert scratch.network() != before
        assert scratch.tool().returncode == 3
        scratch.apply("--reconcile")
        assert normalise_save(scratch.save("legacy", "ipv6")) == {}
        assert scratch.save("legacy", "ipv4") == only_ipv4
        assert scratch.network() == before


def test_ipv6_switched_off_in_the_kernel_is_no_error_as_long_as_it_is_off_here() -> None:
    with Scratch() as scratch:
        scratch.check("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
        for arguments in (
            ["-m", "TPROXY"],
            ["--reconcile", "--redirect-dns", "--capture-all-dns"],
            ["cleanup"],
        ):
            scratch.apply(*arguments)


# --- dry run --------------------------------------------------------------------------------


def families_of(script: str) -> dict[Family, str]:
    """Split what a dry run prints into the scripts of the two families."""
    if not script.startswith("# ipv4:"):
        return {"ipv4": script}
    ipv4, ipv6 = script.split("# ipv6:")
    return {"ipv4": ipv4, "ipv6": f"# ipv6:{ipv6}"}


@every_backend
@pytest.mark.parametrize("arguments", [["--dual-stack"], ALL_SORTS, []], ids=["simple", "all sorts", "ipv4"])
def test_dry_run_shows_what_apply_puts_in_place(backend: str, arguments: list[str]) -> None:
    """To the letter: what it prints, given to iptables-restore --noflush and ip, makes the same state."""
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as shown, Scratch(addresses=True) as applied:
        before, generation = shown.state(counters=True), shown.generation()
        script = shown.apply(*options, *arguments, "--dry-run").stdout
        assert shown.state(counters=True) == before
        assert shown.legacy_tables() == set()
        assert shown.generation() == generation
        assert not shown.lock.exists()
        applied.apply(*options, *arguments)
        for family, part in families_of(script).items():
            shown.restore(variant, family, part)
        for command in ip_commands(script):
            shown.ip(*command.split()[1:])
        wanted = applied.state()
        assert {**shown.state(), "nft": ""} == {**wanted, "nft": ""}
        assert "nothing to do" in shown.apply(*options, *arguments).stderr


@pytest.mark.skipif(
    os.geteuid() == 0 and not readable_by_nobody(), reason="nobody may not read this checkout"
)
def test_dry_run_needs_neither_privilege_nor_commands() -> None:
    with Scratch(addresses=True) as scratch:
        as_root = scratch.apply(*ALL_SORTS, "--dry-run").stdout
        as_nobody = scratch.tool(*ALL_SORTS, "--dry-run", env={"PATH": ""}, prefix=NOBODY)
        assert as_nobody.returncode == 0, as_nobody.stderr
        assert as_nobody.stdout == as_root
        elsewhere = scratch.tool("-n", "--network-namespace", "no-such", env={"PATH": ""}, prefix=NOBODY)
        assert elsewhere.returncode == 2


def test_dry_run_writes_the_file_too(tmp_path: Path) -> None:
    with Scratch() as scratch:
        file = scratch.directory / "script"
        shown = scratch.apply("-n", "-b", "80", env={"DRY_RUN_FILE_PATH": str(file)}).stdout
        assert file.read_text() == shown
        assert "--dport 80 -j ISTIO_IN_REDIRECT" in shown
        file.unlink()
        scratch.apply("-b", "80", env={"DRY_RUN_FILE_PATH": str(file)})  # only in dry-run
        assert not file.exists()
        failed = scratch.tool("-n", env={"DRY_RUN_FILE_PATH": "/no/such/directory/file"})
        assert failed.returncode == 1
        assert "DRY_RUN_FILE_PATH: '/no/such/directory/file' cannot be written" in failed.stderr


def test_skip_rule_apply_touches_nothing() -> None:
    """As a CNI plugin's pod runs it: UID 1337, no capability."""
    prefix = [SETPRIV, "--reuid=1337", "--regid=1337", "--clear-groups", "--bounding-set=-all"]
    with Scratch(addresses=True) as scratch:
        before = scratch.state(counters=True)
        scratch.apply("--skip-rule-apply")
        if readable_by_nobody():
            done = scratch.tool("--skip-rule-apply", prefix=prefix)
            assert done.returncode == 0, done.stderr
        assert scratch.state(counters=True) == before
        assert scratch.legacy_tables() == set()


# --- namespaces -----------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("way", ["path", "name", "process"])
def test_network_namespace_is_entered(backend: str, way: str) -> None:
    """All of it happens there (rules, addresses, facts) and nothing in the caller's."""
    options, _ = BACKENDS[backend]
    with Scratch() as caller, Scratch(addresses=True) as target:
        names = {"path": target.path, "name": target.name}
        if way == "process":
            sleeper = target.spawn("sleep", "60")
            own = os.stat(target.path).st_ino
            path = f"/proc/{sleeper.pid}/ns/net"
            wait_until(lambda: os.stat(path).st_ino == own)
            names["process"] = path
        before = caller.state(counters=True)
        caller.apply(*options, "--network-namespace", names[way], "--dual-stack", "-m", "TPROXY")
        assert caller.state(counters=True) == before
        assert caller.legacy_tables() == set()
        want = expected({"istio-inbound-interception-mode": "TPROXY"}, ipv6=True)
        assert rules_of(target) == want  # with IPv6, for which the caller has no address
        assert "::6/128" in target.ip("-6", "address", "show", "dev", "lo")
        assert "lookup 133" in target.ip("rule", "show")
        caller.apply("--network-namespace", names[way], "cleanup")
        assert rules_of(target) == {}
        assert "lookup 133" not in target.ip("rule", "show")


def test_network_namespace_that_is_none() -> None:
    with Scratch() as scratch:
        file = scratch.directory / "file"
        file.write_text("")
        fifo = scratch.directory / "fifo"
        os.mkfifo(fifo)
        cases = {
            str(file): "is not a network namespace",
            str(fifo): "is not a network namespace",
            str(scratch.directory): "is not a network namespace",
            "/dev/null": "is not a network namespace",
            "/proc/self/ns/mnt": "is not a network namespace",
            "/proc/self/ns/user": "is not a network namespace",
            "/no/such/file": "No such file",
            "iie-no-such-name": "No such file",
        }
        for namespace, reason in cases.items():
            refused = scratch.tool("--network-namespace", namespace)
            assert refused.returncode == 2, refused.stderr
            (line,) = refused.stderr.splitlines()
            assert line.startswith("--network-namespace: ")
            assert namespace in line
            assert reason in line
        (line,) = scratch.tool(env={"NETWORK_NAMESPACE": str(file)}).stderr.splitlines()
        assert line.startswith("variable NETWORK_NAMESPACE: ")
        assert scratch.legacy_tables() == set()


def test_cni_mode_does_not_wait_for_the_hosts_lock() -> None:
    with Scratch() as scratch, open(scratch.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options, variant in BACKENDS.values():
            scratch.apply(*options, "--cni-mode")
            assert owned(scratch.save(variant, "ipv4"))
            scratch.apply(*options, "--cni-mode", "cleanup")
        scratch.apply("--cni-mode", env={"XTABLES_LOCKFILE": "/no/such/directory/lock"})


# --- the log --------------------------------------------------------------------------------


def test_log_of_an_apply_says_what_and_why() -> None:
    with Scratch(addresses=True) as scratch:
        done = scratch.apply("-b", "80", "-m", "TPROXY", env={"ENVOY_PORT": "15009"})
        assert done.stdout == ""
        for text in (
            "setting istio-inbound-ports = '80' (--istio-inbound-ports (-b))",
            "setting envoy-port = '15009' (variable ENVOY_PORT)",
            "backend libiptc: ",
            "planned: ip rule add fwmark 1337 lookup 133",
            "planned: ipv4 nat (iptables-legacy): write",
            "--dual-stack captures it",
            "done: ",
        ):
            assert text in done.stderr
        debug = scratch.apply("-b", "81", "--reconcile", "--log_output_level=default:debug").stderr
        assert "before: iptables-legacy ipv4 mangle: -A ISTIO_INBOUND" in debug
        assert "after: iptables-legacy ipv4 nat: -A ISTIO_INBOUND -p tcp -m tcp --dport 81" in debug


def test_at_debug_level_diff_says_what_it_read() -> None:
    with Scratch() as scratch:
        scratch.apply("-b", "80")
        done = scratch.tool("-b", "81", "diff", "--log_output_level=default:debug")
        assert done.returncode == 3
        read = "debug\tin place: iptables-legacy ipv4 nat: -A ISTIO_INBOUND -p tcp -m tcp --dport 80 "
        assert read in done.stderr
        assert "in place" not in scratch.tool("-b", "81", "diff").stderr.replace("has rules", "")


def test_as_json_is_one_object_a_line() -> None:
    with Scratch() as scratch:
        scratch.apply("--log_as_json")
        lines = scratch.tool("-b", "80", "--log_as_json").stderr.splitlines()
        assert {json.loads(line)["level"] for line in lines} >= {"info", "error"}
