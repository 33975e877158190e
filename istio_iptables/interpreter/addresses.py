"""addresses: addresses as iptables and ipset print them, and the types of addresses that `addrtype` knows.

Source: net/ipv4/fib_frontend.c (__inet_dev_addr_type), net/netfilter/xt_addrtype.c, net/ipv6/addrconf_core.c.
"""

from __future__ import annotations

from ..rules.model import FAMILIES, IPV4, IPV6
from ..startup.c_modules import socket
from ..startup.record import Record
from .condition import NEVER, AllOf, AnyOf, Masked, Named, Not, OneOf, Unmodelled, negated, number, numbers
from .ip_names import LOCAL_TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from ..rules.model import Family
    from .condition import Condition
    from .known import Scope
    from .routing import Network

    Range: TypeAlias = tuple[int, int]

BITS: Mapping[Family, int] = {IPV4: 32, IPV6: 128}


class Block(Record):
    """Addresses that are equal to `address` under `mask`, of a family."""

    family: Family
    address: int
    mask: int

    @property
    def span(self) -> Range | None:
        """The first and last address, or None if the mask is no prefix."""
        free = ~self.mask & ((1 << BITS[self.family]) - 1)
        first = self.address & self.mask
        return None if free & (free + 1) else (first, first | free)

    def on(self, field: str) -> Condition:
        """Return the condition that a field is one of them."""
        span = self.span
        return number(field, *span) if span else Masked(field, self.address & self.mask, self.mask)


def address(text: str) -> tuple[Family, int]:
    """Parse an address. Raises OSError or ValueError if it is none.

    >>> address("10.0.0.1")
    ('ipv4', 167772161)
    """
    family = IPV6 if ":" in text else IPV4
    packed = socket.inet_pton(socket.AF_INET6 if family == IPV6 else socket.AF_INET, text)
    return family, int.from_bytes(packed, "big")


def block(text: str) -> Block:
    """Parse an address with a prefix length or a mask, or alone."""
    host, slash, mask = text.partition("/")
    family, number_ = address(host)
    everything = (1 << BITS[family]) - 1
    if not slash:
        return Block(family, number_, everything)
    if not mask.isdigit():
        mask_family, bits = address(mask)
        if mask_family != family:
            raise ValueError(f"{text}: address and mask are of different families")
        return Block(family, number_, bits)
    if int(mask) > BITS[family]:
        raise ValueError(f"{text}: the prefix is too long")
    return Block(family, number_, everything ^ (everything >> int(mask)))


def span(text: str) -> tuple[Family, int, int]:
    """Parse a range `first-last` of addresses, or one address, or a block with a prefix."""
    first, dash, last = text.partition("-")
    if dash:
        family, low = address(first)
        other, high = address(last)
        if family != other or low > high:
            raise ValueError(f"{text}: not a range of addresses")
        return family, low, high
    found = block(first)
    if found.span is None:
        raise ValueError(f"{text}: the mask is no prefix")
    return found.family, *found.span


# --- types of addresses -----------------------------------------------------------------------


def has_type(field: str, types: Iterable[str], interface: str, scope: Scope) -> Condition:
    """Return what `addrtype` says of an address field. Raises ValueError if there is no such type.

    With `interface`, the field `received_on` or `sent_to`, only what that interface has counts as local. What
    the namespace's addresses decide is not modelled where they are not known.
    """
    wanted = frozenset(types)
    if not wanted <= _TYPES:
        raise ValueError(f"no type of address: {', '.join(sorted(wanted - _TYPES))}")
    asked = _Asked(field, wanted, interface, scope.known.network)
    if scope.family is not None:
        return _OF_FAMILY[scope.family](asked)
    parts = [AllOf((OneOf("family", frozenset({each})), _OF_FAMILY[each](asked))) for each in FAMILIES]
    return AnyOf(tuple(parts), asked.about)


#: Those that a route of IPv4 may have, and those that the address shows or nothing has.
_ROUTE_TYPES = frozenset(
    {"LOCAL", "UNICAST", "BROADCAST", "ANYCAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW"}
)
_TYPES = _ROUTE_TYPES | {"UNSPEC", "MULTICAST", "NAT", "XRESOLVE"}

_V6_TYPES = frozenset({"UNSPEC", "UNICAST", "LOCAL", "ANYCAST", "MULTICAST", "UNREACHABLE"})

_V4_BROADCAST: tuple[Range, ...] = ((0, 0), (0xFFFFFFFF, 0xFFFFFFFF))
_V4_MULTICAST: Range = (0xE0000000, 0xEFFFFFFF)
_V6_MULTICAST: Range = (0xFF << 120, (1 << 128) - 1)
#: ::, and IPv4-mapped addresses, are no unicast addresses (__ipv6_addr_type).
_V6_NOT_UNICAST: tuple[Range, ...] = ((0, 0), (0xFFFF << 32, 0xFFFF << 32 | 0xFFFFFFFF), _V6_MULTICAST)


