"""test_contract_by_hand: complete rule sets that were written by hand from SPEC alone, in tests/by_hand.

No program wrote these files and none may rewrite them: a disagreement is decided by the sentence of SPEC.
They check the product and tests/support/oracle.py alike, so that an error of reading in both is found.

A file has comments (`#`), a head of `key: value` lines (arguments, variable, addresses, servers, warning) and
sections `FAMILY TABLE` of rules in the form of iptables-save. Chains are in any order; within a chain the
order counts. `(tag)` is the comment that SPEC demands, `(whole)` the masks that the kernel fills in. The
section `commands` has the `ip` commands, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from istio_iptables.api import build, render
from istio_iptables.settings.resolve import parse, resolve
from tests.support import oracle
from tests.support.cases import all_cases
from tests.support.golden import given
from tests.support.golden_cases import Golden
from tests.support.restore import after_loading, by_family, ip_commands
from tests.support.saved import by_chain

DIRECTORY = Path(__file__).parents[1] / "by_hand"
PARTS = {"(tag)": oracle.COMMENT, "(whole)": "--nfmask 0xffffffff --ctmask 0xffffffff"}

#: (family, table) -> chain -> rules
Rules = dict[tuple[str, str], dict[str, list[str]]]


@dataclass(frozen=True)
class Contract:
    """The contents of a file. `commands` are sorted; each of `warnings` is part of a warning."""

    configuration: Golden
    warnings: list[str]
    rules: Rules
    commands: list[str]


def read(name: str) -> Contract:
    lines = (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    head, *sections = text.strip().split("\n\n")
    facts: dict[str, list[str]] = {"variable": []}
    for key, _, value in (line.partition(":") for line in head.splitlines()):
        facts.setdefault(key, []).append(value.strip())
    assert facts.keys() <= {"arguments", "variable", "addresses", "servers", "warning"}
    families = facts["addresses"][0].split()
    configuration = Golden(
        name,
        "",
        arguments=" ".join(facts.get("arguments", [])),
        variables=dict(variable.split("=", 1) for variable in facts["variable"]),
        ipv4="IPv4" in families,
        ipv6="IPv6" in families,
        servers=tuple(" ".join(facts.get("servers", [])).split()),
    )
    rules: Rules = {}
    commands: list[str] = []
    for title, *body in (section.splitlines() for section in sections):
        if title == "commands":
            commands = sorted(body)
            continue
        family, table = title.split()
        assert (family, table) not in rules
        rules[family, table] = by_chain(expand(line) for line in body)
    return Contract(configuration, facts.get("warning", []), rules, commands)


def expand(line: str) -> str:
    for short, long in PARTS.items():
        line = line.replace(short, long)
    return line


def chosen(configuration: Golden) -> dict[str, str]:
    return {item.setting.name: item.text for item in given(configuration)}


def is_ipv6_on(configuration: Golden) -> bool:
    return oracle.ipv6_is_on(chosen(configuration), has_ipv4=configuration.ipv4, has_ipv6=configuration.ipv6)


NAMES = sorted(path.stem for path in DIRECTORY.iterdir())


def test_there_are_enough_files():
    assert len(NAMES) >= 19


@all_cases("name", NAMES)
def test_oracle(name: str):
    contract = read(name)
    configuration = contract.configuration
    ipv6 = is_ipv6_on(configuration)
    found = oracle.expected(chosen(configuration), ipv6=ipv6, dns_servers=configuration.servers)
    assert {key: by_chain(lines) for key, lines in found.items()} == contract.rules
    assert sorted(oracle.commands(chosen(configuration), ipv6=ipv6)) == contract.commands


@all_cases("name", NAMES)
def test_render(name: str):
    contract = read(name)
    facts = contract.configuration.facts()
    config, warnings = resolve(parse(given(contract.configuration), facts), facts)
    text = render(build(config))
    found = {
        (family, table): by_chain(lines)
        for family, script in by_family(text).items()
        for table, lines in after_loading(script, family).items()
    }
    assert found == contract.rules
    assert sorted(ip_commands(text)) == contract.commands
    for words in contract.warnings:
        assert any(words in warning for warning in warnings)
