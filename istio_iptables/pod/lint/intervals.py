"""intervals: the members of lists of ports and CIDRs as intervals, and which of them overlap.

Lists may have twenty thousand members, so nothing here compares all pairs.
"""

from __future__ import annotations

from bisect import bisect_left

from ...rules.model import Cidr, PortRange
from ...startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Interval(Record):
    """A member of a list: its text, and its range of numbers, `first` to `last`.

    `version` is the IP version of a CIDR, and 0 for ports: only intervals of the same version overlap.
    """

    text: str
    version: int
    first: int
    last: int

    def covers(self, other: Interval) -> bool:
        """Tell whether the other one is completely within this one."""
        return self.version == other.version and self.first <= other.first and other.last <= self.last


def interval(text: str, value: Cidr | PortRange) -> Interval:
    """Return the interval of a member that was written as `text`."""
    if isinstance(value, PortRange):
        return Interval(text, 0, value.first, value.last)
    return Interval(text, value.version, value.address, value.last)


class Intervals:
    """Intervals that can be searched. Those within others are only in `repeated`.

    >>> texts = {"80": (80, 80), "80-90": (80, 90), "85": (85, 85)}
    >>> ports = Intervals([Interval(text, 0, *ends) for text, ends in texts.items()])
    >>> [(one.text, other.text) for one, other in ports.repeated]
    [('80', '80-90'), ('85', '80-90')]
    >>> ports.meeting(Interval("70-82", 0, 70, 82)).text
    '80-90'
    """

    def __init__(self, members: Iterable[Interval]) -> None:
        self._kept: list[Interval] = []
        #: Pairs: an interval that is within another or overlaps it, and that other.
        self.repeated: list[tuple[Interval, Interval]] = []
        for each in sorted(members, key=lambda s: (s.version, s.first, -s.last)):
            before = self._kept[-1] if self._kept else None
            if before and before.version == each.version and each.first <= before.last:
                self.repeated.append((each, before))
                if before.covers(each):
                    continue
            self._kept.append(each)
        self._ends = [(s.version, s.last) for s in self._kept]

    def __bool__(self) -> bool:
        return bool(self._kept)

    def meeting(self, other: Interval) -> Interval | None:
        """Return the first interval that overlaps another one, None if there is none."""
        at = bisect_left(self._ends, (other.version, other.first))
        if at == len(self._kept):
            return None
        found = self._kept[at]
        return found if found.version == other.version and found.first <= other.last else None

    def covering(self, other: Interval) -> Interval | None:
        """Return an interval that completely contains another one, None if there is none."""
        found = self.meeting(other)
        return found if found and found.covers(other) else None
