"""What the rules rely on beside themselves: policy routing for TPROXY, an address for IPv6."""

from __future__ import annotations

from ..ruleset import LocalAddress, LocalDefaultRoute, MarkLookup
from .vocabulary import PASSTHROUGH_IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..config import Config
    from ..ruleset import NetworkObject


def objects(config: Config) -> tuple[NetworkObject, ...]:
    """Return the addresses, rules and routes of all families that are on.

    IPv4 needs no address: all of 127.0.0.0/8 is the loopback interface's. Of IPv6 only ::1 is, so
    the address that the proxy calls the application from has to be there.
    """
    wanted: list[NetworkObject] = []
    if config.ipv6:
        wanted.append(LocalAddress(PASSTHROUGH_IPV6))
    if config.tproxy and config.captures_inbound:
        for family in config.families:
            wanted.append(MarkLookup(family, config.tproxy_mark, config.tproxy_route_table))
            wanted.append(LocalDefaultRoute(family, config.tproxy_route_table))
    return tuple(wanted)
