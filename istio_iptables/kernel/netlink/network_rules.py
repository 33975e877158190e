"""network_rules: the routing rules of this network namespace, with all their selectors.

Layouts and numbers are those of linux/fib_rules.h. What is not known there becomes a condition that cannot be
told.
"""

from __future__ import annotations

import errno
import os
import struct

from ...interpreter.ip_names import KINDS, table_name
from ...interpreter.ip_rule import IpRule
from ...rules.model import ADDRESS_FAMILIES, FULL_MASK
from .messages import NETLINK_ROUTE, NetlinkError, dump, parse_attributes, read_u32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias

    from ...interpreter.routing import RoutingRule
    from ...rules.model import Family

    Attributes: TypeAlias = dict[int, bytes]

_RTM_GETRULE = 34  # rtnetlink.h

# fib_rules.h: attributes
_DST, _SRC, _IIFNAME, _GOTO, _PRIORITY, _FWMARK, _FLOW, _TUN_ID = 1, 2, 3, 4, 6, 10, 11, 12
_SUPPRESS_IFGROUP, _SUPPRESS_PREFIXLEN, _TABLE, _FWMASK, _OIFNAME, _PAD, _L3MDEV = 13, 14, 15, 16, 17, 18, 19
_UID_RANGE, _PROTOCOL, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE = 20, 21, 22, 23, 24
_SPORT_MASK, _DPORT_MASK = 28, 29
#: Attributes that this module does not know, but can name.
_NAMES: Mapping[int, str] = {
    25: "dscp",
    26: "flowlabel",
    27: "flowlabel mask",
    _SPORT_MASK: "sport mask",
    _DPORT_MASK: "dport mask",
    30: "dscp mask",
}
#: Those without an influence on which packets a rule takes, and where it sends them.
_IDLE = frozenset({_FLOW, _PAD, _PROTOCOL})
_INVERT = 0x02
_TO_TABLE, _TO_RULE, _NOP = 1, 2, 3
_ENDS = frozenset({"blackhole", "unreachable", "prohibit"})
_NOTHING = 0xFFFFFFFF
_EVERY_PORT_BIT = 0xFFFF

#: struct fib_rule_hdr: family, destination and source length, TOS, table, two reserved bytes, action, flags
_HEADER = struct.Struct("=BBBBBBBBI")
_PAIR_16, _PAIR_32 = struct.Struct("=HH"), struct.Struct("=II")


def read_rules(family: Family) -> Iterator[RoutingRule]:
    """Yield the routing rules of a family in the kernel's order, none if the kernel does not have the family.

    Raises NetlinkError.
    """
    number = ADDRESS_FAMILIES[family]
    request = _HEADER.pack(number, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        payloads = dump(f"list {family} routing rules", NETLINK_ROUTE, _RTM_GETRULE, request)
    except NetlinkError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return
        raise
    for payload in payloads:
        if payload[0] == number:  # a kernel without the family may give those of all others
            yield _rule(family, payload).routing_rule()


def _rule(family: Family, payload: bytes) -> IpRule:
    _, to_length, from_length, tos, table, _, _, action, flags = _HEADER.unpack_from(payload)
    left = parse_attributes(payload[_HEADER.size :])
    fields: dict[str, Any] = {
        "priority": _u32(left.pop(_PRIORITY, bytes(4))),
        "inverted": bool(flags & _INVERT),
        "tos": f"0x{tos:02x}" if tos else "",
        "source": _network(left.pop(_SRC, b""), from_length),
        "destination": _network(left.pop(_DST, b""), to_length),
    }
    fields.update(_mark(left))
    for kind, (field, read) in _READ.items():
        if kind in left:
            fields[field] = read(left.pop(kind))
    suppressed = _u32(left.pop(_SUPPRESS_PREFIXLEN, b"\xff" * 4))
    fields["suppress_prefix"] = -1 if suppressed == _NOTHING else suppressed
    group = _u32(left.pop(_SUPPRESS_IFGROUP, b"\xff" * 4))
    fields["suppress_group"] = "" if group == _NOTHING else str(group)
    fields.update(_action(left, action, read_u32(left, _TABLE, table)))
    fields["unmodelled"] = (*fields.get("unmodelled", ()), *_unmodelled(left))
    return IpRule(family, **fields)


def _u32(value: bytes) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


_READ: Mapping[int, tuple[str, Callable[[bytes], Any]]] = {
    _IIFNAME: ("iif", _text),
    _OIFNAME: ("oif", _text),
    _TUN_ID: ("tunnel", lambda value: int.from_bytes(value, "big")),
    _UID_RANGE: ("uids", _PAIR_32.unpack),
    _IP_PROTO: ("protocol", lambda value: value[0]),
    _SPORT_RANGE: ("source_ports", _PAIR_16.unpack),
    _DPORT_RANGE: ("destination_ports", _PAIR_16.unpack),
    _L3MDEV: ("l3mdev", any),
}


def _network(address: bytes, length: int) -> tuple[int, int] | None:
    return (int.from_bytes(address, "big"), length) if address or length else None


def _mark(left: Attributes) -> dict[str, int]:
    if _FWMARK not in left and _FWMASK not in left:
        return {}
    mask = read_u32(left, _FWMASK, FULL_MASK)
    return {"mark": _u32(left.pop(_FWMARK, bytes(4))), "mask": mask if left.pop(_FWMASK, None) else FULL_MASK}


def _action(left: Attributes, action: int, table: int) -> dict[str, Any]:
    """Return what a rule does; what the kernel does not know, it treats as blackhole (fib4_rule_action)."""
    left.pop(_TABLE, None)
    target = left.pop(_GOTO, None)
    if action == _TO_TABLE:
        return {"table": table_name(table)} if table else {}
    if action == _TO_RULE:
        return {"goto": _u32(target) if target else -1}
    if action == _NOP:
        return {}
    name: str = KINDS.get(action, "")
    return {"ends": name if name in _ENDS else "blackhole"}


def _unmodelled(left: Attributes) -> Iterator[str]:
    """Yield the attributes that are not known, as text."""
    for kind, value in left.items():
        if kind in (_SPORT_MASK, _DPORT_MASK) and _u32(value) in (0, _EVERY_PORT_BIT):
            continue  # a mask that leaves nothing out
        if kind not in _IDLE:
            yield f"{_NAMES.get(kind, f'attribute {kind}')} 0x{value.hex()}"
