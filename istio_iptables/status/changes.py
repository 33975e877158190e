"""changes: what the counters have gained between two looks at the same rules."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .report import CountedRule, Status


class Change(Record):
    """A rule that has counted something since the look before: its place, its counters, the increase."""

    location: str
    family: str
    table: str
    chain: str
    number: int
    rule: str
    reason: str
    packets: int
    bytes: int
    packets_added: int
    bytes_added: int


def changes(before: Status, after: Status) -> list[Change] | None:
    """Return the rules that have counted, None if it is not only counters that are different.

    A counter that has become smaller was set to zero, or its rule was written again: all of it is new.
    """
    old, new = list(_rules(before)), list(_rules(after))
    if _without_counters(before) != _without_counters(after):
        return None
    return [
        Change(
            *where,
            rule.number,
            rule.words,
            rule.reason,
            rule.rule.counters.packets,
            rule.rule.counters.bytes,
            _gain(was.rule.counters.packets, rule.rule.counters.packets),
            _gain(was.rule.counters.bytes, rule.rule.counters.bytes),
        )
        for (_, was), (where, rule) in zip(old, new, strict=True)
        if was.rule.counters != rule.rule.counters
    ]


def _gain(before: int, after: int) -> int:
    return after - before if after >= before else after


def _rules(status: Status) -> Iterator[tuple[tuple[str, str, str, str], CountedRule]]:
    for place in status.places:
        for table in place.tables:
            for chain in table.chains:
                for rule in chain.rules:
                    yield (place.location, table.family, table.name, chain.name), rule


def _without_counters(status: Status) -> object:
    """Return all that is not a counter; rules are equal whatever they have counted."""
    return status.replace(plan=None, places=tuple(place.replace(plan=None) for place in status.places))
