"""Dumps of nft: read as what they are, written again as they were, and rules named in nft's own words."""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.formats.nft_dump import parse, rule_texts, written
from istio_iptables.interpreter import nft_words
from tests.support.cases import all_cases
from tests.support.nft_fixtures import FOLDER, VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_read_is_written_again_as_it_was(version: str) -> None:
    text = (FOLDER / f"{version}.json").read_text()
    assert written(parse(text)) == text


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_that_was_read_is_counted(version: str) -> None:
    dump = parse((FOLDER / f"{version}.json").read_text())
    assert dump.version == version
    assert dump.unknown == {}
    assert dump.counts.items() >= {"table": 3, "chain": 7, "counter": 1, "limit": 1}.items()
    assert sum(dump.counts.values()) == len(dump.objects) - 1, "all but the version"


def test_what_is_not_known_is_counted_too() -> None:
    dump = parse('{"nftables": [{"table": {"family": "ip", "name": "t"}}, {"tunnel": {}}, {"tunnel": {}}]}')
    assert dump.counts == {"table": 1}
    assert dump.unknown == {"tunnel": 2}
    assert dump.version == ""


def test_a_dump_that_was_cut_off_anywhere_says_so() -> None:
    text = (FOLDER / "1.0.6.json").read_text().strip()
    for end in range(1, len(text), 97):
        with pytest.raises(ValueError, match="before it is complete: what wrote it was interrupted"):
            parse(text[:end])
    with pytest.raises(ValueError, match="before it is complete"):
        parse(text[:-1])


@all_cases(
    ("text", "message"),
    [
        ("", "nothing was read: `nft -j list ruleset` prints at least its version"),
        ("\n", "nothing was read"),
        ("table inet t {\n}\n", r"not JSON \(Expecting value\) at line 1, column 1; `nft -j list ruleset`"),
        ("[]", 'it has no list "nftables"'),
        ('{"kind": "Pod", "x": [{}]}', 'it has no list "nftables"'),
        ('{"nftables": [1]}', "object 1 of the list is not one of nft: 1"),
        ('{"nftables": [{"metainfo": {}}, {"rule": {"family": "ip"}}]}', "object 2 .* rule, has no 'table'"),
        (
            '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c"}}]}',
            "a chain of the table ip t, and not the table itself: .* `nft -j list ruleset`",
        ),
        (
            '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c", "prio": "raw"}}]}',
            "object 1 .* chain: its 'prio' is not a number",
        ),
        ('{"nftables": [{"chain": 5}]}', "object 1 .* chain, is not an object"),
        ('{"nftables": [{"metainfo": "1.0"}]}', "object 1 .* metainfo, is not an object"),
        ('{"nftables": [{"table": {"family": ["ip"], "name": "t"}}]}', "table: its 'family' is not a text"),
        (
            '{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": "drop"}}]}',
            "object 1 .* rule: its 'expr' is not a list",
        ),
        (
            '{"nftables": [{"set": {"family": "ip", "table": "t", "name": "s", "elem": 5}}]}',
            "object 1 .* set: its 'elem' is not a list",
        ),
        (
            '{"nftables": [{"map": {"family": "ip", "table": "\\u001b[2J", "name": "s"}}]}',
            r"a map of the table ip \\x1b\[2J, and not the table itself",
        ),
        (
            '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c", "hook": "input"}}]}',
            "object 1 .* chain, has no 'type'",
        ),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_dump_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_rules_by_handle_from_the_text_of_nft() -> None:
    text = (
        "table inet t { # handle 1\n\tset s { # handle 2\n\t\ttype ipv4_addr\n\t}\n\n"
        "\tchain c { # handle 3\n"
        '\t\ttcp dport 80 counter packets 5 bytes 6 accept comment "# handle 9" # handle 4\n'
        "\t}\n}\ntable ip t { # handle 5\n\tchain c { # handle 1\n\t\tdrop # handle 4\n\t}\n}\n"
    )
    assert rule_texts(text) == {
        ("inet", "t", 4): 'tcp dport 80 counter accept comment "# handle 9"',
        ("ip", "t", 4): "drop",
    }


# --- in nft's words ---------------------------------------------------------------------------


def match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


MARK, PORT = {"meta": {"key": "mark"}}, {"payload": {"protocol": "tcp", "field": "dport"}}


@all_cases(
    ("statement", "expected"),
    [
        (match({"meta": {"key": "iifname"}}, "lo"), 'iifname "lo"'),
        (match(MARK, 5), "meta mark 0x00000005"),
        (match({"&": [MARK, 255]}, 1), "meta mark & 0x000000ff == 0x00000001"),
        (match(PORT, {"set": [80, {"range": [1, 5]}]}, "!="), "tcp dport != { 80, 1-5 }"),
        (match({"ct": {"key": "state"}}, ["new", "related"], "in"), "ct state new,related"),
        (match({"ct": {"key": "ip saddr", "dir": "reply"}}, "::1"), "ct reply ip saddr ::1"),
        (match({"concat": [PORT, MARK]}, "@set"), "tcp dport . meta mark @set"),
        (match({"&": [PORT, ["syn", "ack"]]}, "syn"), "tcp dport syn / syn,ack"),
        (match({"fib": {"flags": ["saddr", "iif"], "result": "oif"}}, False), "fib saddr . iif oif missing"),
        (
            {"vmap": {"key": PORT, "data": {"set": [[80, {"jump": {"target": "c"}}]]}}},
            "tcp dport vmap { 80 : jump c }",
        ),
        (
            {"mangle": {"key": MARK, "value": {"|": [{"&": [MARK, 255]}, 1]}}},
            "meta mark set meta mark & 0x000000ff | 0x00000001",
        ),
        (
            {"mangle": {"key": MARK, "value": {"<<": [{"&": [MARK, 255]}, 8]}}},
            "meta mark set (meta mark & 0x000000ff) << 8",
        ),
        ({"dnat": {"family": "ip6", "addr": "fd00::1", "port": 80}}, "dnat ip6 to [fd00::1]:80"),
        ({"masquerade": None}, "masquerade"),
        ({"redirect": {"port": {"range": [80, 90]}, "flags": "random"}}, "redirect to :80-90 random"),
        (
            {"set": {"op": "add", "elem": {"elem": {"val": PORT, "timeout": 90}}, "set": "@s"}},
            "add @s { tcp dport timeout 1m30s }",
        ),
        ({"quota": {"val": 5, "val_unit": "mbytes", "inv": True}}, "quota over 5 mbytes"),
        ({"reject": {"type": "icmp", "expr": "port-unreachable"}}, "reject with icmp port-unreachable"),
        ({"counter": {"packets": 7, "bytes": 8}}, "counter"),
        ({"xt": {"type": "match", "name": "time"}}, "xt match time"),
        ({"accept": None}, "accept"),
        ({"queue": {"num": 1}}, "queue num 1"),
        ({"match": {"op": "=="}}, '{"match": {"op": "=="}}'),
        (None, "null"),
    ],
)
def test_statements_are_written_as_nft_does(statement: Any, expected: str) -> None:
    assert nft_words.statement(statement) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_in_the_fixture_is_left_as_json(version: str) -> None:
    dump = parse((FOLDER / f"{version}.json").read_text())
    for each in dump.objects:
        if "rule" in each:
            assert "{'" not in nft_words.rule(each["rule"]["expr"])
            assert '{"' not in nft_words.rule(each["rule"]["expr"])
