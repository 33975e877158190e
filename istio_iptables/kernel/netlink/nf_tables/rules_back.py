"""rules_back: expressions as the rule that this tool would write so, if there is one.

What is found here is only a guess: it counts if rules.expressions makes the same expressions of it.
"""

from __future__ import annotations

import os

from ....rules import model
from ....rules.model import NO_COUNTERS, Counters, Rule
from ....rules.nftables import model as nftables
from . import expressions as nft
from .rules import ADDRESS_FIELDS, OWNER_KEYS, PORT_FIELDS, STATES, VERDICTS, comment_of, expressions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ....rules.model import Match, Target
    from ....rules.nftables.model import Listing, Ranges
    from .expressions import Expression


class Unlike(Exception):
    """A rule that this tool does not write."""


#: The errors of a guess that went wrong.
_MISFITS = (Unlike, LookupError, ValueError, TypeError, AttributeError)


def rule_of(found: Sequence[Expression], userdata: bytes, sets: Mapping[str, Ranges]) -> Rule:
    """Return the rule, with its counters. `sets` are those of the table, by the names that the kernel has.

    Raises Unlike if this tool writes no such rule.
    """
    try:
        reading = _Reading(found, sets)
        rule = reading.rule(_comment(userdata))
        names = iter(reading.looked_up)
        again = expressions(
            rule.replace(counters=NO_COUNTERS), lambda match: (_name_of(match, next(names)), 0)
        )
    except _MISFITS as error:
        raise Unlike from error
    if again != [_uncounted(each) for each in found] or comment_of(rule) != userdata:
        raise Unlike
    return rule


def _uncounted(expression: Expression) -> Expression:
    return nft.counter(0, 0) if expression[0] == "counter" else expression


def _name_of(match: Listing, found: str) -> str:
    """Return the name of the set of a match; if it has none of its own, the kernel has chosen one."""
    return nftables.set_name(match) or found


def _comment(userdata: bytes) -> list[Match]:
    if not userdata:
        return []
    text = userdata[2:].rstrip(b"\0").decode()
    if '"' in text:  # another program wrote it: nft could not write it again
        raise Unlike
    return [model.Comment(text)]


class _Reading:
    """The expressions of a rule, read one after the other."""

    def __init__(self, found: Sequence[Expression], sets: Mapping[str, Ranges]) -> None:
        self._left = list(reversed(found))
        self._sets = sets
        self.looked_up: list[str] = []

    def rule(self, comment: list[Match]) -> Rule:
        matches: list[Match] = []
        while self._left[-1][0] != "counter":
            matches.append(self._match(matches))
        _, counted = self._left.pop()
        packets, octets = (
            nft.number_of(counted.get(key, b"")) for key in (nft.COUNTER_PACKETS, nft.COUNTER_BYTES)
        )
        target = _target(self._left[::-1])
        return Rule((*_explicit(matches), *comment), target, counters=Counters(packets, octets))

    def _match(self, before: list[Match]) -> Match:
        name, attributes = self._left.pop()
        if name == "payload":
            base, offset = (nft.number_of(attributes[key]) for key in (nft.PAYLOAD_BASE, nft.PAYLOAD_OFFSET))
            return self._of_header(base, offset, before)
        key = nft.number_of(attributes[nft.META_KEY])  # CT_KEY has the same number
        return _MATCH[name, key](self)

    def _of_header(self, base: int, offset: int, before: list[Match]) -> Match:
        if base == nft.TRANSPORT:
            kinds = (model.Transport, nftables.Ports)
            protocol = next(match.protocol for match in reversed(before) if isinstance(match, kinds))
            ranges, negated = self.values(2)
            return nftables.Ports(_SIDES[offset], protocol, ranges, negated)
        direction, family, size = _ADDRESSES[offset]
        ranges, negated = self.values(size)
        return nftables.Addresses(direction, family, ranges, negated)

    def compared(self) -> tuple[bytes, bool]:
        """Return the value that something is compared with, and whether it must be another one."""
        _, attributes = self._left.pop()
        negated = {nft.EQ: False, nft.NEQ: True}[nft.number_of(attributes[nft.CMP_OP])]
        return nft.value_of(attributes[nft.CMP_DATA]), negated

    def states(self) -> Match:
        """Return a match of states: some bits of what was loaded are kept, and one of them must be set."""
        _, attributes = self._left.pop()
        bits = int.from_bytes(nft.value_of(attributes[nft.BITWISE_MASK]), nft.HOST)
        self._left.pop()
        return model.ConntrackState(frozenset(state for state, bit in STATES.items() if bits & bit))

    def values(self, size: int, *, of_host: bool = False) -> tuple[Ranges, bool]:
        """Return the values that so many bytes are compared with, and whether these must be others."""
        name, attributes = self._left.pop()
        if name == "byteorder":
            return self.values(size)
        if name == "lookup":
            set_name = attributes[nft.LOOKUP_SET].rstrip(b"\0").decode()
            self.looked_up.append(set_name)
            return self._sets[set_name], nft.LOOKUP_FLAGS in attributes
        if name == "range":
            return (_ends(attributes[nft.RANGE_FROM], attributes[nft.RANGE_TO]),), True
        if name == "bitwise":
            free = ~int.from_bytes(nft.value_of(attributes[nft.BITWISE_MASK])) & ((1 << 8 * size) - 1)
            value, negated = self.compared()
            first = int.from_bytes(value)
            return ((first, first | free),), negated
        operation, value = nft.number_of(attributes[nft.CMP_OP]), nft.value_of(attributes[nft.CMP_DATA])
        if operation == nft.GTE:
            _, upper = self._left.pop()
            return (_ends(attributes[nft.CMP_DATA], upper[nft.CMP_DATA]),), False
        first = int.from_bytes(value, nft.HOST if of_host else "big") << 8 * (size - len(value))
        last = first | ((1 << 8 * (size - len(value))) - 1)
        return ((first, last),), operation == nft.NEQ


