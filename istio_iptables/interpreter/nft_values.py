"""nft_values: constants of libnftables-json(5) as numbers: names, prefixes, ranges, members of sets.

nft prints names or numbers, by version and options. Names are those of nft(8), DATA TYPES.
"""

from __future__ import annotations

from ..rules.model import ADDRESS_FAMILIES
from ..startup.record import Record
from . import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..rules.model import Family

#: A set's element for what is in no other (nft(8), catch-all).
CATCH_ALL = "*"


class UnreadError(Exception):
    """Something whose meaning is not modelled, or that no version of nft is known to print."""


class Member(Record):
    """An element of a set: its value, what it is mapped to, and what else it has to pass, such as a limit."""

    value: Any
    data: Any = None
    also: str = ""


def number(value: Any, names: Mapping[str, int]) -> int:
    """Return a constant as a number; several flags are joined. Raises UnreadError."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict) and len(value) == 1 and "|" in value:
        value = value["|"]
    if isinstance(value, list):
        joined = 0
        for each in value:
            joined |= number(each, names)
        return joined
    if isinstance(value, str):
        if value.lower() in names:
            return names[value.lower()]
        try:
            return int(value, 0)
        except ValueError:
            pass
    raise UnreadError(value)


def fitting(value: Any, bits: int) -> int:
    """Return a constant without names as a number of so many bits. Raises UnreadError for any other."""
    found = number(value, {})
    if not 0 <= found < 1 << bits:
        raise UnreadError(value)
    return found


def address(value: Any, family: Family) -> int:
    """Return an address as a number. Raises UnreadError."""
    if isinstance(value, int):
        return value
    try:
        of, found = addresses.address(value)
    except (OSError, TypeError, ValueError) as error:
        raise UnreadError(value) from error
    if of != family:
        raise UnreadError(value)
    return found


def members(value: Any, sets: Mapping[str, list[Any]]) -> list[Member] | None:
    """Return the elements of a set or map, anonymous or named; None if a value is no set.

    Raises UnreadError for the name of a set that is not there.
    """
    if isinstance(value, str) and value.startswith("@"):
        if value[1:] not in sets:
            raise UnreadError(value)
        elements = sets[value[1:]]
    elif isinstance(value, dict) and "set" in value:
        elements = value["set"]
        elements = elements if isinstance(elements, list) else [elements]
    else:
        return None
    return [_member(element) for element in elements]


def _member(element: Any) -> Member:
    """Return an element without its counter, comment and timeout, which change nothing."""
    data = None
    if isinstance(element, list):
        element, data = element
    also = ""
    if isinstance(element, dict) and "elem" in element:
        inner = element["elem"]
        if isinstance(inner, list):  # a map's pair within
            inner, data = inner
        also = ", ".join(name for name in inner if name in _MAY_REFUSE)
        element = inner["val"]
        if isinstance(element, list) and len(element) == 2:
            element, data = element
    return Member(element, data, also)


#: Statements of an element that may end the rule (nft_set_elem_update_expr).
_MAY_REFUSE = frozenset({"limit", "quota", "ct count"})


# --- names ------------------------------------------------------------------------------------

#: The names of nft(8) for both families.
FAMILY_NUMBERS: Mapping[str, int] = dict(ADDRESS_FAMILIES)
#: Ethernet types (linux/if_ether.h).
ETHERTYPES: Mapping[str, int] = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "vlan": 0x8100}

#: Conntrack's states as bits (linux/netfilter/nf_conntrack_common.h).
STATES: Mapping[str, int] = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
#: Conntrack's status as bits, and the directions (the same file).
STATUS: Mapping[str, int] = {
    "expected": 1,
    "seen-reply": 2,
    "assured": 4,
    "confirmed": 8,
    "snat": 16,
    "dnat": 32,
    "dying": 512,
}
DIRECTIONS: Mapping[str, int] = {"original": 0, "reply": 1}

TCP_FLAGS: Mapping[str, int] = {
    "fin": 1,
    "syn": 2,
    "rst": 4,
    "psh": 8,
    "ack": 16,
    "urg": 32,
    "ecn": 64,
    "cwr": 128,
}

ICMP_TYPES: Mapping[str, int] = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "info-request": 15,
    "info-reply": 16,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}
ICMP_CODES: Mapping[str, int] = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "frag-needed": 4,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
ICMPV6_TYPES: Mapping[str, int] = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "mld-listener-reduction": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "router-renumbering": 138,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
    "mld2-listener-report": 143,
}
ICMPV6_CODES: Mapping[str, int] = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}

#: Types of addresses (linux/rtnetlink.h, rtm_type).
ADDRESS_TYPES: Mapping[str, int] = {
    "unspec": 0,
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
}
#: Link types of interfaces (linux/if_arp.h).
LINK_TYPES: Mapping[str, int] = {"ether": 1, "ppp": 512, "ipip": 768, "ipip6": 769, "loopback": 772}
#: Kinds of packets (linux/if_packet.h).
PACKET_TYPES: Mapping[str, int] = {"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3}
