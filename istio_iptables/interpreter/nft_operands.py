"""nft_operands: what expressions of nf_tables take from a packet, and how that is compared.

An expression that a packet does not have (a port of another protocol, the user of no socket) ends the rule,
whatever it is compared with and also if that is negated: `needs` says when it is there.
"""

from __future__ import annotations

from ..rules.lists import union
from ..startup.record import Record
from .condition import ALWAYS, NEVER, AllOf, AnyOf, In, Masked, Named, Not, OneOf, Unmodelled, any_of
from .nft_values import CATCH_ALL, UnreadError, address, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..rules.model import Family
    from ..rules.nftables.model import Ranges
    from .condition import Condition
    from .nft_values import Member

#: As many values under a mask are written out.
_MOST_VALUES = 256
_MARKS = frozenset({"mark", "connection_mark"})


class Operand(Record):
    """What an expression takes from a packet. `needs`: the conditions on which it is there."""

    needs: tuple[Condition, ...] = ()

    def equal(self, value: Any) -> Condition:
        """Return the condition that it is a constant, or in a prefix or range. Raises UnreadError."""
        raise UnreadError(value)

    def one_of(self, found: Iterable[Member]) -> Condition:
        """Return the condition that it is one of the elements of a set."""
        return any_of(_refusable(self.equal(each.value), each) for each in found)

    def compared(self, operator: str, value: Any) -> Condition:
        """Return the condition that it is less or greater than a constant. Raises UnreadError."""
        raise UnreadError(operator)

    def has_bits(self, value: Any) -> Condition:
        """Return the condition that one of some bits is set. Raises UnreadError."""
        raise UnreadError(value)

    def combined(self, operator: str, constant: int) -> Operand:
        """Return it after `&`, `|` or `^` with a constant. Raises UnreadError."""
        raise UnreadError(operator)


def _refusable(condition: Condition, member: Member) -> Condition:
    return AllOf((condition, Unmodelled(member.also))) if member.also else condition


class Opaque(Operand):
    """Something that is not modelled; `why` is what it is, in nft's words.

    `least` and `most` are given if it is a number in these bounds, such as one by chance.
    """

    why: str = ""
    least: int = 0
    most: int | None = None

    def equal(self, value: Any) -> Condition:
        """Return the condition that it has a value: that cannot be told."""
        return Unmodelled(self.why)

    def compared(self, operator: str, value: Any) -> Condition:
        """Return the condition that it compares: that cannot be told."""
        return Unmodelled(self.why)

    def has_bits(self, value: Any) -> Condition:
        """Return the condition that it has bits: that cannot be told."""
        return Unmodelled(self.why)

    def combined(self, operator: str, constant: int) -> Operand:
        """Return itself."""
        return self


class _Bits(Operand):
    """A number of `bits` bits, with what `&`, `|` and `^` made of it: `(number & mask) ^ flip`.

    `names` are those of values; `address_of` is the family of an address.
    """

    bits: int = 32
    mask: int = -1
    flip: int = 0
    names: Mapping[str, int] = {}  # a record: nothing changes it
    address_of: Family | None = None

    @property
    def full(self) -> int:
        """All bits."""
        return (1 << self.bits) - 1

    def read(self, value: Any) -> int:
        """Return a constant as a number. Raises UnreadError, also if it has more bits than there are."""
        found = address(value, self.address_of) if self.address_of else number(value, self.names)
        if not 0 <= found <= self.full:
            raise UnreadError(value)
        return found

    def _ends(self, value: Any) -> tuple[int, int]:
        """Return the first and last number of a constant, prefix or range."""
        if isinstance(value, dict) and "prefix" in value:
            first = self.read(value["prefix"]["addr"])
            return first, first | ((1 << (self.bits - value["prefix"]["len"])) - 1)
        if isinstance(value, dict) and "range" in value:
            first, last = (self.read(end) for end in value["range"])
            return first, last
        return (self.read(value),) * 2

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that it is in some ranges. Raises UnreadError."""
        raise NotImplementedError

    def equal(self, value: Any) -> Condition:
        """Return the condition that it is a constant, or in a prefix or range. Raises UnreadError."""
        return self.within((self._ends(value),))

    def one_of(self, found: Iterable[Member]) -> Condition:
        """Return the condition that it is one of the elements of a set."""
        found = list(found)
        plain = union(self._ends(each.value) for each in found if not each.also)
        others = [_refusable(self.equal(each.value), each) for each in found if each.also]
        return AnyOf((self.within(plain), *others)) if others else self.within(plain)

    def compared(self, operator: str, value: Any) -> Condition:
        """Return the condition that it is less or greater than a constant. Raises UnreadError."""
        (first, last) = self._ends(value)
        ranges = {
            "<": (0, first - 1),
            "<=": (0, last),
            ">": (last + 1, self.full),
            ">=": (first, self.full),
        }
        if operator not in ranges:
            raise UnreadError(operator)
        low, high = ranges[operator]
        return self.within(((low, high),)) if low <= high else NEVER

    def combined(self, operator: str, constant: int) -> Operand:
        """Return it after `&`, `|` or `^` with a constant. Raises UnreadError."""
        mask = self.mask & self.full
        if operator == "&":
            return self.replace(mask=mask & constant, flip=self.flip & constant)
        if operator == "^":
            return self.replace(flip=self.flip ^ constant)
        if operator == "|":
            return self.replace(mask=mask & ~constant, flip=(self.flip & ~constant) | constant)
        raise UnreadError(operator)


class Number(_Bits):
    """A field that is a number."""

    field: str = ""

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that it is in some ranges. Raises UnreadError."""
        mask, low = self.mask & self.full, ~self.mask & self.full
        is_prefix = low & (low + 1) == 0  # the mask has the upper bits and nothing else
        if mask == self.full and not self.flip:
            return In(self.field, ranges)
        if is_prefix and not self.flip and self.field not in _MARKS:
            whole = [((first + low) & mask, (last & mask) | low) for first, last in ranges]
            return In(self.field, union(pair for pair in whole if pair[0] <= pair[1]))
        return any_of(self._masked(value) for value in _values(ranges))

    def _masked(self, value: int) -> Condition:
        mask, wanted = self.mask & self.full, value ^ self.flip
        if wanted & ~mask:
            return NEVER
        return Masked(self.field, wanted, mask)

    def has_bits(self, value: Any) -> Condition:
        """Return the condition that one of some bits is set."""
        bits = self._ends(value)[0] & self.full
        return Not(self.combined("&", bits).equal(0))


