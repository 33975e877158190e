"""routing: what the rules rely on besides themselves: policy routing for TPROXY, an address for IPv6."""

from __future__ import annotations

from ..rules.istio import PASSTHROUGH_IPV6
from ..rules.model import LocalAddress, LocalDefaultRoute, MarkLookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import RoutingObject
    from ..settings.config import Config


def objects(config: Config) -> tuple[RoutingObject, ...]:
    """Return the addresses, rules and routes of all families that are on.

    IPv4 needs no address: the loopback interface has all of 127.0.0.0/8. Of IPv6 it has only ::1, so
    the address that the proxy calls the application from has to be added.
    """
    wanted: list[RoutingObject] = []
    if config.ipv6:
        wanted.append(LocalAddress(PASSTHROUGH_IPV6))
    if config.tproxy and config.captures_inbound:
        for family in config.families:
            wanted.append(MarkLookup(family, config.tproxy_mark, config.tproxy_route_table))
            wanted.append(LocalDefaultRoute(family, config.tproxy_route_table))
    return tuple(wanted)
