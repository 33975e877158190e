"""The rules of native nftables: the verdicts of iptables' rules, in three tables for both families."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.rules.istio import NATIVE_TABLES
from istio_iptables.rules.model import (
    DROP,
    FAMILIES,
    IPV4,
    IPV6,
    RETURN,
    TABLES,
    Chain,
    Comment,
    GidOwner,
    InInterface,
    Jump,
    Mark,
    OutInterface,
    Rule,
    Ruleset,
    Table,
    Transport,
    UidOwner,
)
from istio_iptables.rules.nftables.model import (
    Addresses,
    FamilyTProxy,
    NativeChain,
    NativeTable,
    NfProto,
    Owners,
    Ports,
)
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.settings.facts import Facts
from tests.support import strategies
from tests.support.interpreter import in_iptables, in_nftables, packets

Settings = dict[str, str]

BOTH = {"dual-stack": "true"}
TPROXY = {"istio-inbound-interception-mode": "TPROXY"}


def ruleset_for(
    values: Settings, *, ipv4: bool = True, ipv6: bool = True, servers: tuple[str, ...] = ()
) -> Ruleset:
    return build(configure(values, environment=Facts(ipv4=ipv4, ipv6=ipv6, servers=servers)))


def tables_for(values: Settings, **facts: Any) -> dict[str, NativeTable]:
    return {table.name: table for table in translate(ruleset_for(values, **facts))}


def rules_in(tables: dict[str, NativeTable], table: str, chain: str) -> tuple[Rule, ...]:
    found = tables[f"istio-proxy-{table}"].chain(chain)
    assert found, f"no chain {chain}"
    return found.rules


def matches_to(rules: tuple[Rule, ...], target: object) -> list[frozenset[object]]:
    return [frozenset(rule.matches) for rule in rules if rule.target == target]


# --- the same verdicts ------------------------------------------------------------------------


@settings(max_examples=settings().max_examples * 2)
@given(st.data(), strategies.settings(), strategies.environments(), st.booleans())
def test_every_packet_comes_to_the_same_as_with_iptables(
    data: st.DataObject, values: Settings, pod: tuple[bool, bool, list[str]], comments: bool
):
    """In every table; and a packet of a family that is off meets nothing at all."""
    ipv4, ipv6, servers = pod
    if comments:
        values = {**values, "rule-comments": "true"}
    ruleset = ruleset_for(values, ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    native = {table.name: table for table in translate(ruleset)}
    for packet in data.draw(st.lists(packets(ruleset), min_size=1, max_size=8)):
        for name in TABLES:
            wanted = in_iptables(ruleset.table(packet.family, name), packet)
            assert in_nftables(native.get(NATIVE_TABLES[name]), packet) == wanted


def test_hooks_are_where_iptables_has_its_built_in_chains():
    everything = {
        **BOTH,
        **TPROXY,
        "redirect-dns": "true",
        "capture-all-dns": "true",
        "kube-virt-interfaces": "v",
    }
    hooks = {
        (table.name, chain.name): (chain.hook.kind, chain.hook.priority, chain.hook.policy)
        for table in translate(ruleset_for(everything))
        for chain in table.chains
        if chain.hook
    }
    assert hooks == {
        ("istio-proxy-raw", "prerouting"): ("filter", -300, "accept"),
        ("istio-proxy-raw", "output"): ("filter", -300, "accept"),
        ("istio-proxy-mangle", "prerouting"): ("filter", -150, "accept"),
        ("istio-proxy-mangle", "output"): ("route", -150, "accept"),
        ("istio-proxy-nat", "prerouting"): ("nat", -100, "accept"),
        ("istio-proxy-nat", "output"): ("nat", -100, "accept"),
    }


def test_only_tables_with_rules_are_made():
    assert set(tables_for({})) == {"istio-proxy-nat"}
    assert set(tables_for({"drop-invalid": "true"})) == {"istio-proxy-mangle", "istio-proxy-nat"}
    assert translate(Ruleset()) == ()


# --- both families in one ---------------------------------------------------------------------


def test_a_rule_of_both_families_stands_once_and_others_are_for_their_family():
    nat = tables_for(BOTH)
    assert rules_in(nat, "nat", "output") == (Rule((), Jump("istio-output")),)
    sources = [
        match
        for rule in rules_in(nat, "nat", "istio-output")
        for match in rule.matches
        if isinstance(match, Addresses)
    ]
    assert {match.family for match in sources if match.direction == "source"} == {IPV4, IPV6}
    last = rules_in(nat, "nat", "istio-output")[-1]
    assert last == Rule((), Jump("istio-redirect"))


@pytest.mark.parametrize(("on", "facts"), [(IPV4, {"ipv6": True}), (IPV6, {"ipv4": False})])
def test_if_one_family_is_off_the_rules_of_base_chains_are_for_the_other(on: str, facts: dict[str, Any]):
    """IPv4 rules are always made; what a test of IPv6 alone needs are its tables alone."""
    ruleset = ruleset_for({**TPROXY, "drop-invalid": "true"}, **facts)
    alone = Ruleset(tuple(table for table in ruleset.tables if table.family == on))
    for table in translate(alone):
        for chain in table.chains:
            for rule in chain.rules:
                by_address = [m.family for m in rule.matches if isinstance(m, Addresses)]
                by_itself = [m.family for m in rule.matches if isinstance(m, NfProto)]
                assert by_itself == ([on] if chain.hook and not by_address else [])
                assert by_address in ([], [on])


def test_the_order_of_either_family_is_kept_where_the_other_has_other_rules():
    """a, x, b in one and a, b, y in the other."""
    a, b, x, y = (Rule((Mark(number),), RETURN) for number in range(4))
    ruleset = Ruleset(
        (
            Table(IPV4, "nat", (Chain("OUTPUT", (a, x, b)),)),
            Table(IPV6, "nat", (Chain("OUTPUT", (a, b, y)),)),
        )
    )
    [chain] = translate(ruleset)[0].chains
    only = {family: NfProto(family) for family in FAMILIES}
    assert chain.rules == (
        a,
        x.replace(matches=(only[IPV4], *x.matches)),
        b,
        y.replace(matches=(only[IPV6], *y.matches)),
    )


def test_a_chain_that_one_family_has_alone():
    servers = ("10.96.0.10",)
    tables = translate(ruleset_for({**BOTH, "redirect-dns": "true"}, servers=servers))
    raw = {table.name: table for table in tables}
    for rule in rules_in(raw, "raw", "istio-inbound"):
        assert any(isinstance(match, Addresses) and match.family == IPV4 for match in rule.matches)
    [to_inbound] = rules_in(raw, "raw", "prerouting")
    assert to_inbound.matches == (NfProto(IPV4),)


# --- lists are sets ---------------------------------------------------------------------------


def test_lists_are_sets_of_the_fewest_ranges():
    values = {
        **BOTH,
        "istio-service-exclude-cidr": "10.0.0.0/9,10.128.0.0/9,fd00::/8,192.0.2.7,192.0.2.7/32",
        "istio-local-outbound-ports-exclude": "80,81,8000-8100,8050:8200",
        "istio-inbound-ports": "443,80,81",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "7,5,6",
    }
    tables = tables_for(values)
    output = rules_in(tables, "nat", "istio-output")
    returning = matches_to(output, RETURN)
    ipv4 = Addresses("destination", IPV4, ((0x0A000000, 0x0AFFFFFF), (0xC0000207, 0xC0000207)))
    ipv6 = Addresses("destination", IPV6, ((0xFD << 120, (0xFE << 120) - 1),))
    for wanted in (ipv4, ipv6, Owners("group", ((5, 7),))):
        assert frozenset({wanted}) in returning
    for protocol in ("tcp", "udp"):
        assert frozenset({Ports("destination", protocol, ((80, 81), (8000, 8200)))}) in returning
    inbound = rules_in(tables, "nat", "istio-inbound")
    captured = matches_to(inbound, Jump("istio-in-redirect"))
    assert captured == [frozenset({Ports("destination", "tcp", ((80, 81), (443, 443)))})]


def test_twenty_thousand_networks_are_one_rule():
    networks = ",".join(f"10.{number >> 8}.{number & 255}.0/25" for number in range(20_000))
    rules = rules_in(tables_for({"istio-service-exclude-cidr": networks}), "nat", "istio-output")
    [(listed,)] = [
        rule.matches for rule in rules if len(getattr(rule.matches[:1] and rule.matches[0], "ranges", ())) > 1
    ]
    assert isinstance(listed, Addresses)
    assert len(listed.ranges) == 20_000
    assert len(rules) < 20


def test_compact_rules_mean_the_same_here():
    """`render --format nft --compact`: it is not needed, but not wrong."""
    ports = ",".join(str(number) for number in range(1, 80, 2))
    values = {"istio-inbound-ports": ports, "istio-service-exclude-cidr": "10.0.0.0/9,10.128.0.0/9"}
    plain, compact = (
        {table.name: table for table in translate(ruleset_for({**values, "compact": word}))}
        for word in ("false", "true")
    )
    assert rules_in(plain, "nat", "istio-output") == rules_in(compact, "nat", "istio-output")
    found = [
        match.ranges
        for rule in rules_in(compact, "nat", "istio-inbound")
        for match in rule.matches
        if isinstance(match, Ports) and rule.target == Jump("istio-in-redirect")
    ]
    assert [number for ranges in found for number, _ in ranges] == list(range(1, 80, 2))


# --- owners -----------------------------------------------------------------------------------


@given(strategies.settings(), strategies.environments())
@example({"ISTIO_OUTBOUND_OWNER_GROUPS": "5,6", "proxy-uid": "1,2"}, (True, True, []))
@example({"ISTIO_OUTBOUND_OWNER_GROUPS": "5", **BOTH, "redirect-dns": "true"}, (True, True, ["10.0.0.1"]))
def test_no_owner_is_negated(values: Settings, pod: tuple[bool, bool, list[str]]):
    """`meta skuid !=` never holds for a packet of no socket, the negated owner match of iptables does."""
    ipv4, ipv6, servers = pod
    for table in translate(ruleset_for(values, ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))):
        for chain in table.chains:
            for rule in chain.rules:
                assert not [m for m in rule.matches if isinstance(m, Owners) and m.negated]


def test_not_the_proxy_to_lo_is_anybody_to_lo_before_the_proxy_anywhere():
    output = rules_in(tables_for({"proxy-uid": "1337", "proxy-gid": "2337"}), "nat", "istio-output")
    to_lo = Rule((OutInterface("lo"),), RETURN)
    at = output.index(to_lo)
    assert output[at + 1] == Rule((Owners("user", ((1337, 1337),)),), RETURN)
    assert output.count(to_lo) == 2  # for the group, too


def test_captured_groups_go_to_a_chain_of_the_rest():
    tables = tables_for({"ISTIO_OUTBOUND_OWNER_GROUPS": "5,7,6,20", "rule-comments": "true", **BOTH})
    last = rules_in(tables, "nat", "istio-output")[-1]
    assert last.target == Jump("istio-output-of-groups", goto=True)
    assert set(last.matches) == {
        Owners("group", ((5, 7), (20, 20))),
        Comment("only the listed groups are captured"),
    }
    rest = rules_in(tables, "nat", "istio-output-of-groups")
    assert rest[-1].target == Jump("istio-redirect")


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(Rule((UidOwner(5, negated=True),), DROP), id="not a RETURN"),
        pytest.param(Rule((OutInterface("lo"), UidOwner(5, negated=True)), RETURN), id="not alone"),
        pytest.param(Rule((UidOwner(5, negated=True), Transport("tcp")), RETURN), id="not alone, but first"),
    ],
)
def test_what_cannot_be_said_is_refused(rule: Rule):
    """No packet may get another verdict: better nothing than that."""
    ruleset = Ruleset((Table(IPV4, "nat", (Chain("ISTIO_OUTPUT", (rule,)),)),))
    with pytest.raises(ValueError, match="no way to write this for nftables"):
        translate(ruleset)


def test_a_negated_owner_of_a_base_chain_is_refused():
    """There is no way back from a chain that a base chain goes to."""
    chain = Chain("OUTPUT", (Rule((GidOwner(5, negated=True),), RETURN),))
    ruleset = Ruleset(tuple(Table(family, "nat", (chain,)) for family in FAMILIES))
    with pytest.raises(ValueError, match="no way to write this for nftables"):
        translate(ruleset)


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(Rule((UidOwner(6),), RETURN), id="another owner"),
        pytest.param(Rule((UidOwner(5),), DROP), id="another target"),
        pytest.param(Rule((UidOwner(5), Transport("tcp")), RETURN), id="not always"),
    ],
)
def test_a_negated_owner_is_needed_unless_the_next_rule_does_the_rest(after: Rule):
    to_lo = Rule((OutInterface("lo"), UidOwner(5, negated=True)), RETURN)
    ruleset = Ruleset((Table(IPV4, "nat", (Chain("ISTIO_OUTPUT", (to_lo, after)),)),))
    with pytest.raises(ValueError, match="no way to write this for nftables"):
        translate(ruleset)


# --- TPROXY -----------------------------------------------------------------------------------


def test_tproxy_drops_what_nobody_listens_for():
    """The TPROXY target drops such packets, tproxy lets the next rule have them."""
    rules = rules_in(tables_for({**BOTH, **TPROXY}), "mangle", "istio-tproxy")
    assert [rule.target for rule in rules] == [
        FamilyTProxy(15006, 1337, IPV4),
        DROP,
        FamilyTProxy(15006, 1337, IPV6),
        DROP,
    ]
    for taken, dropped in (rules[:2], rules[2:]):
        assert taken.matches == dropped.matches
        assert Transport("tcp") in taken.matches
        [own] = [match for match in taken.matches if isinstance(match, Addresses)]
        assert own.negated


# --- comments ---------------------------------------------------------------------------------


def comments_in(tables: dict[str, NativeTable]) -> list[str]:
    return [
        match.text
        for table in tables.values()
        for chain in table.chains
        for rule in chain.rules
        for match in rule.matches
        if isinstance(match, Comment)
    ]


def test_the_tag_is_not_needed_in_an_owned_table():
    everything = {"istio-exclude-interfaces": "eth1", "kube-virt-interfaces": "net1", **TPROXY}
    assert comments_in(tables_for(everything)) == []
    assert ruleset_for(everything) != ruleset_for({})


def test_comments_are_cut_to_what_nftables_keeps():
    """127 bytes, and no half of a character; the tag is left out, and quotes, which nft cannot write."""
    tables = tables_for({"istio-exclude-interfaces": "é" * 7, "rule-comments": "true"})
    assert "traffic from interface ééééééé is excluded" in comments_in(tables)
    long = Rule((Comment("x" * 126 + "éé"),), RETURN)
    quoted = Rule((InInterface("a"), Comment('say "no"')), RETURN)
    ruleset = Ruleset((Table(IPV4, "nat", (Chain("ISTIO_OUTPUT", (long, quoted)),)),))
    [(first, second)] = [chain.rules for table in translate(ruleset) for chain in table.chains]
    assert first.matches == (Comment("x" * 126),)
    assert Comment("say 'no'") in second.matches


# --- tables as values -------------------------------------------------------------------------


def test_the_order_of_chains_and_the_text_of_a_table_are_of_no_account_and_extras_are():
    one, two = NativeChain("a", None, ()), NativeChain("b", None, ())
    table = NativeTable("t", (one, two))
    assert table == NativeTable("t", (two, one), text="table inet t")
    assert hash(table) == hash(NativeTable("t", (two, one), text="table inet t"))
    assert table != NativeTable("t", (one, two), extras=("set s",))
    assert table != NativeTable("t", (one,))
    assert table.chain("b") is two
    assert table.chain("c") is None
