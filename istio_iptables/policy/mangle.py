"""mangle: the mangle table: inbound capture in TPROXY mode, and invalid packets.

TPROXY hands packets to the proxy without changing their addresses. The proxy then connects to the
application from the client's address, so the application's answers must be captured
too: a mark on the connection brings it back (see the routes in policy/routing.py).
"""

from __future__ import annotations

from ..rules import istio
from ..rules.istio import PROXY_TO_OWN_POD_MARK
from ..rules.model import (
    ACCEPT,
    DROP,
    RETURN,
    Chain,
    ConnectionMark,
    ConntrackState,
    Destination,
    DestinationPort,
    Jump,
    Mark,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Source,
    TProxy,
)
from ..settings.config import Everything
from . import listed
from .terms import (
    FROM_LOOPBACK,
    TCP,
    TO_LOOPBACK,
    excluded_interfaces_inbound,
    excluded_interfaces_outbound,
    loopback,
    passthrough_source,
    proxy_groups,
    proxy_users,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family
    from ..settings.config import Config

_KNOWN_CONNECTION = ConntrackState(frozenset({"RELATED", "ESTABLISHED"}))


def chains(config: Config, family: Family) -> tuple[Chain, ...]:
    """Return the chains of the table for one family; some may be empty."""
    invalid = (_drop(),) if config.drop_invalid else ()
    if not config.tproxy:
        return (_prerouting(config), *invalid)
    capture = (_divert(config), _tproxy(config, family)) if config.captures_inbound else ()
    return (
        _prerouting(config),
        *invalid,
        _inbound(config, family),
        *capture,
        _output(config, family),
    )


def _prerouting(config: Config) -> Chain:
    rules = excluded_interfaces_inbound(config) if config.tproxy else []
    if config.drop_invalid:
        invalid = ConntrackState(frozenset({"INVALID"}))
        rules.append(Rule((invalid,), Jump(istio.DROP), "packets of no known connection"))
    if config.tproxy and config.captures_inbound:
        rules.append(Rule((TCP,), Jump(istio.INBOUND), "TCP that comes in may be for the proxy"))
    if config.tproxy:
        rules.append(
            Rule(
                (TCP, Mark(config.tproxy_mark)),
                SaveMark(),
                "the proxy calls the application as the client: remember the connection",
            )
        )
    return Chain("PREROUTING", tuple(rules))


def _drop() -> Chain:
    rule = Rule((), DROP, "packets that conntrack cannot place would be answered with a reset")
    return Chain(istio.DROP, (rule,))


def _inbound(config: Config, family: Family) -> Chain:
    """TCP that comes in, the proxy's own calls to the application first."""
    return Chain(
        istio.INBOUND,
        (
            Rule(
                (TCP, Mark(config.tproxy_mark)),
                RETURN,
                "the proxy's packets to the application: never back to the proxy",
            ),
            Rule(
                (TCP, Source(passthrough_source(family)), FROM_LOOPBACK),
                RETURN,
                "the proxy or agent calls the application from this address",
            ),
            Rule(
                (TCP, FROM_LOOPBACK, Mark(PROXY_TO_OWN_POD_MARK, negated=True)),
                RETURN,
                "the application calls itself by the pod's own address: stays local",
            ),
            *_inbound_capture(config),
        ),
    )


def _inbound_capture(config: Config) -> list[Rule]:
    known, new = Jump(istio.DIVERT), Jump(istio.TPROXY)
    rules: list[Rule] = []
    if not isinstance(config.inbound_ports, Everything):
        for ports in config.inbound_ports:
            port = DestinationPort(ports)
            goes_on = f"inbound port {ports}: a captured connection goes on"
            rules.append(Rule((TCP, port, _KNOWN_CONNECTION), known, goes_on, listed.INBOUND_PORTS))
            rules.append(Rule((TCP, port), new, f"inbound port {ports} is captured", listed.INBOUND_PORTS))
        return rules
    rules += [
        Rule(
            (TCP, DestinationPort(ports)),
            RETURN,
            f"inbound port {ports} is excluded",
            listed.INBOUND_PORTS_EXCLUDED,
        )
        for ports in config.inbound_ports_excluded
    ]
    rules.append(Rule((TCP, _KNOWN_CONNECTION), known, "a captured connection goes on"))
    rules.append(Rule((TCP,), new, "all other inbound TCP is captured"))
    return rules


def _divert(config: Config) -> Chain:
    """Packets of connections that the proxy already has: to its socket."""
    mark = Rule((), SetMark(config.tproxy_mark), "marked packets are delivered locally")
    return Chain(istio.DIVERT, (mark, Rule((), ACCEPT, "nothing else is to change them")))


def _tproxy(config: Config, family: Family) -> Chain:
    """The way to the proxy's inbound listener, addresses unchanged."""
    rule = Rule(
        (TCP, Destination(loopback(config, family), negated=True)),
        TProxy(config.inbound_port, config.tproxy_mark),
        "to the proxy's inbound listener",
    )
    return Chain(istio.TPROXY, (rule,))


def _output(config: Config, family: Family) -> Chain:
    rules = excluded_interfaces_outbound(config)
    rules.append(
        Rule(
            (TCP, TO_LOOPBACK, Mark(config.tproxy_mark)),
            RETURN,
            "the proxy's packets to the application are marked already",
        )
    )
    to_own_pod = (TCP, TO_LOOPBACK, Destination(loopback(config, family), negated=True))
    rules += [
        Rule(
            (*to_own_pod, owner),
            SetMark(PROXY_TO_OWN_POD_MARK),
            f"the proxy ({name}) calls a service that this pod itself serves: its inbound side",
        )
        for owner, name in (*proxy_users(config), *proxy_groups(config))
    ]
    rules.append(
        Rule(
            (TCP, ConnectionMark(config.tproxy_mark)),
            RestoreMark(),
            "what the application answers goes back to the proxy",
        )
    )
    return Chain("OUTPUT", tuple(rules))
