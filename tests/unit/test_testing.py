"""The fake kernel: what it refuses, how it fails on demand, what it holds. Whether the real kernel does the
same shows tests/kernel/test_fake_kernel.py."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from istio_iptables import (
    Chain,
    Counters,
    Facts,
    KernelError,
    LocalDefaultRoute,
    Machine,
    NativeChain,
    NativeTable,
    Rule,
    Ruleset,
    Table,
    build,
    configure,
)
from istio_iptables.change.actions import AddObject, EditNative, EditTable
from istio_iptables.rules.edit import CreateChain, ReplaceRules, TableEdit
from istio_iptables.rules.model import ACCEPT, RETURN, Comment, Jump
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases
from tests.support.refusals import CASES

if TYPE_CHECKING:
    from istio_iptables.change.actions import Location
    from istio_iptables.rules.edit import Step
    from istio_iptables.rules.model import TableName

BOTH: tuple[Location, ...] = ("iptables-legacy", "iptables-nft")
WANTED = build(configure(interception_mode="TPROXY", dual_stack=True, environment=Facts(True, True)))


def action(kernel: FakeKernel, location: Location, table: TableName, *steps: Step) -> EditTable:
    before = kernel._table(location, "ipv4", table)
    return EditTable(location, TableEdit("ipv4", table, steps), before, before)


@all_cases("location", BOTH)
@all_cases("case", CASES, ids=[str(number) for number in range(len(CASES))])
def test_it_refuses_what_iptables_and_the_kernel_refuse(
    location: Location, case: tuple[TableName, list[Step], tuple[str, ...]]
):
    table, steps, accepted = case
    # Ports with a protocol that is negated mean nothing, and only iptables-nft 1.8.9 takes them.
    accepted = accepted if len(accepted) != 1 or accepted == BOTH[:1] else ()
    with FakeKernel() as kernel:
        edit = action(kernel, location, table, *steps)
        if location in accepted:
            kernel.do(edit)
        else:
            with pytest.raises(KernelError, match=rf"^ipv4 {table} \({location}\): "):
                kernel.do(edit)
            assert kernel.tables == {}


def test_it_is_a_machine_that_is_entered_first():
    kernel = FakeKernel()
    assert isinstance(kernel, Machine)
    with pytest.raises(RuntimeError, match="use `with FakeKernel"):
        kernel.plan(WANTED)
    with pytest.raises(ValueError, match="forced_variant is 'x': it has to be one of legacy, nft, or empty"):
        FakeKernel(forced_variant="x")


@pytest.mark.parametrize(
    ("kernel", "location", "why"),
    [
        (FakeKernel(), "iptables-legacy", "the kernel has the legacy tables, and no rules are in place"),
        (FakeKernel(legacy=False), "iptables-nft", "the kernel has no legacy tables"),
        (FakeKernel(forced_variant="nft"), "iptables-nft", "it was requested"),
        (FakeKernel(native_nftables=True), "nftables", "native nftables rules were requested"),
    ],
    ids=["legacy", "no legacy", "nft", "native"],
)
def test_it_chooses_a_backend_as_the_real_one_does(kernel: FakeKernel, location: str, why: str):
    with kernel:
        prepared = kernel.plan(WANTED)
        assert prepared.choice.location == location
        assert prepared.choice.why.startswith(why)
        prepared.apply()
        assert kernel.live().locations == (location,)
        assert kernel.plan(WANTED).plan.actions == ()
        kernel.plan(Ruleset()).apply()
        assert kernel.live().locations == ()
        assert kernel.lines() == []


def test_rules_that_are_there_decide_the_backend():
    with FakeKernel() as kernel:
        kernel.add_rules("iptables-nft", "ipv4", "mangle", "OUTPUT", Rule((), RETURN))
        assert kernel.plan(WANTED).choice.why == "it has other rules of this network namespace"
        kernel.put(WANTED, "iptables-legacy")
        assert kernel.plan(WANTED).choice.location == "iptables-legacy"


def test_any_action_can_be_made_to_fail_and_is_rolled_back():
    with FakeKernel() as kernel:
        kernel.put(build(configure(environment=Facts())))
        before, steps = sorted(kernel.lines()), len(kernel.plan(WANTED).plan.actions)
        assert kernel.attempted == []
        for number in range(1, steps + 1):
            kernel.attempted.clear()
            kernel.fails_at = frozenset({number})
            with pytest.raises(KernelError, match="this action was made to fail"):
                kernel.plan(WANTED).apply()
            assert sorted(kernel.lines()) == before
            assert len(kernel.attempted) == 2 * number - 1
        for error, raised in (
            (RuntimeError("anything"), RuntimeError),
            (OSError(errno.EMFILE, "anything"), KernelError),
        ):
            kernel.error = error
            kernel.attempted.clear()
            with pytest.raises(raised):
                kernel.plan(WANTED).apply()
            assert sorted(kernel.lines()) == before


def test_foreign_rules_stay_with_their_counters():
    mine = Rule((Comment("mine"),), ACCEPT, counters=Counters(7, 420))
    with FakeKernel() as kernel:
        kernel.add_rules("iptables-legacy", "ipv4", "nat", "OUTPUT", mine)
        kernel.add_rules("iptables-legacy", "ipv4", "nat", "MINE", mine, mine)
        kernel.plan(WANTED).apply()
        kernel.plan(Ruleset()).apply()
        table = kernel.tables["iptables-legacy", "ipv4", "nat"]
        assert table.chain("OUTPUT").rules == (mine,)
        assert table.chain("OUTPUT").rules[0].counters == Counters(7, 420)
        assert table.chain("MINE").rules == (mine, mine)
    with pytest.raises(KernelError, match="No chain/target/match by that name"):
        kernel.add_rules("iptables-legacy", "ipv4", "nat", "MINE", Rule((), Jump("NONE")))


def test_the_kernel_has_no_reasons():
    with FakeKernel() as kernel:
        kernel.plan(WANTED).apply()
        assert {rule.reason for t in kernel.tables.values() for c in t.chains for rule in c.rules} == {""}


def test_a_legacy_table_has_its_built_in_chains_and_one_of_nft_those_with_rules():
    for location, chains in (("iptables-legacy", 4), ("iptables-nft", 2)):
        with FakeKernel(forced_variant=location.removeprefix("iptables-")) as kernel:
            kernel.plan(build(configure(environment=Facts()))).apply()
            (table,) = kernel.tables.values()
            assert len([chain for chain in table.chains if not chain.name.startswith("ISTIO")]) == chains
            kernel.plan(Ruleset()).apply()
            assert len(kernel.tables) == (location == "iptables-legacy")


def test_an_edit_that_was_planned_against_other_rules_is_refused():
    with FakeKernel() as kernel:
        first = kernel.plan(WANTED)
        kernel.add_rules("iptables-legacy", "ipv4", "nat", "OUTPUT", Rule((), ACCEPT))
        before = kernel.lines()
        with pytest.raises(KernelError, match="not as it was when the edit was planned"):
            first.apply()
        assert kernel.lines() == before


def test_an_edit_is_done_completely_or_not_at_all():
    with FakeKernel() as kernel:
        kernel.tables["iptables-nft", "ipv4", "nat"] = Table(
            "ipv4", "nat", (Chain("A", (Rule((), RETURN),)),)
        )
        before = dict(kernel.tables)
        steps = CreateChain("B"), ReplaceRules("B", (), (Rule((), Jump("NONE")),))
        with pytest.raises(KernelError):
            kernel.do(action(kernel, "iptables-nft", "nat", *steps))
        assert kernel.tables == before


def test_a_default_route_of_another_program_is_in_the_way():
    with FakeKernel() as kernel:
        kernel.foreign_routes.add(("ipv4", 133))
        with pytest.raises(KernelError, match="File exists"):
            kernel.plan(WANTED).apply()
        assert kernel.routing == []
        kernel.do(AddObject(LocalDefaultRoute("ipv4", 134)))


def test_native_tables_are_checked_as_the_kernel_does():
    bad = NativeTable("istio-proxy-nat", (NativeChain("output", None, (Rule((), Jump("none")),)),))
    good = bad.replace(chains=(NativeChain("output", None, (Rule((), ACCEPT, reason="why"),)),))
    with FakeKernel() as kernel:
        with pytest.raises(KernelError, match="chain none: No such file or directory"):
            kernel.do(EditNative((), (bad,)))
        with pytest.raises(KernelError, match="not as they were"):
            kernel.do(EditNative((good,), ()))
        kernel.do(EditNative((), (good,)))
        with pytest.raises(KernelError, match="File exists"):
            kernel.do(EditNative((), (good,)))
        assert kernel.native == (good,)
        assert kernel.native[0].chains[0].rules[0].reason == ""
