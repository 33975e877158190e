"""runs: rules of a list, such as twenty thousand CIDRs, of which earlier ones take all of later ones."""

from __future__ import annotations

from bisect import bisect_left

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import AllOf, Condition, In
from ..interpreter.valuesets import common, minus
from ..rules.lists import union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..interpreter.many import Changed, Many
    from ..interpreter.merged import Run
    from ..interpreter.program import Rule
    from ..interpreter.regions import Region
    from ..rules.nftables.model import Ranges


def dead_members(
    run: Run, came: Sequence[tuple[Many, Any]], passed: Sequence[Any]
) -> Iterator[tuple[Rule, tuple[Rule, ...]]]:
    """Yield the members of a run that no packet reaches, with the earlier ones that take theirs.

    `came` are the packets that come to the run, for each kind of packets, and `passed` those that go on after
    it. A member is reached by what comes and no earlier one takes, and by what passes all of them.
    """
    coming, passing = _values(run, _differing(run.rule, run).field, came, passed)
    taken = _Taken()
    for member in run.members:
        condition = _differing(member, run)
        wanted = common(condition.ranges, coming)
        if not common(condition.ranges, passing) and not minus(wanted, taken.within(wanted)):
            yield member, taken.by(wanted)
        else:
            taken.add(condition.ranges, member)


def members_for(run: Run, taken: Region) -> tuple[Rule, ...]:
    """Return the members of a run that match some of the packets that it takes."""
    if run.differ is None:
        return run.members
    condition = _differing(run.rule, run)
    boxes: list[Mapping[str, Any]] = [dict(box) for box in taken.boxes]
    values = union(each for box in boxes for each in box.get(condition.field, condition.ranges))
    return tuple(member for member in run.members if common(_differing(member, run).ranges, values))


def _differing(rule: Rule, run: Run) -> In:
    """Return the condition in which the members of a run differ."""
    condition = rule.statements[run.differ or 0]
    assert isinstance(condition, In)
    return condition


def _values(
    run: Run, field: str, came: Sequence[tuple[Many, Any]], passed: Sequence[Any]
) -> tuple[Ranges, Ranges]:
    """Return the values of a field that coming packets have, and those of matching ones that pass."""
    statements = [each for at, each in enumerate(run.rule.statements) if at != run.differ]
    others = tuple(each for each in statements if isinstance(each, Condition))
    coming: list[tuple[int, int]] = []
    passing: list[tuple[int, int]] = []
    for (algebra, packets), on in zip(came, passed, strict=True):
        fitting, _ = algebra.split(packets, AllOf(others), NO_QUESTION)
        for changed, region in fitting.items():
            coming += _of(changed, region, field)
        hit, _ = algebra.split(fitting, _differing(run.rule, run), NO_QUESTION)
        for changed, region in hit.items():
            for other in on.values():
                passing += _of(changed, region & other, field)
    return union(coming), union(passing)


def _of(changed: Changed, region: Region, field: str) -> Iterator[tuple[int, int]]:
    """Yield the values of a field: what packets set out with, or what the walk has made of it."""
    value = changed.fields.get(field)
    for box in region.boxes:
        of_box: Mapping[str, Any] = dict(box)
        if isinstance(value, int):
            yield (value, value)
        else:
            yield from of_box.get(field, region.space.everything(field))


class _Taken:
    """What earlier members of a run take, and which of them took it."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        self._members: list[tuple[Ranges, Rule]] = []

    def add(self, ranges: Iterable[tuple[int, int]], member: Rule) -> None:
        """Note that a member takes values."""
        ranges = tuple(ranges)
        self._members.append((ranges, member))
        for first, last in ranges:
            start = bisect_left(self._ranges, (first,))
            if start and self._ranges[start - 1][1] >= first - 1:
                start -= 1
            end = start
            while end < len(self._ranges) and self._ranges[end][0] <= last + 1:
                first, last = min(first, self._ranges[end][0]), max(last, self._ranges[end][1])
                end += 1
            self._ranges[start:end] = [(first, last)]

    def within(self, ranges: Ranges) -> Ranges:
        """Return what of some values is taken."""
        found = []
        for first, last in ranges:
            at = bisect_left(self._ranges, (first,))
            if at and self._ranges[at - 1][1] >= first:
                at -= 1
            while at < len(self._ranges) and self._ranges[at][0] <= last:
                found.append((max(first, self._ranges[at][0]), min(last, self._ranges[at][1])))
                at += 1
        return tuple(found)

    def by(self, ranges: Ranges) -> tuple[Rule, ...]:
        """Return the members that take some values."""
        return tuple(member for taken, member in self._members if common(taken, ranges))
