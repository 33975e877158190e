"""The netlink client's policy rules against the kernel, with `ip` as the second opinion."""

from __future__ import annotations

import errno
import os

import pytest

from istio_iptables.kernel.netlink import routing
from istio_iptables.kernel.netlink.routing import PolicyRule
from tests.support.netlink import ALL_ONES, FLAG, OTHER, each_family, each_table, refused, switch_ipv6_off

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]

MARKS = (1337, ALL_ONES)
each_mark = pytest.mark.parametrize("mark", MARKS)


def seen_rules(space, family):
    return space.see(f"{FLAG[family]} rule show")


def our_rules(space, family):
    """Return the rules that are not the kernel's own."""
    found = space.call(routing.policy_rules, family)
    return [rule for rule in found if rule.priority not in (0, 32766, 32767)]


@each_family
def test_a_fresh_namespace_has_the_kernels_rules(space, family):
    found = space.call(routing.policy_rules, family)
    tables = {"local": 255, "main": 254, "default": 253}
    assert [(r.priority, r.table) for r in found] == [
        (r["priority"], tables[r["table"]]) for r in seen_rules(space, family)
    ]
    assert {(r.family, r.mark, r.mask, r.plain) for r in found} == {(family, 0, 0, False)}


@each_family
@each_table
@each_mark
def test_an_added_rule_is_the_one_that_ip_adds(space, family, table, mark):
    before = seen_rules(space, family)
    others = seen_rules(space, OTHER[family])
    space.ip(f"{FLAG[family]} rule add fwmark {mark} lookup {table}")
    theirs = seen_rules(space, family)
    text = space.ip(f"{FLAG[family]} rule show")
    space.ip(f"{FLAG[family]} rule delete fwmark {mark} lookup {table}")

    space.call(routing.add_policy_rule, family, mark, table)
    assert seen_rules(space, family) == theirs
    assert space.ip(f"{FLAG[family]} rule show") == text
    assert seen_rules(space, OTHER[family]) == others

    rule = PolicyRule(family, mark, ALL_ONES, table, 32765, True)
    assert our_rules(space, family) == [rule]
    space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before


@each_family
@each_table
@each_mark
def test_rules_made_by_ip_can_be_deleted_and_the_other_way_round(space, family, table, mark):
    before = seen_rules(space, family)
    space.ip(f"{FLAG[family]} rule add fwmark {mark} lookup {table}")
    [rule] = our_rules(space, family)
    space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before
    space.call(routing.add_policy_rule, family, mark, table)
    space.ip(f"{FLAG[family]} rule delete fwmark {mark} lookup {table}")
    assert seen_rules(space, family) == before


@each_family
@pytest.mark.parametrize("earlier", ["priority 100", "priority 20000 from all", "priority 1 fwmark 7"])
def test_the_priority_is_chosen_as_for_ip(space, family, earlier):
    space.ip(f"{FLAG[family]} rule add {earlier} lookup 77")
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133")
    theirs = seen_rules(space, family)
    space.ip(f"{FLAG[family]} rule delete fwmark 1337 lookup 133")
    space.call(routing.add_policy_rule, family, 1337, 133)
    assert seen_rules(space, family) == theirs


@each_family
def test_the_kernel_takes_a_second_rule_for_another_one_as_with_ip(space, family):
    space.call(routing.add_policy_rule, family, 1337, 133)
    space.call(routing.add_policy_rule, family, 1337, 133)
    first, second = our_rules(space, family)
    assert (first.priority, second.priority) == (32764, 32765)
    space.call(routing.delete_policy_rule, second)
    assert our_rules(space, family) == [first]


