"""Applying, step by step, as an operator does it: SPEC section 5, with the tool as a process of its own."""

from __future__ import annotations

import errno
import json
import re

import pytest

from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, rules_of, traffic
from tests.support.foreign import foreign_rules
from tests.support.oracle import expected
from tests.support.saved import normalise_save

from ..support.scratch import (
    CHAINS,
    FAMILIES,
    KERNEL,
    Family,
    Scratch,
    Variant,
    foreign_lines,
    needs_seccomp,
    owned,
    refuse_replacing,
)

pytestmark = KERNEL


def counted(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("[") and not line.startswith("[0:0]")]


def only_writing_fails() -> None:
    refuse_replacing("ipv4", "ipv6", error=errno.EPERM)


# --- nothing to do ----------------------------------------------------------------------------


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


# --- something differs ------------------------------------------------------------------------


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


# --- foreign rules ----------------------------------------------------------------------------


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
