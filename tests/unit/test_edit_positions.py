"""Edits: where each rule is put, and which chains come and go."""

from __future__ import annotations

import itertools

import pytest

from istio_iptables.rules.edit import CreateChain, RemoveChain, ReplaceRules, edit_between
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
    RETURN,
    Chain,
    Cidr,
    Comment,
    ConntrackState,
    Counters,
    Destination,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    Jump,
    Redirect,
    Rule,
    Table,
)
from istio_iptables.rules.ownership import is_owned_rule, owned
from tests.support.cases import all_cases
from tests.support.tables import (
    EMPTY,
    TCP,
    A,
    B,
    C,
    F,
    G,
    H,
    N,
    after,
    exactly,
    in_order,
    jump,
    names,
    table_of,
)

# --- positions --------------------------------------------------------------------------------


@all_cases(
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


@all_cases(
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
