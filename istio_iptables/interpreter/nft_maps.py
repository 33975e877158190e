"""nft_maps: values of nf_tables that depend on the packet: maps, as a condition for each value."""

from __future__ import annotations

from . import action as actions
from .condition import ALWAYS, AllOf
from .nft_fields import operand
from .nft_operands import Opaque
from .nft_values import CATCH_ALL, UnreadError, members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .action import Action
    from .condition import Condition
    from .nft_fields import NativeScope
    from .nft_operands import Operand
    from .nft_values import Member


def branches(value: Any, scope: NativeScope) -> tuple[tuple[Condition, ...], list[tuple[Condition, Any]]]:
    """Return what a value needs, and the constants that it may be, each with its condition.

    A value that is no map is one constant. Raises UnreadError for a map that cannot be read.
    """
    if not isinstance(value, dict) or "map" not in value:
        return (), [(ALWAYS, value)]
    inner = value["map"]
    key = operand(inner["key"], scope)
    found = members(inner["data"], scope.sets)
    if found is None:
        raise UnreadError(inner["data"])
    groups = [group for group in _by_data(found) if group[0].value != CATCH_ALL]
    pairs = [(key.one_of(group), group[0].data) for group in groups]
    if _has_all(key, found) and pairs:
        pairs[-1] = (ALWAYS, pairs[-1][1])
    return key.needs, [*pairs, *((ALWAYS, each.data) for each in found if each.value == CATCH_ALL)]


def _has_all(key: Operand, found: Sequence[Member]) -> bool:
    """Tell whether a map has all values of a key that is a number by chance, as load balancers make it."""
    if not isinstance(key, Opaque) or key.most is None:
        return False
    numbers: set[int] = set()
    for each in found:
        ends = each.value.get("range") if isinstance(each.value, dict) else (each.value, each.value)
        if each.also or not ends or not all(isinstance(end, int) for end in ends):
            return False
        numbers.update(range(ends[0], ends[1] + 1))
    return numbers.issuperset(range(key.least, key.most + 1))


def _by_data(found: Sequence[Member]) -> list[list[Member]]:
    """Return the elements in groups with the same value; no element of a map has a key of another."""
    groups: dict[str, list[Member]] = {}
    for member in found:
        alone = member.value == CATCH_ALL
        groups.setdefault(f"{alone} {member.data!r}", []).append(member)
    return list(groups.values())


def choose(found: Sequence[tuple[Condition, Action]], *, always: bool = True) -> Action:
    """Return the action of the first condition that is true.

    With `always`, the action itself if it is the only one and has no condition.
    """
    if always and len(found) == 1 and found[0][0] == ALWAYS:
        return found[0][1]
    return actions.Choose(tuple(found))


def both(one: Condition, other: Condition) -> Condition:
    """Return the condition that two others are true."""
    return other if one == ALWAYS else one if other == ALWAYS else AllOf((one, other))
