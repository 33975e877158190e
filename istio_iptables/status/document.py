"""document: what is in place as JSON values, for programs. docs/status.md has the keys."""

from __future__ import annotations

from ..formats import difference, notices
from ..formats.iptables_args import rule_args
from ..formats.iptables_restore import joined
from .counters import notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..change.neighbours import Interference
    from .report import CountedTable, Place, Status
    from .settings_of import ReadBack


def document(status: Status) -> dict[str, Any]:
    """Return all of it as JSON values."""
    return {
        "state": status.state,
        "compared": status.compared,
        "difference": difference.json_parts(status.plan) if status.plan else [],
        "places": [_place(place) for place in status.places],
        "routing": [str(item) for item in status.routing],
        "refused": status.refused,
        "before": [_finding(finding) for finding in status.before],
        "leftovers": list(status.leftovers),
        "unclaimed": list(status.unclaimed),
        "unreadable": list(status.unreadable),
        "notes": [note.as_dict() for note in notes(status)],
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "location": place.location,
        "families": list(place.families),
        **_settings(place.settings),
        "difference": difference.json_parts(place.plan) if place.plan else [],
        "tables": [_table(table) for table in place.tables],
    }


def _settings(read: ReadBack) -> dict[str, Any]:
    return {
        "exact": read.exact,
        "without_comments": read.untagged,
        "settings": dict(read.settings),
        "arguments": read.arguments,
        "variables": read.variables,
        "needs": {"ipv6": read.facts.ipv6, "dns_servers": list(read.facts.servers)},
        "untold": [each.as_dict() for each in read.untold],
    }


def _table(table: CountedTable) -> dict[str, Any]:
    return {
        "family": table.family,
        "name": table.name,
        "chains": [
            {
                "name": chain.name,
                "rules": [
                    {
                        "number": rule.number,
                        "rule": rule.words,
                        "packets": rule.rule.counters.packets if table.counted else None,
                        "bytes": rule.rule.counters.bytes if table.counted else None,
                        "reason": rule.reason,
                    }
                    for rule in chain.rules
                ],
            }
            for chain in table.chains
        ],
    }


def _finding(finding: Interference) -> dict[str, Any]:
    return {
        "where": finding.where,
        "chain": finding.chain,
        "rule": finding.rule if isinstance(finding.rule, str) else joined(rule_args(finding.rule)),
        "effect": finding.effect,
        "certain": finding.certain,
        "traffic": list(finding.traffic),
        "text": next(iter(notices.neighbours((finding,)))),
    }
