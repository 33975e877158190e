"""What rules of nftables do, and tables as versions of nft print them.

The rules are those of tests/support/nft_fixtures.py, each printed by a real nft. Their conditions are in
test_nft_conditions.py; what packets really do is in tests/kernel/test_nft_meaning.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.interpreter import nft_expressions
from istio_iptables.interpreter.action import Source, Unknown
from istio_iptables.interpreter.algebra import One, value_of
from istio_iptables.interpreter.condition import Unmodelled
from istio_iptables.interpreter.packet import UDP
from tests.support import nft_fixtures
from tests.support.cases import all_cases
from tests.support.interpreter import walked
from tests.support.nft_fixtures import RULES, VERSIONS, dump, rule_in
from tests.support.nft_meaning import (
    IPV6,
    PACKET,
    Changes,
    condition_of,
    rules_for,
    tables_with,
    unmodelled_in,
)

CONDITIONS, FOUR, FILTER = "inet t conditions", "ip four conditions", "inet t filter"
EARLY, NAT, NAT_FOUR = "inet early actions", "inet t actions", "ip four actions"

# --- what rules do ----------------------------------------------------------------------------

#: Where rules are, what they are, the packet, what becomes of it (`dropped`, `rejected`, or the fields that
#: are different afterwards).
OUTCOMES: list[tuple[str, str, Changes, str | Changes]] = [
    (FILTER, "tcp dport vmap { 80 : accept, 443 : drop, 1000-2000 : continue }", {}, {}),
    (
        FILTER,
        "tcp dport vmap { 80 : accept, 443 : drop, 1000-2000 : continue }",
        {"destination_port": 443},
        "dropped",
    ),
    (FILTER, "tcp dport vmap @verdicts", {"destination_port": 443}, "dropped"),
    (FILTER, "tcp dport vmap @verdicts", {"destination_port": 443, "protocol": UDP}, {}),
    (FILTER, "ct state vmap { invalid : drop, established : accept }", {}, {}),
    (FILTER, "ct state vmap { invalid : drop, established : accept }", {"state": "INVALID"}, "dropped"),
    (FILTER, "ip saddr . tcp dport vmap { 10.0.0.1 . 80 : drop }", {}, "dropped"),
    (FILTER, "ip saddr . tcp dport vmap { 10.0.0.1 . 80 : drop }", {"source": 9}, {}),
    (FILTER, "jump other", {}, {}),
    (FILTER, "goto other", {}, {}),
    (FILTER, "return", {}, {}),
    (FILTER, "drop", {}, "dropped"),
    (FILTER, "reject", {}, "rejected"),
    (FILTER, "meta l4proto tcp reject with tcp reset", {}, "rejected"),
    (FILTER, "meta l4proto tcp reject with tcp reset", {"protocol": UDP}, {}),
    (FILTER, "meta mark set 5", {"mark": 7}, {"mark": 5}),
    (FILTER, "meta mark set meta mark & 0xff | 0x100", {"mark": 0xF0F}, {"mark": 0x10F}),
    (FILTER, "meta mark set meta mark ^ 5", {"mark": 4}, {"mark": 1}),
    (FILTER, "meta mark set ct mark", {"mark": 1, "connection_mark": 9}, {"mark": 9}),
    (FILTER, "meta mark set ct mark", {"mark": 1, "state": "INVALID"}, {}),
    (FILTER, "meta mark set ct mark & 0xff", {"connection_mark": 0x109}, {"mark": 9}),
    (FILTER, "ct mark set meta mark", {"mark": 3}, {"connection_mark": 3}),
    (FILTER, "ct mark set meta mark", {"mark": 3, "state": "INVALID"}, {}),
    (FILTER, "ct mark set meta mark | 1", {"mark": 6}, {"connection_mark": 7}),
    (FILTER, "meta mark set tcp dport map { 80 : 1, 443 : 2 }", {}, {"mark": 1}),
    (FILTER, "meta mark set tcp dport map { 80 : 1, 443 : 2 }", {"destination_port": 81}, {}),
    (FILTER, "meta priority set 1:1", {}, {}),
    (FILTER, "meta nftrace set 1", {}, {}),
    (FILTER, "ip dscp set cs1", {}, {}),
    (
        FILTER,
        "meta l4proto tcp tproxy ip to :15006 meta mark set 5 accept",
        {},
        {"tproxied": 15006, "mark": 5},
    ),
    (FILTER, "meta l4proto tcp tproxy ip to :15006 meta mark set 5 accept", {"listening": False}, {}),
    (FILTER, "meta l4proto tcp tproxy ip to :15006 meta mark set 5 accept", IPV6, {}),
    (FILTER, "meta l4proto tcp tproxy ip to 127.0.0.1:15006", {}, {"tproxied": 15006}),
    (FILTER, "meta l4proto tcp tproxy to :15006", IPV6, {"tproxied": 15006}),
    (EARLY, "notrack", {"tracked": False}, {"state": "UNTRACKED", "first": False}),
    (EARLY, "ct zone set 7", {"tracked": False}, {"zone": 7, "reply_zone": 7}),
    (
        EARLY,
        'ct zone set iifname map { "lo" : 1, "eth0" : 2 }',
        {"tracked": False},
        {"zone": 2, "reply_zone": 2},
    ),
    (EARLY, "ct original zone set 7", {"tracked": False}, {"zone": 7}),
    (EARLY, "ct reply zone set 7", {"tracked": False}, {"reply_zone": 7}),
    (NAT, "dnat ip to 10.1.0.1", {}, {"destination": 0x0A010001}),
    (NAT, "dnat ip to 10.1.0.1", IPV6, {}),
    (NAT, "dnat ip to 10.1.0.1", {"first": False}, {}),
    (
        NAT,
        "tcp dport 80 dnat ip to 10.1.0.1:8080",
        {},
        {"destination": 0x0A010001, "destination_port": 8080},
    ),
    (
        NAT,
        "tcp dport 80 dnat ip to 10.1.0.1:8080-8090",
        {},
        {"destination": 0x0A010001, "destination_port": 8080},
    ),
    (NAT, "meta nfproto ipv4 dnat ip to tcp dport map @hosts", {}, {"destination": 0x0A010001}),
    (NAT, "meta nfproto ipv4 dnat ip to tcp dport map @hosts", {"destination_port": 82}, {}),
    (
        NAT,
        "meta l4proto tcp dnat ip to ip saddr map { 10.0.0.1 : 10.1.0.1 . 8080 }",
        {},
        {"destination": 0x0A010001, "destination_port": 8080},
    ),
    (NAT, "dnat ip6 to fd00::1", {}, {}),
    (NAT, "dnat ip6 to fd00::1", IPV6, {"destination": (0xFD << 120) + 1}),
    (NAT, "redirect", {}, {"destination": 0x0A000001, "redirected": 80}),
    (
        NAT,
        "tcp dport 80 redirect to :8080",
        {},
        {"destination": 0x0A000001, "destination_port": 8080, "redirected": 8080},
    ),
    (
        NAT,
        "tcp dport 80 redirect to :8080-8090",
        {},
        {"destination": 0x0A000001, "destination_port": 8080, "redirected": 8080},
    ),
    (
        NAT,
        "tcp dport 80 redirect to :tcp dport map { 80 : 8080 }",
        {},
        {"destination": 0x0A000001, "destination_port": 8080, "redirected": 8080},
    ),
    (
        NAT,
        "dnat ip prefix to ip daddr map { 10.0.0.0/24 : 10.1.0.0/24 }",
        {"destination": 0x0A00004D},
        {"destination": 0x0A01004D},
    ),
    (NAT, "dnat ip prefix to ip daddr map { 10.0.0.0/24 : 10.1.0.0/24 }", {"destination": 9}, {}),
    (
        NAT_FOUR,
        "tcp dport 80 dnat to :8080",
        {"received_on": "", "sent_to": "eth0"},
        {"destination_port": 8080},
    ),
    (
        NAT_FOUR,
        "counter dnat to 10.1.0.1 random,persistent",
        {"received_on": "", "sent_to": "eth0"},
        {"destination": 0x0A010001},
    ),
]
#: Where what happens depends on what is not modelled.
DEPENDING = [
    (FILTER, "numgen random mod 2 vmap { 0 : jump other, 1 : drop }"),
    (FILTER, "meta mark set jhash ip saddr mod 2"),
    (FILTER, "ip daddr set 10.9.9.9"),
    (NAT, "tcp dport 80 dnat ip to 10.1.0.1-10.1.0.9"),
    (NAT, "meta nfproto ipv4 dnat ip to numgen random mod 2 map { 0 : 10.1.0.1, 1 : 10.1.0.2 }"),
]
_SOCKET = ("uid", "gid", "groups")
#: What nat and the walk note besides what the rule is about.
_NOTES = ("translated", "destination_bound", "mark_before", "tracked", "zoned", *_SOCKET)


@all_cases(("where", "text", "changes", "expected"), OUTCOMES)
def test_a_rule_does_what_it_says(where: str, text: str, changes: Changes, expected: str | Changes) -> None:
    packet = PACKET.replace(**changes)
    for version in VERSIONS:
        if rule_in(version, where, text):
            algebra = One()
            how, left = walked(tables_with(where, text, version), packet, algebra)
            assert not algebra.questions
            if isinstance(expected, str):
                assert how == expected
            else:
                assert how is None
                notes = {name: getattr(packet, name) for name in _NOTES}
                assert left.replace(**notes) == packet.replace(**expected)
                is_nat = bool(expected) and where in (NAT, NAT_FOUR)
                assert left.translated == is_nat


@pytest.mark.parametrize(("where", "text"), DEPENDING)
def test_what_cannot_be_told_is_asked(where: str, text: str) -> None:
    for version in VERSIONS:
        if rule_in(version, where, text):
            algebra = One()
            walked(tables_with(where, text, version), PACKET, algebra)
            [question] = algebra.questions
            assert getattr(question.about, "number", 0) == 1


def test_a_map_that_has_all_numbers_by_chance_has_no_way_past_it() -> None:
    text = "numgen random mod 2 vmap { 0 : jump other, 1 : drop }"
    tables = tables_with(FILTER, text, "1.0.6")
    found = []
    asked = One()
    walked(tables, PACKET, asked)
    [key] = [question.key for question in asked.questions]
    for answer in (0, 1):
        found.append(walked(tables, PACKET, One({key: answer}))[0])
    assert found == ["dropped", None]


@all_cases(
    ("numbers", "expected"),
    [
        ([0, 1, 2], {"dropped"}),
        ([{"range": [0, 2]}], {"dropped"}),
        ([0, 1], {"dropped", None}),
        ([1, 2], {"dropped", None}),
        ([0, 2], {"dropped", None}),
        ([{"range": [0, 1]}], {"dropped", None}),
        ([0, 1, "x"], {"dropped", None}),
    ],
)
def test_a_number_that_a_map_lacks_gets_past_it(numbers: list[Any], expected: set[str | None]) -> None:
    where = {"family": "ip", "table": "t"}
    key = {"numgen": {"mode": "random", "mod": 3, "offset": 0}}
    verdicts = {"vmap": {"key": key, "data": {"set": [[each, {"drop": None}] for each in numbers]}}}
    hook = {"type": "filter", "hook": "prerouting", "prio": 0, "policy": "accept"}
    tables = nft_expressions.compiled(
        [
            {"table": {"family": "ip", "name": "t"}},
            {"chain": {**where, "name": "c", **hook}},
            {"rule": {**where, "chain": "c", "expr": [verdicts]}},
        ]
    )
    asked = One()
    found = {walked(tables, PACKET, asked)[0]}
    for question in asked.questions:
        found = {walked(tables, PACKET, One({question.key: answer}))[0] for answer in (0, 1)}
    assert found == expected


def test_every_rule_of_the_fixture_is_tested() -> None:
    tested = {(where, text) for where, text, *_ in (*OUTCOMES, *DEPENDING)}
    tested |= {(EARLY, text) for text, *_ in EARLY_CASES}
    for where in (FILTER, EARLY, NAT, NAT_FOUR):
        assert {text for of, text in tested if of == where} == set(RULES[where])


#: Packets of which conntrack has or has not seen, and whether they have a condition.
EARLY_CASES: list[tuple[str, Changes, bool]] = [
    ("ct state invalid accept", {}, True),
    ("ct state invalid accept", {"state": "UNTRACKED", "tracked": True}, False),
    ("ct state invalid accept", {"zoned": True}, False),
    ("ct state untracked accept", {}, False),
    ("ct state untracked accept", {"state": "UNTRACKED", "tracked": True}, True),
    ("ct state new accept", {}, False),
    ("ct state new accept", {"zoned": True}, True),
    ("ct state new accept", {"tracked": True}, True),  # it has come out of lo
    ("ct mark 0 accept", {}, False),
    ("ct mark 0 accept", {"tracked": True}, True),
]


@all_cases(("text", "changes", "expected"), EARLY_CASES)
def test_before_conntrack_has_seen_a_packet_it_has_no_entry(
    text: str, changes: Changes, expected: bool
) -> None:
    packet = PACKET.replace(**{"tracked": False, **changes})
    for rule in rules_for(EARLY, text):
        assert value_of(condition_of(rule), packet) is expected


# --- tables -----------------------------------------------------------------------------------


def table(family: str = "inet", name: str = "t", **more: Any) -> dict[str, Any]:
    return {"table": {"family": family, "name": name, "handle": 1, **more}}


def chain(name: str, family: str = "inet", of: str = "t", **more: Any) -> dict[str, Any]:
    return {"chain": {"family": family, "table": of, "name": name, "handle": 1, **more}}


def base(name: str, hook: str = "output", family: str = "inet", of: str = "t", **more: Any) -> dict[str, Any]:
    return chain(name, family, of, **{"type": "filter", "hook": hook, "prio": 0, "policy": "accept", **more})


def rule(*statements: Any, of: str = "c", family: str = "inet", table: str = "t") -> dict[str, Any]:
    return {"rule": {"family": family, "table": table, "chain": of, "handle": 2, "expr": [*statements]}}


def test_the_tables_of_a_real_dump() -> None:
    for version in VERSIONS:
        tables = nft_expressions.compiled(dump(version).objects)
        assert [(each.title, sorted(each.families)) for each in tables] == [
            ("nftables table inet t", ["ipv4", "ipv6"]),
            ("nftables table inet early", ["ipv4", "ipv6"]),
            ("nftables table ip four", ["ipv4"]),
        ]
        bases = {(each.name, own.chain): own for each in tables for own in each.bases}
        own = bases["t", "actions"]
        assert (own.hook, own.priority, own.kind, own.drops) == ("prerouting", -100, "nat", False)
        assert set(bases) == {("t", "actions"), ("t", "filter"), ("early", "actions"), ("four", "actions")}
        numbers = [rule.number for rule in tables[0].rules("conditions")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert all(rule.reason.startswith("inet t conditions ") for rule in tables[0].rules("conditions"))


def test_a_policy_and_counters_and_handles() -> None:
    counted = rule({"counter": {"packets": 3, "bytes": 4}}, {"accept": None})
    [found] = nft_expressions.compiled([table(), base("c", policy="drop"), counted])
    assert found.bases[0].drops
    [only] = found.rules("c")
    assert (only.counters.packets, only.counters.bytes, only.handle) == (3, 4, 2)


def test_rules_are_named_by_nft_or_in_its_words() -> None:
    objects = [table(), chain("c"), rule({"jump": {"target": "d"}})]
    [found] = nft_expressions.compiled(objects)
    assert found.rules("c")[0].text == "jump d"
    [found] = nft_expressions.compiled(objects, texts={("inet", "t", 2): "said otherwise"})
    assert found.rules("c")[0].text == "said otherwise"


def test_what_is_not_read_is_counted() -> None:
    objects = [
        table(),
        base("c"),
        base("i", hook="ingress"),
        rule({"drop": None}, of="i"),
        table("bridge", "b"),
        base("c", family="bridge", of="b"),
        rule({"drop": None}, family="bridge", table="b"),
        rule({"drop": None}, family="bridge", table="b"),
        table("netdev", "n"),
        table("inet", "off", flags="dormant"),
        table("inet", "other", flags=["owner", "dormant"]),
    ]
    assert nft_expressions.unread(objects) == {
        "chain i of table inet t (hook ingress)": 1,
        "table bridge b": 2,
        "table netdev n": 0,
        "table inet off (dormant)": 0,
        "table inet other (dormant)": 0,
    }
    assert [each.name for each in nft_expressions.compiled(objects)] == ["t"]


def test_a_table_whose_flags_cannot_be_made_out_may_be_dormant() -> None:
    """nft 1.0.6 prints the name of the table, or something else, in their place."""
    objects = [table(flags="t"), base("c", policy="drop")]
    found = nft_expressions.compiled(objects)
    packet = PACKET.replace(received_on="", sent_to="eth0")
    algebra = One()
    assert walked(found, packet, algebra)[0] == "dropped"
    [question] = algebra.questions
    assert "dormant" in str(question.about)
    assert walked(found, packet, One({question.key: 1}))[0] is None


@pytest.mark.parametrize(
    ("family", "name", "chains", "expected"),
    [
        ("ip", "nat", [base("OUTPUT", family="ip", of="nat")], True),
        ("ip6", "raw", [base("PREROUTING", "prerouting", "ip6", "raw"), chain("DOCKER", "ip6", "raw")], True),
        ("ip", "nat", [base("output", family="ip", of="nat")], False),
        ("ip", "mine", [base("OUTPUT", family="ip", of="mine")], False),
        ("ip", "nat", [base("OUTPUT", "prerouting", "ip", "nat")], False),
        ("inet", "nat", [base("OUTPUT", of="nat")], False),
        ("ip", "nat", [], False),
    ],
)
def test_tables_of_iptables_can_be_told_and_left_out(
    family: str, name: str, chains: list[dict[str, Any]], expected: bool
) -> None:
    objects = [table(), table(family, name), *chains]
    found = nft_expressions.iptables_tables(objects)
    assert found == ({(family, name)} if expected else set())
    left = nft_expressions.compiled(objects, leave_out=found)
    assert len(left) == (1 if expected else 2)


# --- what no version of nft here prints -------------------------------------------------------


@all_cases(
    ("statement", "condition", "action"),
    [
        (None, True, True),
        ({"xt": None}, True, True),
        ({"something": {"new": 1}}, True, True),
        ({"xt": {"type": "match", "name": "time"}}, True, False),
        ({"xt": {"type": "target", "name": "MARK"}}, False, True),
        ({"match": {"op": "==", "left": {"new": {"key": "x"}}, "right": 1}}, True, False),
        ({"match": {"op": "~", "left": {"meta": {"key": "mark"}}, "right": 1}}, True, False),
        ({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": "@nowhere"}}, True, False),
        ({"queue": {"num": 1, "flags": "bypass"}}, False, True),
        ({"synproxy": {"mss": 1460}}, False, True),
        ({"mangle": {"key": {"meta": {"key": "pkttype"}}, "value": "host"}}, False, True),
        ({"flow": {"op": "add", "flowtable": "@f"}}, True, False),
        ({"meter": {"name": "m", "key": {"meta": {"key": "mark"}}, "stmt": {"limit": "l"}}}, True, False),
        ({"vmap": {"key": {"meta": {"key": "mark"}}, "data": "@nowhere"}}, False, True),
        ({"tproxy": {"port": {"range": [1, 2]}}}, False, True),
    ],
)
def test_what_is_not_known_is_said(statement: Any, condition: bool, action: bool) -> None:
    """Something that may end the rule is Unmodelled, something that may end the packet's way Unknown."""
    [found] = nft_expressions.compiled([table(), base("c"), rule(statement, {"accept": None})])
    statements = found.rules("c")[0].statements
    assert any(isinstance(each, Unmodelled) for each in statements) == condition
    assert any(isinstance(each, Unknown) for each in statements) == action


