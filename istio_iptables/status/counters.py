"""counters: what the counters of rules say, and why some are zero although everything works."""

from __future__ import annotations

from ..rules import istio
from ..rules.model import RETURN, Jump
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .report import CountedRule, CountedTable, Status

#: The tables whose rules are asked for the first packet of a connection alone.
_NAT = frozenset({"nat", istio.NATIVE_TABLES["nat"]})
#: As many rules as one note names.
_MOST_NAMED = 3


class Note(Record):
    """Something to know about the counters: a stable code, and the text."""

    code: str
    text: str


def notes(status: Status) -> Iterator[Note]:
    """Yield what has to be known to read the counters."""
    tables = [table for place in status.places for table in place.tables]
    if any(table.name in _NAT for table in tables):
        yield Note(
            "nat-counts-connections",
            "rules in nat count connections, not packets: the kernel asks nat for the first packet of a "
            "connection alone, and does with the rest what was decided then",
        )
    for table in tables:
        if table.counted:
            yield from _nothing_captured(table)
        else:
            yield Note("not-counted", f"{_name(table)}: iptables cannot read its counters (see below)")


def _name(table: CountedTable) -> str:
    return f"{table.family} {table.name}"


def _nothing_captured(table: CountedTable) -> Iterator[Note]:
    """Yield why nothing was captured so far, in either direction, if nothing was."""
    if table.name in _NAT:
        outbound = _packets(_rules(table, istio.REDIRECT))
        if not outbound:
            yield from _why(table, "OUTPUT", istio.OUTPUT, "outbound")
    to_proxy = (Jump(istio.IN_REDIRECT), Jump(istio.TPROXY), Jump(istio.DIVERT))
    inbound = [rule for rule in _rules(table, istio.INBOUND) if _target(rule) in to_proxy]
    if inbound and not _packets(inbound):
        yield from _why(table, "PREROUTING", istio.INBOUND, "inbound")


def _why(table: CountedTable, hook: str, chain: str, direction: str) -> Iterator[Note]:
    """Yield why a chain has captured nothing of what comes to it by a hook; both by iptables' names."""
    names = {_iptables_name(found.name): found.name for found in table.chains}
    jumps = [rule for rule in _rules(table, hook) if _target(rule) == Jump(chain)]
    what = "connections" if table.name in _NAT else "packets"
    seen = _packets(jumps)
    code = f"nothing-captured-{direction}"
    start = f"{_name(table)}: no {direction} {what[:-1]} was captured"
    if not jumps:
        yield Note(code, f"{start}: no rule leads from {hook} to {chain}")
    elif not seen:
        older = "connections that are older than the rules go on as they were"
        yield Note(code, f"{start}: none has come to {names[hook]} since the rules count ({older})")
    else:
        let_go = [rule for rule in _rules(table, chain) if rule.rule.target == RETURN and _packets([rule])]
        named = sorted(let_go, key=lambda rule: -_packets([rule]))[:_MOST_NAMED]
        by = "; ".join(f"`{rule.words}` ({_packets([rule])})" for rule in named) or "the end of the chain"
        yield Note(code, f"{start}: {seen} {what} came to {names[chain]} and were let go by {by}")


def _rules(table: CountedTable, chain: str) -> list[CountedRule]:
    """Return the rules of a chain, by its name in iptables."""
    return [rule for found in table.chains if _iptables_name(found.name) == chain for rule in found.rules]


def _target(rule: CountedRule) -> object:
    target = rule.rule.target
    return Jump(_iptables_name(target.chain)) if isinstance(target, Jump) else target


def _iptables_name(chain: str) -> str:
    """Return the name that a chain has in iptables: istio-output is ISTIO_OUTPUT, output is OUTPUT."""
    return chain.upper().replace("-", "_")


def _packets(rules: list[CountedRule]) -> int:
    return sum(rule.rule.counters.packets for rule in rules)
