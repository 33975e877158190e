"""Rules of nftables in words: as nft prints them, by the JSON and the texts of the same rules."""

from __future__ import annotations

import json

import pytest

from istio_iptables.interpreter import nft_words
from tests.support import nft_fixtures

#: What nft prints of rules in another way than they are given here: it writes marks with eight digits.
PRINTED = {
    "ct state != established,related": "ct state != established | related",
    "ct mark 5": "ct mark 0x00000005",
    "ct mark != 5": "ct mark != 0x00000005",
    "ct mark & 0xff == 0x5": "ct mark & 0x000000ff == 0x00000005",
    "ct mark 0 accept": "ct mark 0x00000000 accept",
    "iif lo": 'iif "lo"',
    "meta mark 5": "meta mark 0x00000005",
    "meta mark & 0xff00 == 0x500": "meta mark & 0x0000ff00 == 0x00000500",
    "meta mark & 0xff00 != 0": "meta mark & 0x0000ff00 != 0x00000000",
    "meta mark < 10": "meta mark < 0x0000000a",
    "meta mark { 1, 5-7 }": "meta mark { 0x00000001, 0x00000005-0x00000007 }",
    "ip frag-off & 0x1fff != 0": "ip frag-off & 8191 != 0",
    "icmpv6 type { nd-neighbor-solicit, nd-router-advert }": (
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit }"
    ),
    'iifname . meta mark { "eth0" . 5 }': 'iifname . meta mark { "eth0" . 0x00000005 }',
    "meta mark set 5": "meta mark set 0x00000005",
    "meta mark set meta mark & 0xff | 0x100": "meta mark set meta mark & 0x000001ff | 0x00000100",
    "meta mark set meta mark ^ 5": "meta mark set meta mark ^ 0x00000005",
    "meta mark set ct mark & 0xff": "meta mark set ct mark & 0x000000ff",
    "ct mark set meta mark | 1": "ct mark set meta mark | 0x00000001",
    "meta mark set tcp dport map { 80 : 1, 443 : 2 }": (
        "meta mark set tcp dport map { 80 : 0x00000001, 443 : 0x00000002 }"
    ),
    "meta l4proto tcp tproxy ip to :15006 meta mark set 5 accept": (
        "meta l4proto tcp tproxy ip to :15006 meta mark set 0x00000005 accept"
    ),
}
#: The same bytes have a name in a table of the family ip.
RAW = {"inet t conditions": "@nh,96,32 0xa000001", "ip four conditions": "ip saddr 10.0.0.1"}


@pytest.mark.parametrize("where", nft_fixtures.RULES)
def test_a_rule_is_what_nft_prints(where: str):
    found, wanted = {}, {}
    for text in nft_fixtures.RULES[where]:
        rule = nft_fixtures.rule_in("1.1.3", where, text) or nft_fixtures.rule_in("1.0.6", where, text)
        assert rule, text
        end = " accept" if where.endswith("conditions") else ""
        found[text] = nft_words.rule(rule["expr"])
        wanted[text] = PRINTED.get(text, RAW[where] if text.startswith("@nh") else text) + end
    assert found == wanted


def test_an_element_that_is_added_to_a_map():
    added = {
        "op": "update",
        "elem": {"payload": {"protocol": "ip", "field": "saddr"}},
        "data": 80,
        "map": "@m",
    }
    assert nft_words.statement({"map": added}) == "update @m { ip saddr : 80 }"


@pytest.mark.parametrize("value", [{}, [], 5, None, {"match": {}}, {"set": {"op": "add"}}, {"queue": 5}])
def test_what_is_not_known_stays_json(value: object):
    expected = "queue 5" if value == {"queue": 5} else json.dumps(value)
    assert nft_words.statement(value) == expected
