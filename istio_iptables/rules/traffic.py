"""traffic: sets of packets as data, and which of them a chain sends to the proxy.

A Traffic is what all matches on the way to a rule leave of the first packets of connections. `captured`
follows it through the rules of a Ruleset. Where it cannot be exact it keeps too much, so that it misses
nothing.
"""

from __future__ import annotations

from ..startup.record import Record
from . import model
from .lists import union
from .model import PROTOCOL_NUMBERS
from .nftables import model as nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Self

    from .model import Family, Match, PortRange, Rule, Table, Target
    from .nftables.model import Ranges

_PORTS: Ranges = ((0, 0xFFFF),)
_IDS: Ranges = ((0, model.NO_ID),)
_NO_MARK: Ranges = ((0, 0),)
#: As many ranges as a part may have: one more is not taken out of it (a list may have twenty thousand).
_MOST_RANGES = 200


class Interfaces(Record):
    """Conditions on an interface: patterns (`+`: any ending) that its name fits, or does not."""

    names: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    def narrowed(self, name: str, negated: bool) -> Self | None:
        """Return the conditions with one more, None if no interface has them all."""
        names = self.names if negated else self.names | {name}
        excluded = self.excluded | {name} if negated else self.excluded
        one = all(_covers(a, b) or _covers(b, a) for a in names for b in names)
        if not one or any(_covers(out, inside) for out in excluded for inside in names):
            return None
        return self.replace(names=names, excluded=excluded)

    def within(self, other: Interfaces) -> bool:
        """Tell whether every interface that has these conditions has the other ones."""
        return all(any(_covers(wide, name) for name in self.names) for wide in other.names) and all(
            any(_covers(mine, out) for mine in self.excluded)
            or any(not _covers(out, n) and not _covers(n, out) for n in self.names)
            for out in other.excluded
        )


