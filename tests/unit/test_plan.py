"""Plans: which actions, what they change, and that a failure leaves everything as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.change.actions import (
    AddObject,
    EditNative,
    EditTable,
    RemoveByHandle,
    RemoveObject,
    UnreadableTable,
)
from istio_iptables.change.execute import execute
from istio_iptables.change.plan import make_plan
from istio_iptables.errors import KernelError
from istio_iptables.formats.difference import differences
from istio_iptables.rules.edit import RemoveChain
from istio_iptables.rules.model import (
    Chain,
    Cidr,
    LocalAddress,
    LocalDefaultRoute,
    MarkLookup,
    Ruleset,
    Table,
)
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.rules.ownership import is_owned, owned
from tests.support.cases import all_cases
from tests.support.planning import (
    EVERYTHING,
    FOREIGN,
    LOCATIONS,
    NATIVE,
    NOTHING,
    TPROXY,
    Kernel,
    kernels,
    locations,
    wanted_for,
    wanted_rulesets,
)

# --- what is done -----------------------------------------------------------------------------


if TYPE_CHECKING:
    from istio_iptables.change.actions import Action, Live, Location


@given(kernels(), wanted_rulesets(), locations(), st.booleans())
def test_afterwards_everything_is_as_wanted(
    kernel: Kernel, wanted: Ruleset, location: Location, rewrite: bool
):
    execute(make_plan(kernel.live(), wanted, location, rewrite=rewrite), kernel)
    live = kernel.live()
    for (where, family, name), table in kernel.tables.items():
        goal = [t for t in wanted.tables if (location, t.family, t.name) == (where, family, name)]
        expected = {chain.name: chain.in_order for t in goal for chain in t.chains}
        assert {chain.name: chain.rules for chain in owned(table).chains} == expected
    if location != "nftables":
        assert {(location, table.family, table.name) for table in wanted.tables} <= set(kernel.tables)
    assert set(live.routing) == set(wanted.routing)
    assert set(live.native) == set(translate(wanted) if location == "nftables" else ())
    again = make_plan(live, wanted, location)
    assert again.actions == ()
    assert differences(again) == ()
    assert again.replaces == bool(wanted.tables)


@settings(max_examples=settings().max_examples // 2)
@given(kernels(), wanted_rulesets(), locations(), st.booleans())
def test_a_failure_at_any_action_leaves_everything_as_before(
    kernel: Kernel, wanted: Ruleset, location: Location, rewrite: bool
):
    before = kernel.state()
    plan = make_plan(kernel.live(), wanted, location, rewrite=rewrite)
    for number in range(1, len(plan.actions) + 1):
        kernel.attempted.clear()
        kernel.fails_at = frozenset({number})
        with pytest.raises(KernelError) as caught:
            execute(plan, kernel)
        assert caught.value is kernel.error
        assert kernel.state() == before
        assert len(kernel.attempted) == 2 * number - 1
    kernel.attempted.clear()
    kernel.fails_at = frozenset()
    execute(plan, kernel)
    assert kernel.attempted == list(plan.actions)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug")], ids=repr)
def test_any_other_exception_rolls_back_too(error: BaseException):
    kernel = Kernel()
    kernel.put(wanted_for(), "iptables-legacy")
    before = kernel.state()
    kernel.fails_at, kernel.error = frozenset({3}), error
    with pytest.raises(type(error)) as caught:
        execute(make_plan(kernel.live(), wanted_for(EVERYTHING), "iptables-nft"), kernel)
    assert caught.value is error
    assert kernel.state() == before


def test_a_signal_between_two_actions_rolls_back():
    kernel = Kernel()
    plan = make_plan(kernel.live(), wanted_for(EVERYTHING), "iptables-legacy")
    for number in range(len(plan.actions)):
        kernel.attempted.clear()
        before = kernel.state()
        with pytest.raises(KernelError, match="interrupted"):
            execute(plan, kernel, interrupted=lambda number=number: len(kernel.attempted) == number)  # type: ignore[misc]
        assert len(kernel.attempted) == 2 * number
        assert kernel.state() == before
    execute(plan, kernel, interrupted=lambda: False)
    assert kernel.state() != before


def test_a_rollback_that_fails_is_reported_and_goes_on():
    kernel = Kernel()
    plan = make_plan(kernel.live(), wanted_for(EVERYTHING), "iptables-legacy")
    kernel.fails_at = frozenset({4, 6})  # the fourth action; and undoing the second
    with pytest.raises(KernelError) as caught:
        execute(plan, kernel)
    assert caught.value.cause == (
        f"the kernel said no; and this could not be undone: {plan.actions[1]}: the kernel said no"
    )
    assert caught.value.remedy == "ask it again"
    assert isinstance(caught.value.__cause__, KernelError)
    assert kernel.attempted[4:] == [action.inverse() for action in reversed(plan.undoable[:3])]
    assert [AddObject(item) for item in kernel.routing] == [plan.actions[1]]


@given(kernels(), wanted_rulesets(), locations())
def test_inverses(kernel: Kernel, wanted: Ruleset, location: Location):
    for action in make_plan(kernel.live(), wanted, location).undoable:
        assert action.inverse().inverse() == action
        assert action.inverse() != action
        assert str(action).isprintable()


def unreadable(kernel: Kernel) -> Live:
    """What is live, with an owned rule in a table that iptables cannot read."""
    table = UnreadableTable("ipv6", "nat", "delete rule ip6 nat OUTPUT handle 5\n")
    return kernel.live().replace(unreadable=(table,))


class Handles(Kernel):
    """The same; the removal by handle, which the fake has no tables for, does nothing or fails."""

    fails = False

    def do(self, action: Action) -> None:
        if not isinstance(action, RemoveByHandle):
            return super().do(action)
        self.attempted.append(action)
        if self.fails:
            raise self.error

    def was_done(self, action: Action) -> bool:
        return not isinstance(action, RemoveByHandle) and super().was_done(action)


def test_what_cannot_be_undone_is_done_last():
    kernel = Handles()
    kernel.put(wanted_for(TPROXY), "iptables-legacy")
    plan = make_plan(unreadable(kernel), NOTHING, "iptables-legacy")
    assert [isinstance(action, RemoveByHandle) for action in plan.actions] == [
        *(False for _ in plan.undoable),
        True,
    ]
    assert len(plan.undoable) > 1
    execute(plan, kernel)
    assert kernel.attempted == list(plan.actions)
    assert not hasattr(plan.final, "inverse")


@pytest.mark.parametrize("interrupted", [True, False])
def test_if_what_cannot_be_undone_fails_all_else_is_undone(interrupted: bool):
    kernel = Handles()
    kernel.put(wanted_for(TPROXY), "iptables-legacy")
    before = kernel.state()
    plan = make_plan(unreadable(kernel), NOTHING, "iptables-legacy")
    kernel.fails, steps = not interrupted, len(plan.undoable)
    with pytest.raises(KernelError, match="interrupted" if interrupted else "the kernel said no"):
        execute(plan, kernel, interrupted=lambda: interrupted and len(kernel.attempted) == steps)
    assert kernel.state() == before
    assert len(kernel.attempted) == 2 * steps + (not interrupted)


def test_what_cannot_be_undone_is_no_part_of_a_plan_that_makes_rules():
    assert make_plan(unreadable(Kernel()), wanted_for(), "iptables-legacy").final is None


# --- what it says -----------------------------------------------------------------------------


def test_replaces():
    kernel = Kernel()

    def replaces(chosen: Mapping[str, str] | None = None, location: Location = "iptables-nft") -> bool:
        return make_plan(kernel.live(), wanted_for(chosen), location).replaces

    assert not replaces()
    kernel.tables["iptables-nft", "ipv4", "nat"] = Table("ipv4", "nat", (Chain("OUTPUT", FOREIGN),))
    assert not replaces()
    kernel.native = NATIVE[:1]
    assert replaces()
    kernel.native = ()
    kernel.routing = [LocalDefaultRoute("ipv4", 133)]
    assert replaces()
    assert not replaces(TPROXY)
    kernel.routing = []
    kernel.put(wanted_for(), "iptables-nft")
    assert replaces()
    assert replaces(location="iptables-legacy")


def test_differences():
    kernel = Kernel()
    kernel.put(wanted_for({"envoy-port": "1"}), "iptables-legacy")
    kernel.native = NATIVE
    plan = make_plan(kernel.live(), wanted_for({"dual-stack": "true"}), "iptables-legacy")
    parts = {difference.title: difference for difference in differences(plan)}
    assert list(parts) == [
        "ipv4 nat (iptables-legacy)",
        "ipv6 nat (iptables-legacy)",
        "inet istio-proxy-raw (nftables)",
        "inet istio-proxy-nat (nftables)",
        "addresses and routes",
    ]
    nat = parts["ipv4 nat (iptables-legacy)"]
    removed = [line for line in nat.before if line not in nat.after]
    assert removed == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 1"]
    added = [line for line in nat.after if line not in nat.before]
    assert added == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"]
    assert parts["ipv6 nat (iptables-legacy)"].before == ()
    native = parts["inet istio-proxy-nat (nftables)"]
    assert native.before == ("table inet istio-proxy-nat", "istio-output: counter accept")
    assert native.after == ()
    assert parts["addresses and routes"].before == ()
    assert parts["addresses and routes"].after == ("ip -6 addr add ::6/128 dev lo nodad",)


@given(kernels(), wanted_rulesets(), locations())
def test_there_is_a_difference_where_something_of_ours_changes(
    kernel: Kernel, wanted: Ruleset, location: Location
):
    plan = make_plan(kernel.live(), wanted, location)
    if differences(plan):
        assert plan.actions
    for action in () if differences(plan) else plan.actions:
        # all that is left to do is removing owned chains without rules
        assert isinstance(action, EditTable)
        assert all(isinstance(step, RemoveChain) for step in action.edit.steps)


def test_which_match_stands_there_twice_is_a_difference():
    kernel = Kernel()
    kernel.put(wanted_for({"ISTIO_OUTBOUND_OWNER_GROUPS": "1,1,2"}), "iptables-nft")
    plan = make_plan(kernel.live(), wanted_for({"ISTIO_OUTBOUND_OWNER_GROUPS": "1,2,2"}), "iptables-nft")
    assert bool(plan.actions) == bool(differences(plan))


def test_foreign_rules_are_no_difference():
    kernel = Kernel()
    kernel.put(wanted_for(), "iptables-legacy")
    for key, table in kernel.tables.items():
        chains = [
            chain if is_owned(chain) else Chain(chain.name, (*FOREIGN, *chain.rules))
            for chain in table.chains
        ]
        kernel.tables[key] = table.replace(chains=tuple(chains))
    plan = make_plan(kernel.live(), wanted_for(), "iptables-legacy")
    assert differences(plan) == ()
    assert plan.actions == ()


@pytest.mark.parametrize("chosen", [{}, TPROXY], ids=["REDIRECT", "TPROXY"])
def test_the_order_of_matches_is_no_difference(chosen: dict[str, str]):
    kernel = Kernel()
    kernel.put(wanted_for(chosen), "iptables-legacy")
    for key, table in kernel.tables.items():
        chains = [
            chain.replace(rules=tuple(rule.replace(matches=rule.matches[::-1]) for rule in chain.rules))
            for chain in table.chains
        ]
        kernel.tables[key] = table.replace(chains=tuple(chains))
    plan = make_plan(kernel.live(), wanted_for(chosen), "iptables-legacy")
    assert [action for action in plan.actions if isinstance(action, EditTable)] == []
    assert [part for part in differences(plan) if part.title != "addresses and routes"] == []


@all_cases(
    ("action", "text"),
    [
        (AddObject(LocalAddress(Cidr(6, 6, 128))), "ip -6 addr add ::6/128 dev lo nodad"),
        (RemoveObject(LocalAddress(Cidr(6, 6, 128))), "ip -6 addr del ::6/128 dev lo"),
        (AddObject(MarkLookup("ipv4", 1337, 133)), "ip rule add fwmark 1337 lookup 133"),
        (RemoveObject(MarkLookup("ipv6", 1337, 133)), "ip -6 rule del fwmark 1337 lookup 133"),
        (AddObject(LocalDefaultRoute("ipv6", 5)), "ip -6 route add local default dev lo table 5"),
        (RemoveObject(LocalDefaultRoute("ipv4", 5)), "ip route del local default dev lo table 5"),
        (EditNative(NATIVE, ()), "nftables istio-proxy-nat, istio-proxy-raw: remove"),
        (EditNative(NATIVE[:1], NATIVE[:1]), "nftables istio-proxy-nat: write 1 rules"),
    ],
    ids=str,
)
def test_actions_as_text(action: Action, text: str):
    assert str(action) == text


def test_edits_as_text():
    wanted = wanted_for()
    (action,) = make_plan(Kernel().live(), wanted, "iptables-nft").undoable
    assert str(action) == f"ipv4 nat (iptables-nft): write {sum(1 for _ in wanted.rules())} rules"
    assert str(action.inverse()) == "ipv4 nat (iptables-nft): remove rules"


# --- what is live -----------------------------------------------------------------------------


@given(kernels())
@example(Kernel())
def test_live(kernel: Kernel):
    live = kernel.live()
    for location in LOCATIONS:
        held = [table for table in live.tables[location] if not owned(table).is_empty]
        assert live.holds_owned(location) == bool(held)
        for table in live.tables[location]:
            assert live.table(location, table.family, table.name) is table
    assert live.table("iptables-nft", "ipv6", "filter") is None


def test_marks_of_live_rules_tell_which_routes_are_owned():
    kernel = Kernel()
    assert kernel.live().marks() == frozenset()
    kernel.put(wanted_for({**TPROXY, "istio-inbound-tproxy-mark": "7"}), "iptables-nft")
    assert kernel.live().marks() == {7}
