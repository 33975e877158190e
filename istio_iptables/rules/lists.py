"""lists: one rule for all members of a list, where the policy made one for each.

The policy marks the rules that are members of one list (`Rule.listed`). Here they are joined into one match
(a set of nftables, the ports of multiport) where a writer has one for a whole list. No packet's verdict
changes.
"""

from __future__ import annotations

from itertools import groupby

from .model import Comment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from .model import Listed, Match, Rule, Target

    #: Returns matches, one of which holds for a packet if and only if one of the given matches holds. None
    #: holds for every packet.
    Join: TypeAlias = Callable[[Sequence[Any]], Iterable[Match | None]]


def join(rules: Iterable[Rule], joins: Mapping[type[Match], Join]) -> tuple[Rule, ...]:
    """Return the rules with those of each list joined; `joins` has a function for each kind that can be."""
    return tuple(
        rule
        for listed, members in groupby(rules, key=lambda rule: rule.listed)
        for rule in (_joined(members, listed, joins[listed.varies]) if _can(listed, joins) else members)
    )


def _can(listed: Listed | None, joins: Mapping[type[Match], Join]) -> bool:
    return listed is not None and listed.varies in joins


def _joined(rules: Iterable[Rule], listed: Listed, join_matches: Join) -> Iterator[Rule]:
    """Join the rules that have everything in common but the match that varies (and the comment on it)."""
    alike: dict[Any, list[Rule]] = {}
    key: tuple[tuple[Match, ...], Target] | None = None
    for rule in rules:
        common = tuple([m for m in rule.matches if not isinstance(m, (listed.varies, Comment))])
        if (common, rule.target) != key:  # mostly it is that of the rule before, which takes less time to see
            key = common, rule.target
            members = alike.setdefault(key, [])
        members.append(rule)
    for (common, _), members in alike.items():
        first = members[0]
        reason = listed.reason if any(rule.reason != first.reason for rule in members) else first.reason
        comment = [Comment(reason)] if any(isinstance(match, Comment) for match in first.matches) else []
        varying = [[m for m in rule.matches if isinstance(m, listed.varies)] for rule in members]
        if not all(varying):  # one of the rules is for every packet
            yield first.replace(matches=(*common, *comment), reason=reason)
            continue
        at = first.matches.index(varying[0][0])
        before, after = common[:at], (*common[at:], *comment)
        for match in join_matches([match for [match] in varying]):
            joined = () if match is None else (match,)
            yield first.replace(matches=(*before, *joined, *after), reason=reason)


def union(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the numbers of all ranges, both ends included, as the fewest ranges, in order.

    >>> union([(80, 90), (443, 443), (85, 95), (96, 96)])
    ((80, 96), (443, 443))
    """
    united: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if united and first <= united[-1][1] + 1:
            united[-1] = (united[-1][0], max(united[-1][1], last))
        else:
            united.append((first, last))
    return tuple(united)
