"""Plans: in which order, so that no packet is redirected to what is not there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from istio_iptables.change.actions import AddObject, EditNative, EditTable, RemoveObject
from istio_iptables.change.execute import execute
from istio_iptables.change.plan import Plan, make_plan
from istio_iptables.rules.istio import NATIVE_TABLES
from istio_iptables.rules.model import TABLES, Jump, Redirect, Ruleset
from istio_iptables.rules.nftables.model import FamilyTProxy, NativeTable
from istio_iptables.rules.ownership import is_owned_rule
from istio_iptables.testing import FakeKernel
from tests.support.planning import (
    EVERYTHING,
    LOCATIONS,
    NATIVE,
    NOTHING,
    TPROXY,
    Kernel,
    kernels,
    locations,
    reached,
    wanted_for,
    wanted_rulesets,
)

# --- in which order ---------------------------------------------------------------------------


if TYPE_CHECKING:
    from istio_iptables.change.actions import Location


def summary(plan: Plan) -> list[str]:
    """Every action in a word or three: `+` adds, `-` takes away."""
    lines = []
    for action in plan.actions:
        if isinstance(action, EditTable):
            sign = "-" if action.edit.detaches else "+"
            lines.append(f"{sign}{action.location} {action.edit.family} {action.edit.table}")
        elif isinstance(action, (AddObject, RemoveObject)):
            sign = "+" if isinstance(action, AddObject) else "-"
            lines.append(f"{sign}{action.item.family} {type(action.item).__name__}")
        else:
            lines.append(type(action).__name__)
    return lines


def test_the_order_of_the_first_time():
    assert summary(make_plan(Kernel().live(), wanted_for(EVERYTHING), "iptables-legacy")) == [
        "+ipv6 LocalAddress",
        "+ipv4 LocalDefaultRoute",
        "+ipv6 LocalDefaultRoute",
        "+ipv4 MarkLookup",  # after the route that it leads to
        "+ipv6 MarkLookup",
        "+iptables-legacy ipv4 raw",
        "+iptables-legacy ipv4 mangle",
        "+iptables-legacy ipv4 nat",
        "+iptables-legacy ipv6 raw",
        "+iptables-legacy ipv6 mangle",
        "+iptables-legacy ipv6 nat",
    ]


def test_the_order_of_cleaning_up():
    kernel = Kernel()
    kernel.put(wanted_for(EVERYTHING), "iptables-nft")
    kernel.native = NATIVE[:1]
    lines = summary(make_plan(kernel.live(), NOTHING, "iptables-legacy"))
    assert lines[:5] == [
        "-ipv6 MarkLookup",
        "-ipv4 MarkLookup",
        "-ipv6 LocalDefaultRoute",
        "-ipv4 LocalDefaultRoute",
        "-ipv6 LocalAddress",
    ]
    for family in ("ipv4", "ipv6"):
        tables = [line.rpartition(" ")[2] for line in lines if line.startswith(f"-iptables-nft {family} ")]
        assert tables == ["nat", "mangle", "raw"]
    assert len(lines) == 12
    assert lines[-1] == "EditNative"


def test_adding_comes_before_detaching():
    kernel = Kernel()
    kernel.put(wanted_for(EVERYTHING), "iptables-legacy")
    kernel.native = NATIVE[:1]
    wanted = wanted_for({"dual-stack": "true", "redirect-dns": "true"})
    lines = summary(make_plan(kernel.live(), wanted, "iptables-nft"))
    assert lines[:4] == [
        "+iptables-nft ipv4 raw",
        "+iptables-nft ipv4 nat",
        "+iptables-nft ipv6 raw",
        "+iptables-nft ipv6 nat",
    ]
    for family in ("ipv4", "ipv6"):
        tables = [
            line.rpartition(" ")[2] for line in lines[4:10] if line.startswith(f"-iptables-legacy {family} ")
        ]
        assert tables == ["nat", "mangle", "raw"]
    assert lines[10:] == [
        "EditNative",
        "-ipv6 MarkLookup",
        "-ipv4 MarkLookup",
        "-ipv6 LocalDefaultRoute",
        "-ipv4 LocalDefaultRoute",
    ]


@given(kernels(), wanted_rulesets(), locations())
def test_order(kernel: Kernel, wanted: Ruleset, location: Location):
    live = kernel.live()
    actions = make_plan(live, wanted, location).actions
    added = [number for number, action in enumerate(actions) if isinstance(action, AddObject)]
    removed = [number for number, action in enumerate(actions) if isinstance(action, RemoveObject)]
    assert added == list(range(len(added))), "what rules rely on comes first"
    first_removed = len(actions) - len(removed) if wanted.tables else 0
    assert removed == list(range(first_removed, first_removed + len(removed)))
    obsolete = {action.item for action in actions if isinstance(action, RemoveObject)}
    assert obsolete == {item for item in live.routing if item not in wanted.routing}

    edits = [action for action in actions if isinstance(action, EditTable)]
    assert len({(a.location, a.edit.family, a.edit.table) for a in edits}) == len(edits), "one edit a table"
    removals = [action.is_removal for action in edits]
    assert removals == sorted(removals), "adding comes before taking away"
    assert all(action.edit.detaches for action in edits if action.is_removal)
    for family in ("ipv4", "ipv6"):
        for where in LOCATIONS:
            mine = [action for action in edits if (action.location, action.edit.family) == (where, family)]
            added_to = [TABLES.index(action.edit.table) for action in mine if not action.is_removal]
            assert added_to == sorted(added_to), "raw before nat"
            taken_from = [action.edit.table for action in mine if action.is_removal]
            assert "raw" not in taken_from[:-1], "raw after nat"


DROP_INVALID = {"drop-invalid": "true"}
MOVES_OF_INBOUND_TRAFFIC = pytest.mark.parametrize(
    "direction",
    [
        (TPROXY, {}),
        ({}, TPROXY),
        ({**TPROXY, **DROP_INVALID}, {}),
        (DROP_INVALID, TPROXY),
        (TPROXY, DROP_INVALID),
        ({"istio-exclude-interfaces": "eth1"}, TPROXY),
        ({**TPROXY, "istio-exclude-interfaces": "eth1"}, {}),
    ],
    ids=str,
)


@MOVES_OF_INBOUND_TRAFFIC
def test_inbound_traffic_that_changes_tables_is_captured_all_the_time(
    direction: tuple[dict[str, str], dict[str, str]],
):
    kernel = Kernel()
    kernel.put(wanted_for(direction[0]), "iptables-legacy")

    def captures() -> bool:
        return any(
            {"ISTIO_TPROXY", "ISTIO_IN_REDIRECT"} & reached(table, "PREROUTING")
            for table in kernel.tables.values()
        )

    for action in make_plan(kernel.live(), wanted_for(direction[1]), "iptables-legacy").actions:
        assert captures()
        kernel.do(action)
    assert captures()


@MOVES_OF_INBOUND_TRAFFIC
def test_no_packet_between_two_hooks_of_native_tables_is_missed(
    direction: tuple[dict[str, str], dict[str, str]],
):
    """It has met the old rules of the first tables on its way and meets the new rules of the others."""
    kernel = Kernel()
    kernel.put(wanted_for(direction[0]), "nftables")
    before = {table.name: table for table in kernel.native}
    plan = make_plan(kernel.live(), wanted_for(direction[1]), "nftables")
    edits = [action for action in plan.actions if isinstance(action, EditNative)]
    assert len(edits) == (2 if direction[1] is TPROXY else 1)  # else it is one transaction
    for action in plan.actions:
        kernel.do(action)
        after = {table.name: table for table in kernel.native}
        ways = list(NATIVE_TABLES.values())
        for passed in range(len(ways) + 1):
            met = [before.get(name) for name in ways[:passed]] + [after.get(name) for name in ways[passed:]]
            assert any(captures_inbound(table) for table in met if table), (str(action), passed)
        before = after


def captures_inbound(table: NativeTable) -> bool:
    """Tell whether a packet that comes in may get to the proxy by a native table."""
    found, names = set(), ["prerouting"]
    while names:
        chain = table.chain(names.pop())
        for rule in chain.rules if chain else ():
            found.add(type(rule.target))
            names += [rule.target.chain] if isinstance(rule.target, Jump) else []
    return bool(found & {FamilyTProxy, Redirect})


def test_no_table_is_without_rules_while_they_are_replaced():
    kernel = Kernel()
    kernel.put(wanted_for(EVERYTHING), "iptables-legacy")
    wanted = wanted_for({**EVERYTHING, "istio-inbound-ports": "80", "envoy-port": "1"})
    plan = make_plan(kernel.live(), wanted, "iptables-legacy")
    assert len(plan.actions) == 4  # raw does not change
    for action in plan.actions:
        kernel.do(action)
        for family in ("ipv4", "ipv6"):
            for name in TABLES:
                table = kernel.tables["iptables-legacy", family, name]
                assert table.chain("ISTIO_INBOUND").rules
                assert any(is_owned_rule(rule) for rule in table.chain("OUTPUT").rules)


# --- capture that moves from one table to another ---------------------------------------------


class Waiting(FakeKernel):
    """A kernel that notes when it has to wait for packets."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_before: list[int] = []

    def let_packets_pass(self) -> None:
        self.waited_before.append(len(self.attempted))


