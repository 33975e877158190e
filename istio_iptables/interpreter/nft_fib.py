"""nft_fib: what type of address a packet has, and whether there is a route for it: `fib` of nft(8).

Sources: nft_fib.c, nft_fib_ipv4.c, nft_fib_ipv6.c. Both depend on addresses and routes: they cannot be told
where these are not known.
"""

from __future__ import annotations

from ..rules.lists import union
from ..rules.model import FAMILIES, IPV4
from .addresses import has_type
from .condition import AllOf, AnyOf, In, Named, Not, OneOf
from .destinations import CannotTell, routes_of
from .known import Scope
from .nft_operands import Cases, Opaque
from .nft_values import ADDRESS_TYPES
from .packet import Packet
from .routing import LOOPBACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..rules.model import Family
    from .condition import Condition
    from .known import Known
    from .nft_operands import Operand
    from .routing import Network

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

    None if that cannot be told: routes that are assumed, or that depend on more than a destination.
    """
    if network.assumed:
        return None
    parts: list[Condition] = [Named("received_on", LOOPBACK)]
    try:
        for family in FAMILIES:
            for interface, ranges in _by_interface(network, family).items():
                of_family = OneOf("family", frozenset({family}))
                parts.append(AllOf((of_family, Named("received_on", interface), In("source", union(ranges)))))
    except CannotTell:
        return None
    return AnyOf(tuple(parts), why)


def _by_interface(network: Network, family: Family) -> dict[str, list[tuple[int, int]]]:
    """Return the addresses whose route is by each interface, for a packet without a mark."""
    unknown = dict.fromkeys(("protocol", "source", "destination", "source_port", "destination_port", "uid"))
    asked = Packet(family, **unknown)  # type: ignore[arg-type]
    found: dict[str, list[tuple[int, int]]] = {}
    for ranges, routed in routes_of(network, asked):
        if routed.kind == "unicast":
            found.setdefault(routed.interface, []).extend(ranges)
    return found