def _ends(first: bytes, last: bytes) -> tuple[int, int]:
    return int.from_bytes(nft.value_of(first)), int.from_bytes(nft.value_of(last))


_SIDES: Mapping[int, Any] = {offset: direction for direction, (_, offset, _) in PORT_FIELDS.items()}
_ADDRESSES: Mapping[int, Any] = {offset: (*of, size) for of, (_, offset, size) in ADDRESS_FIELDS.items()}


def _explicit(matches: list[Match]) -> list[Match]:
    """Leave out matches that others imply."""
    families = {match.family for match in matches if isinstance(match, nftables.Addresses)}
    protocols = {match.protocol for match in matches if isinstance(match, nftables.Ports)}
    return [
        match
        for match in matches
        if not (isinstance(match, nftables.NfProto) and match.family in families)
        and not (isinstance(match, model.Transport) and match.protocol in protocols)
    ]


def _interface(kind: type[model.InInterface | model.OutInterface]) -> Callable[[_Reading], Match]:
    def match(reading: _Reading) -> Match:
        value, negated = reading.compared()
        name = os.fsdecode(value.rstrip(b"\0"))
        return kind(name if value.endswith(b"\0") else f"{name}+", negated)

    return match


def _mark(kind: type[model.Mark | model.ConnectionMark]) -> Callable[[_Reading], Match]:
    def match(reading: _Reading) -> Match:
        value, negated = reading.compared()
        return kind(int.from_bytes(value, nft.HOST), negated=negated)

    return match


def _owners(kind: Any) -> Callable[[_Reading], Match]:
    return lambda reading: nftables.Owners(kind, *reading.values(4, of_host=True))


def _family(reading: _Reading) -> Match:
    value, _ = reading.compared()
    return nftables.NfProto(_FAMILIES[value[0]])


def _protocol(reading: _Reading) -> Match:
    value, negated = reading.compared()
    return model.Transport(_PROTOCOLS[value[0]], negated)


_FAMILIES: Mapping[int, Any] = {number: family for family, number in model.ADDRESS_FAMILIES.items()}
_PROTOCOLS = {number: protocol for protocol, number in model.PROTOCOL_NUMBERS.items()}

_MATCH: Mapping[tuple[str, int], Callable[[_Reading], Match]] = {
    ("meta", nft.META_NFPROTO): _family,
    ("meta", nft.META_L4PROTO): _protocol,
    ("meta", nft.META_IIFNAME): _interface(model.InInterface),
    ("meta", nft.META_OIFNAME): _interface(model.OutInterface),
    ("meta", nft.META_MARK): _mark(model.Mark),
    ("ct", nft.CT_MARK): _mark(model.ConnectionMark),
    ("ct", nft.CT_STATE): _Reading.states,
    **{("meta", key): _owners(kind) for kind, key in OWNER_KEYS.items()},
}

# --- targets ----------------------------------------------------------------------------------


def _target(found: list[Expression]) -> Target:
    """Return the target that some expressions make."""
    return _TARGET[tuple(name for name, _ in found)](*(attributes for _, attributes in found))


def _value(attributes: Mapping[int, bytes], order: Any = "big") -> int:
    return int.from_bytes(nft.value_of(attributes[nft.IMMEDIATE_DATA]), order)


def _verdict(attributes: Mapping[int, bytes]) -> Target:
    code, chain = nft.verdict_of(attributes[nft.IMMEDIATE_DATA])
    return model.Jump(chain, code == nft.GOTO) if chain else _VERDICTS[code]


_VERDICTS = {VERDICTS[verdict.name]: verdict for verdict in (model.ACCEPT, model.DROP, model.RETURN)}


def _tproxy(port: Any, tproxy: Any, mark: Any, *_: Any) -> Target:
    family = _FAMILIES[nft.number_of(tproxy[nft.TPROXY_FAMILY])]
    return nftables.FamilyTProxy(_value(port), _value(mark, nft.HOST), family)


_TARGET: Mapping[tuple[str, ...], Callable[..., Target]] = {
    ("immediate",): _verdict,
    ("immediate", "redir"): lambda port, _: model.Redirect(_value(port)),
    ("immediate", "meta"): lambda mark, _: model.SetMark(_value(mark, nft.HOST)),
    ("immediate", "ct"): lambda zone, _: model.ConntrackZone(_value(zone, nft.HOST)),
    ("meta", "ct"): lambda *_: model.SaveMark(),
    ("ct", "meta"): lambda *_: model.RestoreMark(),
    ("immediate", "tproxy", "immediate", "meta", "immediate"): _tproxy,
}
