"""Plans: which actions in which order, what they change, and that a failure leaves everything as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.change.actions import AddObject, EditNative, EditTable, RemoveObject
from istio_iptables.change.execute import execute
from istio_iptables.change.plan import Plan, make_plan
from istio_iptables.errors import KernelError
from istio_iptables.formats.difference import differences
from istio_iptables.rules.edit import RemoveChain, TableEdit
from istio_iptables.rules.istio import NATIVE_TABLES
from istio_iptables.rules.model import (
    ACCEPT,
    BUILTIN_CHAINS,
    TABLES,
    Chain,
    Cidr,
    Comment,
    Counters,
    DestinationPort,
    ForeignMatch,
    ForeignTarget,
    InInterface,
    Jump,
    LocalAddress,
    LocalDefaultRoute,
    MarkLookup,
    PortRange,
    Redirect,
    Rule,
    Ruleset,
    Table,
    Transport,
)
from istio_iptables.rules.nftables.model import FamilyTProxy, NativeChain, NativeTable
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.rules.ownership import is_owned, is_owned_rule, owned
from istio_iptables.settings.facts import Facts
from istio_iptables.testing import FakeKernel
from tests.support import strategies

if TYPE_CHECKING:
    from istio_iptables.change.actions import Action, Location

LOCATIONS: tuple[Location, ...] = ("iptables-legacy", "iptables-nft")  # of iptables
NATIVE = tuple(
    NativeTable(name, (NativeChain("istio-output", None, (Rule((), ACCEPT, counters=Counters(1, 2)),)),))
    for name in ("istio-proxy-nat", "istio-proxy-raw")
)
NOTHING = Ruleset()


# --- a kernel ---------------------------------------------------------------------------------


class Kernel(FakeKernel):
    """The fake kernel, entered; it also checks that an action says what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.__enter__()
        self.error = KernelError("the kernel said no", "ask it again")

    def do(self, action: Action) -> None:
        super().do(action)
        if isinstance(action, EditTable):
            key = (action.location, action.edit.family, action.edit.table)
            after = self.tables.get(key, Table(*key[1:]))
            assert rules_of(action.after) == rules_of(after)
            assert set(action.emptied) == without_rules(after, action.edit)

    def state(self) -> object:
        """All there is, counters included, in an order that does not matter."""
        tables = {key: rules_of(table) for key, table in self.tables.items() if rules_of(table)}
        native = {
            (table.name, chain.name): [(rule, rule.counters) for rule in chain.rules]
            for table in self.native
            for chain in table.chains
        }
        return tables, set(self.routing), set(self.native), native


def rules_of(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    return {
        chain.name: [(rule, rule.counters) for rule in chain.rules]
        for chain in table.chains
        if chain.rules or chain.name not in BUILTIN_CHAINS
    }


def reached(table: Table, name: str) -> set[str]:
    """The chains with rules that a packet may get to from one."""
    rules = table.chain(name).rules
    targets = [rule.target.chain for rule in rules if isinstance(rule.target, Jump)]
    found = {name} if rules else set()
    return found.union(*(reached(table, target) for target in targets))


def without_rules(table: Table, edit: TableEdit) -> set[str]:
    touched = {step.chain for step in edit.steps} & BUILTIN_CHAINS
    return {name for name in touched if not table.chain(name).rules}


def wanted_for(chosen: Mapping[str, str] | None = None) -> Ruleset:
    facts = Facts(True, True, ("10.0.0.1", "fd00::1"))
    return build(configure(chosen or {}, environment=facts))


TPROXY = {"istio-inbound-interception-mode": "TPROXY"}
EVERYTHING = {
    **TPROXY,
    "dual-stack": "true",
    "redirect-dns": "true",
    "istio-exclude-interfaces": "eth1",
    "kube-virt-interfaces": "net1",
    "drop-invalid": "true",
}
FOREIGN = (
    Rule((Transport("tcp"), DestinationPort(PortRange(22, 22))), ACCEPT, counters=Counters(3, 180)),
    Rule((ForeignMatch(("-m", "set", "--match-set", "x", "dst")),), ForeignTarget(("-j", "LOG"))),
    Rule((Comment("ISTIO_OUTPUT"), InInterface("eth9")), ACCEPT),
)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """A kernel with owned rules, foreign rules among them and, at times, native tables."""
    kernel = Kernel()
    if draw(st.integers(0, 3)):
        kernel.put(wanted_for(draw(strategies.settings())), draw(locations()))
    for key, table in list(kernel.tables.items()):
        if draw(st.booleans()):
            kernel.tables[key] = table.replace(chains=tuple(draw(disturbed(chain)) for chain in table.chains))
    if draw(st.integers(0, 3)) == 0:
        strange = Table("ipv4", "nat", (Chain("OUTPUT", FOREIGN), Chain("KUBE", FOREIGN[:1])))
        kernel.tables.setdefault(("iptables-nft", "ipv4", "nat"), strange)
    if draw(st.integers(0, 3)) == 0:
        kernel.native = NATIVE
    return kernel


@st.composite
def disturbed(draw: st.DrawFn, chain: Chain) -> Chain:
    """A chain with foreign rules, or, if it is owned, with one rule less."""
    rules = list(chain.rules)
    if is_owned(chain):
        del rules[: draw(st.integers(0, 1))]
    else:
        for rule in draw(st.lists(st.sampled_from(FOREIGN), max_size=2)):
            rules.insert(draw(st.integers(0, len(rules))), rule)
    return chain.replace(rules=tuple(rules))


def wanted_rulesets() -> st.SearchStrategy[Ruleset]:
    return strategies.settings().map(wanted_for) | st.just(NOTHING)


def locations() -> st.SearchStrategy[Location]:
    return st.sampled_from([*LOCATIONS, "nftables"])


# --- what is done -----------------------------------------------------------------------------


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
    assert kernel.attempted[4:] == [action.inverse() for action in reversed(plan.actions[:3])]
    assert [AddObject(item) for item in kernel.routing] == [plan.actions[1]]


@given(kernels(), wanted_rulesets(), locations())
def test_inverses(kernel: Kernel, wanted: Ruleset, location: Location):
    for action in make_plan(kernel.live(), wanted, location).actions:
        assert action.inverse().inverse() == action
        assert action.inverse() != action
        assert str(action).isprintable()


# --- in which order ---------------------------------------------------------------------------


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


@pytest.mark.parametrize(
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
    (action,) = make_plan(Kernel().live(), wanted, "iptables-nft").actions
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


# --- capture that moves from one table to another -------------------------------------------------


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