@all_cases(
    ("statement", "expected"),
    [
        ({"xt": {"type": "match", "name": "comment"}}, None),
        ({"xt": {"type": "target", "name": "LOG"}}, None),
        ({"xt": {"type": "target", "name": "REJECT"}}, "rejected"),
        ({"mangle": {"key": {"tcp option": {"name": "maxseg"}}, "value": {"rt": {"key": "mtu"}}}}, None),
        ({"ct helper": "ftp"}, None),
        ({"reset": {"tcp option": {"name": "maxseg"}}}, None),
        ({"last": None}, None),
        ({"match": {"op": "==", "left": {"meta": {"key": "oif"}}, "right": 1}}, None),
    ],
)
def test_what_is_known_though_no_kernel_here_takes_it(statement: Any, expected: str | None) -> None:
    objects = [table(), base("c"), rule(statement)]
    algebra = One()
    packet = PACKET.replace(received_on="", sent_to="eth0")
    how, left = walked(nft_expressions.compiled(objects), packet, algebra)
    assert (how, algebra.questions) == (expected, [])
    assert left.mark == 0


@all_cases(
    ("statement", "address", "port", "masquerade"),
    [
        ({"snat": {"family": "ip", "addr": "10.0.0.9"}}, 0x0A000009, None, False),
        ({"snat": {"family": "ip", "addr": "10.0.0.9", "port": 5}}, 0x0A000009, 5, False),
        ({"snat": {"family": "ip", "addr": "10.0.0.9", "port": {"range": [5, 6]}}}, 0x0A000009, None, False),
        ({"snat": {"family": "ip", "addr": {"range": ["10.0.0.9", "10.0.0.10"]}}}, None, None, False),
        ({"snat": {"family": "ip", "addr": "10.0.0.9", "flags": "random"}}, None, None, False),
        ({"masquerade": None}, None, None, True),
        ({"masquerade": {"port": 5}}, None, 5, True),
        ({"masquerade": {"flags": ["fully-random", "persistent"]}}, None, None, False),
    ],
)
def test_a_new_source_is_told_as_far_as_it_can(
    statement: Any, address: int | None, port: int | None, masquerade: bool
) -> None:
    [found] = nft_expressions.compiled(
        [table("ip"), base("c", "postrouting", "ip"), rule(statement, family="ip")]
    )
    source = found.rules("c")[0].statements[-1]
    assert isinstance(source, Source)
    assert (source.address, source.port, source.masquerade) == (address, port, masquerade)


