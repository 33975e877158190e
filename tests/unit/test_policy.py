"""The policy against the oracle, and what holds for every rule that it makes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure, render
from istio_iptables.formats import iptables_restore
from istio_iptables.rules.istio import CHAINS, TAG
from istio_iptables.rules.model import (
    TABLES,
    Chain,
    Cidr,
    Comment,
    InInterface,
    Jump,
    LocalAddress,
    LocalDefaultRoute,
    MarkLookup,
    OutInterface,
    Rule,
    Ruleset,
    Table,
)
from istio_iptables.rules.ownership import is_owned, is_owned_rule, is_tagged, owned
from istio_iptables.settings.config import Config
from istio_iptables.settings.facts import Facts
from tests.support import oracle, strategies
from tests.support.cases import all_cases
from tests.support.restore import after_loading, by_family, without_comments
from tests.support.saved import by_chain

Environment = tuple[bool, bool, list[str]]
MANY = settings(max_examples=settings().max_examples * 2)


def facts(environment: Environment) -> Facts:
    ipv4, ipv6, servers = environment
    return Facts(ipv4, ipv6, tuple(servers))


def ruleset_for(chosen: Mapping[str, str], environment: Environment) -> Ruleset:
    return build(configure(chosen, environment=facts(environment)))


def rules_by_oracle(chosen: Mapping[str, str], environment: Environment) -> dict[tuple[str, str], list[str]]:
    ipv4, ipv6, servers = environment
    on = oracle.ipv6_is_on(chosen, has_ipv4=ipv4, has_ipv6=ipv6)
    return oracle.expected(chosen, ipv6=on, dns_servers=servers)


def without_all_comments(rule: Rule) -> Rule:
    return rule.replace(matches=tuple(match for match in rule.matches if not isinstance(match, Comment)))


EVERYTHING = {
    "istio-inbound-interception-mode": "TPROXY",
    "istio-exclude-interfaces": "eth1,+",
    "kube-virt-interfaces": "net1,net+,+",
    "istio-service-cidr": "10.0.0.0/8,0.0.0.0/0,fd00::/8,::/0",
    "istio-local-outbound-ports-exclude": "22,80-90",
    "istio-outbound-ports": "443,80:90",
    "proxy-uid": "0,1337",
    "redirect-dns": "true",
    "drop-invalid": "true",
    "dual-stack": "true",
    "ISTIO_OUTBOUND_OWNER_GROUPS": "1,2",
}
BOTH: Environment = (True, True, ["10.0.0.1", "fd00::1", "10.0.0.1"])


# --- against the oracle -----------------------------------------------------------------------


@MANY
@given(strategies.settings(), strategies.environments())
@example({}, (True, False, []))
@example({"istio-service-cidr": "10.0.0.0/8,127.0.0.1", "dual-stack": "1"}, BOTH)
@example({"istio-service-cidr": "::1"}, (True, False, []))
@example(EVERYTHING, BOTH)
@example({**EVERYTHING, "istio-inbound-interception-mode": "", "istio-service-cidr": "*"}, BOTH)
@example({**EVERYTHING, "capture-all-dns": "t", "istio-inbound-ports": ""}, BOTH)
def test_iptables_save_would_print_what_the_oracle_says(chosen: dict[str, str], environment: Environment):
    scripts = by_family(render(ruleset_for(chosen, environment)))
    found = {
        (family, table): lines
        for family, script in scripts.items()
        for table, lines in after_loading(script, family).items()
    }
    assert found == rules_by_oracle(chosen, environment)


@MANY
@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
def test_the_typed_rules_are_those_of_the_oracle(chosen: dict[str, str], environment: Environment):
    wanted = ruleset_for(chosen, environment)
    expected = rules_by_oracle(chosen, environment)
    assert {(table.family, table.name) for table in wanted.tables} == set(expected)
    for table in wanted.tables:
        chains = by_chain(expected[table.family, table.name])
        declared = [f":{chain} -" for chain in {*chains, *CHAINS}]
        rules = [line for lines in chains.values() for line in lines]
        lines = [f"*{table.name}", *declared, *rules, "COMMIT"]
        (there,) = iptables_restore.parse("\n".join(lines), table.family)
        assert {chain.name: chain.in_order for chain in table.chains} == {
            chain.name: chain.rules for chain in there.chains if chain.rules
        }


# --- reasons and comments ---------------------------------------------------------------------


@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
def test_every_rule_says_why_it_is_there(chosen: dict[str, str], environment: Environment):
    for _, _, rule in ruleset_for(chosen, environment).rules():
        assert len(rule.reason) > 10
        assert rule.reason.isprintable()
        assert rule.reason.strip() == rule.reason
        assert not rule.reason.endswith(".")


@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
def test_comments_stand_where_they_are_needed(chosen: dict[str, str], environment: Environment):
    for _, chain, rule in ruleset_for(chosen, environment).rules():
        jumps_to_owned = isinstance(rule.target, Jump) and rule.target.chain.startswith("ISTIO_")
        needed = chain.name not in CHAINS and not jumps_to_owned
        comments = [match for match in rule.matches if isinstance(match, Comment)]
        assert comments == ([Comment(TAG)] if needed else [])
        if comments:
            assert rule.matches[-1] == comments[0]


@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
@example({**EVERYTHING, "istio-exclude-interfaces": "é" * 7}, BOTH)
def test_rule_comments(chosen: dict[str, str], environment: Environment):
    plain = list(ruleset_for(chosen, environment).rules())
    commented = list(ruleset_for({**chosen, "rule-comments": "true"}, environment).rules())
    assert [without_all_comments(rule) for _, _, rule in commented] == [
        without_all_comments(rule) for _, _, rule in plain
    ]
    for (_, chain, rule), (_, _, before) in zip(commented, plain, strict=True):
        (comment,) = (match for match in rule.matches if isinstance(match, Comment))
        assert comment.text == (f"{TAG}: {rule.reason}" if is_tagged(before) else rule.reason)
        assert len(comment.text.encode()) <= 255
        assert is_tagged(rule) == is_tagged(before)
        assert is_owned(chain) or is_owned_rule(rule)


@given(strategies.settings(), strategies.environments(), st.booleans())
@example(EVERYTHING, BOTH, True)
def test_everything_is_found_again_as_owned(chosen: dict[str, str], environment: Environment, comments: bool):
    wanted = ruleset_for({**chosen, "rule-comments": str(comments).lower()}, environment)
    for table in wanted.tables:
        live = table.replace(chains=tuple(Chain(chain.name, chain.in_order) for chain in table.chains))
        assert owned(live) == live


@pytest.mark.parametrize("comments", ["true", "false"])
def test_comments_of_the_oracle_are_the_tag(comments: str):
    chosen = {"istio-exclude-interfaces": "eth1", "rule-comments": comments}
    script = render(ruleset_for(chosen, (True, False, [])))
    (table,) = after_loading(script, "ipv4").values()
    tagged = [line for line in map(without_comments, table) if oracle.COMMENT in line]
    assert tagged == [
        f"-A OUTPUT -o eth1 {oracle.COMMENT} -j RETURN",
        f"-A PREROUTING -i eth1 {oracle.COMMENT} -j RETURN",
    ]


# --- shape ------------------------------------------------------------------------------------


@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
@example({"istio-inbound-ports": "", "istio-service-cidr": ""}, (True, False, []))
def test_chains_and_tables(chosen: dict[str, str], environment: Environment):
    wanted = ruleset_for(chosen, environment)
    for table in wanted.tables:
        names = [chain.name for chain in table.chains]
        assert len(names) == len(set(names))
        for chain in table.chains:
            assert chain.in_order, "a chain is there only if it has a rule"
            assert is_owned(chain) or chain.name in ("PREROUTING", "OUTPUT")
            assert not (is_owned(chain) and chain.head)
            for rule in chain.in_order:
                if isinstance(rule.target, Jump):
                    assert rule.target.chain in names, "a jump leads to a chain that is there"
                    assert not rule.target.goto
    order = [(table.family, TABLES.index(table.name)) for table in wanted.tables]
    assert order == sorted(order)
    assert len(set(order)) == len(order)
    assert wanted.table("ipv4", "nat").chains


@given(strategies.settings(), strategies.environments())
@example(EVERYTHING, BOTH)
def test_addresses_are_of_the_family_of_their_table(chosen: dict[str, str], environment: Environment):
    for table, _, rule in ruleset_for(chosen, environment).rules():
        for match in rule.matches:
            network = getattr(match, "cidr", None)
            assert network is None or network.family == table.family
            assert network is None or network.prefix > 0, "/0 is no match"
            assert not isinstance(match, (InInterface, OutInterface)) or match.name != "+", "+ is no match"


def test_rules_of_virtual_machines_are_at_the_head():
    wanted = ruleset_for({"kube-virt-interfaces": "a,b"}, (True, False, []))
    prerouting = wanted.table("ipv4", "nat").chain("PREROUTING")
    assert [rule.matches[0] for rule in prerouting.head] == [
        InInterface(name) for name in ("b", "a", "b", "a")
    ]
    assert [str(getattr(rule.target, "chain", "RETURN")) for rule in prerouting.head] == [
        "ISTIO_REDIRECT",
        "ISTIO_REDIRECT",
        "RETURN",
        "RETURN",
    ]
    assert len(prerouting.rules) == 1
    assert prerouting.in_order == prerouting.head + prerouting.rules


def test_ipv6_is_left_alone_when_it_is_off():
    wanted = ruleset_for({**EVERYTHING, "dual-stack": "false"}, BOTH)
    assert wanted.families() == ("ipv4",)
    assert all(item.family == "ipv4" for item in wanted.routing)


def test_ipv4_is_always_on():
    assert ruleset_for({}, (False, True, [])).families() == ("ipv4", "ipv6")
    assert ruleset_for({}, (False, False, [])).families() == ("ipv4",)


# --- beside the rules -------------------------------------------------------------------------

PASSTHROUGH = LocalAddress(Cidr(6, 6, 128))


@all_cases("mode", ["REDIRECT", "TPROXY"])
@all_cases("ports", ["*", "80", ""])
@all_cases("ipv6", [True, False])
def test_network(mode: str, ports: str, ipv6: bool):
    chosen = {
        "istio-inbound-interception-mode": mode,
        "istio-inbound-ports": ports,
        "istio-inbound-tproxy-mark": "7",
        "istio-inbound-tproxy-route-table": "8",
    }
    found = list(ruleset_for(chosen, (not ipv6, ipv6, [])).routing)
    expected: list[object] = [PASSTHROUGH] if ipv6 else []
    if mode == "TPROXY" and ports:
        expected += [MarkLookup("ipv4", 7, 8), LocalDefaultRoute("ipv4", 8)]
        expected += [MarkLookup("ipv6", 7, 8), LocalDefaultRoute("ipv6", 8)] if ipv6 else []
    assert found == expected


def test_a_config_alone_decides():
    config = configure(EVERYTHING, environment=facts(BOTH))
    assert isinstance(config, Config)
    assert build(config) == build(config.replace())
    assert build(config) != build(config.replace(tunnel_port=1))
    assert Table("ipv4", "nat") != build(config).table("ipv4", "nat")
