"""The model of a picture: every rule is in it once, in words for what it does; ways are those of traces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from istio_iptables import Facts, SettingsError, configure, picture
from istio_iptables.interpreter import action, condition
from istio_iptables.interpreter.condition import (
    AnyOf,
    Condition,
    In,
    Named,
    Not,
)
from istio_iptables.interpreter.packet import UDP
from istio_iptables.interpreter.program import Rule, Table
from istio_iptables.pictures import fold, subject
from istio_iptables.pictures.asked import asked
from istio_iptables.pictures.examples import examples
from istio_iptables.pictures.model import Picture, Row
from istio_iptables.pictures.words import clauses, effect
from istio_iptables.rules.model import Counters
from istio_iptables.trace.steps import RuleStep
from tests.support import strategies
from tests.support.cases import all_cases
from tests.support.picturing import BOTH, CASES, IPV4, among_others, case, numbers, rows_of, settings_of

FEW = limits(max_examples=max(1, limits().max_examples // 4))


MANY = tuple((n << 25, n << 25) for n in range(99, 120))
LONG = AnyOf((In("source", MANY), Named("sent_to", "lo")), "type of the address")


def in_words(*conditions) -> str:
    return ", ".join(clause.text() for clause in clauses(conditions))


# --- every rule, once -------------------------------------------------------------------------


def assert_every_rule_is_there_once(drawn: Picture, shown: subject.Subject) -> None:
    tables = {table.title: table for table in shown.world.program.tables}
    for hook, stage, chain in drawn.chains():
        found = sorted(pair for row in chain.rows for pair in numbers(row))
        wanted = sorted(
            (title, rule.number) for title in stage.tables for rule in tables[title].rules(chain.name)
        )
        assert found == wanted, (hook.name, stage.title, chain.name)


def assert_rows_say_what_their_rules_do(drawn: Picture, shown: subject.Subject) -> None:
    tables = {table.title: table for table in shown.world.program.tables}
    for _, _, chain, row in drawn.rows():
        for title, number in numbers(row):
            rule = tables[title].rules(chain.name)[number - 1]
            [family] = tables[title].families if len(tables[title].families) == 1 else [None]
            doing = [part for part in rule.statements if isinstance(part, action.Action)]
            conditions = [part for part in rule.statements if isinstance(part, Condition)]
            assert effect(doing).kind == row.kind
            for mine, of_rule in zip(row.when, clauses(conditions, family), strict=True):
                assert mine.shape() == of_rule.shape()
                assert set(of_rule.values) <= set(mine.values)


@all_cases("name", CASES)
def test_every_rule_of_a_chain_is_in_one_row(name):
    _, shown = case(name)
    assert_every_rule_is_there_once(shown.picture(), shown)
    assert_rows_say_what_their_rules_do(shown.picture(), shown)


@FEW
@given(strategies.settings(), strategies.environments(), st.booleans())
def test_every_rule_of_any_settings_is_in_one_row(chosen, environment, native):
    ipv4, ipv6, servers = environment
    try:
        config = configure(
            {**chosen, "native-nftables": str(native)}, environment=Facts(ipv4, ipv6, tuple(servers))
        )
    except SettingsError:  # a name that nft cannot write
        return
    shown = subject.of_config(config, native=native)
    drawn = shown.picture()
    assert_every_rule_is_there_once(drawn, shown)
    assert_rows_say_what_their_rules_do(drawn, shown)
    assert_edges_lead_somewhere(drawn)
    for example in examples(config, shown.world.network):
        assert_its_rules_are_lit(shown, drawn, example.question)


def assert_edges_lead_somewhere(drawn: Picture) -> None:
    names = {hook.id for hook in drawn.hooks} | {node.id for node in drawn.nodes} | set(drawn.ports())
    for hook in drawn.hooks:
        for stage in hook.stages:
            names |= {stage.id, *(chain.id for chain in stage.chains)}
    names |= {row.id for row in rows_of(drawn)}
    assert {end for edge in drawn.edges for end in (edge.source, edge.target)} <= names
    assert len({row.id for row in rows_of(drawn)}) == len(rows_of(drawn))


# --- lists and families -----------------------------------------------------------------------


def rows_in(drawn: Picture, chain: str, hook: str = "output") -> list[Row]:
    return [row for h, _, c, row in drawn.rows() if c.name == chain and h.name == hook]


def drawn_of(facts: Facts = IPV4, **settings) -> Picture:
    return subject.of_config(configure(settings_of(settings), environment=facts)).picture()


def test_a_list_is_one_row_that_says_how_many_there_are():
    drawn = drawn_of(inbound_ports_excluded=list(range(1, 121)))
    tunnel, excluded, _ = rows_in(drawn, "ISTIO_INBOUND", "prerouting")
    assert tunnel.condition() == "TCP, to port 15008"
    assert (excluded.number, excluded.count) == ("2-121", 120)
    assert excluded.condition() == "TCP, to port 1, 2, 3, 4 … 116 more ports"
    assert excluded.reason == "inbound port … is excluded"


def test_rules_that_take_turns_are_a_row_each():
    drawn = drawn_of(outbound_ports_excluded=[22, 25, 110])
    tcp, udp = rows_in(drawn, "ISTIO_OUTPUT")[:2]
    assert (tcp.number, tcp.condition()) == ("1, 3 … 5", "TCP, to port 22, 25 or 110")
    assert (udp.number, udp.condition()) == ("2, 4 … 6", "UDP, to port 22, 25 or 110")


def test_rules_that_do_different_things_take_turns_only_if_their_order_does_not_count():
    ports = drawn_of(interception_mode="TPROXY", inbound_ports=[80, 81])
    apart = rows_in(ports, "ISTIO_INBOUND", "prerouting")
    assert [row.number for row in apart if row.then in ("ISTIO_DIVERT", "ISTIO_TPROXY")] == ["4, 6", "5, 7"]
    ranges = drawn_of(interception_mode="TPROXY", inbound_ports=["80-90", "85"])
    turns = [r for r in rows_in(ranges, "ISTIO_INBOUND", "prerouting") if r.then == "ISTIO_DIVERT"]
    assert [row.number for row in turns] == ["4", "6"]


def table_of(*rules: tuple[condition.Condition, action.Action]) -> Table:
    made = tuple(Rule(at, "", statements) for at, statements in enumerate(rules, 1))
    return Table("x", "x", "x", frozenset({"ipv4"}), (), {"X": made})


def port(number: int) -> In:
    return In("destination_port", ((number, number),))


def test_a_member_that_comes_twice_ends_a_list_of_rules_that_do_different_things():
    doing = (action.Call("A"), action.Return())
    table = table_of(*((port(number), each) for number in (1, 2, 2) for each in doing))
    assert [row.number for row in fold.rows(table, "X")] == ["1, 3", "2, 4", "5", "6"]


def test_what_is_not_a_member_is_no_list():
    table = table_of(*((Not(port(number)), action.Return()) for number in (1, 2)))
    assert [row.condition() for row in fold.rows(table, "X")] == ["not to port 1", "not to port 2"]


def test_rules_with_another_reason_are_no_part_of_a_list():
    rows = rows_in(drawn_of(outbound_cidrs_excluded=["10.0.0.0/8", "172.16.0.0/12"]), "ISTIO_OUTPUT")
    assert [row.condition() for row in rows[-3:]] == [
        "to 127.0.0.1",
        "to 10.0.0.0/8 or 172.16.0.0/12",
        "everything",
    ]


def test_both_families_are_one_row_where_they_say_the_same():
    rows = rows_in(drawn_of(BOTH, dual_stack=True, outbound_cidrs_excluded=["10.0.0.0/8"]), "ISTIO_OUTPUT")
    assert rows[0].condition() == "out by lo, from 127.0.0.6 or ::6"
    assert [len(row.spans) for row in rows] == [2] * 8 + [1, 2]
    assert rows[8].condition() == "to 10.0.0.0/8"


def test_a_row_of_one_family_says_so_unless_an_address_does():
    drawn = drawn_of(Facts(True, True, ("10.0.0.1",)), dual_stack=True, redirect_dns=True)
    [jump] = [row for row in rows_in(drawn, "ISTIO_OUTPUT") if row.then == "ISTIO_OUTPUT_DNS"]
    assert jump.only == "IPv4"
    assert jump.condition() == "IPv4 only: everything"


# --- where rules lead -------------------------------------------------------------------------


def test_what_no_rule_decides_about_is_said():
    drawn = drawn_of(inbound_ports=[80])
    ends = {(h.name, c.name): c.otherwise for h, _, c in drawn.chains()}
    assert ends["prerouting", "ISTIO_INBOUND"] == "as it is"
    assert ends["output", "ISTIO_REDIRECT"] == "as it is"  # UDP
    assert ends["output", "ISTIO_IN_REDIRECT"] == ""  # only TCP comes there
    assert ends["output", "ISTIO_OUTPUT"] == ""


def test_a_return_leads_back_to_a_chain_that_goes_on():
    rows = rows_in(drawn_of(interception_mode="TPROXY"), "ISTIO_INBOUND", "prerouting")
    assert rows[0].then == "back to PREROUTING"


def test_hooks_are_in_the_kernels_order():
    drawn = drawn_of(redirect_dns=True, interception_mode="TPROXY")
    for hook in drawn.hooks:
        priorities = [stage.priority for stage in hook.stages if stage.priority is not None]
        assert priorities == [-300, -200, -150, -100] if hook.name == "output" else sorted(priorities)
        assert hook.stages[-1].title.startswith("routing")


def test_ports_that_rules_lead_to_are_somebodys():
    drawn = drawn_of(redirect_dns=True, outbound_port=1, inbound_port=2, tunnel_port=3)
    owners = {port.number: node.title for node in drawn.nodes for port in node.ports}
    assert owners == {1: "Envoy", 2: "Envoy", 3: "Envoy", 15053: "Istio agent"}


def test_routing_rules_of_tproxy_are_named():
    drawn = drawn_of(interception_mode="TPROXY")
    assert drawn.into[0].stages[-1].note.endswith("from all fwmark 0x539 lookup 133")


# --- rules of others --------------------------------------------------------------------------


def test_foreign_rules_are_in_their_hooks_and_what_a_policy_drops_is_said():
    _, shown = among_others()
    drawn = shown.picture()
    assert [hook.name for hook in drawn.hooks] == ["output", "postrouting", "prerouting", "input", "forward"]
    assert_every_rule_is_there_once(drawn, shown)
    assert_edges_lead_somewhere(drawn)
    ends = {(hook.name, chain.name): chain.otherwise for hook, _, chain in drawn.chains()}
    assert ends["input", "INPUT"] == "dropped"
    [back, accepted] = rows_in(drawn, "USER", "forward")
    assert (back.kind, back.then) == ("drop", "dropped")  # by the policy, at the end of FORWARD
    assert accepted.then == "leaves this table"
    dnat = rows_in(drawn, "DOCKER", "prerouting")[1]
    assert (dnat.kind, dnat.then) == ("translate", "to 172.17.0.2, port 80")
    unknown = [row for row in rows_in(drawn, "INPUT", "input") if "not modelled" in row.condition()]
    assert [row.kind for row in unknown] == ["drop", "pass"]
    assert "<evil>" in unknown[0].condition()


def test_tables_of_one_priority_are_side_by_side():
    drawn = among_others()[1].picture()
    titles = [stage.title for stage in drawn.into[0].stages]
    assert titles == ["conntrack", "nat (iptables-legacy)", "nat (iptables)", "routing"]


def test_counters_of_a_list_are_added():
    row = rows_in(among_others()[1].picture(), "INPUT", "input")[0]
    assert row.counters == Counters(9, 900)
    assert not [row for row in rows_of(drawn_of()) if row.counters]


def test_the_way_of_a_packet_that_depends_has_all_outcomes():
    _, shown = among_others()
    question = asked("in --from 198.51.100.1 --to 10.0.0.2:9", IPV4).question
    found = subject.followed(shown, question)
    way = subject.way_of(shown, shown.picture(), found, "")
    assert found.verdict == "depends"
    assert "It depends on" in way.conclusion


# --- ways -------------------------------------------------------------------------------------


def assert_its_rules_are_lit(shown: subject.Subject, drawn: Picture, question) -> None:
    found = subject.followed(shown, question)
    way = subject.way_of(shown, drawn, found, "a way")
    steps = [
        step
        for answer in found.answers
        for path in answer.paths
        for step in path.steps
        if isinstance(step, RuleStep)
    ]
    lit = {
        (title, chain.name, number)
        for _, _, chain, row in drawn.rows()
        if row.id in way.ids
        for title, number in numbers(row)
    }
    assert {(step.table, step.chain, step.number) for step in steps} <= lit
    assert bool(steps) == any(row.id in way.ids for row in rows_of(drawn))
    assert way.edges <= {(edge.source, edge.target) for edge in drawn.edges}
    verdict = found.answers[-1].verdict
    if verdict.code in ("redirected", "tproxied"):
        assert f"p{verdict.to}" in way.order


def test_a_connection_goes_through_the_proxy_and_out():
    config, shown = case("defaults")
    first = examples(config, shown.world.network)[0]
    way = subject.way_of(shown, shown.picture(), subject.followed(shown, first.question), first.title)
    assert [name for name in way.order if name in ("app", "p15001", "proxy", "outside")] == [
        "app",
        "p15001",
        "proxy",
        "outside",
    ]
    assert {("app", "output"), ("proxy", "output"), ("output", "outside")} <= way.edges
    assert "leaves the pod" in way.conclusion


def test_without_follow_it_ends_at_the_proxy():
    _, shown = case("defaults")
    question = asked("out --to 203.0.113.1:80", IPV4).question
    way = subject.way_of(shown, shown.picture(), subject.followed(shown, question, further=False), "")
    assert way.order[-1] == "p15001"
    assert ("proxy", "output") not in way.edges


def test_what_stays_in_the_pod_comes_in_again_by_lo():
    _, shown = case("defaults")
    question = asked("out --to 127.0.0.1:80", IPV4).question
    way = subject.way_of(shown, shown.picture(), subject.followed(shown, question), "")
    assert {("output", "prerouting"), ("prerouting", "served")} <= way.edges
    assert way.order[-1] == "served"


def test_what_is_redirected_comes_in_by_lo_too():
    config = configure(redirect_dns=True, environment=IPV4)
    shown = subject.of_config(config)
    question = asked("out --udp --to 10.96.0.10:53", IPV4).question
    way = subject.way_of(shown, shown.picture(), subject.followed(shown, question, further=False), "")
    assert ("output", "prerouting") in way.edges  # raw has rules there
    assert way.order[-1] == "p15053"


@all_cases(
    ("packet", "reason"),
    [
        ("out --udp --to 203.0.113.1:53", ""),  # no rule decides
        ("out --to 203.0.113.1:80", "all other outbound traffic is captured"),
        ("out --uid 1337 --to 203.0.113.1:80", "the proxy's own traffic (UID 1337): never to itself again"),
        ("in --to :9", "all other inbound TCP is captured"),
    ],
)
@all_cases("name", ["defaults", "native"])
def test_the_conclusion_names_the_rule_that_decided(name, packet, reason):
    _, shown = case(name)
    found = subject.followed(shown, asked(packet, IPV4).question, further=False)
    assert found.conclusion.partition(" Reason: ")[2].removesuffix(".") == reason


# --- the connections of a report --------------------------------------------------------------


def verdicts(facts: Facts = IPV4, **settings) -> dict[str, str]:
    config = configure(settings_of(settings), environment=facts)
    shown = subject.of_config(config)
    return {
        example.title: subject.followed(shown, example.question).verdict
        for example in examples(config, shown.world.network)
    }


def test_the_connections_of_the_defaults():
    assert verdicts() == {
        "the application calls a service": "redirected 15001",
        "the application calls itself by the pod's address": "direct",
        "the application calls localhost": "direct",
        "the application asks a DNS server": "direct",
        "Envoy calls a service": "direct",
        "Envoy calls a service that this pod itself serves": "redirected 15006",
        "Envoy hands a connection to the application": "direct",
        "a client calls the application": "redirected 15006",
        "a client calls the tunnel port (15008)": "direct",
        "the application calls a service over IPv6, which is off": "direct",
        "a client calls the application over IPv6, which is off": "direct",
    }


def test_the_connections_show_what_the_settings_say():
    found = verdicts(
        BOTH,
        dual_stack=True,
        redirect_dns=True,
        drop_invalid=True,
        interfaces_excluded=["eth1"],
        inbound_ports_excluded=[8080, 9090],
        outbound_ports_excluded=[80],
        outbound_ports=[443],
        outbound_cidrs_excluded=["203.0.113.0/24", "fd00::/8"],
        owner_groups_excluded=[5],
    )
    assert found["the application calls a service"] == "redirected 15001"
    assert found["the application calls an excluded address (203.0.113.0/24)"] == "direct"
    assert found["the application calls an excluded port (80)"] == "direct"
    assert found["the application calls a port that is always captured (443)"] == "redirected 15001"
    assert found["a process of an excluded group (5) calls a service"] == "direct"
    assert found["the application asks a DNS server"] == "redirected 15053"
    assert found["the agent asks a DNS server"] == "direct"
    assert found["a client calls an excluded port (8080)"] == "direct"
    assert found["a client calls by an excluded interface (eth1)"] == "direct"
    assert found["a packet of no known connection comes in"] == "dropped"
    assert found["the application calls a service over IPv6"] == "redirected 15001"
    assert found["a client calls the application over IPv6"] == "redirected 15006"


def test_the_connections_of_lists():
    found = verdicts(outbound_cidrs=["10.96.0.0/12"], inbound_ports=[80], rerouted_interfaces=["vm0"])
    assert found["the application calls a service"] == "redirected 15001"
    assert found["the application calls an address that is not listed"] == "direct"
    assert found["a client calls a captured port of the application"] == "redirected 15006"
    assert found["a client calls another port of the application"] == "direct"
    assert found["the virtual machine behind vm0 calls a service"] == "redirected 15001"


# --- a packet in one text ---------------------------------------------------------------------


def test_the_options_of_trace_describe_a_packet():
    found = asked("out --uid 1000 --to '[fd00::1]:80' --follow --own 10.0.0.2 --udp", IPV4)
    assert (found.question.direction, found.question.uid, found.question.protocol) == ("out", 1000, UDP)
    assert (str(found.question.to.address), found.question.to.port) == ("fd00::1/128", 80)
    assert found.follow
    assert [str(cidr) for cidr in found.own] == ["10.0.0.2/32"]


def test_the_proxy_sends_to_the_endpoint_that_is_given():
    text = "out --uid 1000 --to 10.96.7.7:80 --own 10.0.0.2 --follow --endpoint 10.0.0.2:8080"
    drawn = picture(configure(environment=IPV4), trace=text, own=["10.0.0.2"])
    assert "It arrives at 10.0.0.2:8080 in this pod, from 127.0.0.6" in drawn
    assert "10.0.0.2:8080 in this pod" not in picture(
        configure(environment=IPV4), trace=text.partition(" --endpoint")[0], own=["10.0.0.2"]
    )


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("", ["--trace: trace: needs DIRECTION"]),
        ("sideways --to 10.0.0.1:80", ["--trace: trace: 'sideways' is not one of out, in"]),
        ("out --to 10.0.0.1:80 --json", ["--trace: --json: says nothing about the packet"]),
        ("out --to 10.0.0.1:80 -p 1", ["--trace: --envoy-port (-p): is a setting"]),
        ("out --to 10.0.0.1:80 --help", ["--trace: --help: says nothing about the packet"]),
        ("out --to x --uid nobody-here", ["--trace: --to: 'x'", "--trace: --uid: there is no user"]),
        (
            "out --to 10.0.0.1:80 --endpoint 10.0.0.2:80 --proxy-runs-as 5",
            [f"--trace: --{name}: needs --follow beside it" for name in ("endpoint", "proxy-runs-as")],
        ),
        (
            "out --to 10.0.0.1:80 --follow --endpoint :80",
            ["--trace: --endpoint: needs an address and a port"],
        ),
        ("out --to '10.0.0.1:80", ['--trace: "out --to \'10.0.0.1:80": No closing quotation']),
    ],
)
def test_what_is_wrong_with_it_is_said_all_at_once(text, mistakes):
    with pytest.raises(SettingsError) as error:
        asked(text, IPV4)
    assert len(error.value.mistakes) == len(mistakes)
    for found, begins in zip(error.value.mistakes, mistakes, strict=True):
        assert found.startswith(begins)
