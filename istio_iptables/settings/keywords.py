"""keywords: the settings as keyword arguments of `configure`, for editors and type checkers.

A test holds it equal to the table in declared.py. It imports typing, so nothing on the way of a plain call
imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal, TypeAlias, TypedDict

from ..rules.model import Cidr, PortRange
from .config import Everything

#: One port or range: 80, "8000-8100".
Port: TypeAlias = int | str | PortRange
#: Ports, or the text of a list as on the command line.
Ports: TypeAlias = Port | Sequence[Port]
#: A CIDR or an address. IPNetwork and IPAddress of netaddr are taken, too: netaddr has no types, so type
#: checkers let them through.
CidrLike: TypeAlias = (
    str | Cidr | IPv4Network | IPv6Network | IPv4Address | IPv6Address | IPv4Interface | IPv6Interface
)
Cidrs: TypeAlias = CidrLike | Sequence[CidrLike]
#: Users or groups, by number or name.
Ids: TypeAlias = int | str | Sequence[int | str]
Names: TypeAlias = str | Sequence[str]


class Settings(TypedDict, total=False):
    """The settings that a Config depends on, by keyword; see the flags in `istio-iptables --help`."""

    inbound_ports: Ports | Everything
    inbound_ports_excluded: Ports
    inbound_port: int | str
    tunnel_port: int | str
    interception_mode: Literal["REDIRECT", "TPROXY"]
    drop_invalid: bool
    outbound_port: int | str
    outbound_cidrs: Cidrs | Everything
    outbound_cidrs_excluded: Cidrs
    outbound_ports: Ports
    outbound_ports_excluded: Ports
    interfaces_excluded: Names
    rerouted_interfaces: Names
    owner_groups: Ids | Everything
    owner_groups_excluded: Ids
    ipv4_loopback: CidrLike
    proxy_uids: Ids
    proxy_gids: Ids
    proxy_user: str
    dual_stack: bool
    redirect_dns: bool
    capture_all_dns: bool
    dns_single_zone: bool
    tproxy_mark: int | str
    tproxy_route_table: int | str
    native_nftables: bool
    compact: bool
    rule_comments: bool
