"""intent: what the settings promise, in the words of SPEC 1 and 2, apart from how rules keep it.

Read each function from top to bottom: a packet is for the first clause whose condition it has. Where Istio's
own rules do something else than is said here, open_ends.py says what, and comes first.
"""

from __future__ import annotations

from ..interpreter.condition import ALWAYS, AllOf, AnyOf, Not
from ..interpreter.verdict import DIRECT, DROPPED, Verdict
from ..rules.istio import DNS_AGENT_PORT, DNS_PORT
from .bound import of_bound_sockets
from .clause import Clause
from .open_ends import open_ends
from .space import BEGINNINGS
from .terms import TCP_ONLY, Terms, port, ports
from .words import (
    dns_words,
    family_words,
    groups_words,
    inbound_words,
    listed,
    loopback_words,
    passthrough_words,
    proxy_words,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..interpreter.condition import Condition
    from ..interpreter.routing import Network
    from ..settings.config import Config
    from .proof import Promises
    from .space import Packets


def promised(config: Config, network: Network) -> Promises:
    """Return what settings promise for packets of a namespace with these addresses and routes."""

    def clauses(packets: Packets) -> tuple[Clause, ...]:
        terms = Terms(config, network, packets)
        if terms.family not in config.families:
            return tuple(_off(terms))
        begins = _sent if packets.direction == "out" else _received
        ways = begins if packets.phase in BEGINNINGS else _later
        return tuple(of_bound_sockets(terms, (*open_ends(terms), *ways(terms))))

    return clauses


def _clause(name: str, verdict: Verdict, says: str, *when: Condition) -> Clause:
    return Clause(name, AllOf(when), verdict, says)


def _off(terms: Terms) -> Iterator[Clause]:
    """A family that is off."""
    says = f"{family_words(terms.family)} is off: all of it passes unseen, sent or received, TCP and DNS too"
    yield _clause("family-off", DIRECT, says, ALWAYS)


def _sent(terms: Terms) -> Iterator[Clause]:
    """The first packet of a connection that a process of the pod makes."""
    config = terms.config
    to_proxy = Verdict("redirected", str(config.outbound_port))
    enters = Verdict("redirected", str(config.inbound_port))
    agent = Verdict("redirected", str(DNS_AGENT_PORT))
    proxy, loopback = proxy_words(config), loopback_words(config, terms.family)

    says = f"what leaves by {listed(config.interfaces_excluded)} is left alone (-c)"
    yield _clause("outbound-excluded", DIRECT, says, terms.by(config.interfaces_excluded))
    says = "what is sent and is neither TCP nor DNS is left alone"
    yield _clause("udp", DIRECT, says, Not(AnyOf((TCP_ONLY, terms.dns))))
    says = f"what goes to port {listed(config.outbound_ports_excluded)} is left alone (-o)"
    yield _clause("outbound-excluded", DIRECT, says, ports(config.outbound_ports_excluded))

    # The proxy
    says = f"what comes from {passthrough_words(terms.family)} over lo is for the application, and left alone"
    yield _clause("own-pod", DIRECT, says, terms.to_itself, terms.passed_on)
    says = f"what {proxy} sends to its own pod's port {config.tunnel_port} (HBONE) is left alone"
    yield _clause("tunnel-port", DIRECT, says, terms.proxy, terms.to_itself, terms.tunnel)
    if config.redirect_dns:
        says = f"DNS of {proxy} to its own pod is left alone"
        yield _clause("dns", DIRECT, says, terms.proxy, terms.to_itself, port(DNS_PORT))
    says = f"what {proxy} sends to its own pod, but {loopback}, comes in at {config.inbound_port}"
    yield _clause("own-pod", enters, says, TCP_ONLY, terms.proxy, terms.to_itself, Not(terms.loopback))
    says = f"what {proxy} sends elsewhere goes out as it is"
    yield _clause("proxy-left-alone", DIRECT, says, terms.proxy)

    # The application
    says = f"what {groups_words(config)} send is left alone"
    yield _clause("outbound-excluded", DIRECT, says, Not(terms.groups_captured))
    says = f"DNS to {dns_words(config, terms.family)} goes to the agent, port {DNS_AGENT_PORT}"
    yield _clause("dns", agent, says, terms.dns)
    if not config.outbound_cidrs_name_loopback:
        says = "what the application sends to its own pod is left alone"
        yield _clause("own-pod", DIRECT, says, terms.to_itself)
    says = f"what goes to {loopback} is left alone"
    yield _clause("own-pod", DIRECT, says, terms.loopback)
    says = f"what goes to {listed(config.outbound_cidrs_excluded)} is left alone (-x)"
    yield _clause("outbound-excluded", DIRECT, says, terms.to(config.outbound_cidrs_excluded))
    says = f"TCP to port {listed(config.outbound_ports)} goes to {config.outbound_port} (-q)"
    yield _clause("outbound-captured", to_proxy, says, TCP_ONLY, ports(config.outbound_ports))
    says = f"TCP to {listed(config.outbound_cidrs)} goes to {config.outbound_port} (-i)"
    yield _clause("outbound-captured", to_proxy, says, TCP_ONLY, terms.to(config.outbound_cidrs))
    yield _clause("outbound-excluded", DIRECT, "what goes elsewhere is left alone", ALWAYS)


def _received(terms: Terms) -> Iterator[Clause]:
    """The first packet of a connection that comes in by an interface."""
    config = terms.config
    to_proxy = Verdict("redirected", str(config.outbound_port))
    enters = Verdict("tproxied" if config.tproxy else "redirected", str(config.inbound_port))

    yield _clause("udp", DIRECT, "what comes in and is not TCP is left alone", Not(TCP_ONLY))
    from_machines = terms.by(config.rerouted_interfaces)
    says = f"what comes in by {listed(config.rerouted_interfaces)} counts as outbound (-k)"
    yield _clause("rerouted", to_proxy, says, from_machines, terms.chosen)
    yield _clause("rerouted", DIRECT, says, from_machines)
    says = f"what comes in by {listed(config.interfaces_excluded)} is left alone (-c)"
    yield _clause("inbound-excluded", DIRECT, says, terms.by(config.interfaces_excluded))
    says = f"what comes to the tunnel port {config.tunnel_port} (HBONE) is left alone"
    yield _clause("tunnel-port", DIRECT, says, terms.tunnel)
    says = f"TCP that comes in to {inbound_words(config)} goes to {config.inbound_port}"
    yield _clause("inbound-captured", enters, says, terms.inbound_ports)
    yield _clause("inbound-excluded", DIRECT, "what comes to another port is left alone", ALWAYS)


def _later(terms: Terms) -> Iterator[Clause]:
    """What belongs to a connection that was there before, or to none."""
    if terms.packets.phase == "invalid":
        says = "a packet of no connection (INVALID) is dropped where it comes in (--drop-invalid)"
        if terms.config.drop_invalid:
            arrives = terms.to_itself if terms.packets.direction == "out" else ALWAYS
            yield _clause("invalid", DROPPED, says, arrives)
        yield _clause("invalid", DIRECT, "what is INVALID goes on as it is, where it is not dropped", ALWAYS)
    says = "connections from before, and all but the first packet of one, go on as they did"
    yield _clause("later-packets", DIRECT, says, ALWAYS)
