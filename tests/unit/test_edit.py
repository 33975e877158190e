"""Edits: from any live table to any wanted one, foreign rules untouched, and back again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from istio_iptables.rules.istio import CHAINS
from istio_iptables.rules.model import (
    BUILTIN_CHAINS,
    RETURN,
    Chain,
    Cidr,
    Counters,
    Destination,
    GidOwner,
    InInterface,
    Jump,
    Rule,
    Table,
    Transport,
)
from istio_iptables.rules.ownership import is_owned, is_owned_rule, owned
from tests.support.tables import (
    EMPTY,
    MOVED_TO_THE_HEAD,
    A,
    B,
    F,
    after,
    exactly,
    foreign_rules,
    in_order,
    jump,
    live_tables,
    table_of,
    tables,
    wanted_tables,
)

MANY = settings(max_examples=settings().max_examples * 3 // 2)


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
