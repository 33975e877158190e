"""nft_fib: what type of address a packet has, and whether there is a route for it: `fib` of nft(8).

Sources: nft_fib.c, nft_fib_ipv4.c, nft_fib_ipv6.c. Both depend on addresses and routes: they cannot be told
where these are not known.
"""

from __future__ import annotations

from ..rules.lists import union
from ..rules.model import FAMILIES, IPV4
from .addresses import has_type
from .condition import ALWAYS, AllOf, AnyOf, In, Masked, Named, Not, OneOf
from .known import Scope
from .nft_operands import Cases, Opaque
from .nft_values import ADDRESS_TYPES
from .routing import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..rules.model import Family
    from .condition import Condition
    from .known import Known
    from .nft_operands import Operand
    from .routing import Network, Route

_FIELDS = {"saddr": "source", "daddr": "destination"}
_INTERFACES = {"iif": "received_on", "oif": "sent_to"}


def fib(flags: Collection[str], result: str, known: Known, families: Collection[Family], why: str) -> Operand:
    """Return what `fib FLAGS RESULT` finds out about a packet. `why` is how nft writes it."""
    [of] = set(flags) & set(_FIELDS) or {""}
    others = set(flags) - set(_FIELDS)
    if of and result == "type" and len(others & _INTERFACES.keys()) < 2:
        interface = next((field for flag, field in _INTERFACES.items() if flag in others), "")
        kinds = ("local", "unicast", "broadcast", "multicast", "anycast")
        cases = {
            ADDRESS_TYPES[kind]: _either_family(kind, _FIELDS[of], interface, known, families)
            for kind in kinds
        }
        return Cases(cases=cases, names=ADDRESS_TYPES)
    if (of, result) in (("saddr", "oif"), ("saddr", "oifname")) and others == {"iif"} and known.network:
        back = _way_back(known.network, why)
        if back is not None:
            return Cases(cases={0: Not(back), 1: back}, names={"missing": 0, "exists": 1})
    return Opaque(why=why)


def _either_family(
    kind: str, field: str, interface: str, known: Known, families: Collection[Family]
) -> Condition:
    parts = {
        family: _has_type(kind, field, interface, Scope(known, family))
        for family in FAMILIES
        if family in families and (family == IPV4 or kind != "broadcast")
    }
    if len(families) == 1:
        return AnyOf(tuple(parts.values()), f"type of the {field} address")
    of_families = [AllOf((OneOf("family", frozenset({family})), part)) for family, part in parts.items()]
    return AnyOf(tuple(of_families), f"type of the {field} address")


def _has_type(kind: str, field: str, interface: str, scope: Scope) -> Condition:
    """Return what the look-up of one family gives; `addrtype` calls what is local unicast, too, with IPv6."""
    found = has_type(field, (kind.upper(),), interface, scope)
    if kind != "unicast" or scope.family == IPV4:
        return found
    return AllOf((found, *(Not(has_type(field, (each,), interface, scope)) for each in ("LOCAL", "ANYCAST"))))


def _way_back(network: Network, why: str) -> Condition | None:
    """Return the condition that the route to a packet's source is by the interface that it came in by.

    None if that cannot be told: routes that are assumed, or rules that ask for more than a mark.
    """
    if network.assumed or not all(_is_plain(rule.condition) for rule in network.rules):
        return None
    parts: list[Condition] = [Named("received_on", LOOPBACK)]
    for family in FAMILIES:
        for interface, ranges in _by_interface(network, family).items():
            of_family = OneOf("family", frozenset({family}))
            parts.append(AllOf((of_family, Named("received_on", interface), In("source", union(ranges)))))
    return AnyOf(tuple(parts), why)


def _is_plain(condition: Condition) -> bool:
    """Tell whether a routing rule is for every packet, or for a mark, which the look-up has not."""
    if condition == ALWAYS:
        return True
    parts = condition.parts if isinstance(condition, AllOf) else (condition,)
    return any(_asks_for_a_mark(part) for part in parts)


def _asks_for_a_mark(condition: Condition) -> bool:
    if isinstance(condition, Masked):
        return condition.field == "mark" and condition.value != 0
    return isinstance(condition, In) and condition.field == "mark" and condition.ranges[0][0] > 0


def _by_interface(network: Network, family: Family) -> dict[str, list[tuple[int, int]]]:
    """Return the addresses whose route, of the longest prefix, is by each interface."""
    tables = [rule.table for rule in network.rules if rule.family == family and rule.condition == ALWAYS]
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
