"""raw: the raw table: conntrack zones for redirected DNS over UDP.

The application's query and the agent's own query to the same server may have the same
addresses and ports. Tracked in one zone they would be one connection, and the answer to the
agent would be translated as if it were for the application. Zone 1 is the agent with its DNS
servers, zone 2 the application with the agent.

Zone 1 takes more than that: every answer from port 53 that comes in. The answer to a query that was forwarded
for a container behind this network namespace then misses its connection, which is in zone 0, and is not
translated back. So with `dns_single_zone` only the application's DNS has a zone of its own, and the agent
stays in zone 0: one zone apart is enough for two connections.
"""

from __future__ import annotations

from ..rules import istio
from ..rules.istio import DNS_AGENT_PORT, DNS_PORT
from ..rules.model import RETURN, Chain, ConntrackZone, Destination, Jump, Rule, Source
from . import listed
from .terms import UDP, from_port, proxy_groups, proxy_users, to_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family
    from ..settings.config import Config

_AGENT_ZONE = ConntrackZone(1)
_APPLICATION_ZONE = ConntrackZone(2)
_QUERY = (UDP, to_port(DNS_PORT))
_ANSWER = (UDP, from_port(DNS_PORT))


def chains(config: Config, family: Family) -> tuple[Chain, ...]:
    """Return the chains of the table for one family: none unless DNS is redirected."""
    if not config.redirect_dns:
        return ()
    if config.dns_single_zone:
        return _output(), _output_dns(config, family)
    return (
        _prerouting(config, family),
        _inbound(config, family),
        _output(),
        _output_dns(config, family),
    )


def _prerouting(config: Config, family: Family) -> Chain:
    if not config.captures_dns(family):
        return Chain("PREROUTING")
    rule = Rule((), Jump(istio.INBOUND), "answers of DNS servers have a zone of their own")
    return Chain("PREROUTING", (rule,))


def _inbound(config: Config, family: Family) -> Chain:
    """Answers that come in from DNS servers."""
    if config.captures_dns(family) and config.capture_all_dns:
        rule = Rule(_ANSWER, _AGENT_ZONE, "answers of DNS servers are for the agent")
        return Chain(istio.INBOUND, (rule,))
    return Chain(
        istio.INBOUND,
        tuple(
            Rule(
                (*_ANSWER, Source(server)),
                _AGENT_ZONE,
                f"answers of {server} are for the agent",
                listed.DNS_SERVERS_ANSWERING,
            )
            for server in config.dns_servers_of(family)
        ),
    )


def _output() -> Chain:
    return Chain("OUTPUT", (Rule((), Jump(istio.OUTPUT_DNS), "DNS that processes here send"),))


def _output_dns(config: Config, family: Family) -> Chain:
    """Queries and answers that processes of this machine send."""
    rules = []
    for owner, name in (*proxy_users(config), *proxy_groups(config)):
        zone = RETURN if config.dns_single_zone else _AGENT_ZONE
        rules.append(Rule((*_QUERY, owner), zone, f"queries of the agent itself ({name})"))
        answer = (UDP, from_port(DNS_AGENT_PORT), owner)
        rules.append(Rule(answer, _APPLICATION_ZONE, f"the agent ({name}) answers the application"))
    if config.capture_all_dns:
        rules.append(Rule(_QUERY, _APPLICATION_ZONE, "queries of the application"))
    else:
        rules += [
            Rule(
                (*_QUERY, Destination(server)), _APPLICATION_ZONE, f"queries to {server}", listed.DNS_SERVERS
            )
            for server in config.dns_servers_of(family)
        ]
    return Chain(istio.OUTPUT_DNS, tuple(rules))
