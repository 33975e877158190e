"""nft_fib: what kind of address a packet has, and whether there is a route for it: `fib` of nft(8).

Sources: nft_fib.c, nft_fib_ipv4.c, nft_fib_ipv6.c. Both depend on addresses and routes: they cannot be told
where these are not known.
"""

from __future__ import annotations

from ..rules.lists import union
from ..rules.model import FAMILIES, IPV4
from .condition import AllOf, AnyOf, In, Named, Not, OneOf, Unmodelled, numbers
from .nft_operands import Cases, Opaque, Operand
from .nft_values import ADDRESS_TYPES
from .routing import LOCAL_TABLE, LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..rules.model import Family
    from .condition import Condition
    from .known import Known
    from .routing import Network, Route

#: Addresses of several receivers, of each family.
_MULTICAST = {"ipv4": (0xE0000000, 0xEFFFFFFF), "ipv6": (0xFF << 120, (1 << 128) - 1)}
_FIELDS = {"saddr": "source", "daddr": "destination"}


def fib(flags: Collection[str], result: str, known: Known, why: str) -> Operand:
    """Return what `fib FLAGS RESULT` finds out about a packet. `why` is how nft writes it."""
    [of] = set(flags) & set(_FIELDS) or {""}
    others = set(flags) - set(_FIELDS)
    if of and known.network:
        if result == "type" and not others:
            field = _FIELDS[of]
            cases = {
                ADDRESS_TYPES[kind]: address_type(field, kind, known.network)
                for kind in ("local", "broadcast", "multicast", "unicast")
            }
            return Cases(cases=cases, names=ADDRESS_TYPES)
        if result in ("oif", "oifname") and of == "saddr" and others == {"iif"}:
            back = _way_back(known.network)
            if back is not None:
                return Cases(cases={0: Not(back), 1: back}, names={"missing": 0, "exists": 1})
    return Opaque(why=why)


def address_type(field: str, kind: str, network: Network) -> Condition:
    """Return the condition that an address is of a kind: local, broadcast, multicast or unicast."""
    return AnyOf(
        tuple(
            AllOf((OneOf("family", frozenset({family})), _of_kind(field, kind, network, family)))
            for family in FAMILIES
        )
    )


def _of_kind(field: str, kind: str, network: Network, family: Family) -> Condition:
    if kind == "multicast":
        return In(field, (_MULTICAST[family],))
    if kind == "unicast":
        others = ("local", "broadcast", "multicast")
        none = tuple(Not(_of_kind(field, other, network, family)) for other in others)
        ends = [r for r in network.routes if r.kind in ("blackhole", "unreachable", "prohibit")]
        return AllOf((*none, *(Unmodelled(f"route of kind {route.kind}") for route in ends[:1])))
    found = [
        (route.first, route.last)
        for route in network.routes
        if route.family == family and route.kind == kind and route.table == LOCAL_TABLE
    ]
    if kind == "broadcast" and family == IPV4:
        found += [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF)]  # 0.0.0.0 and 255.255.255.255 (inet_addr_type)
    return numbers(field, found)


def _way_back(network: Network) -> Condition | None:
    """Return the condition that the route to a packet's source is by the interface that it came in by.

    None if that cannot be told: routes that are assumed, or rules that ask for more than a mark.
    """
    if network.assumed or not all(_is_plain(rule.condition) for rule in network.rules):
        return None
    parts: list[Condition] = [Named("received_on", LOOPBACK)]
    for family in FAMILIES:
        for interface, ranges in _by_interface(network, family).items():
            parts.append(
                AllOf(
                    (
                        OneOf("family", frozenset({family})),
                        Named("received_on", interface),
                        In("source", union(ranges)),
                    )
                )
            )
    return AnyOf(tuple(parts))


def _is_plain(condition: Condition) -> bool:
    """Tell whether a routing rule is for every packet, or for a mark, which the look-up has not."""
    return condition == AllOf() or (
        isinstance(condition, In) and condition.field == "mark" and condition.ranges[0][0] > 0
    )


def _by_interface(network: Network, family: Family) -> dict[str, list[tuple[int, int]]]:
    """Return the addresses whose route, of the longest prefix, is by each interface."""
    tables = [rule.table for rule in network.rules if rule.family == family and rule.condition == AllOf()]
    found: dict[str, list[tuple[int, int]]] = {}
    taken: list[tuple[int, int]] = []
    for table in tables:
        routes = [route for route in network.routes if (route.family, route.table) == (family, table)]
        for route in sorted(routes, key=lambda each: (each.last - each.first, each.metric)):
            if route.kind == "unicast":
                found.setdefault(route.interface, []).extend(_without(_range(route), taken))
            if route.kind != "throw":
                taken = list(union([*taken, _range(route)]))
    return found


def _range(route: Route) -> tuple[int, int]:
    return route.first, route.last


def _without(one: tuple[int, int], taken: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the numbers of a range that are in none of some others."""
    first, last = one
    left = []
    for low, high in sorted(taken):
        if high < first or low > last:
            continue
        if low > first:
            left.append((first, low - 1))
        first = high + 1
    return [*left, (first, last)] if first <= last else left
