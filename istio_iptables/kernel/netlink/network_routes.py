"""network_routes: the routes of all tables of this network namespace.

Layouts and numbers are those of linux/rtnetlink.h and lwtunnel.h.
"""

from __future__ import annotations

import struct

from ...interpreter.ip_names import KINDS, LINKDOWN, PREFERENCES, UNUSABLE, table_name
from ...interpreter.ip_rule import ends_of
from ...interpreter.route import Hop, Route
from ...rules.model import ADDRESS_FAMILIES, IPV4
from ...startup.c_modules import socket
from .messages import NETLINK_ROUTE, dump, parse_attributes, read_u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from ...rules.model import Family

    Attributes: TypeAlias = dict[int, bytes]

_RTM_GETROUTE = 26
_DST, _SRC, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _MULTIPATH = 1, 2, 4, 5, 6, 7, 9
_TABLE, _VIA, _PREF, _ENCAP = 15, 18, 20, 22
_DEAD, _LINKDOWN = 1, 16
#: A route that the kernel has made from another one for a single destination (RTM_F_CLONED).
_CLONED = 0x200
#: The families that a gateway may have, as `ip` calls them (AF_INET, AF_INET6).
_FAMILY_NAMES: Mapping[int, str] = {2: "inet", 10: "inet6"}
#: `pref` as it is in messages (RFC 4191, section 2.1).
_PREFERENCES: Mapping[bytes, int] = {b"\1": PREFERENCES["high"], b"\3": PREFERENCES["low"]}

#: struct rtmsg: family, destination and source length, TOS, table, protocol, scope, type, flags
_HEADER = struct.Struct("=BBBBBBBBI")
#: struct rtnexthop: length, flags, weight minus one, interface index
_HOP_HEADER = struct.Struct("=HBBi")


class RouteReader:
    """Reads the routes of one family after the other; `notes` has what of them is not modelled.

    `interfaces` are the names of interfaces by their index.
    """

    def __init__(self, interfaces: Mapping[int, str]) -> None:
        self.notes: list[str] = []
        self._interfaces = interfaces

    def read(self, family: Family) -> Iterator[Route]:
        """Yield the routes of all tables in the kernel's order. Raises NetlinkError."""
        number = ADDRESS_FAMILIES[family]
        request = _HEADER.pack(number, 0, 0, 0, 0, 0, 0, 0, 0)
        for payload in dump(f"list {family} routes", NETLINK_ROUTE, _RTM_GETROUTE, request):
            if payload[0] == number:  # a kernel without the family gives those of all others
                route = self._route(family, payload)
                if route:
                    yield route

    def _route(self, family: Family, payload: bytes) -> Route | None:
        """Return a route, None if the kernel passes over it."""
        _, length, from_length, tos, table, _, scope, kind, flags = _HEADER.unpack_from(payload)
        if flags & _CLONED:
            return None
        attributes = parse_attributes(payload[_HEADER.size :])
        first, last = ends_of(family, _address(attributes, _DST), length)
        hops, notes = self._hops(attributes, flags)
        several = len(hops) > 1
        route = Route(
            family,
            table_name(read_u32(attributes, _TABLE, table)),
            KINDS.get(kind, "unicast"),
            first,
            last,
            hops[0].interface if hops else "",
            _address(attributes, _PREFSRC) if _PREFSRC in attributes else None,
            read_u32(attributes, _PRIORITY),
            scope if family == IPV4 else 0,
            hops[0].gateway if hops and not several else "",
            tuple(hops) if several else (),
            ends_of(family, _address(attributes, _SRC), from_length) if from_length else None,
            f"0x{tos:02x}" if tos else "",
            _PREFERENCES.get(attributes.get(_PREF, b""), 0),
        )
        usable = bool(hops) or route.kind != "unicast"
        if not usable:
            notes.append(UNUSABLE)
        if kind not in KINDS:
            notes.append(f"routes of the type {kind} are not known")
            usable = False
        self.notes += [f"{note}: ip route {route.text}" for note in notes]
        return route if usable else None

    def _hops(self, attributes: Attributes, flags: int) -> tuple[list[Hop], list[str]]:
        """Return the ways of a route that the kernel uses, and what is to be said about the others."""
        found: list[Hop] = []
        notes: list[str] = []
        for index, hop_flags, parts in _ways(attributes, flags):
            name = self._interfaces.get(index, f"if{index}") if index else ""
            if hop_flags & _DEAD:
                notes.append(f"dead: the way by {name} is not used")
            elif name or _GATEWAY in parts:
                found.append(Hop(name, _gateway(parts)))
            if hop_flags & _LINKDOWN:
                notes.append(LINKDOWN)
            if _ENCAP in parts:
                notes.append("encap: what a packet is put into")
        return found, notes


def _address(attributes: Attributes, kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), "big")


def _ways(attributes: Attributes, flags: int) -> Iterator[tuple[int, int, Attributes]]:
    """Yield interface index, flags and attributes of each way that a route has."""
    if _MULTIPATH not in attributes:
        yield read_u32(attributes, _OIF), flags, attributes
        return
    data = attributes[_MULTIPATH]
    offset = 0
    while offset + _HOP_HEADER.size <= len(data):
        length, hop_flags, _, index = _HOP_HEADER.unpack_from(data, offset)
        yield index, hop_flags, parse_attributes(data[offset + _HOP_HEADER.size : offset + length])
        offset += length + -length % 4


def _gateway(attributes: Attributes) -> str:
    """Return a gateway as `ip route` prints it; one of another family has that before it."""
    if _VIA in attributes:
        (number,) = struct.unpack_from("=H", attributes[_VIA])
        return f"{_FAMILY_NAMES.get(number, number)} {_text(attributes[_VIA][2:])}"
    return _text(attributes[_GATEWAY]) if _GATEWAY in attributes else ""


def _text(address: bytes) -> str:
    if len(address) not in (4, 16):  # of another family than those of IP
        return address.hex()
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
