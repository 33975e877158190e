"""Values that no field of the kernel can hold, dumps without rules, addresses that dumps lack: no guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import run

ASKED = ("trace", "out", "--uid=1000", "--to=1.2.3.4:80", "--json")

#: Ports, zones and ICMP types have 16, 16 and 8 bits; marks and IDs 32; states and statuses have names.
IPTABLES = {
    "nat": [
        "-p tcp --dport 65536 -j DROP",
        "-p tcp -m tcp --sport 99999 -j DROP",
        "-p tcp -m multiport --dports 1,99999 -j DROP",
        "-p tcp -m conntrack --ctstate BOGUS -j DROP",
        "-p 300 -j DROP",
        "-m mark --mark 0x100000000 -j DROP",
        "-m connmark --mark 0x100000000 -j DROP",
        "-m owner --uid-owner 4294967296 -j DROP",
        "-m owner --gid-owner -1 -j DROP",
        "-p tcp -m tcp --tcp-flags 0x100 0x100 -j DROP",
        "-p tcp -j REDIRECT --to-ports 65536",
        "-p tcp -j DNAT --to-destination 1.2.3.4:65536",
    ],
    "raw": ["-j CT --zone 65536"],
    "mangle": ["-j MARK --set-xmark 0x100000000/0xffffffff"],
}


@pytest.mark.parametrize(
    ("table", "rule"), [(table, rule) for table, rules in IPTABLES.items() for rule in rules]
)
def test_a_value_that_is_too_large_is_not_told(tmp_path: Path, table: str, rule: str) -> None:
    assert verdict(tmp_path, f"*{table}\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rule}\nCOMMIT\n") == "depends"


@pytest.mark.parametrize(
    "condition",
    [
        ({"payload": {"protocol": "tcp", "field": "dport"}}, 65536),
        ({"payload": {"protocol": "tcp", "field": "dport"}}, -1),
        ({"payload": {"protocol": "tcp", "field": "dport"}}, {"range": [1, 65536]}),
        ({"payload": {"protocol": "tcp", "field": "dport"}}, {"set": [80, 65536]}),
        ({"meta": {"key": "mark"}}, 1 << 32),
        ({"meta": {"key": "skuid"}}, 1 << 32),
        ({"meta": {"key": "l4proto"}}, 256),
        ({"payload": {"protocol": "ip", "field": "daddr"}}, 1 << 32),
    ],
    ids=str,
)
def test_a_value_of_nft_that_is_too_large_is_not_told(
    tmp_path: Path, condition: tuple[object, object]
) -> None:
    left, right = condition
    expressions = [{"match": {"op": "==", "left": left, "right": right}}, {"drop": None}]
    assert (
        verdict(tmp_path, nft({"rule": {**PLACE, "chain": "o", "handle": 2, "expr": expressions}}))
        == "depends"
    )


@pytest.mark.parametrize(
    "statement",
    [
        {"redirect": {"port": 65536}},
        {"dnat": {"family": "ip", "addr": "10.0.0.9", "port": 65536}},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1 << 32}},
        {"mangle": {"key": {"ct": {"key": "zone"}}, "value": 1 << 16}},
        {"tproxy": {"family": "ip", "port": 65536}},
    ],
    ids=str,
)
def test_what_nft_cannot_set_is_not_told(tmp_path: Path, statement: dict[str, object]) -> None:
    rule = {**PLACE, "chain": "o", "handle": 2, "expr": [statement]}
    assert verdict(tmp_path, nft({"rule": rule})) == "depends"


PLACE = {"family": "inet", "table": "t"}
CHAIN = {"type": "nat", "hook": "output", "prio": -100, "policy": "accept"}


def nft(*objects: dict[str, object], chains: bool = True) -> str:
    table: dict[str, object] = {"table": {"family": "inet", "name": "t", "handle": 1}}
    chain: dict[str, object] = {"chain": {**PLACE, "name": "o", "handle": 1, **CHAIN}}
    return json.dumps({"nftables": [table, *([chain] if chains else []), *objects]})


def verdict(tmp_path: Path, dump: str) -> str:
    (tmp_path / "dump").write_text(dump)
    done = run(*ASKED, "--file", str(tmp_path / "dump"))
    assert done.status == 0, done.errors
    return str(json.loads(done.output)["hops"][0]["verdict"]["code"])


def test_tables_without_chains_are_not_taken_for_no_rules(tmp_path: Path) -> None:
    """`nft -j list tables` prints no rules, however many there are."""
    (tmp_path / "dump").write_text(nft(chains=False))
    done = run(*ASKED, "--file", str(tmp_path / "dump"), "--expect=direct")
    assert done.status == 3
    [line] = json.loads(done.output)["unread"]
    assert "no chain is in it" in line
    assert "nft -j list ruleset" in line


@pytest.mark.parametrize(("addresses", "own"), [("[]", "10.9.9.9"), ("", "10.9.9.9")])
def test_own_counts_where_no_dump_tells_an_address(tmp_path: Path, addresses: str, own: str) -> None:
    (tmp_path / "dump").write_text(f"*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n{addresses}\n")
    done = run(*ASKED, f"--own={own}", "--file", str(tmp_path / "dump"))
    assert json.loads(done.output)["hops"][0]["packet"]["source"] == own


def test_own_beside_a_dump_that_tells_addresses_gets_a_word(tmp_path: Path) -> None:
    address = (
        '[{"ifindex":2,"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.2","prefixlen":24}]}]'
    )
    (tmp_path / "dump").write_text(address)
    done = run(*ASKED, "--own=10.9.9.9", "--file", str(tmp_path / "dump"))
    assert "--own has no effect: --file tells the pod's own addresses" in done.errors


@pytest.mark.parametrize("state", ["invalid", "INVALID", "Invalid"])
def test_a_state_may_be_written_in_any_case(state: str) -> None:
    done = run(*ASKED, f"--ctstate={state}", "--own=10.0.0.2")
    assert json.loads(done.output)["hops"][0]["packet"]["state"] == "INVALID"
