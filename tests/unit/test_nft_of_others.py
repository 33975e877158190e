"""What nft prints about rules that are not owned: nothing is taken for what it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from istio_iptables.formats.nft import table_lines
from istio_iptables.formats.nft_json import parse
from istio_iptables.rules.model import RETURN, ForeignMatch, ForeignTarget, InInterface, Rule
from istio_iptables.rules.nftables.model import Hook, NativeTable, Ports, set_name
from tests.support.cases import all_cases
from tests.support.nft_printed import (
    COUNTER,
    MATCHES,
    TARGETS,
    TPROXY,
    key,
    mangle,
    match,
    payload,
    printed,
    read,
)

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


@all_cases("name", FOREIGN)
def test_a_foreign_rule_is_nothing_that_we_write(name: str):
    """It is a difference, the table is kept as nft printed it, and it can be shown."""
    table = parse(printed(FOREIGN[name]))
    [rule] = table.chains[0].rules
    assert any(isinstance(part, (ForeignMatch, ForeignTarget)) for part in (*rule.matches, rule.target))
    assert table.is_foreign
    assert hash(table)
    assert list(table_lines(table))
    near = {Rule((m,), target) for m, _, _ in MATCHES for target, _, _ in TARGETS}
    near |= {Rule((), target) for target, _, _ in TARGETS}
    assert rule not in near


@all_cases("name", FOREIGN)
def test_two_different_foreign_rules_are_different(name: str):
    others = [parse(printed(expression)) for other, expression in FOREIGN.items() if other != name]
    assert parse(printed(FOREIGN[name])) not in others


def test_a_comment_that_nft_could_not_write_again():
    """Other programs can put quotes into one; written as it is, the rest would be a statement of its own."""
    table = parse(printed([COUNTER, ACCEPTED], comment='x" accept; drop; "'))
    assert table.is_foreign
    [[rule]] = [chain.rules for chain in table.chains]
    assert rule.matches == (ForeignMatch((r'{"comment": "x\" accept; drop; \""}',)),)


def test_our_own_tables_are_not_foreign():
    table = parse(printed([PORT, COUNTER, ACCEPTED]))
    assert not table.is_foreign
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
    assert table.is_foreign
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
    assert (found.extras, found.unused, found.is_foreign) == ((), (), False)
    for changed in (
        with_set(name, [*elements, 444], f"@{name}"),
        with_set("mine", elements, "@mine"),
        with_set(name, [*elements[:1], {"elem": {"val": 443, "comment": "x"}}], f"@{name}"),
        with_set(name, elements, f"@{name}", timeout=60),
        with_set(name, elements, f"@{name}", type=["ipv4_addr", "inet_service"]),
    ):
        assert changed.is_foreign
        assert len(changed.extras) == 1
        assert changed != found
    left = with_set(name, elements, {"set": [80, 443]})  # type: ignore[arg-type]
    assert (left.extras, left.unused, left.is_foreign) == ((), (name,), False)


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
