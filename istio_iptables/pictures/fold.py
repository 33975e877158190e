"""fold: the rules of a chain as rows: the rules of a list as one row, and those of both families together."""

from __future__ import annotations

from ..interpreter.condition import Condition
from ..rules.edit import common_subsequence
from ..rules.model import Counters
from .model import Row, Span
from .words import clauses, effect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpreter.action import Action
    from ..interpreter.program import Rule, Table
    from .words import Clause

#: Most rules that one member of a list has: TPROXY has two for each port.
_LONGEST_CYCLE = 4
#: What settings may have lists of.
_LISTED = ("ports", "addresses", "users", "groups", "interfaces")
#: As many rules of a row are kept as its tool prints them.
_MOST_TEXTS = 3


def rows(table: Table, chain: str, *, counted: bool = False) -> list[Row]:
    """Return the rules of a chain as rows, without ids. `counted`: they have counters that say something."""
    single = [_row(table, rule, counted) for rule in table.rules(chain)]
    found: list[Row] = []
    at = 0
    while at < len(single):
        length, cycles = _longest_run(single, at)
        members = single[at : at + length * cycles]
        found += [_joined(members[part::length], length) for part in range(length)]
        at += length * cycles
    return found


def _row(table: Table, rule: Rule, counted: bool) -> Row:
    conditions = [each for each in rule.statements if isinstance(each, Condition)]
    doing: list[Action] = [each for each in rule.statements if not isinstance(each, Condition)]
    what = effect(doing)
    [family] = table.families if len(table.families) == 1 else [None]
    return Row(
        "",
        (Span(table.title, rule.number, rule.number),),
        tuple(clauses(conditions, family)),
        what.kind,
        what.text,
        rule.reason,
        what.leads_to,
        texts=(rule.text,),
        counters=rule.counters if counted else None,
    )


# --- lists ------------------------------------------------------------------------------------


def _longest_run(single: Sequence[Row], at: int) -> tuple[int, int]:
    """Return the length of the cycle at a place, and how often it is there: 1, 1 if no list begins there."""
    found = [(length, _cycles(single, at, length)) for length in range(1, _LONGEST_CYCLE + 1)]
    lists = [(length, cycles) for length, cycles in found if cycles > 1]
    return max(lists, key=lambda each: each[0] * each[1], default=(1, 1))


def _cycles(single: Sequence[Row], at: int, length: int) -> int:
    first = single[at : at + length]
    if len({row.then for row in first}) > 1 and not all(_one_member(row) for row in first):
        return 1
    varying = _varying(first, single[at + length : at + 2 * length])
    if varying is None:
        return 1
    cycles, seen = 1, {_value(first[0], varying[0])}
    while True:
        here = single[at + cycles * length : at + (cycles + 1) * length]
        if _varying(first, here) != varying:
            return cycles
        if len({row.then for row in first}) > 1:
            # The order of rules that do different things counts, unless no packet has two of the values.
            value = _value(here[0], varying[0])
            if value in seen or not all(_one_member(row) for row in here):
                return cycles
            seen.add(value)
        cycles += 1


def _one_member(row: Row) -> bool:
    """Tell whether every value of a row is a single one, so that different ones do not overlap."""
    return not any("-" in value or "/" in value for clause in row.when for value in clause.values)


def _value(row: Row, at: int) -> tuple[str, ...]:
    return row.when[at].values


def _varying(first: Sequence[Row], other: Sequence[Row]) -> tuple[int, ...] | None:
    """Return in which clause the rules of two members of a list differ, None if they are not of one list."""
    if len(other) != len(first):
        return None
    found: list[int] = []
    for one, two in zip(first, other, strict=True):
        if (one.then, one.leads_to, len(one.when)) != (two.then, two.leads_to, len(two.when)):
            return None
        differing = [at for at, clause in enumerate(one.when) if clause != two.when[at]]
        if len(differing) != 1:
            return None
        [at] = differing
        before, after = one.when[at], two.when[at]
        if before.negated or before.shape() != after.shape() or before.noun not in _LISTED:
            return None
        if not _alike(one.reason, two.reason):
            return None
        found.append(at)
    values = {_value(row, at) for row, at in zip(other, found, strict=True)}
    return tuple(found) if len(values) == 1 else None


