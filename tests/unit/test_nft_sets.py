"""Sets of nftables: which have a name, and that a set is there before a rule needs it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats.nft import edit_scripts, script, table_lines
from istio_iptables.rules.lists import union
from istio_iptables.rules.model import RETURN, Rule
from istio_iptables.rules.nftables.model import Addresses, NativeChain, NativeTable, Owners, Ports, set_name

ranges = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 3)).map(lambda p: (p[0] * 10, p[0] * 10 + p[1]))
)


def table(*matches: Addresses | Ports | Owners, chain: str = "istio-output") -> NativeTable:
    rules = tuple(Rule((match,), RETURN) for match in matches)
    return NativeTable("istio-proxy-nat", (NativeChain(chain, None, rules),))


def ports(*members: tuple[int, int]) -> Ports:
    return Ports("destination", "tcp", members)


SINGLES, ONE_RANGE = ports((80, 80), (443, 443)), ports((80, 90))
INTERVALS, OTHERS = ports((80, 90), (443, 443)), ports((80, 91), (443, 443))


def test_values_that_are_no_intervals_stand_in_the_rule():
    assert set_name(SINGLES) == set_name(ONE_RANGE) == ""
    assert "tcp dport { 80, 443 } counter return" in script([table(SINGLES)])
    assert "tcp dport 80-90 counter return" in script([table(ONE_RANGE)])


@pytest.mark.parametrize(
    ("match", "kind", "type_"),
    [
        (INTERVALS, "ports", "inet_service"),
        (Addresses("source", "ipv4", ((0, 7), (9, 9))), "addresses", "ipv4_addr"),
        (Addresses("destination", "ipv6", ((0, 7), (9, 9))), "addresses6", "ipv6_addr"),
        (Owners("user", ((0, 7), (9, 9))), "users", "uid"),
        (Owners("group", ((0, 7), (9, 9))), "groups", "gid"),
    ],
)
def test_intervals_are_sets_with_a_name(match: Addresses | Ports | Owners, kind: str, type_: str):
    name = set_name(match)
    assert name.startswith(f"{kind}-")
    lines = [line.strip() for line in script([table(match)]).splitlines()]
    at = lines.index(f"set {name} {{")
    assert lines[at + 1 : at + 3] == [f"type {type_}", "flags interval"]
    assert any(f"@{name} counter return" in line for line in lines)


@given(ranges, ranges)
def test_the_name_tells_the_content(one: list[tuple[int, int]], other: list[tuple[int, int]]):
    first, second = ports(*union(one)), ports(*union(other))
    if set_name(first) and set_name(second):
        assert (set_name(first) == set_name(second)) == (first == second)


def test_a_new_table_has_its_sets_before_its_rules_too():
    """What is excluded may be open already, or rules of another backend in force."""
    first, second = edit_scripts([], [table(INTERVALS)])
    assert f"set {set_name(INTERVALS)} {{" in first
    assert "chain" not in first
    assert "elements" not in second
    assert edit_scripts([], [table(SINGLES)]) == [script([table(SINGLES)])]  # no sets: one transaction
    assert edit_scripts([], [table(INTERVALS)], sets_first=False) == [script([table(INTERVALS)])]


def test_a_table_in_which_only_unused_sets_are_is_left_over():
    left = NativeTable("istio-proxy-nat", (), unused=(set_name(INTERVALS),))
    assert left.is_left_over
    assert list(table_lines(left)) == []
    assert not table(INTERVALS).is_left_over
    assert not left.replace(extras=("set foo",)).is_left_over


def test_a_set_is_there_before_the_rules_that_need_it():
    first, second = edit_scripts([table(OTHERS)], [table(INTERVALS)])
    assert f"set {set_name(INTERVALS)} {{" in first
    assert not any(word in first for word in ("chain", "rule", "delete", "flush"))
    assert f"delete set inet istio-proxy-nat {set_name(OTHERS)}" in second
    assert f"@{set_name(INTERVALS)}" in second
    assert "elements" not in second
    # Rules that refer to it are gone before the old set goes.
    assert second.index("flush table") < second.index("delete set")


def test_a_set_that_stays_is_not_written_again():
    [only] = edit_scripts([table(INTERVALS)], [table(INTERVALS, SINGLES)])
    assert not any(word in only for word in ("elements", "delete set"))


def test_what_a_killed_run_left_goes_with_the_next_edit():
    left = table(SINGLES).replace(unused=(set_name(OTHERS), set_name(INTERVALS)))
    assert left == table(SINGLES)  # no difference
    [only] = edit_scripts([left], [table(INTERVALS)])
    assert f"delete set inet istio-proxy-nat {set_name(OTHERS)}" in only
    assert "elements" not in only  # it is there
