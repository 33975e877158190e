"""nft_marks: `meta mark set` and `ct mark set` of nft(8): marks of constants, maps, and of both marks."""

from __future__ import annotations

from ..rules.model import FULL_MASK
from . import action as actions
from .nft_maps import branches, choose
from .nft_values import UnreadError, fitting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .action import Action
    from .condition import Condition
    from .nft_fields import NativeScope

_OTHER = {"mark": "connection_mark", "connection_mark": "mark"}


def mark_change(field: str, value: Any, scope: NativeScope) -> Iterable[Condition | Action]:
    """Return what setting a mark does, with what its value needs first. Raises UnreadError."""
    if isinstance(value, dict) and "map" in value:
        needs, found = branches(value, scope)
        return (*needs, choose([(condition, _assign(field, data)) for condition, data in found]))
    change = _assign(field, value)
    reads_connection = change.source == "connection_mark" or (field == "connection_mark" and change.keep)
    # Without a conntrack entry there is no mark to read, which ends the rule (nft_ct.c).
    return (scope.entry, change) if reads_connection else (change,)


def _assign(field: str, value: Any) -> actions.Assign:
    masks, flip = _bits(value)
    other = _OTHER[field]
    source = other if masks.get(other) else ""
    mask = masks.get(other, FULL_MASK)
    return actions.Assign(field, masks.get(field, 0), flip, source, mask, in_template=False)


def _bits(value: Any) -> tuple[dict[str, int], int]:
    """Return a value as bits of marks, by a mask for each, and bits to flip."""
    if isinstance(value, dict) and len(value) == 1:
        [(kind, inner)] = value.items()
        if kind in ("meta", "ct"):
            if inner != {"key": "mark"}:
                raise UnreadError(value)
            return {"mark" if kind == "meta" else "connection_mark": FULL_MASK}, 0
        if kind in ("&", "|", "^"):
            found = _bits(inner[0])
            for each in inner[1:]:
                found = _combined(kind, found, _bits(each))
            return found
    return {}, fitting(value, 32)


def _combined(
    operator: str, one: tuple[dict[str, int], int], other: tuple[dict[str, int], int]
) -> tuple[dict[str, int], int]:
    masks, flip = one
    more, constant = other
    if more and not masks:
        masks, flip, more, constant = more, constant, masks, flip
    if not more:
        if operator == "&":
            return {field: mask & constant for field, mask in masks.items()}, flip & constant
        if operator == "|":
            kept = {field: mask & ~constant for field, mask in masks.items()}
            return kept, (flip & ~constant) | constant
        return masks, flip ^ constant
    used = sum(masks.values()) | flip
    apart = len(masks) == len(more) == 1 and not masks.keys() & more.keys()
    if apart and (operator == "^" or (operator == "|" and not used & (sum(more.values()) | constant))):
        return {**masks, **more}, flip ^ constant
    raise UnreadError("two marks in one")
