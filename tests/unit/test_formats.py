"""Formats for people and programs: shell commands, JSON, differences."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import render
from istio_iptables.change.actions import EditNative, Live
from istio_iptables.change.plan import make_plan
from istio_iptables.formats import difference, shell
from istio_iptables.formats import json as as_json
from istio_iptables.formats.iptables_args import loadable_args, rule_args
from istio_iptables.rules.model import (
    BUILTIN_CHAINS,
    RETURN,
    Cidr,
    ConntrackState,
    Destination,
    DestinationPorts,
    LocalAddress,
    LocalDefaultRoute,
    MarkLookup,
    PortRange,
    Rule,
    TProxy,
)
from istio_iptables.rules.nftables.model import NativeChain, NativeTable, Ports
from tests.support import strategies
from tests.support.rulesets import EVERYTHING, ruleset_for
from tests.support.tables import flattened

FEWER = settings(max_examples=settings().max_examples // 2)


# --- commands ---------------------------------------------------------------------------------


@FEWER
@given(strategies.settings(), st.booleans(), st.booleans())
@example(EVERYTHING, True, True)
def test_shell_commands_make_the_rules(chosen: dict[str, str], comments: bool, explain: bool):
    wanted = ruleset_for({**chosen, "rule-comments": str(comments).lower()})
    first, second, *lines = shell.script(wanted, explain=explain).splitlines()
    assert (first, second) == ("#!/bin/sh", "set -e")
    made: dict[tuple[str, str], dict[str, list[list[str]]]] = {}
    network = []
    for line in lines:
        args = shlex.split(line, comments=True)
        if not args:
            assert line.startswith("# ")
            continue
        if args[0] == "ip":
            network.append(line)
            continue
        family = {"iptables": "ipv4", "ip6tables": "ipv6"}[args[0]]
        assert args[1] == "-t"
        chains = made.setdefault((family, args[2]), {})
        how, chain, rest = args[3], args[4], args[5:]
        if how == "-N":
            assert chain not in chains
            assert not rest
            chains[chain] = []
            continue
        assert chain in chains or chain in BUILTIN_CHAINS, "a chain is made before its rules"
        rules = chains.setdefault(chain, [])
        rules.insert(int(rest.pop(0)) - 1 if how == "-I" else len(rules), rest)
        assert how in ("-I", "-A")
    assert network == [str(item) for item in wanted.routing]
    assert {key: chains for key, chains in made.items() if chains} == {
        (table.family, table.name): {
            chain.name: [loadable_args(rule) for rule in chain.in_order] for chain in table.chains
        }
        for table in wanted.tables
    }


def test_head_rules_are_inserted():
    script = shell.script(ruleset_for({"kube-virt-interfaces": "net1,net2"}))
    inserted = [line for line in script.splitlines() if " -I " in line]
    assert [line.split()[5] for line in inserted] == ["1", "2", "3", "4"]
    assert " -A PREROUTING -p tcp -j ISTIO_INBOUND" in script


@FEWER
@given(strategies.settings())
@example(EVERYTHING)
def test_explain_puts_the_reason_above_every_rule(chosen: dict[str, str]):
    wanted = ruleset_for(chosen)
    plain, explained = (
        shell.script(wanted).splitlines(),
        shell.script(wanted, explain=True).splitlines(),
    )
    assert [line for line in explained[1:] if not line.startswith("#")] == plain[1:]
    assert not any(line.startswith("#") for line in plain[1:])
    rules = [number for number, line in enumerate(explained) if " -A " in line or re.search(" -I ", line)]
    reasons = [
        f"# {rule.reason}"
        for family in wanted.families()
        for t, _, rule in wanted.rules()
        if t.family == family
    ]
    assert [explained[number - 1] for number in rules] == reasons


def test_one_family_only():
    wanted = ruleset_for(EVERYTHING)
    script = shell.script(wanted, ["ipv6"])
    assert all(line.startswith(("ip6tables ", "ip -6 ")) for line in script.splitlines()[2:])
    assert render(wanted, families=["ipv6"]).startswith("*raw\n")
    assert "ip -6 addr add ::6/128 dev lo nodad" in render(wanted, families=["ipv6"])
    assert "# ip rule add" not in render(wanted, families=["ipv6"])
    assert "::" not in render(wanted, families=["ipv4"])


@pytest.mark.parametrize(
    ("item", "command"),
    [
        (LocalAddress(Cidr(6, 6, 128)), "ip -6 addr add ::6/128 dev lo nodad"),
        (LocalAddress(Cidr(4, 0x7F000006, 32)), "ip addr add 127.0.0.6/32 dev lo nodad"),
        (MarkLookup("ipv4", 1337, 133), "ip rule add fwmark 1337 lookup 133"),
        (MarkLookup("ipv6", 1337, 133), "ip -6 rule add fwmark 1337 lookup 133"),
        (LocalDefaultRoute("ipv4", 133), "ip route add local default dev lo table 133"),
        (LocalDefaultRoute("ipv6", 133), "ip -6 route add local default dev lo table 133"),
    ],
    ids=str,
)
def test_ip_commands(item: MarkLookup, command: str):
    assert str(item) == command


def test_render_shows_scripts_then_ip_commands():
    wanted = ruleset_for(EVERYTHING)
    text = render(wanted)
    assert text.index("# ipv4: for iptables-restore") < text.index("# ipv6: for ip6tables-restore")
    tail = text.rpartition("COMMIT\n")[2].splitlines()
    assert tail == [f"# {item!s}" for item in wanted.routing]
    one = render(ruleset_for({}))
    assert one.startswith("*nat\n")
    assert one.endswith("COMMIT\n")


# --- json -------------------------------------------------------------------------------------


@FEWER
@given(strategies.settings())
@example(EVERYTHING)
def test_json_has_every_rule(chosen: dict[str, str]):
    wanted = ruleset_for(chosen)
    document = json.loads(render(wanted, "json"))
    assert document == as_json.document(wanted)
    found = [
        (table["family"], table["name"], chain["name"], rule["rule"], rule["reason"], rule["at_head"])
        for table in document["tables"]
        for chain in table["chains"]
        for rule in chain["rules"]
    ]
    assert found == [
        (table.family, table.name, chain.name, rule_args(rule), rule.reason, number < len(chain.head))
        for table in wanted.tables
        for chain in table.chains
        for number, rule in enumerate(chain.in_order)
    ]
    assert [item["command"] for item in document["routing"]] == [str(i) for i in wanted.routing]
    assert {item["kind"] for item in document["routing"]} <= {
        "LocalAddress",
        "MarkLookup",
        "LocalDefaultRoute",
    }


def test_json_of_one_rule():
    rule = Rule(
        (
            Destination(Cidr(4, 0x7F000001, 32), True),
            DestinationPorts((PortRange(53, 53), PortRange(80, 90))),
        ),
        TProxy(15006, 1337),
        "why",
    )
    assert as_json.rule_values(rule) == {
        "rule": rule_args(rule),
        "matches": [
            {"type": "Destination", "cidr": "127.0.0.1/32", "negated": True},
            {"type": "DestinationPorts", "ports": ["53", "80:90"], "negated": False},
        ],
        "target": {"type": "TProxy", "port": 15006, "mark": 1337},
        "reason": "why",
    }
    states = ConntrackState(frozenset({"RELATED", "ESTABLISHED"}))
    assert as_json.rule_values(Rule((states,), RETURN))["matches"] == [
        {"type": "ConntrackState", "states": ["ESTABLISHED", "RELATED"], "negated": False}
    ]


def test_json_of_one_family():
    document = as_json.document(ruleset_for(EVERYTHING), ["ipv6"])
    assert {table["family"] for table in document["tables"]} == {"ipv6"}
    assert {item["family"] for item in document["routing"]} == {"ipv6"}


# --- difference -------------------------------------------------------------------------------


def live_after(chosen: Mapping[str, str]) -> Live:
    wanted = ruleset_for(chosen)
    return Live({"iptables-legacy": tuple(map(flattened, wanted.tables)), "iptables-nft": ()}, wanted.routing)


PORT = {"envoy-port": "15002"}


def test_difference_in_text():
    plan = make_plan(live_after(PORT), ruleset_for({"drop-invalid": "true"}), "iptables-legacy")
    assert difference.text(plan).splitlines() == [
        "@ ipv4 mangle (iptables-legacy)",
        "+-A ISTIO_DROP -j DROP",
        "+-A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP",
        "@ ipv4 nat (iptables-legacy)",
        "  ...",
        " -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        " -A ISTIO_OUTPUT -j ISTIO_REDIRECT",
        "--A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15002",
        "+-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        " -A OUTPUT -j ISTIO_OUTPUT",
        " -A PREROUTING -p tcp -j ISTIO_INBOUND",
    ]


def test_difference_in_colour():
    plan = make_plan(live_after(PORT), ruleset_for({}), "iptables-legacy")
    plain, coloured = difference.text(plan), difference.text(plan, colour=True)
    assert re.sub("\x1b\\[[0-9]*m", "", coloured) == plain
    colours = {"@": "\x1b[36m", "-": "\x1b[31m", "+": "\x1b[32m"}
    for line, shown in zip(plain.splitlines(), coloured.splitlines(), strict=True):
        assert shown == (f"{colours[line[0]]}{line}\x1b[0m" if line[0] in colours else line)
    assert "\x1b" not in plain


def test_difference_in_json():
    plan = make_plan(live_after(PORT), ruleset_for({}), "iptables-legacy")
    document = json.loads(difference.json_text(plan))
    assert document["differs"] is True
    (part,) = document["parts"]
    assert part["part"] == "ipv4 nat (iptables-legacy)"
    assert part["removed"] == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15002"]
    assert part["added"] == ["-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"]
    assert set(part["in_place"]) ^ set(part["wanted"]) == {*part["removed"], *part["added"]}


def test_no_difference():
    plan = make_plan(live_after(PORT), ruleset_for(PORT), "iptables-legacy")
    assert difference.text(plan) == difference.text(plan, colour=True) == ""
    assert json.loads(difference.json_text(plan)) == {"differs": False, "parts": []}


def test_the_state_in_lines():
    live = live_after({"istio-inbound-interception-mode": "TPROXY"})
    lines = list(difference.state_lines(live))
    assert len(lines) == sum(len(c.rules) for t in live.tables["iptables-legacy"] for c in t.chains) + len(
        live.routing
    )
    assert "iptables-legacy ipv4 nat: -A OUTPUT -j ISTIO_OUTPUT" in lines
    assert lines[-1] == "ip route add local default dev lo table 133"


def native_ports(last: int) -> tuple[NativeTable, ...]:
    """A table with one rule about ranges of ports below a number, which are a set of their own."""
    ports = Ports("destination", "tcp", tuple((number, number + 1) for number in range(1, last, 3)))
    chain = NativeChain("istio-output", None, (Rule((ports,), RETURN),))
    return (NativeTable("istio-proxy-nat", (chain,)),)


@pytest.mark.parametrize("replaces", [True, False])
def test_native_tables_are_shown_as_the_scripts_that_change_them(replaces: bool):
    shown = difference.script(EditNative(native_ports(20), native_ports(30), replaces)).splitlines()
    assert shown[0] == "# nftables istio-proxy-nat: write 1 rules: for nft -f -"
    begins = [line for line in shown[1:] if not line.startswith(("\t", "}"))]
    # The set comes before the rule that needs it, in a transaction of its own, if others are in force.
    table, flush = "table inet istio-proxy-nat {", "flush table inet istio-proxy-nat"
    in_order = [line for line in begins if line in (table, flush)]
    assert in_order == ([table, flush, table] if replaces else [flush, table])
    assert all(
        line.startswith("delete set inet istio-proxy-nat ports-")
        for line in begins
        if line not in ("", *in_order)
    )
