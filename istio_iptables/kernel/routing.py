"""routing: the addresses, routing rules and routes besides the rules, read and made by rtnetlink(7)."""

from __future__ import annotations

import errno
import os

from ..errors import KernelError
from ..rules.istio import AMBIENT_LOOKUP, TPROXY_MARK, TPROXY_ROUTE_TABLE
from ..rules.model import FAMILIES, FULL_MASK, Cidr, LocalAddress, LocalDefaultRoute, MarkLookup
from .netlink import routing
from .proc import root_remedy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from ..rules.model import Family, RoutingObject

    class Routing(Protocol):
        """What a Machine needs: the functions of this module."""

        def read(
            self, passthrough: Cidr, marks: Iterable[int], lookups: Iterable[tuple[int, int]], /
        ) -> tuple[RoutingObject, ...]:
            """Return the addresses, routing rules and routes that are owned."""

        def ambient_rules(self) -> tuple[str, ...]:
            """Return the routing rules of Istio's ambient mode, as ip(8) has them."""

        def own_addresses(self) -> tuple[Cidr, ...] | None:
            """Return the addresses of this network namespace, None if they are not known."""

        def forwards(self) -> bool:
            """Tell whether packets of others are forwarded."""

        def add(self, item: RoutingObject, /) -> None:
            """Make one. Raises KernelError."""

        def exists(self, item: RoutingObject, /) -> bool:
            """Tell whether one is there. Raises OSError."""

        def remove(self, item: RoutingObject, /) -> None:
            """Remove one. Raises KernelError."""


#: Errors for something that does not exist, which is what removing it wants.
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL})

#: The mark and the table that this tool uses by default.
DEFAULT_LOOKUP = (TPROXY_MARK, TPROXY_ROUTE_TABLE)


def read(
    passthrough: Cidr, marks: Iterable[int], lookups: Iterable[tuple[int, int]]
) -> tuple[RoutingObject, ...]:
    """Return the owned objects that exist, and nothing that may be foreign.

    `passthrough` is the IPv6 address that this tool adds. A routing rule is owned in three cases. Its mark
    and table are one of `lookups` (the settings of this run). Or it leads to the default table, which
    delivers locally, from the default mark or a mark of live owned rules (`marks`). Or, for a mark of `marks`
    that has no such rule, it leads to a table that only delivers locally. A route is owned if it is the local
    default route of such a table.
    """
    found: list[RoutingObject] = []
    for address in routing.addresses():
        is_owned = address.family == "ipv6" and (address.prefix, address.interface) == (
            passthrough.prefix,
            "lo",
        )
        if is_owned and f"{address.address}/{address.prefix}" == str(passthrough):
            found.append(LocalAddress(passthrough))
    usual = {DEFAULT_LOOKUP, *((mark, DEFAULT_LOOKUP[1]) for mark in marks)}
    for family in FAMILIES:
        found += _owned_lookups(family, frozenset(marks), frozenset(lookups), usual)
    return tuple(found)


def ambient_rules() -> tuple[str, ...]:
    """Return the routing rules of Istio's ambient mode, as ip(8) has them. Raises OSError."""
    return tuple(
        f"{family} ip rule fwmark {rule.mark:#x}/{rule.mask:#x} pref {rule.priority} lookup {rule.table}"
        for family in FAMILIES
        for rule in routing.policy_rules(family)
        if (rule.mark, rule.mask, rule.priority, rule.table) == AMBIENT_LOOKUP
    )


def own_addresses() -> tuple[Cidr, ...]:
    """Return the addresses of this network namespace, as host routes. Raises OSError."""
    return tuple(Cidr.from_ipaddress(address.address) for address in routing.addresses())