@each_family
def test_a_rule_for_mark_zero_is_the_one_that_ip_adds(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 0 lookup 133")
    theirs = seen_rules(space, family)
    [rule] = our_rules(space, family)
    assert rule == PolicyRule(family, 0, 0, 133, 32765, True)
    space.call(routing.delete_policy_rule, rule)
    space.call(routing.add_policy_rule, family, 0, 133)
    assert seen_rules(space, family) == theirs


@each_family
def test_a_mask_and_a_priority_leave_a_rule_plain(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 0x10/0xf0 lookup 4000 priority 4294967295")
    rule = our_rules(space, family)[-1]
    assert rule == PolicyRule(family, 0x10, 0xF0, 4000, 4294967295, True)
    space.call(routing.delete_policy_rule, rule)
    assert our_rules(space, family) == []


NOT_PLAIN_RULES = [
    "from NETWORK fwmark 1337 lookup 133",
    "to NETWORK fwmark 1337 lookup 133",
    "iif lo fwmark 1337 lookup 133",
    "oif lo fwmark 1337 lookup 133",
    "oif eth7 fwmark 1337 lookup 133",
    "not fwmark 1337 lookup 133",
    "tos 0x10 fwmark 1337 lookup 133",
    "uidrange 0-4294967294 fwmark 1337 lookup 133",
    "uidrange 1000-1000 fwmark 1337 lookup 133",
    "ipproto tcp fwmark 1337 lookup 133",
    "sport 80 fwmark 1337 lookup 133",
    "dport 80-90 fwmark 1337 lookup 133",
    "tun_id 5 fwmark 1337 lookup 133",
    "l3mdev fwmark 1337",
    "fwmark 1337 lookup 133 suppress_prefixlength 0",
    "fwmark 1337 lookup 133 suppress_ifgroup 0",
    "fwmark 1337 lookup 133 protocol static",
    "fwmark 1337 goto 32766",
    "fwmark 1337 goto 32000",
    "fwmark 1337 blackhole",
    "fwmark 1337 unreachable",
    "fwmark 1337 prohibit",
    "fwmark 1337 type nop",
]


@each_family
@pytest.mark.parametrize("words", NOT_PLAIN_RULES)
def test_a_rule_with_anything_more_is_not_plain(space, family, words):
    words = words.replace("NETWORK", {"ipv4": "10.0.0.0/8", "ipv6": "2001:db8::/32"}[family])
    space.ip(f"{FLAG[family]} rule add {words} priority 100")
    before = seen_rules(space, family)
    [rule] = our_rules(space, family)
    assert (rule.mark, rule.mask, rule.priority, rule.plain) == (1337, ALL_ONES, 100, False)
    with pytest.raises(ValueError, match="priority=100"):
        space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before


@each_family
def test_a_foreign_rule_with_more_selectors_is_never_deleted_instead(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 iif lo priority 100")
    before = seen_rules(space, family)
    wanted = PolicyRule(family, 1337, ALL_ONES, 133, 100, True)
    error = refused(space, routing.delete_policy_rule, wanted)
    assert error.errno == errno.ENOTUNIQ
    assert "plain=False" in str(error)
    assert seen_rules(space, family) == before

    # The kernel would take the first one, which is still the foreign one.
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 priority 100")
    assert refused(space, routing.delete_policy_rule, wanted).errno == errno.ENOTUNIQ
    assert len(our_rules(space, family)) == 2


@each_family
@pytest.mark.parametrize("mark", [0, 1337])
def test_foreign_rules_of_the_same_priority_are_left_alone(space, family, mark):
    selector = f"fwmark {mark} " if mark else ""
    space.ip(f"{FLAG[family]} rule add {selector}lookup 133 priority 100")
    space.ip(f"{FLAG[family]} rule add fwmark 7 lookup 133 priority 100")
    space.ip(f"{FLAG[family]} rule add {selector}lookup 133 iif lo priority 100")
    space.ip(f"{FLAG[family]} rule add {selector}lookup 134 priority 100")
    owned, *foreign = our_rules(space, family)
    space.call(routing.delete_policy_rule, owned)
    assert our_rules(space, family) == foreign


@each_family
def test_mark_zero_is_no_wildcard_when_a_rule_is_deleted(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 7 lookup 133 priority 100")
    before = seen_rules(space, family)
    error = refused(space, routing.delete_policy_rule, PolicyRule(family, 0, 0, 133, 100, True))
    assert error.errno == errno.ENOTUNIQ
    assert seen_rules(space, family) == before


@each_family
@pytest.mark.parametrize(
    ("part", "value"), [("mark", 1338), ("mask", 0xFFFF), ("table", 134), ("priority", 101)]
)
def test_a_rule_that_differs_in_one_part_is_another_rule(space, family, part, value):
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 priority 100")
    before = seen_rules(space, family)
    [rule] = our_rules(space, family)
    error = refused(space, routing.delete_policy_rule, rule.replace(**{part: value}))
    assert error.errno == errno.ENOENT
    assert f"delete {family} policy rule fwmark" in str(error)
    assert seen_rules(space, family) == before


def test_rules_stay_readable_and_can_be_made_with_ipv6_off(space):
    switch_ipv6_off(space)
    space.call(routing.add_policy_rule, "ipv6", 1337, 133)
    assert our_rules(space, "ipv6") == [PolicyRule("ipv6", 1337, ALL_ONES, 133, 32765, True)]


@each_family
def test_a_thousand_rules_come_whole(space, family):
    space.ip_batch((f"rule add fwmark {n} lookup {n}" for n in range(1, 1001)), FLAG[family])
    assert [r.mark for r in our_rules(space, family)] == list(range(1000, 0, -1))