class _Asked(Record):
    """What was asked: an address field, types, an interface field or none, and the addresses if known."""

    field: str
    types: frozenset[str]
    interface: str
    network: Network | None

    @property
    def about(self) -> str:
        """What it is about, for people."""
        return f"type of the {self.field} address"


def _ipv4_type(asked: _Asked) -> Condition:
    """Fixed blocks count first, then the table `local`; what has no route there is UNICAST."""
    field = asked.field
    parts: list[Condition] = []
    if "BROADCAST" in asked.types:
        parts.append(numbers(field, _V4_BROADCAST))
    if "MULTICAST" in asked.types:
        parts.append(number(field, *_V4_MULTICAST))
    by_route = asked.types & _ROUTE_TYPES
    if by_route:
        fixed = numbers(field, (*_V4_BROADCAST, _V4_MULTICAST))
        parts.append(AllOf((Not(fixed), _looked_up(asked, IPV4, by_route))))
    return AnyOf(tuple(parts), asked.about)


def _ipv6_type(asked: _Asked) -> Condition:
    """Types that the address shows have to hold all, and of those that a route shows one (match_type6).

    The kernel takes no rule with one of the other types (addrtype_mt_checkentry_v1).
    """
    if not asked.types <= _V6_TYPES:
        return NEVER
    field = asked.field
    parts: list[Condition] = []
    if "MULTICAST" in asked.types:
        parts.append(number(field, *_V6_MULTICAST))
    if "UNICAST" in asked.types:
        parts.append(Not(numbers(field, _V6_NOT_UNICAST)))
    if "UNSPEC" in asked.types:
        parts.append(number(field, 0))
    by_route = asked.types & {"LOCAL", "ANYCAST"}
    if "UNREACHABLE" in asked.types:
        parts.append(Unmodelled("whether an address is UNREACHABLE"))
    elif by_route:
        parts.append(_looked_up(asked, IPV6, by_route))
    return AllOf(tuple(parts), asked.about)


_OF_FAMILY: Mapping[Family, Callable[[_Asked], Condition]] = {IPV4: _ipv4_type, IPV6: _ipv6_type}


class _Piece(Record):
    """Addresses that the table `local` says the same of; no two pieces overlap."""

    first: int
    last: int
    kind: str
    interface: str


def _looked_up(asked: _Asked, family: Family, types: frozenset[str]) -> Condition:
    """Return the condition that the table `local` gives one of the types."""
    if asked.network is None:
        return Unmodelled("own addresses are not known")
    pieces = _pieces(asked.network, family)
    kinds = frozenset(map(str.lower, types))
    if not asked.interface:
        return _of_kinds(asked.field, pieces, kinds)
    parts: list[Condition] = []
    interfaces = sorted({piece.interface for piece in pieces})
    for name in interfaces:  # what another interface has is UNICAST
        own = [piece if piece.interface == name else piece.replace(kind="unicast") for piece in pieces]
        parts.append(AllOf((Named(asked.interface, name), _of_kinds(asked.field, own, kinds))))
    if "unicast" in kinds:
        parts.append(AllOf(tuple(Not(Named(asked.interface, name)) for name in interfaces)))
    return AnyOf(tuple(parts))


def _of_kinds(field: str, pieces: Iterable[_Piece], kinds: frozenset[str]) -> Condition:
    unicast = "unicast" in kinds  # all that is in no piece, too
    spans = [(piece.first, piece.last) for piece in pieces if (piece.kind in kinds) != unicast]
    return negated(numbers(field, spans) if spans else NEVER, unicast)


def _pieces(network: Network, family: Family) -> list[_Piece]:
    """Return the table `local` as pieces: the route with the longest prefix counts."""
    routes = [
        _Piece(route.first, route.last, str(route.kind), route.interface)
        for route in network.routes
        if route.table == LOCAL_TABLE and route.family == family
    ]
    if family == IPV4 and network.assumed:
        routes += _broadcasts(network)
    pieces: list[_Piece] = []
    for route in sorted(routes, key=lambda each: each.first - each.last):
        before = [p.replace(last=min(p.last, route.first - 1)) for p in pieces if p.first < route.first]
        after = [p.replace(first=max(p.first, route.last + 1)) for p in pieces if p.last > route.last]
        pieces = [*before, *after, route]
    return pieces


def _broadcasts(network: Network) -> Iterable[_Piece]:
    """Yield the broadcast routes that the kernel makes for addresses (fib_add_ifaddr)."""
    for each in network.addresses:
        if each.family == IPV4 and each.prefix < 31:
            last = each.address | ((1 << (32 - each.prefix)) - 1)
            yield _Piece(last, last, "broadcast", each.interface)
