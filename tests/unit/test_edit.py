"""Edits: from any live table to any wanted one, foreign rules untouched, and back again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.rules.edit import (
    CreateChain,
    Delete,
    Insert,
    RemoveChain,
    ReplaceRules,
    TableEdit,
    apply_to,
    common_subsequence,
    edit_between,
    with_counters,
)
from istio_iptables.rules.istio import CHAINS, TAG
from istio_iptables.rules.model import (
    ACCEPT,
    BUILTIN_CHAINS,
    RETURN,
    Chain,
    Cidr,
    Comment,
    ConntrackState,
    Counters,
    Destination,
    DestinationPort,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    InInterface,
    Jump,
    PortRange,
    Redirect,
    Rule,
    Table,
    Transport,
)
from istio_iptables.rules.ownership import is_owned, is_owned_rule, owned
from istio_iptables.settings.facts import Facts
from tests.support import strategies

MANY = settings(max_examples=settings().max_examples * 3 // 2)

# --- rules, as few as will do: so that they meet each other -----------------------------------

TCP = Transport("tcp")


def tagged(name: str, reason: str = "") -> Rule:
    return Rule((InInterface(name), Comment(TAG)), RETURN, reason)


def jump(chain: str, *matches: Transport | Destination, goto: bool = False) -> Rule:
    return Rule(matches, Jump(chain, goto))


def foreign(name: str) -> Rule:
    return Rule((InInterface(name),), ACCEPT)


TAGGED = [tagged("a"), tagged("b"), tagged("c"), Rule((Comment(f"{TAG}: so that"),), RETURN)]
FOREIGN = [
    foreign("a"),
    foreign("b"),
    Rule((TCP, DestinationPort(PortRange(22, 22))), ACCEPT),
    Rule((Comment("ISTIO_OUTPUT"),), RETURN),
    Rule((Comment(f"{TAG}-like"),), RETURN),
    Rule((ForeignMatch(("-m", "set", "--match-set", "x", "dst")),), ForeignTarget(("-j", "LOG"))),
    Rule((), ForeignTarget(())),
    Rule((TCP,), Redirect(15001)),
    jump("ISTIOLIKE"),
]
WITHIN = [
    Rule((TCP,), Redirect(15001)),
    Rule((TCP,), Redirect(15006)),
    Rule((Destination(Cidr(4, 0x0A000000, 8)),), RETURN),
    Rule((), RETURN),
]
OUR_NAMES = ("ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_REDIRECT", "ISTIO_DROP")


def jumps(chains: Sequence[str]) -> list[Rule]:
    return [jump(chain, *matches) for chain in chains for matches in ((), (TCP,))]


@st.composite
def counted(draw: st.DrawFn, rules: Sequence[Rule], max_size: int = 5) -> tuple[Rule, ...]:
    """Some of the rules, in any order, with counters; the same one at times twice."""
    if not rules:
        return ()
    chosen = draw(st.lists(st.sampled_from(rules), max_size=max_size))
    numbers = st.sampled_from([0, 0, 1, 7, 2**40])
    return tuple(rule.replace(counters=Counters(draw(numbers), draw(numbers))) for rule in chosen)


@st.composite
def live_tables(draw: st.DrawFn) -> Table:
    """A table as it might be found: owned and foreign chains and rules, with jumps everywhere."""
    names = draw(st.lists(st.sampled_from(OUR_NAMES), unique=True))
    others = draw(st.lists(st.sampled_from(["ISTIOLIKE", "DOCKER"]), unique=True))
    known = [rule for rule in FOREIGN if not isinstance(rule.target, Jump) or rule.target.chain in others]
    chains = [
        Chain(name, draw(counted([*known, *TAGGED, *jumps(names)], 8)))
        for name in ("PREROUTING", "OUTPUT", "INPUT")
    ]
    chains += [Chain(name, draw(counted([*WITHIN, *TAGGED, *jumps(names)]))) for name in names]
    to_owned = [*jumps(names), *(jump(name, goto=True) for name in names)]
    chains += [Chain(name, draw(counted([*known, *to_owned]))) for name in others]
    return Table("ipv4", "nat", tuple(chains))


@st.composite
def wanted_tables(draw: st.DrawFn) -> Table:
    """A table as the policy might want it: every chain has rules, every jump a chain."""
    names = draw(st.lists(st.sampled_from(OUR_NAMES), unique=True))
    reasons = st.sampled_from(["", "because"])

    def some(rules: Sequence[Rule], min_size: int, max_size: int = 4) -> tuple[Rule, ...]:
        chosen = draw(st.lists(st.sampled_from(rules), min_size=min_size, max_size=max_size))
        return tuple(rule.replace(reason=draw(reasons)) for rule in chosen)

    builtin = [*TAGGED, *jumps(names)]
    chains = [Chain("PREROUTING", some(builtin, 0), some(builtin, 0, 3)), Chain("OUTPUT", some(builtin, 0))]
    chains += [Chain(name, some([*WITHIN, *TAGGED, *jumps(names)], 1)) for name in names]
    return Table("ipv4", "nat", tuple(chain for chain in draw(st.permutations(chains)) if chain.in_order))


@st.composite
def policy_tables(draw: st.DrawFn) -> Table:
    """A table as the policy does want it."""
    wanted = build(configure(draw(strategies.settings()), environment=Facts(True, True, ("10.0.0.1",))))
    return wanted.table("ipv4", "nat")


@st.composite
def live_policy_tables(draw: st.DrawFn) -> Table:
    """What the policy wanted yesterday, with foreign rules in between."""
    chains = []
    for chain in draw(policy_tables()).chains:
        rules = list(chain.in_order)
        if not is_owned(chain):
            for rule in draw(counted(FOREIGN[:8], 3)):
                rules.insert(draw(st.integers(0, len(rules))), rule)
        chains.append(Chain(chain.name, tuple(rules)))
    return Table("ipv4", "nat", tuple(chains))


def tables() -> st.SearchStrategy[tuple[Table, Table]]:
    return st.tuples(live_tables(), wanted_tables()) | st.tuples(live_policy_tables(), policy_tables())


EMPTY = Table("ipv4", "nat")

#: -b '' -c a,b becomes -b '' -c a -k b.
MOVED_TO_THE_HEAD = (
    Table("ipv4", "nat", (Chain("PREROUTING", (tagged("a"), tagged("b"))),)),
    Table("ipv4", "nat", (Chain("PREROUTING", (tagged("a"),), (tagged("b"),)),)),
)

# --- ways to look at a table ------------------------------------------------------------------


def exactly(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    """Every rule with its counters, which do not count in comparisons; no empty chains of the kernel."""
    return {
        chain.name: [(rule, rule.counters) for rule in chain.rules]
        for chain in table.chains
        if chain.rules or chain.name not in BUILTIN_CHAINS
    }


def foreign_rules(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    return {
        chain.name: [
            (rule, rule.counters)
            for rule in chain.rules
            if chain.name not in BUILTIN_CHAINS or not is_owned_rule(rule)
        ]
        for chain in table.chains
        if not is_owned(chain)
    }


def in_order(table: Table) -> dict[str, tuple[Rule, ...]]:
    return {chain.name: chain.in_order for chain in table.chains}


def after(live: Table, wanted: Table, *, rewrite: bool = False) -> Table:
    return apply_to(live, edit_between(live, wanted, rewrite=rewrite))


# --- properties -------------------------------------------------------------------------------


@MANY
@given(tables(), st.booleans())
@example(MOVED_TO_THE_HEAD, False)
def test_ours_becomes_what_is_wanted(pair: tuple[Table, Table], rewrite: bool):
    live, wanted = pair
    assert in_order(owned(after(live, wanted, rewrite=rewrite))) == in_order(wanted)


@MANY
@given(tables(), st.booleans())
def test_foreign_rules_keep_their_order_and_their_counters(pair: tuple[Table, Table], rewrite: bool):
    live, wanted = pair
    there = foreign_rules(live)
    changed = foreign_rules(after(live, wanted, rewrite=rewrite))
    assert {name: rules for name, rules in changed.items() if rules or name in there} == there


@MANY
@given(tables(), st.booleans())
@example(MOVED_TO_THE_HEAD, False)
def test_a_second_edit_is_empty(pair: tuple[Table, Table], rewrite: bool):
    live, wanted = pair
    assert edit_between(after(live, wanted, rewrite=rewrite), wanted).steps == ()


@MANY
@given(tables(), st.booleans())
def test_the_inverse_restores_the_live_table_exactly(pair: tuple[Table, Table], rewrite: bool):
    live, wanted = pair
    edit = edit_between(live, wanted, rewrite=rewrite)
    assert exactly(apply_to(apply_to(live, edit), edit.inverse())) == exactly(live)
    assert edit.inverse().inverse() == edit


@MANY
@given(tables())
def test_every_jump_leads_to_a_chain_at_every_moment(pair: tuple[Table, Table]):
    live, wanted = pair
    edit = edit_between(live, wanted)
    for direction in (edit, edit.inverse()):
        start = live if direction is edit else apply_to(live, edit)
        for number in range(len(direction.steps) + 1):
            state = apply_to(start, direction.replace(steps=direction.steps[:number]))
            names = {chain.name for chain in state.chains}
            targets = [r.target.chain for c in state.chains for r in c.rules if isinstance(r.target, Jump)]
            assert set(targets) <= names


@given(tables())
def test_no_more_is_moved_than_needs_be(pair: tuple[Table, Table]):
    live, wanted = pair
    steps = edit_between(live, wanted).steps
    for name in BUILTIN_CHAINS:
        mine = [rule for rule in live.chain(name).rules if is_owned_rule(rule)]
        targets = wanted.chain(name).in_order
        common = longest_common(mine, targets)
        deletes = [step for step in steps if isinstance(step, Delete) and step.chain == name]
        inserts = [step for step in steps if isinstance(step, Insert) and step.chain == name]
        assert len(deletes) == len(mine) - common
        assert len(inserts) == len(targets) - common
    for step in steps:
        if isinstance(step, ReplaceRules):
            assert step.before != step.after
        if isinstance(step, (Insert, Delete)):
            assert step.chain in BUILTIN_CHAINS
        else:
            assert step.chain in CHAINS


def longest_common(old: Sequence[Rule], new: Sequence[Rule]) -> int:
    row = [0] * (len(new) + 1)
    for left in old:
        before = list(row)
        for number, right in enumerate(new):
            row[number + 1] = before[number] + 1 if left == right else max(before[number + 1], row[number])
    return row[-1]


@given(tables())
def test_last_means_the_end_of_the_chain(pair: tuple[Table, Table]):
    live, wanted = pair
    edit = edit_between(live, wanted)
    for direction in (edit, edit.inverse()):
        state = live if direction is edit else apply_to(live, edit)
        for step in direction.steps:
            length = len(state.chain(step.chain).rules)
            if isinstance(step, Insert):
                assert step.last == (step.position == length + 1)
                assert 1 <= step.position <= length + 1
            if isinstance(step, Delete):
                assert step.last == (step.position == length)
            state = apply_to(state, direction.replace(steps=(step,)))


@given(live_tables(), wanted_tables())
def test_rules_that_are_written_again_keep_their_counters(live: Table, wanted: Table):
    for step in edit_between(live, wanted).steps:
        if isinstance(step, ReplaceRules):
            before = live.chain(step.chain).rules
            for number, rule in enumerate(step.after):
                nth = step.after[:number].count(rule)  # of equal rules each has its own
                counted = [old.counters.packets for old in before if old == rule]
                assert rule.counters.packets == (counted[nth] if nth < len(counted) else 0)


@given(live_tables())
def test_cleaning_up_leaves_foreign_rules(live: Table):
    clean = after(live, EMPTY)
    assert owned(clean).is_empty
    assert foreign_rules(clean) == foreign_rules(live)
    kept = {chain.name for chain in clean.chains if is_owned(chain)}
    outside = [c for c in live.chains if not is_owned(c) and c.name not in BUILTIN_CHAINS]
    assert kept == {r.target.chain for c in outside for r in c.rules if isinstance(r.target, Jump)} & CHAINS


@given(wanted_tables())
def test_from_an_empty_table(wanted: Table):
    edit = edit_between(EMPTY, wanted)
    assert not edit.detaches
    assert edit.rules_added() == sum(len(chain.in_order) for chain in wanted.chains)
    assert all(step.last for step in edit.steps if isinstance(step, Insert))
    assert in_order(apply_to(EMPTY, edit)) == in_order(wanted)


@given(wanted_tables())
@example(EMPTY)
def test_writing_again(wanted: Table):
    live = after(EMPTY, wanted)
    assert edit_between(live, wanted).steps == ()
    edit = edit_between(live, wanted, rewrite=True)
    written = {step.chain for step in edit.steps if isinstance(step, ReplaceRules)}
    assert written == {chain.name for chain in wanted.chains if is_owned(chain)}
    assert len(written) == len(edit.steps)
    assert not edit.detaches
    assert in_order(apply_to(live, edit)) == in_order(live)


# --- positions -----------------------------------------------------------------------------------

A, B, C, N = tagged("a"), tagged("b"), tagged("c"), tagged("new")
F, G, H = foreign("f"), foreign("g"), foreign("h")


def names(rules: Sequence[Rule]) -> str:
    letters = []
    for rule in rules:
        match = rule.matches[0]
        assert isinstance(match, InInterface)
        letters.append("N" if match.name == "new" else match.name.upper())
    return "".join(letters)


@pytest.mark.parametrize(
    ("live", "head", "rules", "expected"),
    [
        # a clean chain: head at the top, the others at the end
        ([], [A], [B], "AB"),
        ([F, G], [A], [B], "AFGB"),
        ([F, G], [A, B], [C, N], "ABFGCN"),
        ([F], [], [A], "FA"),
        ([F], [A], [], "AF"),
        # next to a neighbour
        ([F, A, G, B, H], [], [A, N, B], "FANGBH"),
        ([F, A, G, B, H], [], [N, A, B], "FNAGBH"),
        ([F, A, G, B, H], [], [A, B, N], "FAGBNH"),
        ([F, A, G], [], [A, N], "FANG"),
        ([F, A, G], [A, N], [], "FANG"),
        ([F, A, G], [N, A], [], "FNAG"),
        ([F, A, G, B], [A, N], [B], "FANGB"),
        ([F, A, G, B, H], [A], [N, B], "FAGNBH"),
        # head rules have head rules for neighbours, the others the others
        ([F, B, G], [N], [B], "NFBG"),
        ([F, A, G], [A], [N], "FAGN"),
        # no owned rule stays: where the last one was
        ([F, A, G], [], [N], "FNG"),
        ([F, A, G, B, H], [], [N, C], "FGNCH"),
        ([F, A], [], [N], "FN"),
        ([F, A, G], [N], [], "NFG"),
        # another order: as little as possible is moved
        ([A, F, B, G, C], [], [B, C, A], "FBGCA"),
        ([A, F, B], [], [B, A], "FBA"),
        # what goes
        ([F, A, G, B, H], [], [B], "FGBH"),
        ([A, F, B], [], [], "F"),
        # duplicates
        ([A, F, A, G], [], [A], "AFG"),
        ([F, A, G], [], [A, A], "FAAG"),
        ([A, A], [], [A, A], "AA"),
    ],
)
def test_places(live: list[Rule], head: list[Rule], rules: list[Rule], expected: str):
    table = Table("ipv4", "nat", (Chain("PREROUTING", tuple(live)),))
    wanted = Table("ipv4", "nat", (Chain("PREROUTING", tuple(rules), tuple(head)),))
    assert names(after(table, wanted).chain("PREROUTING").rules) == expected


# --- chains -----------------------------------------------------------------------------------


def table_of(**chains: Sequence[Rule]) -> Table:
    return Table("ipv4", "nat", tuple(Chain(name, tuple(rules)) for name, rules in chains.items()))


def test_a_chain_is_replaced_as_a_whole_and_nothing_is_detached():
    live = table_of(OUTPUT=[jump("ISTIO_OUTPUT")], ISTIO_OUTPUT=[A, B])
    edit = edit_between(live, table_of(OUTPUT=[jump("ISTIO_OUTPUT")], ISTIO_OUTPUT=[B, C]))
    assert edit.steps == (ReplaceRules("ISTIO_OUTPUT", (A, B), (B, C)),)
    assert not edit.detaches
    assert edit.rules_added() == 2


def test_chains_are_made_before_they_are_jumped_to_and_removed_after():
    live = table_of(OUTPUT=[jump("ISTIO_OUTPUT")], ISTIO_OUTPUT=[jump("ISTIO_REDIRECT")], ISTIO_REDIRECT=[A])
    wanted = table_of(OUTPUT=[jump("ISTIO_INBOUND")], ISTIO_INBOUND=[B])
    kinds = [type(step) for step in edit_between(live, wanted).steps]
    assert kinds[0] is CreateChain
    assert kinds[-2:] == [RemoveChain, RemoveChain]
    assert edit_between(live, wanted).detaches
    assert not edit_between(EMPTY, wanted).detaches


@pytest.mark.parametrize("goto", [False, True])
def test_a_chain_that_a_foreign_rule_jumps_to_stays_empty(goto: bool):
    live = table_of(
        OUTPUT=[jump("ISTIO_OUTPUT"), jump("DOCKER")],
        ISTIO_OUTPUT=[A],
        ISTIO_REDIRECT=[B],
        DOCKER=[jump("ISTIO_OUTPUT", goto=goto)],
    )
    clean = after(live, EMPTY)
    assert exactly(clean) == exactly(
        table_of(OUTPUT=[jump("DOCKER")], ISTIO_OUTPUT=[], DOCKER=[jump("ISTIO_OUTPUT", goto=goto)])
    )
    assert edit_between(clean, EMPTY).steps == ()


def test_a_rule_that_jumps_to_an_owned_chain_is_owned_in_a_built_in_chain_only():
    foreign = jump("ISTIO_OUTPUT", Destination(Cidr(4, 0x0A000000, 8)))
    live = table_of(OUTPUT=[foreign], DOCKER=[foreign], ISTIO_OUTPUT=[A])
    assert in_order(owned(live)) == {"OUTPUT": (foreign,), "ISTIO_OUTPUT": (A,)}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule((Comment(TAG),), RETURN), True),
        (Rule((Comment(f"{TAG}: why"),), ACCEPT), True),
        (Rule((Comment("words"), Comment(TAG)), RETURN), True),
        (Rule((Comment(f"{TAG}-like"),), RETURN), False),
        (Rule((Comment(f"{TAG}:why"),), RETURN), False),
        (Rule((Comment(f"not {TAG}"),), RETURN), False),
        (Rule((Comment("ISTIO_OUTPUT"),), RETURN), False),
        (Rule((), RETURN), False),
        (Rule((), Redirect(15001)), False),
        (jump("ISTIO_DROP"), True),
        (jump("ISTIO_DROP", goto=True), True),
        (Rule((ForeignMatch(("-m", "set")),), Jump("ISTIO_OUTPUT")), True),
        (jump("ISTIOLIKE"), False),
        (jump("ISTIO_OUTPUT_2"), False),
        (Rule((), ForeignTarget(("-j", "ISTIO_OUTPUT"))), False),
    ],
    ids=str,
)
def test_whose_a_rule_in_a_chain_of_the_kernel_is(rule: Rule, expected: bool):
    assert is_owned_rule(rule) is expected
    assert bool(in_order(owned(table_of(OUTPUT=[rule])))) is expected


def test_the_order_of_matches_makes_no_other_rule_but_their_number_does():
    assert Rule((TCP, GidOwner(1)), RETURN) == Rule((GidOwner(1), TCP), RETURN)
    assert Rule((GidOwner(1), GidOwner(1)), RETURN) != Rule((GidOwner(1),), RETURN)
    twice = [Rule((GidOwner(1), GidOwner(2), GidOwner(which)), RETURN) for which in (1, 2)]
    assert twice[0] != twice[1]
    assert twice[0] == twice[0].replace(matches=twice[0].matches[::-1])
    assert len({*twice, twice[0].replace(reason="another", counters=Counters(1, 1))}) == 2


def test_the_order_in_which_a_set_was_made_makes_no_other_rule():
    states = ("INVALID", "NEW", "RELATED", "ESTABLISHED")
    made = [ConntrackState(frozenset(order)) for order in itertools.permutations(states)]
    assert all(Rule((TCP, TCP, state), RETURN) == Rule((TCP, TCP, made[0]), RETURN) for state in made)


def test_foreign_rules_in_owned_chains_are_owned():
    live = table_of(ISTIO_OUTPUT=[F])
    assert exactly(after(live, EMPTY)) == {}


def test_empty_owned_chains_are_no_difference_but_are_removed():
    live = table_of(ISTIO_OUTPUT=[])
    assert owned(live).is_empty
    assert edit_between(live, EMPTY).steps == (RemoveChain("ISTIO_OUTPUT"),)


# --- the fake kernel --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([CreateChain("ISTIO_OUTPUT")], "exists already"),
        ([RemoveChain("ISTIO_OUTPUT")], "in use"),
        ([ReplaceRules("ISTIO_OUTPUT", (A,), ())], "not as expected"),
        ([Delete("OUTPUT", 1, A, True)], "not as expected"),
        ([ReplaceRules("ISTIO_OUTPUT", (B,), ()), RemoveChain("ISTIO_OUTPUT")], "in use"),
    ],
)
def test_what_a_kernel_would_refuse(steps: list[CreateChain], said: str):
    live = table_of(OUTPUT=[jump("ISTIO_OUTPUT")], ISTIO_OUTPUT=[B])
    with pytest.raises(ValueError, match=said):
        apply_to(live, TableEdit("ipv4", "nat", tuple(steps)))


# --- long lists -------------------------------------------------------------------------------

FEW = st.lists(st.sampled_from([Rule((GidOwner(n),), RETURN) for n in range(5)]), max_size=8)


def longest(old: Sequence[Rule], new: Sequence[Rule]) -> int:
    """The length of a longest common subsequence, by trying everything."""
    if not old or not new:
        return 0
    if old[0] == new[0]:
        return 1 + longest(old[1:], new[1:])
    return max(longest(old[1:], new), longest(old, new[1:]))


@given(FEW, FEW)
def test_a_longest_common_subsequence(old: list[Rule], new: list[Rule]):
    pairs = common_subsequence(old, new)
    assert all(old[i] == new[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in itertools.pairwise(pairs))
    assert len(pairs) == longest(old, new)


@pytest.mark.parametrize("change", ["add one", "take every other", "turn round", "replace all"])
def test_long_lists_are_compared_in_linear_time(change: str, monkeypatch: pytest.MonkeyPatch):
    """The head of PREROUTING has a rule for every interface of a virtual machine and every captured CIDR."""
    size, compared = 1000, 0
    equal, key = Rule.__eq__, Rule._key

    def counting(method):
        def wrapper(*arguments):
            nonlocal compared
            compared += 1
            return method(*arguments)

        return wrapper

    rules = [
        Rule((InInterface("v1"), Destination(Cidr(4, n << 8, 24))), Jump("ISTIO_REDIRECT"))
        for n in range(2 * size)
    ]
    old = rules[:size]
    new = {
        "add one": [*old[:500], rules[size], *old[500:]],
        "take every other": old[::2],
        "turn round": old[::-1],
        "replace all": rules[size:],
    }[change]
    live = Table("ipv4", "nat", (Chain("PREROUTING", (F, *old, F)), Chain("ISTIO_REDIRECT")))
    wanted = Table("ipv4", "nat", (Chain("PREROUTING", head=tuple(new)), Chain("ISTIO_REDIRECT")))
    monkeypatch.setattr(Rule, "__eq__", counting(equal))
    monkeypatch.setattr(Rule, "_key", counting(key))
    edit = edit_between(live, wanted)
    assert compared < 20 * size
    monkeypatch.undo()
    assert [r for r in apply_to(live, edit).chain("PREROUTING").rules if r != F] == new


def test_counters_go_to_equal_rules_each_to_its_own():
    """A rule that appears twice has counted twice, and differently."""
    one, other = Rule((Transport("tcp"),), RETURN), Rule((Transport("udp"),), RETURN)
    counted = [one.replace(counters=Counters(7, 70)), other, one, one.replace(counters=Counters(3, 30))]
    found = with_counters([one, one, other, one, one], counted)
    assert [rule.counters.packets for rule in found] == [7, 0, 0, 3, 0]