def _values(ranges: Ranges) -> Iterable[int]:
    if sum(last - first + 1 for first, last in ranges) > _MOST_VALUES:
        raise UnreadError("a range of values under a mask")
    return [value for first, last in ranges for value in range(first, last + 1)]


class Word(_Bits):
    """A field that is one of a few words, each of which nf_tables has as a number."""

    field: str = ""
    words: Mapping[str, int] = {}  # a record: nothing changes it

    def _satisfying(self, test: Callable[[int], bool]) -> Condition:
        found = {
            word for word, value in self.words.items() if test((value & self.mask & self.full) ^ self.flip)
        }
        return OneOf(self.field, frozenset(found)) if found else NEVER

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that it is one of the words with these numbers."""
        return self._satisfying(lambda value: any(first <= value <= last for first, last in ranges))

    def has_bits(self, value: Any) -> Condition:
        """Return the condition that it is one of the words with one of some bits."""
        bits = self._ends(value)[0]
        return self._satisfying(lambda found: bool(found & bits))


class FlagSet(_Bits):
    """Several facts, each of which is a bit; `facts` says when that is set."""

    facts: Mapping[int, Condition] = {}  # a record: nothing changes it

    def within(self, ranges: Ranges) -> Condition:
        """Return the condition that the bits under the mask are as in one of some numbers."""
        if self.mask & ~sum(self.facts):
            raise UnreadError("a comparison of all bits")
        return any_of(self._exactly(value) for value in _values(ranges))

    def _exactly(self, value: int) -> Condition:
        wanted = value ^ self.flip
        if wanted & ~self.mask:
            return NEVER
        parts = [fact if bit & wanted else Not(fact) for bit, fact in self.facts.items() if bit & self.mask]
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def has_bits(self, value: Any) -> Condition:
        """Return the condition that one of some bits is set."""
        bits = self._ends(value)[0] & self.mask
        if bits & ~sum(self.facts) or self.flip:
            raise UnreadError("bits that are not modelled")
        return any_of(fact for bit, fact in self.facts.items() if bit & bits)


class Interface(Operand):
    """The name of an interface; an empty one where there is none, as for input in the hook output."""

    field: str = ""

    def equal(self, value: Any) -> Condition:
        """Return the condition that it has a name. A `*` at the end stands for any ending."""
        if not isinstance(value, str):
            raise UnreadError(value)
        if value.endswith("\\*"):
            return self._exactly(f"{value[:-2]}*")
        return Named(self.field, f"{value[:-1]}+") if value.endswith("*") else self._exactly(value)

    def _exactly(self, name: str) -> Condition:
        # To Named a trailing `+` is a wildcard, as to iptables.
        return OneOf(self.field, frozenset({name})) if name.endswith("+") else Named(self.field, name)


class Cases(Operand):
    """Something that has a few values, each of which is a condition of its own."""

    cases: Mapping[int, Condition] = {}  # a record: nothing changes it
    names: Mapping[str, int] = {}

    def equal(self, value: Any) -> Condition:
        """Return the condition that it has a value. Raises UnreadError for one that is not modelled."""
        found = self.cases.get(number(value, self.names))
        if found is None:
            raise UnreadError(value)
        return found


class Concatenation(Operand):
    """Several expressions at once."""

    parts: tuple[Operand, ...] = ()

    def equal(self, value: Any) -> Condition:
        """Return the condition that each is what the part of a value says. Raises UnreadError."""
        values = value.get("concat") if isinstance(value, dict) else None
        if not isinstance(values, list) or len(values) != len(self.parts):
            raise UnreadError(value)
        return AllOf(
            tuple(
                ALWAYS if each == CATCH_ALL and not isinstance(part, Interface) else part.equal(each)
                for part, each in zip(self.parts, values, strict=True)
            )
        )