def test_a_mark_of_no_connection_ends_the_rule() -> None:
    """There is none to read; to set none changes nothing, and the rule goes on (nft_ct.c)."""
    ct, meta = {"ct": {"key": "mark"}}, {"meta": {"key": "mark"}}
    invalid = PACKET.replace(state="INVALID")
    for key, value, how in ((meta, ct, None), (ct, meta, "dropped"), (ct, {"|": [ct, 1]}, None)):
        mangle = {"mangle": {"key": key, "value": value}}
        found = nft_expressions.compiled([table(), base("c", "prerouting"), rule(mangle, {"drop": None})])
        assert walked(found, PACKET, One())[0] == "dropped"
        assert walked(found, invalid, One())[0] == how


def test_an_element_may_have_a_limit() -> None:
    """It is asked when the element is found (nft_set_elem_update_expr)."""
    limited = {"elem": {"val": "10.0.0.1", "limit": {"rate": 1, "per": "second"}}}
    elements = [limited, {"elem": {"val": "10.0.0.7", "counter": None}}]
    named = {"set": {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", "elem": elements}}
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@s"}}
    [found] = nft_expressions.compiled([table(), base("c"), named, rule(match, {"accept": None})])
    condition = condition_of(found.rules("c")[0])
    assert value_of(condition, PACKET) is None
    assert value_of(condition, PACKET.replace(source=0x0A000007)) is True
    assert value_of(condition, PACKET.replace(source=9)) is False


def test_an_element_for_all_others() -> None:
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    pairs = [["*", {"drop": None}], [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"accept": None}]]
    vmap = {"vmap": {"key": saddr, "data": {"set": pairs}}}
    found = nft_expressions.compiled([table(), base("c", "prerouting"), rule(vmap)])
    assert walked(found, PACKET, One())[0] is None
    assert walked(found, PACKET.replace(source=9), One())[0] == "dropped"
    assert walked(found, PACKET.replace(**IPV6), One())[0] is None, "it has no such address to look up"
    everyone = {"match": {"op": "==", "left": saddr, "right": {"set": ["*"]}}}
    found = nft_expressions.compiled([table(), base("c", "prerouting"), rule(everyone, {"drop": None})])
    assert walked(found, PACKET.replace(source=9), One())[0] == "dropped"


def test_an_interface_may_have_the_name_of_what_is_no_set() -> None:
    match = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "@if5"}}
    found = nft_expressions.compiled([table(), base("c", "prerouting"), rule(match, {"drop": None})])
    assert walked(found, PACKET.replace(received_on="@if5"), One())[0] == "dropped"


def test_a_name_that_ends_with_plus_is_that_name() -> None:
    """To iptables it is a wildcard, to nft it is not."""
    match = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth+"}}
    found = nft_expressions.compiled([table(), base("c", "prerouting"), rule(match, {"drop": None})])
    assert walked(found, PACKET.replace(received_on="eth0"), One())[0] is None
    assert walked(found, PACKET.replace(received_on="eth+"), One())[0] == "dropped"


def test_old_versions_do_not_say_whether_a_rule_that_adds_to_a_set_has_a_limit() -> None:
    [old, *new] = rules_for(CONDITIONS, "update @changing { ip saddr }")
    assert unmodelled_in(condition_of(old))
    assert new
    assert not any(unmodelled_in(condition_of(each)) for each in new)


def test_the_fixture_is_of_the_versions_that_it_says() -> None:
    assert {dump(version).version for version in nft_fixtures.VERSIONS} == set(VERSIONS)
