"""regions: exact sets of packets: disjoint boxes, each with a set of values for some fields.

A Space says which fields there are and which values each may have. A Region holds boxes; it divides by a
condition on one field without getting more boxes, and puts together boxes that differ in one field only.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

from ..startup.record import Record
from . import valuesets
from .valuesets import EVERY_MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from ..rules.model import Family
    from .valuesets import Values

    #: Constraints by field, in order of the names; a field that is not there may have any value.
    Box: TypeAlias = tuple[tuple[str, Values], ...]


class Space(Record):
    """The fields of packets that are not fixed, and all values of each.

    `words` are the names of interfaces and other words that rules or routes tell apart, with one that stands
    for all others. Fields that are not listed are yes-or-no questions, 0 or 1.
    """

    family: Family
    ranges: Mapping[str, tuple[int, int]]
    marks: frozenset[str]
    words: Mapping[str, frozenset[str]]

    def everything(self, field: str) -> Values:
        """Return all values of a field."""
        if field in self.ranges:
            return (self.ranges[field],)
        if field in self.marks:
            return EVERY_MARK
        if field in self.words:
            return self.words[field]
        return ((0, 1),)


class Region:
    """A set of packets. Immutable."""

    __slots__ = ("boxes", "space")

    def __init__(self, space: Space, boxes: tuple[Box, ...]) -> None:
        self.space = space
        self.boxes = boxes

    @classmethod
    def whole(cls, space: Space) -> Region:
        """Return all packets."""
        return cls(space, ((),))

    @classmethod
    def nothing(cls, space: Space) -> Region:
        """Return no packet."""
        return cls(space, ())

    @classmethod
    def together(cls, parts: Sequence[Region]) -> Region:
        """Return the packets of one or more sets that have none in common, or not known to."""
        found = [part for part in parts if part.boxes]
        if len(found) < 2:
            return found[0] if found else parts[0]
        space = found[0].space
        return cls(space, _together(space, [box for part in found for box in part.boxes]))

    def __bool__(self) -> bool:
        return bool(self.boxes)

    def divide(self, field: str, values: Values) -> tuple[Region, Region]:
        """Return the packets of which a field has one of some values, and the others."""
        everything = self.space.everything(field)
        hits: list[Box] = []
        misses: list[Box] = []
        for box in self.boxes:
            of_box = dict(box)
            before = of_box.get(field, everything)
            inside = common(before, values)
            if not inside:
                misses.append(box)
                continue
            outside = minus(before, values)
            if not outside:
                hits.append(box)
                continue
            hits.append(_with(of_box, field, inside, everything))
            misses.append(_with(of_box, field, outside, everything))
        return Region(self.space, tuple(hits)), Region(self.space, tuple(misses))

    def __or__(self, other: Region) -> Region:
        """Return the packets of two sets that have none in common, or not known to."""
        return Region.together((self, other))

    def __and__(self, other: Region) -> Region:
        """Return the packets that are in both."""
        found = []
        for one in self.boxes:
            for another in other.boxes:
                box = _both(one, another)
                if box is not None:
                    found.append(box)
        return Region(self.space, tuple(found))

    def __sub__(self, other: Region) -> Region:
        """Return the packets that are in this set alone."""
        left = self
        for box in other.boxes:
            kept = Region.nothing(self.space)
            for field, values in box:
                left, outside = left.divide(field, values)
                kept = Region(self.space, (*kept.boxes, *outside.boxes))
            left = kept
        return Region(self.space, _together(self.space, left.boxes))


def common(one: Any, other: Any) -> Any:
    """Return the values that are in both sets."""
    if one is other:
        return one
    if isinstance(one, tuple):
        return valuesets.common(one, other)
    return one & other if _are_words(one, other) else valuesets.cubes_common(one, other)


def minus(one: Any, other: Any) -> Any:
    """Return the values that are in the first set alone."""
    if isinstance(one, tuple):
        return valuesets.minus(one, other)
    return one - other if _are_words(one, other) else valuesets.cubes_minus(one, other)


def _union(one: Any, other: Any) -> Any:
    """Return the values of two sets that have none in common."""
    if isinstance(one, tuple):
        from ..rules.lists import union

        return union((*one, *other))
    if _are_words(one, other):
        return one | other
    return _fewer_cubes(one | other)


def _are_words(one: frozenset[Any], other: frozenset[Any]) -> bool:
    return any(isinstance(each, str) for values in (one, other) for each in islice(values, 1))


def _fewer_cubes(cubes: frozenset[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    """Put together cubes that differ in one bit only."""
    found = set(cubes)
    changed = True
    while changed:
        changed = False
        masks = Counter(mask for _, mask in found)
        for value, mask in sorted(cube for cube in found if masks[cube[1]] > 1):
            for bit in _bits(mask):
                other = (value ^ bit, mask)
                if other in found and (value, mask) in found:
                    found -= {other, (value, mask)}
                    found.add((value & ~bit, mask & ~bit))
                    changed = True
                    break
    return frozenset(found)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


def _with(box: Mapping[str, Values], field: str, values: Values, everything: Values) -> Box:
    made = {**box, field: values}
    if values == everything:
        del made[field]
    return tuple(sorted(made.items(), key=_name))


def _name(item: tuple[str, Values]) -> str:
    return item[0]


def _both(one: Box, other: Box) -> Box | None:
    """Return what is in both boxes. Long sets come last: mostly a short one tells that there is nothing."""
    if not (one and other):
        return one or other
    ours = dict(one)
    made = {**ours, **dict(other)}
    if len(made) < len(one) + len(other):
        shared = [(field, values) for field, values in other if field in ours]
        for field, values in sorted(shared, key=_length) if len(shared) > 1 else shared:
            made[field] = common(ours[field], values)
            if not made[field]:
                return None
    return tuple(sorted(made.items(), key=_name))


def _length(item: tuple[str, Values]) -> int:
    return len(item[1])


def _together(space: Space, boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Put together boxes that differ in one field only, as often as that is possible."""
    found = list(dict.fromkeys(boxes))
    if len(found) < 2:
        return tuple(found)
    changed = True
    while changed:
        changed = False
        for field in sorted({name for box in found for name, _ in box}):
            groups: dict[Box, list[Box]] = {}
            for box in found:
                groups.setdefault(_without(box, field), []).append(box)
            if len(groups) == len(found):
                continue
            changed = True
            everything = space.everything(field)
            found = [_merged(rest, group, field, everything) for rest, group in groups.items()]
    return tuple(found)


def _without(box: Box, field: str) -> Box:
    for at, (name, _) in enumerate(box):
        if name == field:
            return (*box[:at], *box[at + 1 :])
    return box


def _merged(rest: Box, group: list[Box], field: str, everything: Values) -> Box:
    if len(group) == 1:
        return group[0]
    values: Any = dict(group[0]).get(field, everything)
    for box in group[1:]:
        values = _union(values, dict(box).get(field, everything))
    return _with(dict(rest), field, values, everything)
