"""nat: the nat table, which decides which new connections go to the proxy.

A connection's first packet meets PREROUTING when it comes in and OUTPUT when a process of
this machine makes it; what nat decides then holds for the whole connection.
"""

from __future__ import annotations

from ..rules import istio
from ..rules.istio import DNS_AGENT_PORT, DNS_PORT
from ..rules.model import (
    RETURN,
    Chain,
    Cidr,
    Destination,
    DestinationPort,
    DestinationPorts,
    GidOwner,
    Jump,
    PortRange,
    Redirect,
    Rule,
    Source,
)
from ..settings.config import Everything
from . import listed
from .terms import (
    TCP,
    TO_LOOPBACK,
    UDP,
    all_of,
    excluded_interfaces_inbound,
    excluded_interfaces_outbound,
    loopback,
    passthrough_source,
    proxy_groups,
    proxy_users,
    received_on,
    to_cidr,
    to_port,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family, Match, UidOwner
    from ..settings.config import Config


def chains(config: Config, family: Family) -> tuple[Chain, ...]:
    """Return the chains of the table for one family; some may be empty."""
    return (
        _prerouting(config, family),
        _inbound(config),
        _in_redirect(config),
        _output(config),
        _istio_output(config, family),
        _output_dns(config, family),
        _redirect(config),
    )


def _prerouting(config: Config, family: Family) -> Chain:
    """Packets that come in from an interface, before routing."""
    interfaces = tuple(reversed(config.rerouted_interfaces))
    head = [
        Rule(
            all_of(received_on(interface), to_cidr(cidr)),
            Jump(istio.REDIRECT),
            f"what the virtual machine behind {interface} sends is outbound traffic",
            listed.DESTINATIONS,
        )
        for cidr in reversed(_captured_cidrs(config, family))
        for interface in interfaces
    ]
    head += [
        Rule(
            received_on(interface),
            RETURN,
            f"nothing that the virtual machine behind {interface} sends is inbound traffic",
        )
        for interface in interfaces
    ]
    rules = excluded_interfaces_inbound(config)
    if config.captures_inbound and not config.tproxy:
        rules.append(Rule((TCP,), Jump(istio.INBOUND), "TCP that comes in may be for the proxy"))
    return Chain("PREROUTING", tuple(rules), tuple(head))


def _inbound(config: Config) -> Chain:
    """TCP that comes in; in TPROXY mode mangle decides and nothing jumps here."""
    rules = [
        Rule(
            (TCP, to_port(config.tunnel_port)),
            RETURN,
            "the proxy itself listens on the HBONE tunnel port",
        )
    ]
    if not config.tproxy:
        rules += _inbound_capture(config)
    return Chain(istio.INBOUND, tuple(rules))


def _inbound_capture(config: Config) -> list[Rule]:
    to_proxy = Jump(istio.IN_REDIRECT)
    if not isinstance(config.inbound_ports, Everything):
        return [
            Rule(
                (TCP, DestinationPort(ports)),
                to_proxy,
                f"inbound port {ports} is captured",
                listed.INBOUND_PORTS,
            )
            for ports in config.inbound_ports
        ]
    rules = [
        Rule(
            (TCP, DestinationPort(ports)),
            RETURN,
            f"inbound port {ports} is excluded",
            listed.INBOUND_PORTS_EXCLUDED,
        )
        for ports in config.inbound_ports_excluded
    ]
    rules.append(Rule((TCP,), to_proxy, "all other inbound TCP is captured"))
    return rules


def _in_redirect(config: Config) -> Chain:
    """The way to the proxy's inbound listener."""
    target = Redirect(config.inbound_port)
    return Chain(istio.IN_REDIRECT, (Rule((TCP,), target, "to the proxy's inbound listener"),))


def _redirect(config: Config) -> Chain:
    """The way to the proxy's outbound listener."""
    target = Redirect(config.outbound_port)
    return Chain(istio.REDIRECT, (Rule((TCP,), target, "to the proxy's outbound listener"),))


def _output(config: Config) -> Chain:
    """Packets of this machine's own processes."""
    rules = excluded_interfaces_outbound(config)
    rules.append(Rule((), Jump(istio.OUTPUT), "what processes here send may be for the proxy"))
    return Chain("OUTPUT", tuple(rules))


def _istio_output(config: Config, family: Family) -> Chain:
    """The sender decides first, the destination second."""
    rules = _outbound_ports_excluded(config)
    rules.append(
        Rule(
            (TO_LOOPBACK, Source(passthrough_source(family))),
            RETURN,
            "the proxy hands inbound traffic to the application from this address",
        )
    )
    rules += _proxy_traffic(config, family)
    rules += _owner_groups(config)
    if config.captures_dns(family):
        rules.append(Rule((), Jump(istio.OUTPUT_DNS), "DNS queries are for the agent"))
    rules.append(
        Rule(
            (Destination(loopback(config, family)),),
            RETURN,
            "what the application sends to itself over loopback stays local",
        )
    )
    rules += _by_destination(config, family)
    return Chain(istio.OUTPUT, tuple(rules))


def _outbound_ports_excluded(config: Config) -> list[Rule]:
    return [
        Rule(
            (transport, DestinationPort(ports)),
            RETURN,
            f"outbound port {ports} is excluded",
            listed.OUTBOUND_PORTS_EXCLUDED,
        )
        for ports in config.outbound_ports_excluded
        for transport in (TCP, UDP)
    ]


def _proxy_traffic(config: Config, family: Family) -> list[Rule]:
    """Leave the proxy's own traffic alone, or it would be sent back to the proxy forever.

    Users come before groups: in TPROXY mode the proxy runs as root with the proxy's group.
    """
    rules: list[Rule] = []
    for user, name in proxy_users(config):
        not_to = to_port(config.tunnel_port, negated=True)
        without_dns = DestinationPorts((_port(DNS_PORT), _port(config.tunnel_port)), negated=True)
        own_calls = without_dns if config.redirect_dns else not_to
        rules += _proxy_owner(config, family, user, name, own_calls)
    for group, name in proxy_groups(config):
        not_to = to_port(config.tunnel_port, negated=True)
        rules += _proxy_owner(config, family, group, name, not_to)
    return rules


def _proxy_owner(
    config: Config, family: Family, owner: UidOwner | GidOwner, name: str, own_calls: Match
) -> list[Rule]:
    rules = [
        Rule(
            (TO_LOOPBACK, Destination(loopback(config, family), negated=True), TCP, own_calls, owner),
            Jump(istio.IN_REDIRECT),
            f"the proxy ({name}) calls a service that this pod itself serves: its inbound side",
        )
    ]
    if not config.outbound_cidrs_name_loopback:
        over_dns = (TCP, to_port(DNS_PORT, negated=True)) if config.redirect_dns else ()
        rules.append(
            Rule(
                all_of(TO_LOOPBACK, over_dns, owner.replace(negated=True)),
                RETURN,
                f"the application (not {name}) calls itself by the pod's own address: stays local",
            )
        )
    rules.append(Rule((owner,), RETURN, f"the proxy's own traffic ({name}): never to itself again"))
    return rules


def _by_destination(config: Config, family: Family) -> list[Rule]:
    to_proxy = Jump(istio.REDIRECT)
    rules = [
        Rule(to_cidr(cidr), RETURN, f"destination {cidr} is excluded", listed.DESTINATIONS_EXCLUDED)
        for cidr in config.outbound_cidrs_excluded
        if cidr.family == family
    ]
    rules += [
        Rule(
            (TCP, DestinationPort(ports)),
            to_proxy,
            f"outbound port {ports} is captured",
            listed.OUTBOUND_PORTS,
        )
        for ports in config.outbound_ports
    ]
    everything = isinstance(config.outbound_cidrs, Everything)
    rules += [
        Rule(
            to_cidr(cidr),
            to_proxy,
            "all other outbound traffic is captured" if everything else f"destination {cidr} is captured",
            None if everything else listed.DESTINATIONS,
        )
        for cidr in _captured_cidrs(config, family)
    ]
    return rules


def _output_dns(config: Config, family: Family) -> Chain:
    """DNS queries of the application, to the agent's DNS server."""
    to_agent = Redirect(DNS_AGENT_PORT)
    rules: list[Rule] = []
    for transport in (TCP, UDP):
        if not config.captures_dns(family):
            break
        query = (transport, to_port(DNS_PORT))
        if config.capture_all_dns:
            rules.append(Rule(query, to_agent, f"all DNS over {transport.protocol} to the agent"))
            continue
        rules += [
            Rule(
                (*query, Destination(server)),
                to_agent,
                f"DNS server {server}: the agent answers",
                listed.DNS_SERVERS,
            )
            for server in config.dns_servers_of(family)
        ]
    return Chain(istio.OUTPUT_DNS, tuple(rules))


def _captured_cidrs(config: Config, family: Family) -> tuple[Cidr, ...]:
    if isinstance(config.outbound_cidrs, Everything):
        return (Cidr(4 if family == "ipv4" else 6, 0, 0),)
    return tuple(cidr for cidr in config.outbound_cidrs if cidr.family == family)


def _port(number: int) -> PortRange:
    return PortRange(number, number)


def _owner_groups(config: Config) -> list[Rule]:
    """Return the rules that leave traffic alone by the group of the sending process (nat)."""
    if isinstance(config.owner_groups, Everything):
        return [
            Rule((GidOwner(group),), RETURN, f"group {group} is excluded", listed.GROUPS_EXCLUDED)
            for group in config.owner_groups_excluded
        ]
    outside = tuple(GidOwner(group, negated=True) for group in config.owner_groups)
    return [Rule(outside, RETURN, "only the listed groups are captured")]
