"""terms: what the policy's chains are written in: addresses, ports and short names for matches."""

from __future__ import annotations

from ..rules.istio import PASSTHROUGH_IPV4, PASSTHROUGH_IPV6
from ..rules.model import (
    IPV4,
    RETURN,
    Cidr,
    Destination,
    DestinationPort,
    GidOwner,
    InInterface,
    OutInterface,
    PortRange,
    Rule,
    SourcePort,
    Transport,
    UidOwner,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family, Match
    from ..settings.config import Config

IPV6_LOOPBACK = Cidr(6, 1, 128)

TCP = Transport("tcp")
UDP = Transport("udp")
FROM_LOOPBACK = InInterface("lo")
TO_LOOPBACK = OutInterface("lo")


def loopback(config: Config, family: Family) -> Cidr:
    """Return the loopback CIDR of a family."""
    return config.ipv4_loopback if family == IPV4 else IPV6_LOOPBACK


def passthrough_source(family: Family) -> Cidr:
    """Return the address that Envoy binds to when it calls the application."""
    return PASSTHROUGH_IPV4 if family == IPV4 else PASSTHROUGH_IPV6


def to_port(port: int, *, negated: bool = False) -> DestinationPort:
    """Match one destination port."""
    return DestinationPort(PortRange(port, port), negated)


def from_port(port: int) -> SourcePort:
    """Match one source port."""
    return SourcePort(PortRange(port, port))


def to_cidr(cidr: Cidr) -> tuple[Destination, ...]:
    """Match a destination CIDR; /0 is every packet and needs no match."""
    return () if cidr.is_everything else (Destination(cidr),)


def received_on(interface: str) -> tuple[InInterface, ...]:
    """Match the incoming interface; the lone wildcard is every interface and needs no match."""
    return () if interface == "+" else (InInterface(interface),)


def sent_to(interface: str) -> tuple[OutInterface, ...]:
    """Match the outgoing interface; the lone wildcard is every interface and needs no match."""
    return () if interface == "+" else (OutInterface(interface),)


def proxy_users(config: Config) -> list[tuple[UidOwner, str]]:
    """Return a match for each UID of the proxy, with its name."""
    return [(UidOwner(uid), f"UID {uid}") for uid in config.proxy_uids]


def proxy_groups(config: Config) -> list[tuple[GidOwner, str]]:
    """Return a match for each GID of the proxy, with its name."""
    return [(GidOwner(gid), f"GID {gid}") for gid in config.proxy_gids]


def excluded_interfaces_inbound(config: Config) -> list[Rule]:
    """Return the rules that leave traffic from excluded interfaces alone (nat and mangle)."""
    return [
        Rule(
            received_on(interface),
            RETURN,
            f"traffic from interface {interface} is excluded",
        )
        for interface in config.interfaces_excluded
    ]


def excluded_interfaces_outbound(config: Config) -> list[Rule]:
    """Return the rules that leave traffic to excluded interfaces alone (nat and mangle)."""
    return [
        Rule(sent_to(interface), RETURN, f"traffic to interface {interface} is excluded")
        for interface in config.interfaces_excluded
    ]


def all_of(*matches: Match | tuple[Match, ...]) -> tuple[Match, ...]:
    """Join matches, and tuples of matches that may be empty, into one tuple."""
    joined: list[Match] = []
    for match in matches:
        if isinstance(match, tuple):
            joined.extend(match)
        else:
            joined.append(match)
    return tuple(joined)
