"""Native tables as text for nft, and what nft prints about them: nothing is taken for what it is not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.api import build, configure, render
from istio_iptables.errors import SettingsError
from istio_iptables.formats.nft import edit_scripts, rule_lines, script, table_lines
from istio_iptables.formats.nft_json import is_foreign, parse
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
    RETURN,
    Comment,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
    Counters,
    ForeignMatch,
    ForeignTarget,
    InInterface,
    Jump,
    Mark,
    Match,
    OutInterface,
    Redirect,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Target,
    Transport,
)
from istio_iptables.rules.nftables.model import (
    Addresses,
    FamilyTProxy,
    Hook,
    NativeChain,
    NativeTable,
    NfProto,
    Owners,
    Ports,
    set_name,
)
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.settings.facts import Facts
from tests.support import strategies

Settings = dict[str, str]

# --- one rule, written as nft has it and as nft prints it -------------------------------------

TCP = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def mangle(what: dict[str, Any], value: Any) -> dict[str, Any]:
    return {"mangle": {"key": what, "value": value}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def key(kind: str, name: str, **more: str) -> dict[str, Any]:
    return {kind: {"key": name, **more}}


def prefix(address: str, length: int) -> dict[str, Any]:
    return {"prefix": {"addr": address, "len": length}}


#: A match, its text, and what nft 1.0.6 prints about it.
MATCHES: list[tuple[Match, str, dict[str, Any]]] = [
    (NfProto("ipv6"), "meta nfproto ipv6", match(key("meta", "nfproto"), "ipv6")),
    (NfProto("ipv4"), "meta nfproto ipv4", match(key("meta", "nfproto"), 2)),
    (Transport("tcp"), "meta l4proto tcp", TCP),
    (Transport("udp", True), "meta l4proto != udp", match(key("meta", "l4proto"), 17, "!=")),
    (
        Addresses("destination", "ipv4", ((0x7F000001, 0x7F000001),), True),
        "ip daddr != 127.0.0.1",
        match(payload("ip", "daddr"), "127.0.0.1", "!="),
    ),
    (
        Addresses("source", "ipv6", ((0xFD << 120, (0xFE << 120) - 1),)),
        "ip6 saddr fd00::/8",
        match(payload("ip6", "saddr"), prefix("fd00::", 8)),
    ),
    (
        Addresses("destination", "ipv4", ((0, 2**32 - 1),)),
        "ip daddr 0.0.0.0/0",
        match(payload("ip", "daddr"), prefix("0.0.0.0", 0)),
    ),
    (
        Addresses("destination", "ipv4", ((0x0A000000, 0x0AFFFFFF), (0xC0000201, 0xC0000203))),
        "ip daddr { 10.0.0.0/8, 192.0.2.1-192.0.2.3 }",
        match(
            payload("ip", "daddr"), {"set": [prefix("10.0.0.0", 8), {"range": ["192.0.2.1", "192.0.2.3"]}]}
        ),
    ),
    (Ports("destination", "tcp", ((80, 80),)), "tcp dport 80", match(payload("tcp", "dport"), 80)),
    (
        Ports("source", "udp", ((53, 53), (8000, 8100)), True),
        "udp sport != { 53, 8000-8100 }",
        match(payload("udp", "sport"), {"set": [53, {"range": [8000, 8100]}]}, "!="),
    ),
    (Owners("user", ((1337, 1337),)), "meta skuid 1337", match(key("meta", "skuid"), 1337)),
    (
        Owners("group", ((0, 0), (5, 7))),
        "meta skgid { 0, 5-7 }",
        match(key("meta", "skgid"), {"set": [0, {"range": [5, 7]}]}),
    ),
    (InInterface("eth0"), 'iifname "eth0"', match(key("meta", "iifname"), "eth0")),
    (OutInterface("lo+", True), 'oifname != "lo*"', match(key("meta", "oifname"), "lo*", "!=")),
    (InInterface("a*"), 'iifname "a\\*"', match(key("meta", "iifname"), "a\\*")),
    (InInterface("*+"), 'iifname "**"', match(key("meta", "iifname"), "**")),
    (Mark(1337), "meta mark 0x539", match(key("meta", "mark"), 1337)),
    (Mark(1338, negated=True), "meta mark != 0x53a", match(key("meta", "mark"), 1338, "!=")),
    (ConnectionMark(1337), "ct mark 0x539", match(key("ct", "mark"), 1337)),
    (ConntrackState(frozenset({"INVALID"})), "ct state invalid", match(key("ct", "state"), "invalid", "in")),
    (
        ConntrackState(frozenset({"RELATED", "ESTABLISHED"})),
        "ct state established,related",
        match(key("ct", "state"), ["established", "related"], "in"),
    ),
    (
        ConntrackState(frozenset({"RELATED", "ESTABLISHED"})),
        "ct state established,related",
        match(key("ct", "state"), [2, 4], "in"),
    ),
    (
        ConntrackState(frozenset({"RELATED", "NEW"})),
        "ct state new,related",
        match(key("ct", "state"), {"|": ["related", "new"]}, "in"),
    ),
]

TPROXY: list[dict[str, Any]] = [
    {"tproxy": {"family": "ip6", "port": 15006}},
    mangle({"meta": {"key": "mark"}}, 1337),
    {"accept": None},
]
TARGETS: list[tuple[Target, str, list[dict[str, Any]]]] = [
    (ACCEPT, "accept", [{"accept": None}]),
    (DROP, "drop", [{"drop": None}]),
    (RETURN, "return", [{"return": None}]),
    (Jump("istio-output"), "jump istio-output", [{"jump": {"target": "istio-output"}}]),
    (Jump("istio-output", True), "goto istio-output", [{"goto": {"target": "istio-output"}}]),
    (Redirect(15001), "redirect to :15001", [{"redirect": {"port": 15001}}]),
    (SetMark(1338), "meta mark set 0x53a", [mangle(key("meta", "mark"), 1338)]),
    (
        SaveMark(),
        "ct mark set meta mark",
        [mangle(key("ct", "mark"), key("meta", "mark"))],
    ),
    (
        RestoreMark(),
        "meta mark set ct mark",
        [mangle(key("meta", "mark"), key("ct", "mark"))],
    ),
    (ConntrackZone(2), "ct zone set 2", [mangle(key("ct", "zone"), 2)]),
    (FamilyTProxy(15006, 1337, "ipv6"), "tproxy ip6 to :15006 meta mark set 0x539 accept", TPROXY),
]

COUNTER = {"counter": {"packets": 3, "bytes": 180}}


def printed(*expressions: list[dict[str, Any]], comment: str = "", **table: Any) -> str:
    """What nft prints of a table with a chain of such rules."""
    where = {"family": "inet", "table": "istio-proxy-nat"}
    items: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "istio-proxy-nat", "handle": 1, **table}},
        {"chain": {**where, "name": "istio-output", "handle": 2}},
    ]
    more = {"comment": comment} if comment else {}
    items += [
        {"rule": {**where, "chain": "istio-output", "handle": 4, **more, "expr": e}} for e in expressions
    ]
    return json.dumps({"nftables": items})


def read(*expressions: list[dict[str, Any]], **more: Any) -> tuple[Rule, ...]:
    [chain] = parse(printed(*expressions, **more)).chains
    assert (chain.name, chain.hook) == ("istio-output", None)
    return chain.rules


@pytest.mark.parametrize(("typed", "text", "shown"), MATCHES)
def test_every_match_is_written_and_read(typed: Match, text: str, shown: dict[str, Any]):
    rule = Rule((typed,), RETURN)
    assert rule_lines(rule) == [f"{text} counter return"]
    assert read([shown, COUNTER, {"return": None}]) == (rule,)


@pytest.mark.parametrize(("typed", "text", "shown"), TARGETS)
def test_every_target_is_written_and_read(typed: Target, text: str, shown: list[dict[str, Any]]):
    rule = Rule((), typed)
    assert rule_lines(rule) == [f"counter {text}"]
    [found] = read([COUNTER, *shown])
    assert found == rule
    assert found.counters == Counters(3, 180)


def test_counters_are_kept_and_left_out_of_a_comparison():
    rule = Rule((Transport("tcp"),), RETURN, counters=Counters(7, 420))
    assert rule_lines(rule) == ["meta l4proto tcp counter packets 7 bytes 420 return"]
    assert rule_lines(rule, counted=False) == ["meta l4proto tcp counter return"]


def test_a_comment_stands_last():
    rule = Rule((Comment("why; { # $ \\"), Transport("tcp")), RETURN)
    assert rule_lines(rule) == ['meta l4proto tcp counter return comment "why; { # $ \\"']
    assert read([TCP, COUNTER, {"return": None}], comment="why; { # $ \\") == (rule,)


def test_a_port_implies_its_protocol():
    """nft prints `meta l4proto tcp` before it or not, by what else there is; it is the same rule."""
    port = match(payload("tcp", "dport"), 80)
    rules = read([TCP, port, COUNTER, {"return": None}], [port, COUNTER, {"return": None}])
    assert rules[0] == rules[1] == Rule((Ports("destination", "tcp", ((80, 80),)),), RETURN)
    other = match(key("meta", "l4proto"), "udp")
    assert read([other, port, COUNTER, {"return": None}]) != rules[:1]


# --- what this tool never writes --------------------------------------------------------------

PORT = match(payload("tcp", "dport"), 80)
ACCEPTED = {"accept": None}
MARKED = mangle(key("meta", "mark"), 1)

#: Each is near to a rule that this tool writes, and another one (from what nft 1.0.6 prints).
FOREIGN: dict[str, list[Any]] = {
    "several protocols": [match(key("meta", "l4proto"), {"set": ["tcp", "udp"]}), COUNTER, ACCEPTED],
    "another protocol": [match(key("meta", "l4proto"), "sctp"), COUNTER, ACCEPTED],
    "another protocol, as a number": [match(key("meta", "l4proto"), 132), COUNTER, ACCEPTED],
    "several families": [match(key("meta", "nfproto"), {"set": ["ipv4", "ipv6"]}), COUNTER, ACCEPTED],
    "not a family": [match(key("meta", "nfproto"), "ipv4", "!="), COUNTER, ACCEPTED],
    "all states at once": [match(key("ct", "state"), "established"), COUNTER, ACCEPTED],
    "a set of states": [match(key("ct", "state"), {"set": ["new", "invalid"]}), COUNTER, ACCEPTED],
    "not these states": [match(key("ct", "state"), {"|": ["new", "invalid"]}, "!="), COUNTER, ACCEPTED],
    "an unknown state": [match(key("ct", "state"), ["new", "odd"], "in"), COUNTER, ACCEPTED],
    "a part of the mark": [match({"&": [key("meta", "mark"), 255]}, 1), COUNTER, ACCEPTED],
    "a range of marks": [match(key("meta", "mark"), {"range": [1, 5]}), COUNTER, ACCEPTED],
    "a mark by name": [match(key("meta", "mark"), "istio"), COUNTER, ACCEPTED],
    "one direction": [match(key("ct", "mark", dir="original"), 1), COUNTER, ACCEPTED],
    "an owner by name": [match(key("meta", "skuid"), "root"), COUNTER, ACCEPTED],
    "a named set of addresses": [match(payload("ip", "daddr"), "@mine"), COUNTER, ACCEPTED],
    "a named set of ports": [match(payload("tcp", "dport"), "@mine"), COUNTER, ACCEPTED],
    "several interfaces": [match(key("meta", "iifname"), {"set": ["lo", "eth0"]}), COUNTER, ACCEPTED],
    "an interface that ends with +": [match(key("meta", "iifname"), "eth+"), COUNTER, ACCEPTED],
    "an interface by number": [match(key("meta", "iif"), "lo"), COUNTER, ACCEPTED],
    "less than": [match(payload("tcp", "dport"), 80, "<"), COUNTER, ACCEPTED],
    "members with comments": [
        match(payload("tcp", "dport"), {"set": [{"elem": {"val": 80, "comment": "x"}}]}),
        COUNTER,
        ACCEPTED,
    ],
    "a concatenation": [
        match(
            {"concat": [payload("ip", "daddr"), payload("tcp", "dport")]}, {"set": [{"concat": ["::", 1]}]}
        ),
        COUNTER,
        ACCEPTED,
    ],
    "bytes by their place": [
        match({"payload": {"base": "th", "offset": 0, "len": 16}}, 80),
        COUNTER,
        ACCEPTED,
    ],
    "flags": [match(payload("tcp", "flags"), ["syn", "ack"], "in"), COUNTER, ACCEPTED],
    "a limit": [{"limit": {"rate": 3, "burst": 5, "per": "hour"}}, COUNTER, ACCEPTED],
    "a map of verdicts": [{"vmap": {"key": payload("tcp", "dport"), "data": {"set": [[80, ACCEPTED]]}}}],
    "a log": [PORT, COUNTER, {"log": {"prefix": "x"}}, ACCEPTED],
    "no verdict": [PORT, COUNTER],
    "nothing": [],
    "no counter": [PORT, ACCEPTED],
    "a named counter": [PORT, {"counter": "mine"}, ACCEPTED],
    "two counters": [PORT, COUNTER, COUNTER, ACCEPTED],
    "a counter that counts more": [COUNTER, PORT, ACCEPTED],
    "a mark for all, then a match": [MARKED, PORT, COUNTER],
    "a mark for all, then a match and a verdict": [COUNTER, MARKED, PORT],
    "two marks": [
        PORT,
        COUNTER,
        MARKED,
        mangle(key("ct", "mark"), key("meta", "mark")),
    ],
    "a fixed mark of the connection": [COUNTER, mangle(key("ct", "mark"), 1)],
    "a zone for one direction": [COUNTER, mangle(key("ct", "zone", dir="original"), 1)],
    "a computed mark": [
        COUNTER,
        mangle(key("meta", "mark"), {"|": [key("meta", "mark"), 1]}),
    ],
    "another key": [COUNTER, mangle(payload("ip", "ttl"), 1)],
    "a redirection to where it goes": [PORT, COUNTER, {"redirect": None}],
    "a redirection to a range": [PORT, COUNTER, {"redirect": {"port": {"range": [80, 90]}}}],
    "a redirection with flags": [PORT, COUNTER, {"redirect": {"port": 80, "flags": "random"}}],
    "a redirection in a verdict's place": [PORT, COUNTER, {"redirect": {"port": 80}}, ACCEPTED],
    "tproxy to an address": [
        COUNTER,
        {"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 1}},
        *TPROXY[1:],
    ],
    "tproxy without a mark": [COUNTER, TPROXY[0], ACCEPTED],
    "tproxy and a mark of the connection": [
        COUNTER,
        TPROXY[0],
        mangle(key("ct", "mark"), 1337),
        ACCEPTED,
    ],
    "something that nft cannot say in JSON": [PORT, COUNTER, None],
    "a match of iptables": [{"xt": {"type": "match", "name": "owner"}}, COUNTER, ACCEPTED],
    "a target of iptables": [COUNTER, {"xt": {"type": "target", "name": "REDIRECT"}}],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_rule_is_nothing_that_we_write(name: str):
    """It is a difference, the table is kept as nft printed it, and it can be shown."""
    table = parse(printed(FOREIGN[name]))
    [rule] = table.chains[0].rules
    assert any(isinstance(part, (ForeignMatch, ForeignTarget)) for part in (*rule.matches, rule.target))
    assert is_foreign(table)
    assert hash(table)
    assert list(table_lines(table))
    near = {Rule((m,), target) for m, _, _ in MATCHES for target, _, _ in TARGETS}
    near |= {Rule((), target) for target, _, _ in TARGETS}
    assert rule not in near


@pytest.mark.parametrize("name", FOREIGN)
def test_two_different_foreign_rules_are_different(name: str):
    others = [parse(printed(expression)) for other, expression in FOREIGN.items() if other != name]
    assert parse(printed(FOREIGN[name])) not in others


def test_a_comment_that_nft_could_not_write_again():
    """Other programs can put quotes into one; written as it is, the rest would be a statement of its own."""
    table = parse(printed([COUNTER, ACCEPTED], comment='x" accept; drop; "'))
    assert is_foreign(table)


def test_our_own_tables_are_not_foreign():
    table = parse(printed([PORT, COUNTER, ACCEPTED]))
    assert not is_foreign(table)
    assert (table.extras, table.text) == ((), "")


def test_sets_maps_and_flags_are_extras():
    where = {"family": "inet", "table": "istio-proxy-nat"}
    document = json.loads(printed([PORT, COUNTER, ACCEPTED], flags=["dormant"]))
    document["nftables"] += [
        {"set": {**where, "name": "s", "type": "ipv4_addr", "elem": ["10.0.0.1"]}},
        {"counter": {**where, "name": "c", "packets": 0, "bytes": 0}},
    ]
    table = parse(json.dumps(document))
    assert table.extras == ("flags dormant", "set s", "counter c")
    assert is_foreign(table)
    assert table != parse(printed([PORT, COUNTER, ACCEPTED]))
    one_flag = parse(printed(flags="inet"))  # nft 1.0.6 prints the flags so, and wrong, but there they are
    assert one_flag.extras == ("flags inet",)


def with_set(name: str, elements: list[Any], used_as: str, **more: Any) -> NativeTable:
    where = {"family": "inet", "table": "istio-proxy-nat"}
    rule = [match(payload("tcp", "dport"), used_as), COUNTER, {"return": None}]
    document = json.loads(printed(rule))
    made = {
        **where,
        "name": name,
        "type": "inet_service",
        "handle": 7,
        "flags": ["interval"],
        "elem": elements,
    }
    document["nftables"].append({"set": {**made, **more}})
    return parse(json.dumps(document))


def test_a_named_set_of_ours_is_its_content():
    """Only if the name is that of the content: else it has been changed."""
    ports = Ports("destination", "tcp", ((80, 90), (443, 443)))
    name, elements = set_name(ports), [{"range": [80, 90]}, 443]
    found = with_set(name, elements, f"@{name}")
    assert found.chains[0].rules == (Rule((ports,), RETURN),)
    assert (found.extras, found.unused, is_foreign(found)) == ((), (), False)
    for changed in (
        with_set(name, [*elements, 444], f"@{name}"),
        with_set("mine", elements, "@mine"),
        with_set(name, [*elements[:1], {"elem": {"val": 443, "comment": "x"}}], f"@{name}"),
        with_set(name, elements, f"@{name}", timeout=60),
        with_set(name, elements, f"@{name}", type=["ipv4_addr", "inet_service"]),
    ):
        assert is_foreign(changed)
        assert len(changed.extras) == 1
        assert changed != found
    left = with_set(name, elements, {"set": [80, 443]})  # type: ignore[arg-type]
    assert (left.extras, left.unused, is_foreign(left)) == ((), (name,), False)


def test_an_interface_that_is_named_like_a_set_is_an_interface():
    [rule] = read([match(key("meta", "iifname"), "@ifs"), COUNTER, {"return": None}])
    assert rule == Rule((InInterface("@ifs"),), RETURN)


def test_hooks_are_read():
    document = json.loads(printed())
    document["nftables"][-1]["chain"] |= {"type": "nat", "hook": "output", "prio": -100, "policy": "drop"}
    [chain] = parse(json.dumps(document)).chains
    assert chain.hook == Hook("nat", "output", -100, "drop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"nftables": []}',
        '{"nftables": [{"table": {"name": "a"}}, {"table": {"name": "b"}}]}',
        "[]",
    ],
)
def test_what_is_no_table_is_refused(text: str):
    with pytest.raises(ValueError, match=r"not the JSON of a table|tables where one|Expecting value"):
        parse(text)


# --- tables -----------------------------------------------------------------------------------


def tables_for(values: Settings, **facts: Any) -> tuple[NativeTable, ...]:
    return translate(build(configure(values, environment=Facts(**{"ipv4": True, "ipv6": True, **facts}))))


def test_short_sets_stand_on_the_line_and_long_ones_below_it():
    def lines(count: int, members: int = 8) -> list[str]:
        ports = Ports("destination", "tcp", tuple((number, number) for number in range(1, 2 * count, 2)))
        return rule_lines(Rule((ports,), RETURN, counters=Counters(1, 40)), members_a_line=members)

    assert lines(2) == ["tcp dport { 1, 3 } counter packets 1 bytes 40 return"]
    assert len(lines(8)) == 1
    assert lines(9) == [
        "tcp dport {",
        "\t1, 3, 5, 7, 9, 11, 13, 15,",
        "\t17,",
        "} counter packets 1 bytes 40 return",
    ]
    assert len(lines(9, members=1)) == 11


def test_explain_puts_the_reason_above_each_rule():
    ruleset = build(configure({"dual-stack": "true"}, environment=Facts(ipv4=True, ipv6=True)))
    plain, explained = render(ruleset, "nft"), render(ruleset, "nft", explain=True)
    lines = explained.splitlines()
    assert [line for line in lines if not line.startswith("\t\t#")] == plain.splitlines()
    rules = [
        number for number, line in enumerate(lines) if " counter " in line or line.startswith("\t\tcounter")
    ]
    assert len(rules) >= 15
    assert all(re.fullmatch(r"\t\t# \S.+", lines[number - 1]) for number in rules)


def test_one_family_alone():
    ruleset = build(configure({"dual-stack": "true"}, environment=Facts(ipv4=True, ipv6=True)))
    for family, other in (("ipv4", "ip6 "), ("ipv6", "ip ")):
        text = render(ruleset, "nft", [family])  # type: ignore[list-item]
        assert f"meta nfproto {family}" in text
        assert f"\t{other}" not in text
    assert render(ruleset, "nft", []) == ""


def test_a_comparison_by_lines_names_the_chain_and_has_each_member_of_a_long_set_on_a_line():
    values = {"istio-inbound-ports": ",".join(str(number) for number in range(1, 40, 2))}
    [table] = tables_for(values)
    lines = list(table_lines(table))
    assert lines[0] == "table inet istio-proxy-nat"
    assert "prerouting: type nat hook prerouting priority -100; policy accept;" in lines
    assert "istio-inbound: \t39," in lines
    assert all(re.match(r"[a-z-]+: ", line) for line in lines[1:])


# --- edits ------------------------------------------------------------------------------------


def edit_script(before: tuple[NativeTable, ...], after: tuple[NativeTable, ...]) -> str:
    """The one transaction of an edit that needs no set made before it."""
    [text] = edit_scripts(before, after)
    return text


HOOK = Hook("nat", "output", -100)
RULE = Rule((), RETURN)


def nat(*chains: NativeChain, **more: Any) -> NativeTable:
    return NativeTable("istio-proxy-nat", chains, **more)


def test_what_is_new_is_made_and_what_is_old_deleted():
    table = nat(NativeChain("output", HOOK, (RULE,)))
    assert edit_script((), (table,)) == script((table,))
    assert edit_script((table,), ()) == "delete table inet istio-proxy-nat\n"
    assert edit_scripts((), ()) == []


def test_a_table_that_stays_is_emptied_and_filled_and_chains_that_are_gone_are_deleted():
    before = nat(NativeChain("output", HOOK, (RULE,)), NativeChain("old", None, (RULE,)))
    after = nat(NativeChain("output", HOOK, (RULE, RULE)), NativeChain("new", None, (RULE,)))
    assert edit_script((before,), (after,)) == (
        "flush table inet istio-proxy-nat\ndelete chain inet istio-proxy-nat old\n" + script((after,))
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"hook": Hook("nat", "output", -99)}, id="another hook"),
        pytest.param({"hook": Hook("nat", "output", -100, "drop")}, {}, id="another policy"),
        pytest.param({"hook": None}, {}, id="no hook before"),
        pytest.param({"extras": ("flags dormant",)}, {}, id="something that has no name"),
        pytest.param({}, {"text": "table inet istio-proxy-nat {\n}\n"}, id="back to what nft printed"),
    ],
)
def test_a_table_that_cannot_stay_is_made_anew(before: dict[str, Any], after: dict[str, Any]):
    def table(extras: tuple[str, ...] = (), text: str = "", hook: Hook | None = HOOK) -> NativeTable:
        return nat(NativeChain("output", hook, (RULE,)), extras=extras, text=text)

    found = edit_script((table(**before),), (table(**after),))
    assert found == "delete table inet istio-proxy-nat\n" + script((table(**after),))


EXTRAS = ("map m", "set s")


def test_foreign_rules_in_a_table_are_taken_out_of_it():
    """The table stays: one that is made anew would have its rules and their sets in one transaction."""
    before = nat(
        NativeChain("output", HOOK, (RULE,)), NativeChain("old", None, ()), extras=("map m", "set s")
    )
    found = edit_script((before,), (nat(NativeChain("output", HOOK, (RULE,))),))
    assert found.splitlines()[:4] == [
        "flush table inet istio-proxy-nat",
        "delete map inet istio-proxy-nat m",  # it may lead to the chain
        "delete set inet istio-proxy-nat s",
        "delete chain inet istio-proxy-nat old",
    ]


@given(strategies.settings(), strategies.settings())
def test_deletions_come_before_everything_that_is_made(one: Settings, other: Settings):
    """Or something just made would go again; and each table is deleted or flushed exactly once."""
    before, after = tables_for(one), tables_for(other)
    *sets, text = edit_scripts(before, after)
    lines = text.splitlines()
    removals = [number for number, line in enumerate(lines) if line.startswith(("flush ", "delete "))]
    assert removals == list(range(len(removals)))
    touched = [line.split()[3] for line in lines if line.startswith(("flush table ", "delete table "))]
    assert touched == [table.name for table in before]
    for made in sets:
        assert not re.search("flush|delete|chain|counter", made)


# --- nothing that a user writes is more than a value ------------------------------------------

_VALUE = r"(?:0x)?[0-9a-f.:/-]+"
_SET_NAME = r"(?:ports|addresses6?|users|groups)-[0-9a-f]{12}"
_VALUES = rf"(?:!= )?(?:{_VALUE}|{{ {_VALUE}(?:, {_VALUE})* }}|@{_SET_NAME})"
_CONDITIONS = (
    rf"ip6? [sd]addr {_VALUES}",
    rf"(?:tcp|udp) [sd]port {_VALUES}",
    rf"meta sk[ug]id {_VALUES}",
    rf"(?:ct|meta) mark {_VALUES}",
    r'[io]ifname (?:!= )?"[^"\n]+"',
    r"meta l4proto (?:tcp|udp)",
    r"meta nfproto ipv[46]",
    r"ct state [a-z,]+",
)
_EFFECTS = (
    r"accept|drop|return",
    r"(?:jump|goto) [a-z-]+",
    r"redirect to :\d+",
    rf"meta mark set (?:{_VALUE}|ct mark)",
    r"ct mark set meta mark",
    r"ct zone set \d",
    rf"tproxy ip6? to :\d+ meta mark set {_VALUE} accept",
)
#: One rule: matches, a counter, what is done, and at times a comment without quotes within.
_RULE = re.compile(
    rf"""(?:(?:{"|".join(_CONDITIONS)}) )*counter (?:{"|".join(_EFFECTS)})(?: comment "[^"\n]+")?"""
)
_STRUCTURE = re.compile(
    rf"""|}}|\t}}|table inet istio-proxy-[a-z]+ {{|\t(?:chain [a-z-]+|set {_SET_NAME}) {{"""
    rf"""|\t\ttype (?:nat|filter|route) hook [a-z]+ priority -\d+; policy accept;"""
    rf"""|\t\ttype (?:inet_service|ipv4_addr|ipv6_addr|uid|gid)|\t\tflags interval"""
    rf"""|\t\telements = {{ {_VALUE}(?:, {_VALUE})* }}"""
)
_LONG_SET = re.compile(rf"{{\n(?:\t\t\t{_VALUE}(?:, {_VALUE})*,\n)+\t\t}}")


