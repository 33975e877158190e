"""compare: two readings of what becomes of the same packets, and the packets for which they differ."""

from __future__ import annotations

from ..interpreter.regions import Region
from ..startup.record import Record
from .translated import without_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.regions import Box
    from ..interpreter.verdict import Verdict
    from .outcomes import Outcome


class Difference(Record):
    """Packets that have one verdict in one reading, and another one in the other."""

    region: Region
    one: Outcome
    other: Outcome


def differences(one: Sequence[Outcome], other: Sequence[Outcome]) -> Iterator[Difference]:
    """Yield the packets for which two readings differ, those of `depends` too."""
    one, other = _without_common(one, other)
    for ours in one:
        for theirs in other:
            if ours.verdict == theirs.verdict and ours.verdict.code != "depends":
                continue
            if _contradict(ours, theirs):
                continue
            both = without_same(ours.region & theirs.region, ours.verdict, theirs.verdict)
            if both:
                yield Difference(both, ours, theirs)


def _contradict(one: Outcome, other: Outcome) -> bool:
    """Tell whether two outcomes stand for different answers to one question."""
    answers = dict(one.if_)
    return any(answers.get(about, answer) != answer for about, answer in other.if_)


def _without_common(
    one: Sequence[Outcome], other: Sequence[Outcome]
) -> tuple[Sequence[Outcome], Sequence[Outcome]]:
    """Return both readings without the outcomes that they share, which are most where little was changed.

    The outcomes of a reading have no packet in common, unless they are for different answers (`if_`).
    """
    if any(outcome.if_ for outcome in (*one, *other)):
        return one, other
    shared = {_key(outcome) for outcome in one if outcome.verdict.code != "depends"}
    shared &= {_key(outcome) for outcome in other}
    found = [tuple(outcome for outcome in each if _key(outcome) not in shared) for each in (one, other)]
    return found[0], found[1]


def _key(outcome: Outcome) -> tuple[Verdict, frozenset[Box]]:
    return outcome.verdict, frozenset(outcome.region.boxes)


def together(outcomes: Iterable[Outcome]) -> dict[Verdict, Region]:
    """Return the packets of each verdict."""
    found: dict[Verdict, Region] = {}
    for outcome in outcomes:
        known = found.get(outcome.verdict)
        found[outcome.verdict] = known | outcome.region if known else outcome.region
    return found