def _covers(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else pattern == name


_ANY_INTERFACE = Interfaces()


class Traffic(Record):
    """First packets of connections of a family: what each part of them may be. See `everything`.

    Numbers are ranges as `lists.union` returns them; marks are zero, since a connection begins without one.
    `local`: they are for an address of this machine.
    """

    family: Family
    protocols: Ranges
    source_ports: Ranges
    ports: Ranges
    sources: Ranges
    destinations: Ranges
    users: Ranges
    groups: Ranges
    received_on: Interfaces = _ANY_INTERFACE
    sent_to: Interfaces = _ANY_INTERFACE
    local: bool = False

    def with_match(self, match: Match) -> Self | None:
        """Return what a match leaves of it, None if that is nothing. An unknown match leaves all of it."""
        if isinstance(match, (model.InInterface, model.OutInterface)):
            part = "received_on" if isinstance(match, model.InInterface) else "sent_to"
            interfaces = getattr(self, part).narrowed(match.name, match.negated)
            return None if interfaces is None else self.replace(**{part: interfaces})
        if isinstance(match, (model.Mark, model.ConnectionMark)):
            return self if (match.value == 0) != match.negated else None
        if isinstance(match, model.ConntrackState):
            return self if ("NEW" in match.states) != match.negated else None
        known = _NUMBERS.get(type(match))
        if known is None:
            return self
        part, ranges = known(match)
        before: Ranges = getattr(self, part)
        after = _minus(before, ranges) if getattr(match, "negated", False) else _common(before, ranges)
        return self.replace(**{part: after}) if after else None

    def narrowed(self, matches: Iterable[Match]) -> Self | None:
        """Return what several matches leave of it, None if that is nothing."""
        left: Self | None = self
        for match in matches:
            left = left.with_match(match) if left else None
        return left

    def without(self, other: Traffic) -> Self | None:
        """Return it without what is in another one, None if nothing is left.

        What differs from it in more than one part is left in it.
        """
        parts = [part for part in _PARTS if not _within(getattr(self, part), getattr(other, part))]
        if not (self.received_on.within(other.received_on) and self.sent_to.within(other.sent_to)):
            return self
        if not parts:
            return None
        if len(parts) > 1 or len(getattr(self, parts[0])) > _MOST_RANGES:
            return self
        return self.replace(**{parts[0]: _minus(getattr(self, parts[0]), getattr(other, parts[0]))})


_PARTS = ("protocols", "source_ports", "ports", "sources", "destinations", "users", "groups")


def everything(family: Family) -> Traffic:
    """Return all TCP and UDP of a family."""
    addresses: Ranges = ((0, (1 << (32 if family == model.IPV4 else 128)) - 1),)
    protocols = union((number, number) for number in PROTOCOL_NUMBERS.values())
    return Traffic(family, protocols, _PORTS, _PORTS, addresses, addresses, _IDS, _IDS)


def _of_ports(ports: Iterable[PortRange]) -> Ranges:
    return union((each.first, each.last) for each in ports)


def _one(number: int) -> Ranges:
    return ((number, number),)


#: The part that a match is about, and what that may be.
_NUMBERS: Mapping[type[Match], Callable[[Any], tuple[str, Ranges]]] = {
    model.Transport: lambda m: ("protocols", _one(PROTOCOL_NUMBERS[m.protocol])),
    model.Source: lambda m: ("sources", ((m.cidr.address, m.cidr.last),)),
    model.Destination: lambda m: ("destinations", ((m.cidr.address, m.cidr.last),)),
    model.SourcePort: lambda m: ("source_ports", _of_ports((m.ports,))),
    model.DestinationPort: lambda m: ("ports", _of_ports((m.ports,))),
    model.DestinationPorts: lambda m: ("ports", _of_ports(m.ports)),
    model.UidOwner: lambda m: ("users", _one(m.uid)),
    model.GidOwner: lambda m: ("groups", _one(m.gid)),
    nftables.Addresses: lambda m: (f"{m.direction}s", m.ranges),
    nftables.Ports: lambda m: ("ports" if m.direction == "destination" else "source_ports", m.ranges),
    nftables.Owners: lambda m: (f"{m.kind}s", m.ids),
}


def _common(one: Ranges, other: Ranges) -> Ranges:
    found = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return union((first, last) for first, last in found if first <= last)


def _minus(one: Ranges, other: Ranges) -> Ranges:
    for first, last in other:
        parts = (part for a, b in one for part in ((a, min(b, first - 1)), (max(a, last + 1), b)))
        one = tuple((a, b) for a, b in parts if a <= b)
    return one


def _within(one: Ranges, other: Ranges) -> bool:
    return all(any(c <= a and b <= d for c, d in other) for a, b in one)


# --- what a chain does with it ----------------------------------------------------------------


class Captured(Record):
    """Traffic that a chain sends to the proxy, and the chain and target that do."""

    traffic: Traffic
    chain: str
    target: Target


def captured(table: Table, chain: str, traffic: Traffic) -> Iterator[Captured]:
    """Yield what the rules of a table send to the proxy of some traffic that comes to a chain."""
    found: list[Captured] = []
    _through(table, chain, traffic, found)
    yield from found


def _through(table: Table, chain: str, traffic: Traffic, found: list[Captured]) -> Traffic | None:
    """Return what a chain has decided nothing about, None if that is nothing. A RETURN decides nothing."""
    here: Traffic | None = traffic  # what gets to the next rule
    undecided: Traffic | None = traffic
    for rule in table.chain(chain).in_order:
        hit = here.narrowed(rule.matches) if here else None
        if here is None or hit is None:
            continue
        if _captures(rule):
            found.append(Captured(hit, chain, rule.target))
        elif isinstance(rule.target, model.Jump):
            back = _through(table, rule.target.chain, hit, found)
            if hit == here:
                here = undecided = back
                continue
            if back is not None:  # part of it, or all, goes on: which part is not worth the arithmetic
                continue
        elif not isinstance(rule.target, model.Verdict):
            continue
        here = here.without(hit)
        if rule.target != model.RETURN:
            undecided = undecided.without(hit) if undecided else None
    return undecided


def _captures(rule: Rule) -> bool:
    return isinstance(rule.target, (model.Redirect, model.TProxy))
