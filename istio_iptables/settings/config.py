"""config: everything that the rules depend on, checked and parsed. The policy reads it.

A Config holds values (ports, CIDRs, numeric users), never the text that a user wrote. What depends on the
machine (is IPv6 captured, which DNS servers are there) was decided when it was made. This package makes
it; nothing that reads it knows about flags.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from ..rules.model import Cidr, Family, PortRange


class Everything(Record):
    """The wildcard `*` of a list: all there are, as opposed to a tuple of members."""


ALL = Everything()

#: The interception mode of a pod that captures nothing: there is no Config for it.
NO_INTERCEPTION = "NONE"

if TYPE_CHECKING:
    InterceptionMode: TypeAlias = Literal["REDIRECT", "TPROXY"]
    Ports: TypeAlias = Everything | tuple[PortRange, ...]
    Cidrs: TypeAlias = Everything | tuple[Cidr, ...]
    Groups: TypeAlias = Everything | tuple[int, ...]


class Config(Record):
    """What to capture and what to leave alone. Make one with `istio_iptables.configure()`.

    Ports are 1 to 65535. Users and groups are numeric IDs. A list of CIDRs has those of both families (the
    rules of a family use its own).
    """

    outbound_port: int
    inbound_port: int
    tunnel_port: int
    proxy_uids: tuple[int, ...]
    proxy_gids: tuple[int, ...]
    interception_mode: InterceptionMode
    inbound_ports: Ports
    inbound_ports_excluded: tuple[PortRange, ...]
    interfaces_excluded: tuple[str, ...]
    outbound_cidrs: Cidrs
    #: True if the list of captured destinations names a loopback address: then the proxy's own traffic over
    #: the loopback interface is to be captured too.
    outbound_cidrs_name_loopback: bool
    outbound_cidrs_excluded: tuple[Cidr, ...]
    outbound_ports: tuple[PortRange, ...]
    outbound_ports_excluded: tuple[PortRange, ...]
    rerouted_interfaces: tuple[str, ...]
    tproxy_mark: int
    tproxy_route_table: int
    redirect_dns: bool
    capture_all_dns: bool
    dns_servers: tuple[Cidr, ...]
    #: Only the application's DNS gets a conntrack zone of its own: forwarded DNS then gets its answers.
    dns_single_zone: bool
    drop_invalid: bool
    owner_groups: Groups
    owner_groups_excluded: tuple[int, ...]
    ipv4_loopback: Cidr
    ipv6: bool
    rule_comments: bool
    #: Fewer rules for lists: joined ports and merged CIDRs, with the same verdicts.
    compact: bool

    @property
    def tproxy(self) -> bool:
        """True if inbound traffic is captured by TPROXY rather than REDIRECT."""
        return self.interception_mode == "TPROXY"

    @property
    def captures_inbound(self) -> bool:
        """True if any inbound port is to be captured."""
        return self.inbound_ports != ()

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that get rules: IPv4 always, IPv6 when it is on."""
        return (IPV4, IPV6) if self.ipv6 else (IPV4,)

    def captures_dns(self, family: Family) -> bool:
        """Tell whether DNS queries of that family are sent to the agent."""
        return self.redirect_dns and (self.capture_all_dns or bool(self.dns_servers_of(family)))

    def dns_servers_of(self, family: Family) -> tuple[Cidr, ...]:
        """Return the DNS servers of one family as host routes."""
        return tuple(server for server in self.dns_servers if server.family == family)
