"""many: the algebra of all packets at once: sets of packets as regions of what they were when they set out.

A set of packets is a mapping: from what the walk has done with packets, to the region of those it was done
to. So a result tells which packets, as they were sent, end in which way. A condition that is not modelled
divides by a question of its own, which becomes a field of the region.
"""

from __future__ import annotations

from ..startup.record import Record
from .condition import AllOf, AnyOf, In, Masked, Named, Not, OneOf, Same, Unmodelled
from .program import Place
from .regions import Region
from .valuesets import MARK, cubes_of_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any, TypeAlias

    from .action import Assign
    from .algebra import Question, Side
    from .condition import Condition
    from .packet import Packet
    from .regions import Space

    #: What a field has become: a constant, None if that is not known, or a Mixed mark.
    Value: TypeAlias = Any


class Mixed(Record):
    """A mark made of bits of the marks that the packet set out with: `flip ^ (mark & mark_bits) ^ ...`.

    No bit comes from both marks.
    """

    flip: int
    mark_bits: int
    connection_bits: int


_OWN = {"mark": Mixed(0, MARK, 0), "connection_mark": Mixed(0, 0, MARK)}


class Changed:
    """What the walk has made of fields. Immutable, and the key of a set of packets."""

    __slots__ = ("_hash", "fields")

    def __init__(self, fields: Mapping[str, Value]) -> None:
        self.fields = fields
        self._hash = hash(frozenset(fields.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Changed) and self.fields == other.fields

    def with_(self, **fields: Value) -> Changed:
        """Return it with other values of some fields."""
        return Changed({**self.fields, **fields})


Packets = dict[Changed, Region]


class Many:
    """The algebra of all packets of a Space. `answers` are those to questions that are not conditions."""

    def __init__(self, space: Space, answers: Mapping[Hashable, int] | None = None) -> None:
        self.space = space
        self.empty: Packets = {}
        self.questions: list[Question] = []
        self._answers: dict[Hashable, int] = dict(answers or {})

    def all(
        self, fixed: Packet, free: frozenset[str], possible: Region, unknown: frozenset[str] = frozenset()
    ) -> Packets:
        """Return the packets of a region: `free` fields as it says, the others as those of `fixed`.

        A condition on a field that is `unknown` cannot be told.
        """
        fields = {name: value for name, value in fixed.as_dict().items() if name not in free}
        return {Changed({**fields, **dict.fromkeys(unknown)}): possible}

    def is_empty(self, packets: Packets) -> bool:
        """Tell whether there is no packet in a set."""
        return not packets

    def join(self, one: Packets, other: Packets) -> Packets:
        """Return the packets of both sets."""
        if not one:
            return other
        if not other:
            return one
        found = dict(one)
        for changed, region in other.items():
            found[changed] = found[changed] | region if changed in found else region
        return found

    def split(self, packets: Packets, condition: Condition, asked: Question) -> tuple[Packets, Packets]:
        """Return the packets that have a condition, and those that do not."""
        hits: Packets = {}
        misses: Packets = {}
        for changed, region in packets.items():
            hit, miss = _divide(region, changed, condition, asked)
            if hit:
                hits[changed] = hit
            if miss:
                misses[changed] = miss
        return hits, misses

    def update(self, packets: Packets, **fields: object) -> Packets:
        """Return the packets with other values of fields."""
        found: Packets = {}
        for changed, region in packets.items():
            key = changed.with_(**fields)
            found[key] = found[key] | region if key in found else region
        return found

    def assign(self, packets: Packets, action: Assign) -> Packets:
        """Return the packets with a mark, or an address, changed by an action."""
        found: Packets = {}
        for changed, region in packets.items():
            key = changed.with_(**{action.field: _assigned(changed, action)})
            found[key] = found[key] | region if key in found else region
        return found

    def find(self, packets: Packets) -> Packets:
        """Return packets as conntrack sees them: of later ones the state is known before."""
        return packets

    def keep(self, packets: Packets, side: Side) -> tuple[Packets, Packets]:
        """Return later packets of connections as nat translates them: here all keep their address."""
        return packets, self.empty

    def answer(self, asked: Question) -> int:
        """Return the answer to a question, and remember that it was asked."""
        if all(known.key != asked.key for known in self.questions):
            self.questions.append(asked)
        return self._answers.setdefault(asked.key, 0)

    def same(self, one: Packets, other: Packets) -> bool:
        """Tell whether two sets have the same packets."""
        return one.keys() == other.keys() and all(
            region is other[changed] or not (region - other[changed] or other[changed] - region)
            for changed, region in one.items()
        )


# --- conditions ---------------------------------------------------------------------------------


def _divide(region: Region, changed: Changed, condition: Condition, asked: Question) -> tuple[Region, Region]:
    nothing = Region.nothing(region.space)
    if isinstance(condition, Not):
        hit, miss = _divide(region, changed, condition.part, asked)
        return miss, hit
    if isinstance(condition, (AllOf, AnyOf)):
        all_of = isinstance(condition, AllOf)
        left, decided = region, [nothing]
        for part in condition.parts:
            if not left:
                break
            hit, miss = _divide(left, changed, part, asked)
            left, more = (hit, miss) if all_of else (miss, hit)
            decided.append(more)
        those = Region.together(decided)
        return (left, those) if all_of else (those, left)
    found = _LEAVES[type(condition)](condition, changed, region.space)
    if found is None:
        return region.divide(question_field(asked, condition), ((1, 1),))
    if isinstance(found, bool):
        return (region, nothing) if found else (nothing, region)
    hit, misses = region, [nothing]
    for field, values in found:
        hit, more = hit.divide(field, values)
        misses.append(more)
    return hit, Region.together(misses)


def question_field(asked: Question, condition: Condition) -> str:
    """Return the field of regions for whether a condition is true that cannot be told; see asked_about.

    It is the same for equal conditions of one question, whatever words that has for each of them.
    """
    why = condition.why if isinstance(condition, Unmodelled) else repr(condition)
    if isinstance(asked.about, Place):
        return f"{_QUESTION}{asked.about}\n{why}"
    return f"{_QUESTION}{why}\n{asked.key}"


def asked_about(field: str) -> str:
    """Return what a field of regions is a question about, in words; nothing if it is another field."""
    if not field.startswith(_QUESTION):
        return ""
    return field.removeprefix(_QUESTION).partition("\n")[0]


_QUESTION = "? "

#: A leaf's value for packets that the walk has changed in some way: known, not known (None), or what
#: fields of packets as they set out must be.
if TYPE_CHECKING:
    Found: TypeAlias = bool | tuple[tuple[str, Any], ...] | None


def _in(condition: In, changed: Changed, space: Space) -> Found:
    field = condition.field
    value = _value(changed, field, space)
    if isinstance(value, Mixed):
        if len(condition.ranges) == 1 and condition.ranges[0][0] == condition.ranges[0][1]:
            return _mixed(value, condition.ranges[0][0], MARK)
        if value in _OWN.values():
            cubes = frozenset(
                cube for first, last in condition.ranges for cube in cubes_of_range(first, last)
            )
            return ((field, cubes),)
        return None
    if value is _FREE:
        return None if field == "groups" else ((field, condition.ranges),)
    if value is None:
        return None
    if isinstance(value, tuple):
        return any(first <= each <= last for each in value for first, last in condition.ranges)
    return any(first <= value <= last for first, last in condition.ranges)


def _named(condition: Named, changed: Changed, space: Space) -> Found:
    value = _value(changed, condition.field, space)
    pattern = condition.pattern
    if value is _FREE:
        names = space.words[condition.field]
        return ((condition.field, frozenset(name for name in names if _fits(pattern, name))),)
    return None if value is None else _fits(pattern, value)


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _one_of(condition: OneOf, changed: Changed, space: Space) -> Found:
    field = condition.field
    if field == "family":
        return space.family in condition.words
    value = _value(changed, field, space)
    if value is _FREE:
        return ((field, space.words[field] & condition.words),)
    if isinstance(value, str) and " " in value:
        return not condition.words.isdisjoint(value.split())
    return None if value is None else value in condition.words


def _masked(condition: Masked, changed: Changed, space: Space) -> Found:
    value = _value(changed, condition.field, space)
    if isinstance(value, Mixed):
        return _mixed(value, condition.value, condition.mask)
    if value is _FREE:
        _, last = space.ranges[condition.field]
        free = last & ~condition.mask
        if free & (free + 1):  # not a prefix
            return None
        if condition.value & ~condition.mask:
            return False
        return ((condition.field, ((condition.value, condition.value | free),)),)
    return None if value is None else value & condition.mask == condition.value


def _mixed(mark: Mixed, value: int, mask: int) -> Found:
    """Return what marks have to be so that a mark made of them is `value` under `mask`."""
    if value & ~mask:
        return False
    wanted = (value ^ mark.flip) & mask
    if wanted & ~(mark.mark_bits | mark.connection_bits):
        return False
    found = []
    for field, bits in (("mark", mark.mark_bits), ("connection_mark", mark.connection_bits)):
        if bits & mask:
            found.append((field, frozenset({(wanted & bits, bits & mask)})))
    return tuple(found) or True


def _same(condition: Same, changed: Changed, space: Space) -> Found:
    one, other = (_value(changed, field, space) for field in (condition.field, condition.other))
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    # One that may be the same is taken for another one: the route is looked up again, and is the same.
    return bool(_as_mixed(one) == _as_mixed(other))


def _unmodelled(condition: Unmodelled, changed: Changed, space: Space) -> Found:
    return None


_LEAVES: Mapping[type[Condition], Callable[..., Found]] = {
    In: _in,
    Named: _named,
    OneOf: _one_of,
    Masked: _masked,
    Same: _same,
    Unmodelled: _unmodelled,
}


class _Free:
    """The value of a field that the walk has not changed, and that any packet may have."""


_FREE = _Free()


def _value(changed: Changed, field: str, space: Space) -> Value:
    if field in changed.fields:
        value = changed.fields[field]
        return int(value) if isinstance(value, bool) else value
    return _OWN.get(field, _FREE)


def _as_mixed(value: Value) -> Value:
    return Mixed(value, 0, 0) if isinstance(value, int) else value


def _assigned(changed: Changed, action: Assign) -> Value:
    before = _as_mixed(changed.fields.get(action.field, _OWN.get(action.field)))
    if not isinstance(before, Mixed):
        return None  # an address: which one is not told
    made = Mixed(
        (before.flip & action.keep) ^ action.flip,
        before.mark_bits & action.keep,
        before.connection_bits & action.keep,
    )
    if action.source:
        source = _as_mixed(changed.fields.get(action.source, _OWN.get(action.source)))
        bits = action.source_mask
        if not isinstance(source, Mixed):
            return None
        if (made.mark_bits | made.connection_bits) & (source.mark_bits | source.connection_bits) & bits:
            return None  # a bit of both marks
        made = Mixed(
            made.flip ^ (source.flip & bits),
            made.mark_bits | (source.mark_bits & bits),
            made.connection_bits | (source.connection_bits & bits),
        )
    return made if made.mark_bits or made.connection_bits else made.flip