@given(strategies.settings(), st.booleans())
def test_every_line_is_one_statement(values: Settings, comments: bool):
    values = {**values, "rule-comments": str(comments)}
    for table in tables_for(values, servers=("10.0.0.1", "fd00::1")):
        text = _LONG_SET.sub("{ 1 }", script((table,)))
        for line in text.splitlines():
            assert _STRUCTURE.fullmatch(line) or _RULE.fullmatch(line.removeprefix("\t\t")), line


HOSTILE = [
    "a;b",
    "a#b",
    "a{b}",
    "$HOME",
    "@set",
    "a'b",
    "a*",
    "a*b",
    "lo0;",
    "accept",
    "`id`",
    "\u00e9",
    "a|b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_interface_names_are_quoted(name: str):
    values = {"istio-exclude-interfaces": name, "rule-comments": "true", "dual-stack": "true"}
    [table] = tables_for(values)
    [line] = [line for line in script((table,)).splitlines() if "iifname" in line]
    written = f"{name[:-1]}\\*" if name.endswith("*") else name
    reason = f"traffic from interface {name} is excluded"
    assert line == f'\t\tiifname "{written}" counter return comment "{reason}"'


@pytest.mark.parametrize("name", ['a"b', '"', "a\\b", "a\\", 'x"accept'])
def test_an_interface_name_that_nft_cannot_write_is_refused_by_name(name: str):
    """No way to escape a quote or a backslash; iptables can."""
    ruleset = build(configure({"istio-exclude-interfaces": name}, environment=Facts(ipv4=True)))
    with pytest.raises(SettingsError, match=re.escape(repr(name))):
        render(ruleset, "nft")
    assert render(ruleset)
