"""nft_printed: matches and targets, their texts, and what nft prints about them as JSON."""

from __future__ import annotations

import json
from typing import Any

from istio_iptables.formats.nft_json import parse
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
    RETURN,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
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
    NativeChain,
    NativeTable,
    NfProto,
    Owners,
    Ports,
)

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


def nat(*chains: NativeChain, **more: Any) -> NativeTable:
    return NativeTable("istio-proxy-nat", chains, **more)