@pytest.mark.parametrize("direction", [({}, TPROXY), (TPROXY, {})], ids=["to TPROXY", "to REDIRECT"])
@pytest.mark.parametrize("location", ["iptables-legacy", "iptables-nft", "nftables"])
def test_packets_pass_before_the_table_that_captured_them_lets_go(location: Location, direction):
    kernel = Waiting()
    with kernel:
        kernel.put(wanted_for(direction[0]), location)
        plan = make_plan(kernel.live(), wanted_for(direction[1]), location)
        before = len(kernel.attempted)
        execute(plan, kernel)
    edits = (EditTable, EditNative)
    gains = [n for n, a in enumerate(plan.actions) if isinstance(a, edits) and a.gains_inbound]
    releases = [n for n, a in enumerate(plan.actions) if isinstance(a, edits) and a.releases_inbound]
    expected = [n for n in releases if n > min(gains)]
    assert [n - before for n in kernel.waited_before] == expected
    assert expected or location == "nftables"


def test_a_change_within_a_table_waits_for_nothing():
    kernel = Waiting()
    with kernel:
        kernel.put(wanted_for({}), "iptables-legacy")
        execute(
            make_plan(kernel.live(), wanted_for({"istio-inbound-ports": "80"}), "iptables-legacy"), kernel
        )
    assert kernel.waited_before == []
