"""source_address: the source address that the kernel gives to a packet whose socket has none.

Sources: net/ipv4/route.c (ip_route_output_key_hash_rcu), devinet.c (inet_select_addr);
net/ipv6/ip6_output.c (ip6_dst_lookup_tail), route.c (ip6_route_get_saddr), addrconf.c (ipv6_dev_get_saddr),
which follows RFC 6724.
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from .algebra import One
from .ip_names import SCOPES
from .routing import Routed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .packet import Packet
    from .routing import Address, Network, Route

_LINK = SCOPES["link"]
#: The scope of link-local addresses, as RFC 4007 numbers those of multicast addresses.
_LINK_LOCAL = 2

#: The labels of addresses: network, its bits, label. Those of RFC 6724 and a few more (addrlabel.c).
_LABELS = (
    (1, 128, 0),  # ::1
    (0, 96, 3),  # ::, with an IPv4 address in it
    (0xFFFF << 32, 96, 4),  # ::ffff:0:0
    (0x2001 << 112, 32, 6),  # 2001::, Teredo
    (0x2001001 << 100, 28, 7),  # 2001:10::, ORCHID
    (0x3FFE << 112, 16, 12),  # 3ffe::, 6bone
    (0x2002 << 112, 16, 2),  # 2002::, 6to4
    (0xFEC0 << 112, 10, 11),  # fec0::, site-local
    (0xFC << 120, 7, 5),  # fc00::, unique local
    (0, 0, 1),
)


class SourceAddress(Record):
    """The source address for a packet without one, None if there is none.

    `why` says where it comes from. `routed` is the route it was found by. `depends` has what could not be
    told on the way; the answer holds if all of that is not so.
    """

    address: int | None
    why: str
    routed: Routed
    depends: tuple[str, ...] = ()


def source_address(network: Network, packet: Packet) -> SourceAddress:
    """Return the source address that the kernel gives to a packet of a socket; the packet's own is ignored.

    IPv4 looks the route up once more with this source; IPv6 keeps the route that was found without it, so
    that rules with `from` have no effect on it.
    """
    algebra = One()
    sent = packet.replace(source=0, received_on="")
    routed = Routed("none")
    for part, one in network.route(algebra, sent, packet.family):
        if part is not None:
            routed = one
    address, why = source_by(network, packet, routed)
    return SourceAddress(address, why, routed, tuple(str(asked.about) for asked in algebra.questions))


def source_by(network: Network, packet: Packet, routed: Routed) -> tuple[int | None, str]:
    """Return the source address for a packet whose route was found without one, and where it comes from."""
    if routed.error:
        return None, "no route leads there"
    choose = _ipv4 if packet.family == IPV4 else _ipv6
    return choose(network, packet.destination, routed)


def _route(network: Network, family: str, routed: Routed, destination: int) -> Route | None:
    """Return the route that was found, None if none was needed."""
    choice = network.choice(family, routed.table, destination)  # type: ignore[arg-type]
    return next((route for route in choice if _is_found(route, routed)), None)


def _is_found(route: Route, routed: Routed) -> bool:
    return routed.interface in route.interfaces and route.source == routed.source


# --- IPv4 -----------------------------------------------------------------------------------


def _ipv4(network: Network, destination: int, routed: Routed) -> tuple[int | None, str]:
    if routed.source is not None:
        return routed.source, "the route's src"
    if routed.kind == "local":
        return destination, "a local destination is its own source"
    route = _route(network, IPV4, routed, destination)
    scope = route.scope if route else 0
    gateway = _gateway(route, routed.interface)
    return _of_interface(network.addresses, routed.interface, gateway, scope)


def _gateway(route: Route | None, interface: str) -> int | None:
    """Return the gateway of the way that was taken, None if there is none of IPv4."""
    if route is None:
        return None
    texts = [hop.gateway for hop in route.hops if hop.interface == interface] or [route.gateway]
    return _number(texts[0]) if texts[0] and ":" not in texts[0] else None


def _number(text: str) -> int:
    from ..startup.c_modules import socket

    return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")


def _of_interface(
    addresses: Iterable[Address], interface: str, gateway: int | None, scope: int
) -> tuple[int | None, str]:
    """Return the primary address that reaches the gateway, or the first; else one of another interface."""
    primary = [a for a in addresses if a.family == IPV4 and "secondary" not in a.flags]
    own = [a for a in primary if a.interface == interface and a.scope <= scope]
    for address in own:
        if gateway is None or _same_network(address, gateway):
            return address.address, f"the first address of {interface}"
    if own:
        return own[0].address, f"the first address of {interface}"
    for address in primary:
        if address.scope <= scope and address.scope != _LINK:
            return address.address, f"an address of {address.interface}, since {interface} has none"
    return None, f"neither {interface} nor another interface has an address that can be used"


def _same_network(address: Address, other: int) -> bool:
    network = address.address if address.peer is None else address.peer
    return (network ^ other) >> (32 - address.prefix) == 0


# --- IPv6 -----------------------------------------------------------------------------------


def _ipv6(network: Network, destination: int, routed: Routed) -> tuple[int | None, str]:
    if routed.source is not None:
        return routed.source, "the route's src"
    candidates = list(_candidates(network, destination, routed))
    if not candidates:
        return None, "no interface has an address that can be used"
    best = max(candidates, key=lambda address: _score(address, destination, routed.interface))
    return best.address, f"the best address of {best.interface} by RFC 6724"


def _candidates(network: Network, destination: int, routed: Routed) -> Iterator[Address]:
    """Yield the addresses in the kernel's order; for multicast and link-local ones only the interface's."""
    only_own = destination >> 120 == 0xFF or _scope(destination) <= _LINK_LOCAL
    for address in network.addresses:
        if address.family == IPV4 or address.is_tentative:
            continue
        if address.interface == routed.interface or not only_own:
            yield address


def _score(address: Address, destination: int, interface: str) -> tuple[int, ...]:
    """Return how good a source address is: the rules of RFC 6724, section 5, in their order.

    It is taken for granted that temporary addresses are not preferred (sysctl use_tempaddr) and that the
    labels are the usual ones.
    """
    own, wanted = _scope(address.address), _scope(destination)
    return (
        address.address == destination,
        -own if own >= wanted else own - 128,
        address.address == 1 or not {"deprecated", "optimistic"} & address.flags,
        address.interface == interface,
        _label(address.address) == _label(destination),
        "temporary" not in address.flags,
        (address.address >> 100 == 0x2001001) == (destination >> 100 == 0x2001001),
        min(128 - (address.address ^ destination).bit_length(), address.prefix),
        "optimistic" not in address.flags,
    )


def _scope(address: int) -> int:
    """Return the scope of an address; that of ::1 is the link (__ipv6_addr_type)."""
    if address >> 120 == 0xFF:
        return address >> 112 & 15
    if address >> 118 == 0xFE80 >> 6 or address == 1:
        return _LINK_LOCAL
    return 5 if address >> 118 == 0xFEC0 >> 6 else 14


def _label(address: int) -> int:
    found: int = next(label for network, bits, label in _LABELS if (address ^ network) >> (128 - bits) == 0)
    return found
