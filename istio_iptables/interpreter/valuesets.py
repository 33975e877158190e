"""valuesets: sets of the values that one field of a packet may have, in the forms that conditions need.

- ranges: sorted tuples of (first, last), none touching the next, for addresses, ports and numbers
- cubes: disjoint (value, mask) pairs, for marks, of which rules compare some bits
- words: frozensets, for interfaces and states, of which a Space lists all that make a difference
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Ranges: TypeAlias = tuple[tuple[int, int], ...]
    Cubes: TypeAlias = frozenset[tuple[int, int]]
    Words: TypeAlias = frozenset[str]
    Values: TypeAlias = Ranges | Cubes | Words

#: The bits of a mark.
MARK = 0xFFFFFFFF
EVERY_MARK: Cubes = frozenset({(0, 0)})


# --- ranges -------------------------------------------------------------------------------------


def common(one: Ranges, other: Ranges) -> Ranges:
    """Return what is in both.

    >>> common(((0, 9), (20, 29)), ((5, 22),))
    ((5, 9), (20, 22))
    """
    if len(other) > len(one):
        one, other = other, one
    found: list[tuple[int, int]] = []
    for first, last in other:
        at = bisect_left(one, (first,))
        if at and one[at - 1][1] >= first:
            at -= 1
        while at < len(one) and one[at][0] <= last:
            found.append((max(one[at][0], first), min(one[at][1], last)))
            at += 1
    return tuple(found)


def minus(one: Ranges, other: Ranges) -> Ranges:
    """Return what is in `one` alone.

    >>> minus(((0, 9), (20, 29)), ((5, 22),))
    ((0, 4), (23, 29))
    """
    if len(other) < 4:
        for first, last in other:
            one = _without(one, first, last)
        return one
    found: list[tuple[int, int]] = []
    at = 0
    for first, last in one:
        while at and other[at - 1][1] >= first:
            at -= 1
        while at < len(other) and other[at][1] < first:
            at += 1
        start = first
        while at < len(other) and other[at][0] <= last:
            if other[at][0] > start:
                found.append((start, other[at][0] - 1))
            start = other[at][1] + 1
            at += 1
        if start <= last:
            found.append((start, last))
    return tuple(found)


def _without(ranges: Ranges, first: int, last: int) -> Ranges:
    start = bisect_left(ranges, (first,))
    if start and ranges[start - 1][1] >= first:
        start -= 1
    end = bisect_right(ranges, (last, 1 << 130))
    if start >= end:
        return ranges
    kept = []
    if ranges[start][0] < first:
        kept.append((ranges[start][0], first - 1))
    if ranges[end - 1][1] > last:
        kept.append((last + 1, ranges[end - 1][1]))
    return (*ranges[:start], *kept, *ranges[end:])


# --- cubes --------------------------------------------------------------------------------------


def cubes_common(one: Cubes, other: Cubes) -> Cubes:
    """Return the marks that are in both."""
    return frozenset(
        (value | other_value, mask | other_mask)
        for value, mask in one
        for other_value, other_mask in other
        if not (value ^ other_value) & mask & other_mask
    )


def cubes_minus(one: Cubes, other: Cubes) -> Cubes:
    """Return the marks that are in `one` alone."""
    for cube in other:
        one = frozenset(part for each in one for part in _cube_minus(each, cube))
    return one


def _cube_minus(one: tuple[int, int], other: tuple[int, int]) -> Iterator[tuple[int, int]]:
    value, mask = one
    if (value ^ other[0]) & mask & other[1]:
        yield one
        return
    free = other[1] & ~mask
    while free:
        bit = free & -free
        free ^= bit
        yield value | (~other[0] & bit), mask | bit
        value, mask = value | (other[0] & bit), mask | bit


def cubes_of_range(first: int, last: int) -> Cubes:
    """Return the marks from `first` to `last`.

    >>> sorted(cubes_of_range(4, 6))
    [(4, 4294967294), (6, 4294967295)]
    """
    found = set()
    while first <= last:
        size = first & -first or 1 << 32
        while size > last - first + 1:
            size >>= 1
        found.add((first, MARK & ~(size - 1)))
        first += size
    return frozenset(found)


def a_mark(cubes: Cubes) -> int:
    """Return the smallest mark of some cubes, as far as their bits say."""
    return min(value for value, _ in cubes)
