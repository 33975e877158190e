"""nft_meaning: rules of nft_fixtures.py as the interpreter has them, and a packet that they may meet."""

from __future__ import annotations

from typing import Any

from istio_iptables.interpreter import nft_expressions
from istio_iptables.interpreter.action import End, Pass
from istio_iptables.interpreter.condition import AllOf, Condition, Unmodelled
from istio_iptables.interpreter.known import NOTHING_KNOWN, Known
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.program import Rule, Table

from .nft_fixtures import RULES, VERSIONS, dump, rule_in

Changes = dict[str, Any]

#: TCP from 10.0.0.1:40000 to 10.0.0.2:80, the first packet of its connection, in by eth0.
PACKET = Packet(
    "ipv4",
    6,
    0x0A000001,
    0x0A000002,
    40000,
    80,
    received_on="eth0",
    tracked=True,
    original_source=0x0A000001,
    original_source_port=40000,
    original_destination=0x0A000002,
    original_port=80,
    packet_type="unicast",
)
IPV6: Changes = {"family": "ipv6", "source": 0xFD << 120, "destination": 1}


def tables_with(where: str, text: str, version: str, known: Known = NOTHING_KNOWN) -> tuple[Table, ...]:
    """Return the tables of the fixture, of whose rules only one is there."""
    wanted = rule_in(version, where, text)
    assert wanted
    objects = [each for each in dump(version).objects if "rule" not in each or each["rule"] == wanted]
    return nft_expressions.compiled(objects, known)


def rules_for(where: str, text: str, known: Known = NOTHING_KNOWN) -> list[Rule]:
    """Return the rule as each version prints it that takes it, compiled."""
    assert text in RULES[where]
    _, table, chain = where.split()
    found = [
        rule
        for version in VERSIONS
        if rule_in(version, where, text)
        for each in tables_with(where, text, version, known)
        if each.name == table
        for rule in each.rules(chain)
    ]
    assert found
    return found


def condition_of(rule: Rule) -> Condition:
    """Return all that has to be true for the `accept` at the end of a rule to be reached."""
    *conditions, last = [each for each in rule.statements if not isinstance(each, Pass)]
    assert last == End("accept")
    assert all(isinstance(each, Condition) for each in conditions)
    return AllOf(tuple(conditions))  # type: ignore[arg-type]  # as asserted


def unmodelled_in(condition: Any) -> list[Unmodelled]:
    if isinstance(condition, Unmodelled):
        return [condition]
    parts = getattr(condition, "parts", None) or [getattr(condition, "part", None)]
    return [found for part in parts if part is not None for found in unmodelled_in(part)]
