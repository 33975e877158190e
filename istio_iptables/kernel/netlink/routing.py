"""routing: the addresses, policy rules and routes of this network namespace.

This module asks the kernel itself, in the network namespace of the calling process, what the commands
`ip address`, `ip rule` and `ip route show table` would show. It makes and removes the few things that the
tool needs besides its rules: an address, a policy rule that selects by mark, and the route that makes a
table deliver locally. It starts no process, needs no iproute2 in the image and decides nothing:
kernel/routing.py tells what is owned, and the plan what to do about it.

Added objects are identical, in the output of `ip -details … show`, to those that iproute2 makes.
Removal removes exactly the given object: if the kernel would remove another one that matches too,
it is refused.

Every function opens one socket for one request and closes it; nothing is cached. `family` is
"ipv4" or "ipv6" everywhere (another string is a KeyError), marks, masks and table numbers are
unsigned 32-bit numbers (a number that does not fit is a struct.error): the configuration has checked
both. What the kernel refuses is a NetlinkError.

Layouts and numbers are those of netlink(7), rtnetlink(7) and the kernel's headers
linux/netlink.h, rtnetlink.h, if_addr.h and fib_rules.h.
"""

from __future__ import annotations

import errno
import struct

from ...rules.model import ADDRESS_FAMILIES
from ...startup.c_modules import socket
from ...startup.record import Record
from .messages import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    ask,
    dump,
    pack_attribute,
    pack_u32,
    parse_attributes,
    read_u32,
    refusal,
    request,
)

