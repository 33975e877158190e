"""Lists: one rule for all members of a list, in sets of nftables and, with --compact, in multiport rules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.policy.compact import compacted
from istio_iptables.rules.lists import join, union
from istio_iptables.rules.model import (
    DROP,
    RETURN,
    TABLES,
    Chain,
    Cidr,
    Comment,
    Destination,
    DestinationPort,
    DestinationPorts,
    Jump,
    Listed,
    Match,
    PortRange,
    Rule,
    Ruleset,
    Transport,
)
from istio_iptables.settings.facts import Facts
from tests.support import strategies
from tests.support.interpreter import in_iptables, packets

Settings = dict[str, str]

TCP, UDP = Transport("tcp"), Transport("udp")
LIST = Listed(DestinationPort, "all of them")


def port(number: int, last: int = 0) -> DestinationPort:
    return DestinationPort(PortRange(number, last or number))


def ruleset_for(values: Settings, pod: tuple[bool, bool, list[str]] = (True, True, [])) -> Ruleset:
    ipv4, ipv6, servers = pod
    return build(configure(values, environment=Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))))


# --- union ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))))
def test_union_holds_the_same_numbers_in_the_fewest_ranges(ranges: list[tuple[int, int]]):
    united = union(ranges)
    numbers = {number for first, last in ranges for number in range(first, last + 1)}
    assert [number for first, last in united for number in range(first, last + 1)] == sorted(numbers)
    gaps = [before[1] + 1 < after[0] for before, after in pairwise(united)]
    assert all(gaps)


# --- join -------------------------------------------------------------------------------------


def together(members: Sequence[Any]) -> list[Match]:
    return [DestinationPorts(tuple(member.ports for member in members))]


def joined(*rules: Rule) -> tuple[Rule, ...]:
    return join(rules, {DestinationPort: together})


def test_members_of_one_list_become_one_rule_with_the_reason_of_the_list():
    rules = (
        Rule((TCP, port(1), Comment("port 1")), RETURN, "port 1", LIST),
        Rule((TCP, port(2), Comment("port 2")), RETURN, "port 2", LIST),
    )
    [rule] = joined(*rules)
    assert rule == Rule(
        (TCP, DestinationPorts((PortRange(1, 1), PortRange(2, 2))), Comment("all of them")), RETURN
    )
    assert (rule.reason, rule.listed) == ("all of them", LIST)
    [alone] = joined(rules[0])
    assert alone.reason == "port 1"


def test_what_differs_in_something_else_is_another_rule_in_the_order_of_the_first_members():
    rules = joined(
        Rule((TCP, port(1)), RETURN, listed=LIST),
        Rule((UDP, port(1)), RETURN, listed=LIST),
        Rule((TCP, port(2)), RETURN, listed=LIST),
        Rule((TCP, port(3)), DROP, listed=LIST),
        Rule((UDP, port(4)), RETURN, listed=LIST),
    )
    several = [
        DestinationPorts(tuple(PortRange(n, n) for n in numbers)) for numbers in ((1, 2), (1, 4), (3,))
    ]
    assert rules == (
        Rule((TCP, several[0]), RETURN),
        Rule((UDP, several[1]), RETURN),
        Rule((TCP, several[2]), DROP),
    )


def test_what_stands_between_two_parts_of_a_list_keeps_them_apart():
    between = Rule((TCP,), Jump("ISTIO_REDIRECT"))
    rules = joined(
        Rule((TCP, port(1)), RETURN, listed=LIST),
        between,
        Rule((TCP, port(2)), RETURN, listed=LIST),
        Rule((TCP, port(3)), RETURN, listed=Listed(DestinationPort, "another list")),
    )
    assert len(rules) == 4
    assert rules[1] is between


def test_a_member_that_is_every_packet_is_the_whole_list():
    rules = joined(Rule((TCP, port(1)), RETURN, listed=LIST), Rule((TCP,), RETURN, "all", listed=LIST))
    assert rules == (Rule((TCP,), RETURN),)


def test_lists_that_vary_in_something_else_stay_as_they_are():
    rules = (Rule((TCP, port(1)), RETURN, listed=Listed(Destination, "destinations")),) * 2
    assert joined(*rules) == rules


# --- --compact --------------------------------------------------------------------------------


@given(st.data(), strategies.settings(), strategies.environments())
def test_compact_rules_have_the_verdicts_of_plain_ones(
    data: st.DataObject, values: Settings, pod: tuple[bool, bool, list[str]]
):
    plain, compact = ruleset_for(values, pod), ruleset_for({**values, "compact": "true"}, pod)
    assert plain.routing == compact.routing
    for packet in data.draw(st.lists(packets(plain), min_size=1, max_size=8)):
        for name in TABLES:
            wanted = in_iptables(plain.table(packet.family, name), packet)
            assert in_iptables(compact.table(packet.family, name), packet) == wanted


@given(
    st.data(),
    strategies.listed(strategies.ports(), max_size=40),
    strategies.listed(strategies.cidrs(), max_size=40),
    st.sampled_from(["REDIRECT", "TPROXY"]),
)
def test_long_lists_too(data: st.DataObject, ports: str, networks: str, mode: str):
    values = {
        "dual-stack": "true",
        "istio-inbound-interception-mode": mode,
        data.draw(st.sampled_from(["istio-inbound-ports", "istio-local-exclude-ports"])): ports,
        data.draw(st.sampled_from(["istio-outbound-ports", "istio-local-outbound-ports-exclude"])): ports,
        data.draw(st.sampled_from(["istio-service-cidr", "istio-service-exclude-cidr"])): networks,
        "kube-virt-interfaces": "vm0,vm1",
    }
    plain, compact = ruleset_for(values), ruleset_for({**values, "compact": "true"})
    assert len(list(compact.rules())) <= len(list(plain.rules()))
    for packet in data.draw(st.lists(packets(plain), min_size=1, max_size=8)):
        for name in TABLES:
            wanted = in_iptables(plain.table(packet.family, name), packet)
            assert in_iptables(compact.table(packet.family, name), packet) == wanted


def ports_of(rule: Rule) -> tuple[PortRange, ...]:
    [found] = [m for m in rule.matches if isinstance(m, (DestinationPort, DestinationPorts))]
    return found.ports if isinstance(found, DestinationPorts) else (found.ports,)


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 5)), min_size=1, max_size=60))
@example([(number * 2, 0) for number in range(1, 17)])
@example([(number * 4, 1) for number in range(1, 9)])
@example([*((number * 2, 0) for number in range(1, 15)), (100, 3)])
def test_a_multiport_rule_takes_15_ports_and_a_range_counts_two(members: list[tuple[int, int]]):
    """iptables-extensions(8), multiport; and no rule could take the first port of the next."""
    rules = tuple(Rule((TCP, port(first, first + more)), RETURN, listed=LIST) for first, more in members)
    compact = compacted(Chain("ISTIO_INBOUND", rules)).rules
    sizes = [[1 if ports.first == ports.last else 2 for ports in ports_of(rule)] for rule in compact]
    assert all(sum(widths) <= 15 for widths in sizes)
    for before, after in pairwise(sizes):
        assert sum(before) + after[0] > 15
    found = [(ports.first, ports.last) for rule in compact for ports in ports_of(rule)]
    assert found == list(union((first, first + more) for first, more in members))
    for rule in compact:
        assert any(isinstance(m, DestinationPorts) for m in rule.matches) == (len(ports_of(rule)) > 1)


def test_networks_are_merged_within_their_family():
    values = {
        "istio-service-exclude-cidr": "10.0.0.0/9,fd00::/9,10.128.0.0/9,fd80::/9,192.0.2.1",
        "dual-stack": "t",
    }
    ruleset = ruleset_for({**values, "compact": "true"})
    found = {
        family: [
            match.cidr
            for rule in ruleset.table(family, "nat").chain("ISTIO_OUTPUT").rules
            for match in rule.matches
            if isinstance(match, Destination) and not match.negated
        ]
        for family in ("ipv4", "ipv6")
    }
    assert found["ipv4"][1:] == [Cidr(4, 10 << 24, 8), Cidr(4, 0xC0000201, 32)]
    assert found["ipv6"][1:] == [Cidr(6, 0xFD << 120, 8)]


@pytest.mark.parametrize("setting", ["istio-service-exclude-cidr", "istio-service-cidr"])
@pytest.mark.parametrize("comments", ["true", "false"])
def test_networks_that_are_all_there_is_need_no_match(setting: str, comments: str):
    """As /0 that a user writes: the kernel has no match for it, so the rule would differ for ever."""
    values = {setting: "0.0.0.0/1,128.0.0.0/2,192.0.0.0/2,::/1,8000::/1", "dual-stack": "t"}
    values |= {"kube-virt-interfaces": "vm0", "compact": "true", "rule-comments": comments}
    listed = [rule for _, _, rule in ruleset_for(values).rules() if rule.listed]
    assert len(listed) == 4  # of either family, for the application and for vm0
    assert not [match for rule in listed for match in rule.matches if isinstance(match, Destination)]
    assert all((Comment(rule.reason) in rule.matches) == (comments == "true") for rule in listed)


def test_the_default_is_a_rule_for_each_member():
    """It has to be the original's, rule for rule."""
    values = {"istio-inbound-ports": "80,81,82", "istio-service-exclude-cidr": "10.0.0.0/9,10.128.0.0/9"}
    rules = [rule for _, _, rule in ruleset_for(values).rules() if rule.listed]
    assert len(rules) == 5
    assert not [m for rule in rules for m in rule.matches if isinstance(m, DestinationPorts)]


@pytest.mark.parametrize("comments", ["true", "false"])
def test_a_rule_for_a_list_says_so(comments: str):
    values = {"istio-inbound-ports": "80,443", "compact": "true", "rule-comments": comments}
    [rule] = [rule for _, _, rule in ruleset_for(values, (True, False, [])).rules() if rule.listed]
    assert rule.reason == "listed inbound ports are captured"
    assert (Comment(rule.reason) in rule.matches) == (comments == "true")


def test_native_rules_need_no_compact_lists():
    """Lists are sets there; the option is named as without effect, as others are."""
    from istio_iptables.settings.declared import BY_NAME
    from istio_iptables.settings.resolve import parse, resolve
    from istio_iptables.settings.texts import Given

    facts = Facts(ipv4=True, ipv6=False)
    given = [Given(BY_NAME[name], "true", f"--{name}") for name in ("compact", "native-nftables")]
    config, warnings = resolve(parse(given, facts), facts)
    assert not config.compact
    assert [text for text in warnings if "--compact has no effect with --native-nftables" in text]
    config, warnings = resolve(parse(given[:1], facts), facts)
    assert config.compact
    assert not [text for text in warnings if "--compact" in text]
