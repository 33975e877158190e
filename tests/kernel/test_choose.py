"""Which backend is chosen, and that finding out writes nothing: SPEC section 5, "backend choice"."""

from __future__ import annotations

import re

import pytest

from tests.support.applying import ALL_SORTS, rules_of

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    VARIANTS,
    Family,
    Result,
    Scratch,
    Variant,
    foreign_lines,
    owned,
)

pytestmark = KERNEL

FOREIGN = "*{table}\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n"
COMMAND = {"legacy": "libiptc", "nft": "iptables-nft-restore"}


def chosen(done: Result) -> tuple[str, str]:
    """Return the backend and the reason, which stand in one line of the log."""
    assert done.returncode in (0, 3), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "\tbackend " in line]
    backend, why = line.split("\tbackend ")[1].split(": ", 1)
    return backend, why


def test_fresh_namespace_libiptc() -> None:
    with Scratch() as scratch:
        assert chosen(scratch.apply()) == (
            "libiptc",
            "the kernel has the legacy tables, and no rules are in place",
        )
        assert scratch.legacy_tables() == {"ipv4/nat"}
        assert scratch.nft("list", "ruleset") == ""
        assert scratch.generation() == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_forced(variant: Variant) -> None:
    other: Variant = "nft" if variant == "legacy" else "legacy"
    with Scratch() as scratch:
        scratch.restore(other, "ipv4", FOREIGN.format(table="nat"))
        backend, why = chosen(scratch.apply("--force-iptables-binary", variant))
        assert (backend, why) == (f"iptables-{variant}-restore", "it was requested")
        assert owned(scratch.save(variant, "ipv4"))
        assert not owned(scratch.save(other, "ipv4"))
    with Scratch() as scratch:
        assert (
            chosen(scratch.apply(env={"FORCE_IPTABLES_BINARY": variant}))[0] == f"iptables-{variant}-restore"
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_where_the_owned_chains_are(variant: Variant) -> None:
    """Even if other rules are elsewhere. After a cleanup those decide."""
    other: Variant = "nft" if variant == "legacy" else "legacy"
    with Scratch() as scratch:
        scratch.apply("--force-iptables-binary", variant)
        scratch.restore(other, "ipv4", FOREIGN.format(table="nat"))
        for arguments in ([], ["-b", "80", "--reconcile"], ["diff"]):
            assert chosen(scratch.tool(*arguments)) == (
                COMMAND[variant],
                "it has rules of istio-iptables already",
            )
        assert not owned(scratch.save(other, "ipv4"))
        scratch.apply("cleanup")
        assert chosen(scratch.apply())[0] == COMMAND[other]


def test_where_the_owned_chains_are_in_one_family_only() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.restore("nft", "ipv6", "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n")
        scratch.restore("legacy", "ipv4", FOREIGN.format(table="nat"))
        assert chosen(scratch.tool()) == ("iptables-nft-restore", "it has rules of istio-iptables already")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("table", ["nat", "mangle", "raw", "filter", "security"])
def test_where_other_rules_are(variant: Variant, family: Family, table: str) -> None:
    """In any table; those of this tool are not the only ones."""
    with Scratch() as scratch:
        scratch.restore(variant, family, FOREIGN.format(table=table))
        assert chosen(scratch.apply()) == (
            COMMAND[variant],
            "it has other rules of this network namespace",
        )
        assert owned(scratch.save(variant, "ipv4"))
        others = foreign_lines(scratch.save(variant, family))
        (rule,) = [line for line in others if line.startswith("-A")]
        assert rule == "-A OUTPUT -p udp -j ACCEPT"


def test_tables_without_rules_decide_nothing() -> None:
    """Listing the nft tables makes them: that is no reason to choose them."""
    with Scratch() as scratch:
        scratch.check("iptables-nft", "-t", "nat", "-S")
        scratch.check("iptables-nft", "-t", "nat", "-N", "MINE")
        scratch.check("iptables-legacy", "-t", "filter", "-S")
        assert chosen(scratch.apply())[0] == "libiptc"


def test_the_same_choice_after_an_empty_table_is_left_behind() -> None:
    """Cleanup leaves an empty legacy table, which cannot be taken away: the next start is as the first."""
    with Scratch() as scratch:
        scratch.apply("--force-iptables-binary", "legacy")
        scratch.apply("cleanup")
        assert "ipv4/nat" in scratch.legacy_tables()
        scratch.restore("nft", "ipv4", FOREIGN.format(table="filter"))
        assert chosen(scratch.apply())[0] == "iptables-nft-restore"


def test_chains_of_the_same_name_in_another_table_are_foreign() -> None:
    """A chain ISTIO_OUTPUT in `filter` is foreign, and so a rule like any other."""
    script = "*filter\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n"
    with Scratch() as scratch:
        scratch.restore("nft", "ipv4", script)
        assert chosen(scratch.apply()) == (
            "iptables-nft-restore",
            "it has other rules of this network namespace",
        )
        scratch.apply("cleanup")
        assert "-A OUTPUT -j ISTIO_OUTPUT" in scratch.save("nft", "ipv4")


READING = {
    "diff": ["diff"],
    "diff, all sorts": ["diff", *ALL_SORTS],
    "diff, JSON": ["diff", "--json"],
    "diff, nft": ["diff", "--force-iptables-binary", "nft"],
    "diff, legacy": ["diff", "--force-iptables-binary", "legacy"],
    "dry run": ["--dry-run", *ALL_SORTS],
    "dry run, nft": ["--dry-run", "--force-iptables-binary", "nft"],
    "dry run, reconcile": ["--dry-run", "--reconcile", "--force-apply"],
    "render": ["render"],
    "cleanup": ["cleanup"],
    "cleanup, dry run": ["cleanup", "--dry-run"],
    "skip": ["--skip-rule-apply"],
    "usage": ["--no-such-flag"],
    "bad value": ["-p", "no-port"],
    "help": ["--help"],
}


@pytest.mark.parametrize("name", READING)
def test_who_only_reads_makes_no_table(name: str) -> None:
    """Neither a legacy table, by looking whether it is there, nor one of nft; no rule, route or address."""
    with Scratch(addresses=True) as scratch:
        before, generation = scratch.state(counters=True), scratch.generation()
        status = scratch.tool(*READING[name]).returncode
        assert status == {"diff": 3, "usage": 2, "bad value": 2}.get(re.split(",", name)[0], 0)
        assert scratch.legacy_tables() == set()
        assert scratch.nft("list", "tables") == ""
        assert scratch.generation() == generation
        assert scratch.state(counters=True) == before
        assert name.startswith("cleanup") or not scratch.lock.exists()


def test_reading_where_there_are_rules_makes_no_further_table() -> None:
    with Scratch(addresses=True) as scratch:
        for variant in VARIANTS:
            scratch.restore(variant, "ipv4", FOREIGN.format(table="filter"))
        tables, listed = scratch.legacy_tables(), scratch.nft("list", "ruleset")
        generation = scratch.generation()
        for arguments in READING.values():
            scratch.tool(*arguments)
        assert scratch.legacy_tables() == tables == {"ipv4/filter"}
        assert scratch.nft("list", "ruleset") == listed
        assert scratch.generation() == generation


def test_only_the_tables_that_are_used_come_into_being() -> None:
    """The kernel makes all tables when one of its custom-chain targets is made through libxtables."""
    with Scratch(addresses=True) as scratch:
        scratch.apply()
        assert scratch.legacy_tables() == {"ipv4/nat"}
        scratch.apply("--reconcile", "-m", "TPROXY", "--dual-stack")
        assert scratch.legacy_tables() == {f"{family}/{t}" for family in FAMILIES for t in ("nat", "mangle")}


@pytest.mark.parametrize("start", VARIANTS)
@pytest.mark.parametrize("sort", [["--dual-stack"], ALL_SORTS], ids=["simple", "all sorts"])
def test_changing_the_variant(start: Variant, sort: list[str]) -> None:
    """Exit 3; with --reconcile one clean move, and no owned rule in the old location."""
    end: Variant = "nft" if start == "legacy" else "legacy"
    with Scratch(addresses=True) as scratch:
        for variant in VARIANTS:
            for family in FAMILIES:
                scratch.restore(variant, family, FOREIGN.format(table="nat"))
        untouched = scratch.state(counters=True)
        scratch.apply("--force-iptables-binary", start, *sort)
        rules, network = owned_rules(scratch, start), scratch.network()
        before = scratch.state(counters=True)
        shown = scratch.tool("--force-iptables-binary", end, *sort)
        assert shown.returncode == 3
        for family in FAMILIES:
            assert f"@ {family} nat (iptables-{start})" in shown.stdout
            assert f"@ {family} nat (iptables-{end})" in shown.stdout
        assert scratch.state(counters=True) == before
        scratch.apply("--force-iptables-binary", end, *sort, "--reconcile")
        assert owned_rules(scratch, end) == rules
        assert owned_rules(scratch, start) == {family: [] for family in FAMILIES}
        assert scratch.network() == network
        assert "nothing to do" in scratch.apply("--force-iptables-binary", end, *sort).stderr
        assert "nothing to do" in scratch.apply(*sort).stderr
        scratch.apply("cleanup")
        left = scratch.state(counters=True)
        assert {key: _without_empty(text) for key, text in left.items()} == {
            key: _without_empty(text) for key, text in untouched.items()
        }


def owned_rules(scratch: Scratch, variant: Variant) -> dict[str, list[str]]:
    """Return the owned rules, by chains (which are printed in different orders)."""
    found: dict[str, list[str]] = {}
    for family in FAMILIES:
        tables = re.split(r"^(?=\*)", scratch.save(variant, family), flags=re.MULTILINE)
        found[family] = [
            f"{table.split()[0]} {line}"
            for table in tables
            if table
            for line in sorted(owned(table), key=lambda line: line.split()[1])
            if line.startswith("-A")
        ]
    return found


def _without_empty(text: str) -> list[str]:
    tables = re.split(r"^(?=\*)", text, flags=re.MULTILINE)
    return [table for table in tables if not table.startswith("*") or "-A " in table]


def test_rules_in_both_places_become_rules_in_one() -> None:
    """What a flip of the original left behind: --reconcile leaves one set, in the chosen location."""
    with Scratch(addresses=True) as scratch:
        script = scratch.apply("--dry-run").stdout
        for variant in VARIANTS:
            scratch.restore(variant, "ipv4", script)
        assert scratch.tool().returncode == 3
        backend, _ = chosen(scratch.apply("--reconcile"))
        assert backend == "libiptc"
        assert set(rules_of(scratch)) == {("ipv4", "nat")}  # fails if a table is in both places
        assert not owned(scratch.save("nft", "ipv4"))
        assert scratch.nft("list", "tables") == ""
