"""Whose is it, without a kernel: SPEC section 3 on rules as iptables-save prints them."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given

from istio_iptables.formats.iptables_args import loadable_args, rule_args
from istio_iptables.formats.iptables_restore import parse
from istio_iptables.rules.forms import may_be_istios
from istio_iptables.rules.model import FAMILIES
from istio_iptables.rules.nftables.forms import foreign_parts
from istio_iptables.rules.nftables.translate import translate
from istio_iptables.rules.ownership import foreign_rules, is_ambient, owned
from tests.support.cases import all_cases
from tests.support.rulesets import ruleset_for

from ..support import strategies
from ..support.istio_fixtures import ANYONES, NAMES, read


def table_with(name: str, *rules: str, chains: tuple[str, ...] = ()) -> str:
    declared = "".join(f":{chain} - [0:0]\n" for chain in chains)
    return (
        f"*{name}\n:PREROUTING ACCEPT [0:0]\n{declared}" + "".join(f"{rule}\n" for rule in rules) + "COMMIT\n"
    )


@all_cases("name", NAMES)
def test_every_rule_that_istios_tools_left_is_owned_but_for_anyones(name: str) -> None:
    left = read(name)
    for family in FAMILIES:
        for table in parse(left.scripts.get(family, ""), family):
            assert list(foreign_rules(table)) == []
            mine = owned(table)
            others = [
                (chain.name, rule)
                for chain in table.chains
                for rule in chain.rules
                if rule not in mine.chain(chain.name).rules
            ]
            assert others == list(may_be_istios(table))
            lines = [f"-A {chain} {' '.join(rule_args(rule))}" for chain, rule in others]
            assert all(ANYONES.match(line) for line in lines)
            assert len(lines) == len([1 for where, _ in left.of_anyone(family) if where == table.name])


#: A value in a rule of Istio's tools, and one that no version wrote.
CHANGES = [
    ("--to-ports 15053", "--to-ports 15054"),
    ("127.0.0.1:15053", "127.0.0.1:15054"),
    ("127.0.0.1:15053", "127.0.0.2:15053"),
    ("--dport 53 ", "--dport 5353 "),
    ("--sport 15053", "--sport 15054"),
    ("--zone 1", "--zone 3"),
    ("--zone 2", "--zone 0"),
    ("--mark 0x539 ", "--mark 0x538 "),
    ("--mark 0x539 ", "--mark 0x539/0xff "),
    ("--set-xmark 0x53a/0xffffffff", "--set-xmark 0x53b/0xffffffff"),
    ("--set-xmark 0x53a/0xffffffff", "--set-xmark 0x53a/0xff"),
    ("--restore-mark --nfmask 0xffffffff", "--restore-mark --nfmask 0xff"),
    ("--to-source 127.0.0.1", "--to-source 127.0.0.2"),
    ("-p udp", "-p udp -m limit --limit 3/hour"),
    ("-o lo", "-o eth0"),
]


@all_cases(("istios", "other"), CHANGES)
def test_a_rule_with_another_value_is_foreign(istios: str, other: str) -> None:
    """In built-in chains, where the exact form is all that tells it."""
    changed = 0
    for name in NAMES:
        for family, script in read(name).scripts.items():
            for part in re.findall(r"^\*(\w+)\n(.*?)^COMMIT", script, re.MULTILINE | re.DOTALL):
                lines = re.findall(
                    r"^-A (?!ISTIO_).*(?<!ISTIO_INBOUND)(?<!ISTIO_OUTPUT)$", part[1], re.MULTILINE
                )
                for line in (line for line in lines if istios in line and "ISTIO_" not in line):
                    (table,) = parse(table_with(part[0], line.replace(istios, other)), family)  # type: ignore[arg-type]
                    assert owned(table).is_empty, line
                    changed += 1
    assert changed


@pytest.mark.parametrize("table", ["nat", "mangle", "raw"])
def test_ambient_mode_owns_its_chains(table: str) -> None:
    """Nothing in a table with ISTIO_PRERT is owned, whatever it is called."""
    text = table_with(
        table,
        "-A PREROUTING -j ISTIO_PRERT",
        "-A OUTPUT -j ISTIO_OUTPUT",
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        chains=("ISTIO_PRERT", "ISTIO_OUTPUT"),
    )
    (read_table,) = parse(text, "ipv4")
    assert is_ambient(read_table)
    assert owned(read_table).is_empty


def test_an_owner_is_loaded_in_a_spelling_that_can_be_no_name() -> None:
    """A colon separates the fields of passwd(5) and group(5); a name can have a hyphen."""
    text = table_with(
        "nat",
        "-A OUTPUT -m owner --uid-owner 1337 -m owner ! --gid-owner 0 -j RETURN",
    )
    (table,) = parse(text, "ipv4")
    words = loadable_args(table.chain("OUTPUT").rules[0])
    owners = [word for option, word in pairwise(words) if option in ("--uid-owner", "--gid-owner")]
    assert owners == ["1337:1337", "0:0"]


@given(strategies.settings())
def test_no_native_table_of_this_tool_has_foreign_parts(chosen: dict[str, str]) -> None:
    """Whatever the settings: a run must never take its own rules for another program's."""
    for table in translate(ruleset_for(chosen)):
        assert list(foreign_parts(table)) == []
