"""origins: what IPv4 checks about the source of a packet that has come in by an interface.

The kernel looks up the way back to the source. A source within this machine is refused (a martian), and with
reverse path filtering (rp_filter) one to which no route leads, or none by the interface it came in by.
Source: fib_validate_source and __fib_validate_source in net/ipv4/fib_frontend.c; ip-sysctl.rst.
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from .condition import (
    ALWAYS,
    NEVER,
    AllOf,
    AnyOf,
    In,
    Masked,
    Not,
    Unmodelled,
    any_of,
    negated,
    number,
    numbers,
)
from .destinations import CannotTell, routes_of
from .ip_names import LOCAL_TABLE
from .packet import Packet
from .route import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .condition import Condition
    from .route import Routed
    from .routing import Network

STRICT, LOOSE = 1, 2
#: How a packet to many is routed; for the way back it has no destination then.
_TO_MANY = frozenset({"broadcast", "multicast"})
_HIGHEST = (1 << 32) - 1


class SourceCheck(Record):
    """What is checked of packets from one interface: the variables of IPv4 below conf/IF in ip-sysctl.rst.

    `rp_filter` is 0 (no reverse path filtering), STRICT or LOOSE, None if it is not known. `accept_local`:
    own addresses are no martians. `by_mark`: the way back is that of packets with the same mark
    (src_valid_mark). `ever_routed`: there were routing rules or local routes of a user that are gone, which
    cannot be seen; None if it is not known.
    """

    rp_filter: int | None = 0
    accept_local: bool = False
    by_mark: bool = False
    ever_routed: bool | None = False


NO_CHECK = SourceCheck()
_HAS_SOURCE = Not(number("source", 0))
_EVER_ROUTED = Unmodelled("whether there ever was another routing rule or local route")


class Refused(Record):
    """The conditions on a packet whose source is refused: as a martian, and by reverse path filtering."""

    martian: Condition
    filtered: Condition = NEVER


def refused(network: Network, check: SourceCheck, interface: str, routed: Routed) -> Refused:
    """Return what is refused of packets that came in by an interface, and have some route."""
    made: dict[object, Refused] = network.__dict__.setdefault("_refused", {})
    to = "" if routed.is_local else routed.interface
    key = (check, interface, to, routed.kind in _TO_MANY)
    if key not in made:
        made[key] = _Check(network, check, interface, to, routed.kind in _TO_MANY).refused()
    return made[key]


class _Check:
    """The check of packets from one interface that are for this machine, or leave by another one, `to`."""

    def __init__(self, network: Network, check: SourceCheck, interface: str, to: str, to_many: bool) -> None:
        self._network = network
        self._check = check
        self._interface = interface
        self._to = to
        self._to_many = to_many

    def refused(self) -> Refused:
        found = self._refused(self._check.rp_filter)
        if not self._to_many:
            return found
        # A host that has no address yet may send to all (ip_route_input_slow).
        return Refused(AllOf((_HAS_SOURCE, found.martian)), AllOf((_HAS_SOURCE, found.filtered)))

    def _refused(self, mode: int | None) -> Refused:
        if mode == 0:
            return Refused(self._martians_unfiltered())
        martian = self._sources(self._is_martian)
        filtered = self._sources(lambda routed: self._is_filtered(routed, mode or STRICT))
        if mode is not None:
            return Refused(martian, filtered)
        unread = Unmodelled(f"net.ipv4.conf.{self._interface}.rp_filter, which could not be read")
        return Refused(self._martians_unfiltered(), AllOf((AnyOf((martian, filtered)), unread), unread.why))

    def _martians_unfiltered(self) -> Condition:
        """Without rules and local routes of users the kernel compares with the own addresses only.

        Even if they are gone, it goes on to look up the way back (fib4_has_custom_rules).
        """
        network = self._network
        if self._check.accept_local:
            return NEVER
        by_route = self._sources(self._is_martian)
        if _has_own_routing(network) or self._check.ever_routed:
            return by_route
        is_own = numbers("source", [(a.address, a.address) for a in network.addresses if a.family == IPV4])
        if self._check.ever_routed is False:
            return is_own
        return AnyOf((is_own, AllOf((by_route, _EVER_ROUTED))), _EVER_ROUTED.why)

    # --- the way back --------------------------------------------------------------------------

    def _is_martian(self, routed: Routed) -> bool:
        if routed.error or routed.kind == "unicast":
            return False
        return not (routed.kind == "local" and self._check.accept_local)

    def _is_filtered(self, routed: Routed, mode: int) -> bool:
        if self._is_martian(routed):
            return False
        if routed.error:
            return True
        by = routed.ways
        if self._interface in by or (routed.kind == "local" and self._interface == LOOPBACK):
            return False
        return mode == STRICT or not self._network.of_interface(IPV4, self._interface)

    def _sources(self, is_refused: Callable[[Routed], bool]) -> Condition:
        """Return the condition that the way back to the source of a packet is of some kind."""
        ends = [(0, 0)] if self._to_many else _parts(self._network)
        marks = _marks(self._network) if self._check.by_mark else [(ALWAYS, 0)]
        found: list[Condition] = []
        for first, last in ends:
            for marked, mark in marks:
                # On the way back the destination is the source; a packet to many has none then.
                known = first if self._to_many or len(ends) > 1 else None
                by_route = self._of_destination(known, mark, is_refused)
                there = ALWAYS if self._to_many or len(ends) == 1 else number("destination", first, last)
                found.append(_all(there, marked, by_route))
        return any_of(found)

    def _of_destination(
        self, destination: int | None, mark: int | None, is_refused: Callable[[Routed], bool]
    ) -> Condition:
        """Return the same for packets to one destination with one mark, each None if it is not known."""
        asked = Packet(
            IPV4,
            protocol=None,  # type: ignore[arg-type]  # the next ones too: not known
            source=destination,  # type: ignore[arg-type]
            destination=None,  # type: ignore[arg-type]
            source_port=None,  # type: ignore[arg-type]
            destination_port=None,  # type: ignore[arg-type]
            received_on=self._to,
            mark=mark,  # type: ignore[arg-type]
            uid=0,
        )
        ranges: list[tuple[int, int]] = []
        try:
            for those, routed in routes_of(self._network, asked, any_way=True):
                ranges += those if is_refused(routed) else ()
        except CannotTell as error:
            return Unmodelled(str(error))
        return numbers("source", ranges)


def _all(*parts: Condition) -> Condition:
    """Return the condition that all of some are true; one alone is itself."""
    found = tuple(part for part in parts if part != ALWAYS)
    return found[0] if len(found) == 1 else AllOf(found)


def _has_own_routing(network: Network) -> bool:
    """Tell whether there are rules or local routes that the kernel did not make (fib4_has_custom_rules)."""
    from .completed import local_routes
    from .routing import default_rules

    usual = [(rule.priority, rule.table) for rule in default_rules() if rule.family == IPV4]
    if [(rule.priority, rule.table) for rule in network.rules if rule.family == IPV4] != usual:
        return True
    made = {
        (route.kind, route.first, route.last)
        for route in local_routes(each for each in network.addresses if each.family == IPV4)
    }
    return any(
        route.family == IPV4
        and route.kind == "local"
        and (route.table != LOCAL_TABLE or (route.kind, route.first, route.last) not in made)
        for route in network.routes
    )


def _parts(network: Network) -> list[tuple[int, int]]:
    """Return ranges of addresses that no routing rule tells apart by its source."""
    starts = {0}
    for part in _compared(network):
        if isinstance(part, In) and part.field == "source":
            for first, last in part.ranges:
                starts |= {first, last + 1}
    ordered = sorted(each for each in starts if each <= _HIGHEST)
    return list(zip(ordered, [*(each - 1 for each in ordered[1:]), _HIGHEST], strict=True))


def _marks(network: Network) -> list[tuple[Condition, int | None]]:
    """Return the marks that routing rules tell apart: a condition for each, and one of them.

    It is None for those of which none was found.
    """
    rules = [part for part in _compared(network) if isinstance(part, Masked) and part.field == "mark"]
    compared = list(dict.fromkeys(rules))
    values = [0, *(rule.value for rule in compared)]
    found: dict[tuple[bool, ...], int] = {}
    for mark in dict.fromkeys(one | other for one in values for other in values):
        found.setdefault(tuple(mark & rule.mask == rule.value for rule in compared), mark)
    known: list[tuple[Condition, int | None]] = [
        (_all(*(negated(rule, not holds) for rule, holds in zip(compared, of, strict=True))), mark)
        for of, mark in found.items()
    ]
    if len(found) == 2 ** len(compared):
        return known
    return [*known, (AllOf(tuple(negated(condition) for condition, _ in known)), None)]


def _compared(network: Network) -> Iterator[Condition]:
    """Yield what the routing rules compare packets with."""
    for rule in network.rules:
        if rule.family == IPV4:
            yield from _leaves(rule.condition)


def _leaves(condition: Condition) -> Iterator[Condition]:
    if isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from _leaves(part)
    elif isinstance(condition, Not):
        yield from _leaves(condition.part)
    else:
        yield condition