def _joined(members: Sequence[Row], step: int) -> Row:
    first, last = members[0], members[-1]
    if len(members) == 1:
        return first
    [at] = [at for at, clause in enumerate(first.when) if clause != members[1].when[at]]
    values = tuple(value for row in members for value in row.when[at].values)
    when = (*first.when[:at], first.when[at].replace(values=values), *first.when[at + 1 :])
    span = first.spans[0].replace(last=last.spans[0].last, step=step)
    return first.replace(
        spans=(span,),
        when=when,
        reason=_common([row.reason for row in members]),
        texts=tuple(row.texts[0] for row in members[:_MOST_TEXTS]),
        counters=_sum([row.counters for row in members]),
    )


def _alike(one: str, other: str) -> bool:
    """Tell whether two reasons differ in one word at most, which is the value then."""
    words, others = one.split(" "), other.split(" ")
    return len(words) == len(others) and sum(a != b for a, b in zip(words, others, strict=True)) < 2


def _common(reasons: Sequence[str]) -> str:
    """Return what reasons of one list have in common, with `…` for the rest.

    >>> _common(["inbound port 80 is excluded", "inbound port 443 is excluded"])
    'inbound port … is excluded'
    """
    lists = [reason.split(" ") for reason in dict.fromkeys(reasons)]
    return " ".join(_one_word(words) for words in zip(*lists, strict=False))


def _one_word(words: Sequence[str]) -> str:
    if len(set(words)) == 1:
        return words[0]
    colons = all(word.endswith(":") for word in words)
    return "…:" if colons else "…"


def _sum(counters: Sequence[Counters | None]) -> Counters | None:
    known = [each for each in counters if each is not None]
    if not known:
        return None
    return Counters(sum(each.packets for each in known), sum(each.bytes for each in known))


# --- both families ----------------------------------------------------------------------------


class _Alike:
    """A row as the other family may have it: equal if addresses, and their names, are all that differs."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self._key = (row.kind, row.then, row.leads_to, tuple(map(_neutral, row.when)), _words(row))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _neutral(clause: Clause) -> Clause:
    return clause.replace(values=()) if clause.of_family else clause


def _words(row: Row) -> str:
    """Return the reason without the values that the row's clauses name."""
    values = {value for clause in row.when if clause.of_family for value in clause.values}
    hosts = {value.removesuffix("/32").removesuffix("/128") for value in values}
    named = values | {f"{host}/{bits}" for host in hosts for bits in (32, 128)}
    words = row.reason.split(" ")
    return " ".join(
        word.replace(word.rstrip(":"), "…") if word.rstrip(":") in named else word for word in words
    )


def both_families(ipv4: Sequence[Row], ipv6: Sequence[Row]) -> list[Row]:
    """Return the rows of a chain of both families: those that say the same once, each family's order kept."""
    ours, others = [_Alike(row) for row in ipv4], [_Alike(row) for row in ipv6]
    merged: list[Row] = []
    i = j = 0
    for common_i, common_j in (*common_subsequence(ours, others), (len(ours), len(others))):
        merged += [_only(row, "IPv4") for row in ipv4[i:common_i]]
        merged += [_only(row, "IPv6") for row in ipv6[j:common_j]]
        if common_i < len(ours):
            merged.append(_both(ipv4[common_i], ipv6[common_j]))
        i, j = common_i + 1, common_j + 1
    return merged


def _only(row: Row, family: str) -> Row:
    """Return a row of one family; addresses tell the family, all else has to say it."""
    return row if any(clause.of_family for clause in row.when) else row.replace(only=family)


def _both(one: Row, other: Row) -> Row:
    when = tuple(
        a
        if a == b
        else a.replace(values=(*a.values, *(value for value in b.values if value not in a.values)))
        for a, b in zip(one.when, other.when, strict=True)
    )
    return one.replace(
        spans=(*one.spans, *other.spans),
        when=when,
        reason=_common([one.reason, other.reason]),
        texts=(*one.texts, *(text for text in other.texts if text not in one.texts)),
        counters=_sum([one.counters, other.counters]),
    )