__all__ = [
    "Address",
    "NetlinkError",
    "PolicyRule",
    "Route",
    "add_address",
    "add_local_default_route",
    "add_policy_rule",
    "addresses",
    "delete_address",
    "delete_local_default_route",
    "delete_policy_rule",
    "policy_rules",
    "route_to",
    "routes",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# rtnetlink.h, if_addr.h
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_CACHEINFO, _RTA_TABLE, _RTA_PREF = 1, 4, 6, 12, 15, 20
_RT_SCOPE_UNIVERSE, _RT_SCOPE_HOST = 0, 254
_RTN_UNICAST = 1
#: The type of a route to an address of this machine.
RTN_LOCAL = 2
_RTPROT_BOOT = 3
#: The metric that IPv6 gives to a route without one (IP6_RT_PRIO_USER); in IPv4 that is 0.
_DEFAULT_METRIC = {"ipv4": 0, "ipv6": 1024}

# fib_rules.h
_FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN = 6, 10, 14
_FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 15, 16, 21
_FR_ACT_TO_TBL = 1
_NO_SUPPRESSION = 0xFFFFFFFF

#: struct ifaddrmsg: family, prefix length, flags, scope, interface index
_ADDRESS_HEADER = struct.Struct("=BBBBI")
#: struct rtmsg: family, destination and source length, TOS, table, protocol, scope, type, flags.
#: struct fib_rule_hdr has the same layout: …, table, two reserved bytes, action, flags.
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")

#: The attributes that the kernel shows of a rule, or route, that has only the plain parts. Any other,
#: also one of a later kernel, makes the rule or route foreign. (A destination or source is an attribute
#: too, so the lengths in the header need not be checked.)
_PLAIN_RULE = {_FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL}
_PLAIN_ROUTE = {_RTA_OIF, _RTA_PRIORITY, _RTA_CACHEINFO, _RTA_TABLE, _RTA_PREF}


class Address(Record):
    """An address of an interface, as `ip address` shows it.

    `address` is in canonical text form (inet_ntop(3)): the interface's own address, not the
    peer's. `prefix` is in bits, `index` is the number of the interface called `interface`.
    """

    family: str
    address: str
    prefix: int
    interface: str
    index: int


class PolicyRule(Record):
    """A policy rule, as `ip rule` shows it: packets whose mark, under `mask`, is `mark` use `table`.

    A rule that does not look at marks has `mark` 0 and `mask` 0. Rules with a lower `priority`
    number are asked first. `plain` is True if the rule has nothing else: it looks up a table, has no
    further selector, option or flag, and names no originator (`protocol`).
    """

    family: str
    mark: int
    mask: int
    table: int
    priority: int
    plain: bool


class Route(Record):
    """A route of a routing table, as `ip route show table` shows it.

    `kind` is the rtm_type of rtnetlink(7): 1 unicast, 2 local, 6 blackhole and so on.
    `destination` is an address in canonical text form with `prefix` bits, None for the default
    route. `interface` is None where the route has no single one (multipath, blackhole). `plain`
    is True if the route is what `ip route add local default dev IF` makes and nothing more.
    `usual_metric` is True if it has the metric of a route that was added without one.
    """

    family: str
    table: int
    kind: int
    destination: str | None
    prefix: int
    interface: str | None
    plain: bool
    usual_metric: bool = True


# --- addresses ------------------------------------------------------------------------------


def addresses() -> tuple[Address, ...]:
    """Return every address of every interface, IPv4 before IPv6, each in the kernel's order.

    Where IPv6 is off there are no IPv6 addresses. Needs no privilege.
    Like `ip address show`; RTM_GETADDR in rtnetlink(7). Raises NetlinkError.
    """
    family_of = {number: family for family, number in ADDRESS_FAMILIES.items()}
    names: dict[int, str | None] = {}
    found = []
    # For all families the kernel goes through them by number, so IPv4 comes first.
    for payload in dump("list addresses", NETLINK_ROUTE, _RTM_GETADDR, _ADDRESS_HEADER.pack(0, 0, 0, 0, 0)):
        number, prefix, _, _, index = _ADDRESS_HEADER.unpack_from(payload)
        if number not in family_of:
            continue
        attributes = parse_attributes(payload[_ADDRESS_HEADER.size :])
        # On a point-to-point link IFA_ADDRESS is that of the other end.
        own = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
        if index not in names:
            names[index] = _interface_name(index)
        name = names[index]
        if name is not None:  # else the interface was removed meanwhile, and its addresses with it
            found.append(Address(family_of[number], socket.inet_ntop(number, own), prefix, name, index))
    return tuple(found)


def add_address(family: str, address: str, prefix: int, interface: str, *, nodad: bool = False) -> None:
    """Give an interface an address; `nodad` leaves out IPv6 duplicate address detection.

    Without detection an IPv6 address can be used at once. Like `ip address add ADDRESS/PREFIX
    dev INTERFACE [nodad]`; ip-address(8). Raises NetlinkError: EEXIST if the interface has the
    address, ENODEV if there is no such interface, EACCES if IPv6 is off on it, EINVAL if the text
    is no address of that family, EPERM without CAP_NET_ADMIN.
    """
    operation = f"add address {address}/{prefix} to {interface}"
    flags = _IFA_F_NODAD if nodad else 0
    payload = _address_payload(operation, family, address, prefix, interface, flags)
    request(operation, _RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload)


def delete_address(family: str, address: str, prefix: int, interface: str) -> None:
    """Remove an address, with exactly this prefix length, from an interface.

    Like `ip address delete ADDRESS/PREFIX dev INTERFACE`; ip-address(8). Raises NetlinkError:
    EADDRNOTAVAIL if the interface has no such address, otherwise as add_address().
    """
    operation = f"delete address {address}/{prefix} from {interface}"
    request(operation, _RTM_DELADDR, 0, _address_payload(operation, family, address, prefix, interface, 0))


def _address_payload(
    operation: str, family: str, address: str, prefix: int, interface: str, flags: int
) -> bytes:
    number = ADDRESS_FAMILIES[family]
    try:
        own = socket.inet_pton(number, address)
    except OSError as error:
        raise refusal(errno.EINVAL, operation, f"not an {family} address") from error
    # iproute2's rule: 127.0.0.0/8 is only valid on this host, everything else anywhere.
    scope = _RT_SCOPE_HOST if family == "ipv4" and own[0] == 127 else _RT_SCOPE_UNIVERSE
    header = _ADDRESS_HEADER.pack(number, prefix, flags, scope, _interface_index(operation, interface))
    # Only with both does the kernel compare the prefix length too when it deletes.
    return header + pack_attribute(_IFA_LOCAL, own) + pack_attribute(_IFA_ADDRESS, own)


# --- policy rules ---------------------------------------------------------------------------


def policy_rules(family: str) -> tuple[PolicyRule, ...]:
    """Return every policy rule of a family, in the order in which the kernel asks them.

    A family that the kernel does not have has no rules. Needs no privilege.
    Like `ip [-6] rule show`; linux/fib_rules.h. Raises NetlinkError.
    """
    number = ADDRESS_FAMILIES[family]
    header = _ROUTE_HEADER.pack(number, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        payloads = dump(f"list {family} policy rules", NETLINK_ROUTE, _RTM_GETRULE, header)
    except NetlinkError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return ()
        raise
    return tuple([_policy_rule(family, payload) for payload in payloads])


def add_policy_rule(family: str, mark: int, table: int) -> None:
    """Let packets that carry exactly `mark` use routing table `table`.

    The kernel chooses the priority: just before the first rule that has one. So every rule is a different
    one, and adding it twice gives two rules and no EEXIST; look first. A mark of
    0 makes a rule for all packets. Like `ip [-6] rule add fwmark MARK lookup TABLE`; ip-rule(8).
    Raises NetlinkError: EPERM without CAP_NET_ADMIN, EAFNOSUPPORT if the kernel does not have the
    family.
    """
    header = _ROUTE_HEADER.pack(ADDRESS_FAMILIES[family], 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    payload = header + pack_u32(_FRA_FWMARK, mark) + pack_u32(_FRA_TABLE, table)
    operation = f"add {family} policy rule fwmark {mark:#x} lookup {table}"
    request(operation, _RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, payload)


def delete_policy_rule(rule: PolicyRule) -> None:
    """Remove a plain policy rule (ValueError if it is not plain), found by all of its parts.

    Like `ip [-6] rule delete fwmark MARK/MASK lookup TABLE priority PRIORITY`; ip-rule(8).
    Raises NetlinkError: ENOENT if there is no such rule, ENOTUNIQ if the kernel would remove
    another one that has more selectors, EPERM without CAP_NET_ADMIN.
    """
    if not rule.plain:
        raise ValueError(f"the kernel cannot be told to delete only this rule: {rule}")
    text = f"fwmark {rule.mark:#x}/{rule.mask:#x} lookup {rule.table} priority {rule.priority}"
    operation = f"delete {rule.family} policy rule {text}"
    # The kernel does not compare what is absent from a request, or zero.
    matching = [
        other
        for other in policy_rules(rule.family)
        if (other.priority, other.table) == (rule.priority, rule.table)
        and rule.mark in (0, other.mark)
        and rule.mask in (0, other.mask)
    ]
    _refuse_another(operation, rule, matching)
    payload = (
        _ROUTE_HEADER.pack(ADDRESS_FAMILIES[rule.family], 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
        + pack_u32(_FRA_FWMARK, rule.mark)
        + pack_u32(_FRA_FWMASK, rule.mask)
        + pack_u32(_FRA_TABLE, rule.table)
        + pack_u32(_FRA_PRIORITY, rule.priority)
    )
    request(operation, _RTM_DELRULE, 0, payload)


def _policy_rule(family: str, payload: bytes) -> PolicyRule:
    _, _, _, tos, _, _, _, action, flags = _ROUTE_HEADER.unpack_from(payload)
    attributes = parse_attributes(payload[_ROUTE_HEADER.size :])
    plain = (
        (tos, action, flags) == (0, _FR_ACT_TO_TBL, 0)
        and attributes.keys() <= _PLAIN_RULE
        and not any(attributes.get(_FRA_PROTOCOL, b""))
        and read_u32(attributes, _FRA_SUPPRESS_PREFIXLEN, _NO_SUPPRESSION) == _NO_SUPPRESSION
    )
    return PolicyRule(
        family=family,
        mark=read_u32(attributes, _FRA_FWMARK),
        mask=read_u32(attributes, _FRA_FWMASK),
        table=read_u32(attributes, _FRA_TABLE),
        priority=read_u32(attributes, _FRA_PRIORITY),
        plain=plain,
    )


# --- routes ---------------------------------------------------------------------------------


def routes(family: str, table: int) -> tuple[Route, ...]:
    """Return the routes of one routing table, in the kernel's order; none if there is no such table.

    A family that the kernel does not have has no routes. Needs no privilege.
    Like `ip [-6] route show table TABLE`; RTM_GETROUTE in rtnetlink(7). Raises NetlinkError.
    """
    number = ADDRESS_FAMILIES[family]
    header = _ROUTE_HEADER.pack(number, 0, 0, 0, 0, 0, 0, 0, 0)
    operation = f"list {family} routes of table {table}"
    try:
        payloads = dump(operation, NETLINK_ROUTE, _RTM_GETROUTE, header + pack_u32(_RTA_TABLE, table))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:  # a table exists as long as it has routes
            return ()
        raise
    # A kernel before 4.20 gives all tables, and one without the family gives the other families.
    found = [_route(family, payload) for payload in payloads if payload[0] == number]
    return tuple([route for route in found if route.table == table])


def add_local_default_route(family: str, table: int) -> None:
    """Let routing table `table` deliver every packet to this machine.

    Like `ip [-6] route add local default dev lo table TABLE`; ip-route(8). Raises NetlinkError:
    EEXIST if the table has a default route, EACCES if IPv6 is off on lo, EPERM without
    CAP_NET_ADMIN, EOPNOTSUPP if the kernel does not have the family.
    """
    operation = f"add {family} route local default dev lo to table {table}"
    payload = _local_default_payload(operation, family, table)
    request(operation, _RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload)


def delete_local_default_route(family: str, table: int) -> None:
    """Remove what add_local_default_route() makes, and nothing else.

    Like `ip [-6] route delete local default dev lo table TABLE`; ip-route(8). Raises
    NetlinkError: ESRCH if there is no such route, ENOTUNIQ if there is another default route to
    lo that the kernel might remove instead, EPERM without CAP_NET_ADMIN.
    """
    operation = f"delete {family} route local default dev lo from table {table}"
    wanted = Route(family, table, RTN_LOCAL, None, 0, "lo", True)
    # IPv4 does not compare the source address of a route, nor IPv6 whether it is a local one.
    matching = [r for r in routes(family, table) if r.destination is None and r.interface == "lo"]
    _refuse_another(operation, wanted, matching)
    request(operation, _RTM_DELROUTE, 0, _local_default_payload(operation, family, table))


def route_to(family: str, address: str) -> str | None:
    """Return the name of the interface by which an address is reached, None if no route leads there.

    Like `ip route get ADDRESS`. Needs no privilege; sends nothing. Raises NetlinkError.
    """
    number = ADDRESS_FAMILIES[family]
    packed = socket.inet_pton(number, address)
    header = _ROUTE_HEADER.pack(number, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    payload = header + pack_attribute(_RTA_DST, packed)
    try:
        answers = ask("find the route", NETLINK_ROUTE, _RTM_GETROUTE, payload)
    except NetlinkError as error:
        # The errors for blackhole, prohibit and throw routes, and for no route at all (ip-route(8)).
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAGAIN):
            return None
        raise
    for answer in answers:
        kind = _ROUTE_HEADER.unpack_from(answer)[7]
        index = read_u32(parse_attributes(answer[_ROUTE_HEADER.size :]), _RTA_OIF)
        if kind in (_RTN_UNICAST, RTN_LOCAL) and index:
            return socket.if_indextoname(index)
    return None


def _local_default_payload(operation: str, family: str, table: int) -> bytes:
    scope = _RT_SCOPE_HOST if family == "ipv4" else _RT_SCOPE_UNIVERSE  # IPv6 has no other
    return (
        _ROUTE_HEADER.pack(ADDRESS_FAMILIES[family], 0, 0, 0, 0, _RTPROT_BOOT, scope, RTN_LOCAL, 0)
        + pack_u32(_RTA_TABLE, table)
        + pack_u32(_RTA_OIF, _interface_index(operation, "lo"))
    )


def _route(family: str, payload: bytes) -> Route:
    number, prefix, _, tos, _, protocol, _, kind, flags = _ROUTE_HEADER.unpack_from(payload)
    attributes = parse_attributes(payload[_ROUTE_HEADER.size :])
    cache_information = attributes.get(_RTA_CACHEINFO, b"")
    usual_metric = read_u32(attributes, _RTA_PRIORITY) == _DEFAULT_METRIC[family]
    plain = (
        (tos, protocol, kind, flags) == (0, _RTPROT_BOOT, RTN_LOCAL, 0)
        and attributes.keys() <= _PLAIN_ROUTE
        and usual_metric
        and not any(attributes.get(_RTA_PREF, b""))
        and not any(cache_information[8:12])  # rta_expires: the route is removed by itself
    )
    return Route(
        family=family,
        table=read_u32(attributes, _RTA_TABLE),
        kind=kind,
        destination=socket.inet_ntop(number, attributes[_RTA_DST]) if prefix else None,
        prefix=prefix,
        interface=_interface_name(read_u32(attributes, _RTA_OIF)) if _RTA_OIF in attributes else None,
        plain=plain,
        usual_metric=usual_metric,
    )


# --- interfaces -----------------------------------------------------------------------------


def _interface_name(index: int) -> str | None:
    """Return the name of the interface with this index, None if there is none (any more)."""
    try:
        return socket.if_indextoname(index)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise refusal(error.errno or errno.EIO, f"name interface {index}") from error


def _interface_index(operation: str, name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:  # without an errno before Python 3.14
        raise refusal(errno.ENODEV, operation, f"interface {name}") from error


def _refuse_another(operation: str, wanted: Record, matching: Sequence[Record]) -> None:
    """Raise ENOTUNIQ if the first match, which the kernel would delete, is another object."""
    if matching and matching[0] != wanted:
        raise refusal(errno.ENOTUNIQ, operation, f"the kernel would delete {matching[0]}")