def forwards() -> bool:
    """Tell whether this network namespace forwards packets (sysctl ip_forward, and forwarding of IPv6)."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        try:
            with open(f"/proc/sys/net/{name}", encoding="ascii") as file:
                if file.read().strip() != "0":
                    return True
        except OSError:
            continue
    return False


def _owned_lookups(
    family: Family, marks: frozenset[int], wanted: frozenset[tuple[int, int]], usual: set[tuple[int, int]]
) -> list[RoutingObject]:
    pairs = dict.fromkeys(
        (rule.mark, rule.table)
        for rule in routing.policy_rules(family)
        if rule.plain and rule.mask == FULL_MASK
    )
    usual_are_owned = _delivers_locally(family, DEFAULT_LOOKUP[1])
    owned = [pair for pair in pairs if pair in wanted or (pair in usual and usual_are_owned)]
    known_marks = {mark for mark, _ in owned}
    owned += [
        (mark, table)
        for mark, table in pairs
        if mark in marks - known_marks and _delivers_locally(family, table, only=True)
    ]
    tables = sorted({table for _, table in (*wanted, *usual, *owned)})
    return [
        *(MarkLookup(family, mark, table) for mark, table in owned),
        *(LocalDefaultRoute(family, table) for table in tables if _delivers_locally(family, table)),
    ]


def _delivers_locally(family: Family, table: int, *, only: bool = False) -> bool:
    """Tell whether a table has the route `local default dev lo`, and with `only` no other."""
    routes = routing.routes(family, table)
    found = any(
        route.plain
        and route.kind == routing.RTN_LOCAL
        and route.destination is None
        and route.interface == "lo"
        for route in routes
    )
    return found and (len(routes) == 1 or not only)


def add(item: RoutingObject) -> None:
    """Make an address, routing rule or route. Raises KernelError, also if another one is in its place."""
    try:
        if isinstance(item, LocalAddress):
            address, _, _ = str(item.cidr).partition("/")
            routing.add_address(item.family, address, item.cidr.prefix, "lo", nodad=True)
        elif isinstance(item, MarkLookup):
            routing.add_policy_rule(item.family, item.mark, item.table)
        else:
            routing.add_local_default_route(item.family, item.table)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise _in_the_way(item) from error
        raise _failed(item, error) from error


def exists(item: RoutingObject) -> bool:
    """Tell whether an address, routing rule or route is there. Raises OSError."""
    if isinstance(item, LocalAddress):
        return any(
            (address.interface, f"{address.address}/{address.prefix}") == ("lo", str(item.cidr))
            for address in routing.addresses()
        )
    if isinstance(item, MarkLookup):
        return any(
            rule.plain and (rule.mark, rule.mask, rule.table) == (item.mark, FULL_MASK, item.table)
            for rule in routing.policy_rules(item.family)
        )
    return _delivers_locally(item.family, item.table)


def obstacle(item: RoutingObject) -> KernelError | None:
    """Return the error that `add` would raise, as far as reading tells, None if nothing is in the way.

    Raises OSError if it cannot be read.
    """
    if isinstance(item, LocalAddress):
        if item.family == "ipv6" and _ipv6_is_off_for_lo():
            return _failed(item, OSError(errno.EACCES, f"{item}: {os.strerror(errno.EACCES)}"))
        wanted = str(item.cidr).partition("/")
        of_lo = [each for each in routing.addresses() if each.interface == "lo"]
        prefixes = [each.prefix for each in of_lo if each.address == wanted[0]]
        return _in_the_way(item) if prefixes and int(wanted[2]) not in prefixes else None
    if isinstance(item, LocalDefaultRoute):
        there = routing.routes(item.family, item.table)
        # The kernel compares destination and metric (NLM_F_EXCL).
        others = [each for each in there if each.destination is None and each.usual_metric and not each.plain]
        return _in_the_way(item) if others and not _delivers_locally(item.family, item.table) else None
    return None


def _ipv6_is_off_for_lo() -> bool:
    """Tell whether the kernel has no IPv6, or not for the loopback interface."""
    try:
        with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", encoding="ascii") as file:
            return file.read().strip() == "1"
    except FileNotFoundError:
        return True


def _in_the_way(item: RoutingObject) -> KernelError:
    """Return the error for another address or route where an owned one has to be."""
    from ..remedies import address_in_the_way, route_in_the_way

    if isinstance(item, LocalAddress):
        address = str(item.cidr).partition("/")[0]
        return address_in_the_way(address, item.cidr)
    return route_in_the_way(item.table, item.family)


def remove(item: RoutingObject) -> None:
    """Remove an address, every such routing rule, or a route. Raises KernelError."""
    try:
        if isinstance(item, LocalAddress):
            address, _, _ = str(item.cidr).partition("/")
            routing.delete_address(item.family, address, item.cidr.prefix, "lo")
        elif isinstance(item, MarkLookup):
            for rule in routing.policy_rules(item.family):
                if rule.plain and (rule.mark, rule.mask, rule.table) == (item.mark, FULL_MASK, item.table):
                    routing.delete_policy_rule(rule)
        else:
            routing.delete_local_default_route(item.family, item.table)
    except OSError as error:
        if error.errno not in _GONE:
            raise _failed(item, error) from error


def _failed(item: RoutingObject, error: OSError) -> KernelError:
    from .. import remedies

    if remedies.is_scarce(error.errno):
        remedy = remedies.of_errno(error.errno)
    elif error.errno == errno.EPERM:
        remedy = root_remedy("NET_ADMIN")
    elif item.family == "ipv6" and not os.path.exists("/proc/sys/net/ipv6"):
        remedy = remedies.NO_IPV6
    elif item.family == "ipv6" and isinstance(item, LocalAddress) and error.errno == errno.EACCES:
        remedy = remedies.IPV6_OFF
    else:
        remedy = remedies.of_errno(error.errno)
    return KernelError(error.strerror or str(error), remedy)
