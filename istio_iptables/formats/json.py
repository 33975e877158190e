"""json: a Ruleset, or the difference between two, as JSON for programs."""

from __future__ import annotations

from ..rules.model import FAMILIES
from .iptables_args import rule_args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..rules.model import Chain, Family, Rule, Ruleset


def document(ruleset: Ruleset, families: Sequence[Family] = FAMILIES) -> dict[str, Any]:
    """Return the rules as JSON values.

    `tables` has the tables by family and name, each with its chains in order of creation, each
    with its rules in the order in which a packet meets them; `routing` the addresses, routing
    rules and routes that they rely on.
    """
    return {
        "tables": [
            {
                "family": table.family,
                "name": table.name,
                "chains": [_chain(chain) for chain in table.chains],
            }
            for table in ruleset.tables
            if table.family in families
        ],
        "routing": [
            {"family": item.family, "kind": type(item).__name__, "command": str(item)}
            for item in ruleset.routing
            if item.family in families
        ],
    }


def _chain(chain: Chain) -> dict[str, Any]:
    return {
        "name": chain.name,
        "rules": [
            {**rule_values(rule), "at_head": position < len(chain.head)}
            for position, rule in enumerate(chain.in_order)
        ],
    }


def rule_values(rule: Rule) -> dict[str, Any]:
    """Return one rule as JSON values: its options, its typed parts, and why it is there."""
    return {
        "rule": rule_args(rule),
        "matches": [_typed(match) for match in rule.matches],
        "target": _typed(rule.target),
        "reason": rule.reason,
    }


def _typed(value: Any) -> Any:
    """Return a record as its class name and fields, everything else as JSON has it."""
    from ..rules.model import Cidr, PortRange
    from ..startup.record import Record

    if isinstance(value, (Cidr, PortRange)):
        return str(value)
    if isinstance(value, Record):
        fields = {name: _typed(field) for name, field in value.as_dict().items()}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (tuple, frozenset)):
        return [_typed(member) for member in (sorted(value) if isinstance(value, frozenset) else value)]
    return value


def text(values: Any) -> str:
    """Return JSON text for people and programs, ending in a line feed."""
    import json

    return json.dumps(values, indent=2) + "\n"
