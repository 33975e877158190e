"""network: the addresses, routing rules, routes and interfaces of this network namespace, as a Network.

All that `ip rule`, `ip route show table all` and `ip addr` show, asked of the kernel itself. Reading needs no
privilege, starts no process and changes nothing. Layouts and numbers are those of rtnetlink(7) and the
kernel's headers linux/if_link.h and if_addr.h.
"""

from __future__ import annotations

import os
import struct

from ...interpreter.routing import Address, Network
from ...rules.model import ADDRESS_FAMILIES, FAMILIES, IPV4
from .messages import NETLINK_ROUTE, dump, pack_u32, parse_attributes, read_u32
from .network_routes import RouteReader
from .network_rules import read_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...rules.model import Family

_RTM_GETLINK, _RTM_GETADDR = 18, 22  # rtnetlink.h

# if_link.h
_IFLA_IFNAME, _IFLA_EXT_MASK = 3, 29
_SKIP_STATISTICS = 8

# if_addr.h
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
#: Flags of an address that have an influence on which source is chosen. The first has a name for each family.
_FLAGS: Mapping[int, str] = {0x04: "optimistic", 0x08: "dadfailed", 0x20: "deprecated", 0x40: "tentative"}
_SECONDARY = 0x01

#: struct ifinfomsg: family, padding, type, index, flags, change
_LINK_HEADER = struct.Struct("=BxHiII")
#: struct ifaddrmsg: family, prefix length, flags, scope, interface index
_ADDRESS_HEADER = struct.Struct("=BBBBI")


def read_network() -> Network:
    """Return the network of the namespace that the process is in.

    Lists are in the kernel's order, IPv4 before IPv6; a family that the kernel does not have has nothing.
    Tables without a fixed name are called by their number. `unread` says what is not modelled.
    Raises NetlinkError.
    """
    names = _interfaces()
    addresses = tuple(_addresses(names))
    rules = tuple(rule for family in FAMILIES for rule in read_rules(family))
    reader = RouteReader(names)
    routes = tuple(route for family in FAMILIES for route in reader.read(family))
    return Network(addresses, routes, rules, tuple(names.values()), unread=tuple(reader.notes))


def _interfaces() -> dict[int, str]:
    """Return the names of all interfaces by their index."""
    request = _LINK_HEADER.pack(0, 0, 0, 0, 0) + pack_u32(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    names = {}
    for payload in dump("list interfaces", NETLINK_ROUTE, _RTM_GETLINK, request):
        index: int = _LINK_HEADER.unpack_from(payload)[2]
        attributes = parse_attributes(payload[_LINK_HEADER.size :])
        names[index] = os.fsdecode(attributes[_IFLA_IFNAME].rstrip(b"\0"))
    return names


def _addresses(names: Mapping[int, str]) -> Iterator[Address]:
    family_of = {ADDRESS_FAMILIES[family]: family for family in FAMILIES}
    request = _ADDRESS_HEADER.pack(0, 0, 0, 0, 0)
    for payload in dump("list addresses", NETLINK_ROUTE, _RTM_GETADDR, request):
        number, prefix, flags, scope, index = _ADDRESS_HEADER.unpack_from(payload)
        if number not in family_of or index not in names:  # an interface that is new since, or gone
            continue
        attributes = parse_attributes(payload[_ADDRESS_HEADER.size :])
        far = attributes[_IFA_ADDRESS]
        own = attributes.get(_IFA_LOCAL, far)  # on a point-to-point link the two are different
        yield Address(
            interface=names[index],
            family=family_of[number],
            address=int.from_bytes(own, "big"),
            prefix=prefix,
            scope=scope,
            flags=_flags(family_of[number], read_u32(attributes, _IFA_FLAGS, flags)),
            peer=int.from_bytes(far, "big") if far != own else None,
        )


def _flags(family: Family, bits: int) -> frozenset[str]:
    found = [name for bit, name in _FLAGS.items() if bits & bit]
    if bits & _SECONDARY:
        found.append("secondary" if family == IPV4 else "temporary")
    return frozenset(found)
