"""open_ends: where Istio's own rules do something else than the intent says: which packets, what, and why.

They are exceptions of the intent with a verdict of their own, which is proved like any other. Every one is
described in docs/what-is-proved.md, with a packet.
"""

from __future__ import annotations

from ..interpreter.condition import ALWAYS, AllOf, AnyOf, Not
from ..interpreter.condition import number as is_number
from ..interpreter.route_lookup import OF_THE_LINK
from ..interpreter.routing import LOOPBACK
from ..interpreter.verdict import DIRECT, DROPPED, LOOPS, REJECTED, Verdict
from ..rules.istio import DNS_AGENT_PORT, DNS_PORT, PROXY_TO_OWN_POD_MARK
from ..rules.model import IPV4
from ..startup.record import Record
from .clause import Clause
from .space import BEGINNINGS
from .terms import NO_SOCKET, TCP_ONLY, Terms, fits, ids, mark, port, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..interpreter.condition import Condition


#: How the names of their properties begin.
OPEN_END = "open-end: "


class Case(Record):
    """Packets that an open end is about, and their verdict."""

    when: Condition
    verdict: Verdict


class OpenEnd(Record):
    """An exception of the intent: its name for people and programs, what the rules do, why, and to what."""

    name: str
    does: str
    why: str
    cases: Callable[[Terms], Iterator[Case]]

    def clauses(self, terms: Terms) -> Iterator[Clause]:
        """Yield what it says of packets of one kind."""
        for case in self.cases(terms):
            yield Clause(f"{OPEN_END}{self.name}", case.when, case.verdict, self.does)


# --- words that several need --------------------------------------------------------------------


def _first(terms: Terms, direction: str) -> bool:
    packets = terms.packets
    return packets.phase in BEGINNINGS and packets.direction == direction


def _enters(terms: Terms) -> Verdict:
    return Verdict("redirected", str(terms.config.inbound_port))


def _handed(terms: Terms) -> Verdict:
    """What becomes of what the rules of TPROXY take; see _expected_tproxy."""
    if terms.packets.phase == "expected":
        return DIRECT
    return Verdict("tproxied", str(terms.config.inbound_port))


def _considered(terms: Terms) -> Condition:
    """TCP that nothing has excluded before the rules about owners."""
    config = terms.config
    return AllOf(
        (
            TCP_ONLY,
            Not(terms.by(config.interfaces_excluded)),
            Not(ports(config.outbound_ports_excluded)),
            Not(AllOf((terms.to_itself, terms.passed_on))),
        )
    )


def _own_pod(terms: Terms) -> Condition:
    """What the proxy sends to its own pod, and what is to come in there."""
    own = (_considered(terms), terms.proxy, terms.to_itself, Not(terms.loopback), Not(terms.tunnel))
    if terms.config.redirect_dns:
        return AllOf((*own, Not(AllOf((terms.proxy_users, _DNS)))))
    return AllOf(own)


def _application(terms: Terms) -> Condition:
    """What others send that is not excluded by its interface, port or group."""
    return AllOf((_considered(terms), Not(terms.proxy), terms.groups_captured))


def _captured(terms: Terms) -> Condition:
    """What others send that goes to the outbound port."""
    config = terms.config
    when = (_application(terms), Not(terms.dns), terms.chosen)
    if config.outbound_cidrs_name_loopback:
        return AllOf(when)
    elsewhere = Not(terms.to_itself)
    return AllOf((*when, AnyOf((elsewhere, _DNS)) if config.redirect_dns else elsewhere))


_DNS = port(DNS_PORT)


def _of_first_user(terms: Terms) -> Condition:
    """The rules about the first user of the proxy let it pass to those about the others."""
    config = terms.config
    first = ids("uid", config.proxy_uids[:1])
    if config.outbound_cidrs_name_loopback:
        return ALWAYS
    return AnyOf((first, _DNS)) if config.redirect_dns else first


# --- what each is about -------------------------------------------------------------------------


def _turned_in(terms: Terms) -> Condition:
    """What goes over lo and is treated as inbound in PREROUTING of mangle."""
    when = (marked_for_own_pod(terms), terms.to_itself, Not(terms.passed_on))
    return AllOf((*when, terms.inbound_ports, Not(terms.loopback)))


def marked_for_own_pod(terms: Terms) -> Condition:
    """It has the mark of what the proxy sends to its own pod when it comes in by lo."""
    config = terms.config
    if config.tproxy_mark == PROXY_TO_OWN_POD_MARK or fits(config.interfaces_excluded, LOOPBACK):
        return AnyOf()
    marked = AnyOf((AllOf((terms.proxy, terms.to_itself)), mark(PROXY_TO_OWN_POD_MARK)))
    return AllOf((marked, Not(mark(config.tproxy_mark))))


def restored(terms: Terms) -> Condition:
    """It gets the mark of -t, which is that of its connection, instead of its own."""
    config = terms.config
    connection = is_number("connection_mark", config.tproxy_mark)
    others = (Not(mark(config.tproxy_mark)), Not(terms.by(config.interfaces_excluded)))
    return AllOf((TCP_ONLY, connection, *others))


def _loopback_network(terms: Terms) -> Iterator[Case]:
    config = terms.config
    if not config.tproxy or not _first(terms, "out") or terms.loopback_has_usual_address:
        return
    if terms.packets.phase == "expected" or terms.packets.fixed.bound not in ("", LOOPBACK):
        return  # TPROXY does not take it, or it does not come back
    redirected = [
        (AllOf((_own_pod(terms), _of_first_user(terms))), config.inbound_port),
        (AllOf((TCP_ONLY, _application(terms), terms.dns)), DNS_AGENT_PORT),
        (_captured(terms), config.outbound_port),
    ]
    for when, to in redirected:
        if terms.captures_inbound(to):
            yield Case(AllOf((when, marked_for_own_pod(terms))), _handed(terms))


def _own_pod_tproxy(terms: Terms) -> Iterator[Case]:
    if terms.config.tproxy and _first(terms, "out"):
        redirected = LOOPS if terms.config.inbound_port == terms.config.outbound_port else _enters(terms)
        yield Case(AllOf((_own_pod(terms), _of_first_user(terms))), redirected)
        yield Case(AllOf((terms.proxy, _turned_in(terms))), _handed(terms))


def _carries_mark(terms: Terms) -> Iterator[Case]:
    config = terms.config
    if not config.tproxy:
        return
    if _first(terms, "in"):
        machines = terms.by(config.rerouted_interfaces)
        yield Case(AllOf((TCP_ONLY, mark(config.tproxy_mark), Not(machines))), DIRECT)
    elif _first(terms, "out"):
        redirected = AnyOf((AllOf((_application(terms), terms.dns)), _captured(terms)))
        yield Case(AllOf((_turned_in(terms), Not(redirected))), _handed(terms))
    if terms.packets.phase in ("expected", "later") and terms.packets.direction == "out":
        # The packet gets the mark of its connection instead of its own, which its route may depend on.
        for lost, routed in terms.routes_with_mark():
            if routed.error:
                yield Case(AllOf((restored(terms), lost)), DROPPED)


def _other_proxy_users(terms: Terms) -> Iterator[Case]:
    if _first(terms, "out"):
        yield Case(AllOf((_own_pod(terms), Not(_of_first_user(terms)))), DIRECT)


def _same_port(terms: Terms) -> Iterator[Case]:
    if _first(terms, "out") and terms.config.inbound_port == terms.config.outbound_port:
        yield Case(_own_pod(terms), LOOPS)


def _group_dns(terms: Terms) -> Iterator[Case]:
    if _first(terms, "out") and terms.config.redirect_dns:
        yield Case(AllOf((_own_pod(terms), _DNS)), _enters(terms))


def _dns_own_pod(terms: Terms) -> Iterator[Case]:
    config = terms.config
    if _first(terms, "out") and config.redirect_dns and not config.outbound_cidrs_name_loopback:
        yield Case(
            AllOf((_captured(terms), terms.to_itself)), Verdict("redirected", str(config.outbound_port))
        )


def _no_socket(terms: Terms) -> Iterator[Case]:
    if _first(terms, "out"):
        captured = AllOf((NO_SOCKET, _captured(terms)))
        yield Case(captured, Verdict("redirected", str(terms.config.outbound_port)))


def _rerouted(terms: Terms) -> Condition:
    """What the rules of -k redirect to the outbound port."""
    config = terms.config
    if not _first(terms, "in"):
        return AnyOf()
    return AllOf((TCP_ONLY, terms.by(config.rerouted_interfaces), terms.to(config.outbound_cidrs)))


def _rerouted_exclusions(terms: Terms) -> Iterator[Case]:
    if not _first(terms, "in") or not terms.config.rerouted_interfaces:
        return
    config = terms.config
    redirected, others = _rerouted(terms), Not(_inbound_tproxied(terms))
    to_proxy = Verdict("redirected", str(config.outbound_port))
    yield Case(AllOf((redirected, others, Not(terms.chosen))), to_proxy)
    yield Case(AllOf((terms.by(config.rerouted_interfaces), Not(redirected), others, terms.chosen)), DIRECT)


def _inbound_tproxied(terms: Terms) -> Condition:
    """TPROXY hands what comes in to the proxy."""
    return AnyOf() if terms.packets.phase == "expected" else _inbound_taken(terms)


def _inbound_taken(terms: Terms) -> Condition:
    """The rules of TPROXY take what comes in."""
    config = terms.config
    if not config.tproxy:
        return AnyOf()
    return AllOf(
        (
            terms.inbound_ports,
            Not(terms.by(config.interfaces_excluded)),
            Not(mark(config.tproxy_mark)),
            Not(terms.loopback),
        )
    )


def _no_address(terms: Terms) -> Iterator[Case]:
    if not _first(terms, "in"):
        return
    config = terms.config
    machines = terms.by(config.rerouted_interfaces)
    yield Case(AllOf((_rerouted(terms), terms.without_address)), DROPPED)
    if not config.tproxy:
        others = (Not(machines), Not(terms.by(config.interfaces_excluded)), Not(terms.tunnel))
        yield Case(AllOf((*others, terms.inbound_ports, terms.without_address)), DROPPED)


def _rerouted_tproxy(terms: Terms) -> Iterator[Case]:
    if _first(terms, "in"):
        machines = terms.by(terms.config.rerouted_interfaces)
        yield Case(AllOf((machines, _inbound_tproxied(terms))), _handed(terms))


def _link_local(terms: Terms) -> Iterator[Case]:
    dropped_before = terms.packets.phase == "invalid" and terms.config.drop_invalid
    if terms.family == IPV4 or terms.packets.direction != "in" or dropped_before:
        return
    # What REDIRECT of -k takes, too, has got an address of the interface.
    handed = AllOf((_inbound_taken(terms), Not(_rerouted(terms))))
    for lost, routed in terms.routes_with_mark(OF_THE_LINK):
        if routed.error:
            yield Case(AllOf((handed, lost)), DROPPED if routed.kind == "blackhole" else REJECTED)
        elif not routed.is_local and terms.packets.phase not in ("expected", "later"):
            yield Case(AllOf((handed, lost)), DROPPED)  # what TPROXY has handed over is not forwarded


def _expected_tproxy(terms: Terms) -> Iterator[Case]:
    if _first(terms, "in") and terms.packets.phase == "expected":
        yield Case(AllOf((_inbound_taken(terms), Not(_rerouted(terms)))), DIRECT)


def _tunnel_tproxy(terms: Terms) -> Iterator[Case]:
    if _first(terms, "in"):
        yield Case(AllOf((terms.tunnel, _inbound_tproxied(terms))), _handed(terms))


def _invalid_tproxy(terms: Terms) -> Iterator[Case]:
    config = terms.config
    if terms.packets.phase != "invalid" or not config.tproxy:
        return
    excluded = terms.by(config.interfaces_excluded)
    if config.drop_invalid:
        yield Case(excluded, DIRECT)
    else:
        inbound = _turned_in if terms.packets.direction == "out" else _inbound_tproxied
        yield Case(inbound(terms), _handed(terms))


#: All of them. Where two are about one packet, the first counts.
OPEN_ENDS = (
    OpenEnd(
        "loopback-network",
        "with TPROXY and a loopback network without 127.0.0.1, what OUTPUT has redirected and carries "
        "the mark 1338 is handed to the inbound port, if -b has the port that it was redirected to",
        "REDIRECT in OUTPUT turns a destination into 127.0.0.1, and TPROXY leaves the loopback network alone",
        _loopback_network,
    ),
    OpenEnd(
        "own-pod-tproxy",
        "with TPROXY the first user of the proxy comes in at its own pod by REDIRECT, whatever -b and "
        "-d say, and the others by TPROXY, also at the tunnel port and at ports that -o leaves alone",
        "REDIRECT in OUTPUT is the same in both modes; the mark 1338 is set for all of them, and "
        "TPROXY in PREROUTING knows nothing of the exceptions in OUTPUT",
        _own_pod_tproxy,
    ),
    OpenEnd(
        "carries-mark",
        "with TPROXY a packet that carries the mark of -t already counts as one of the proxy's, and "
        "one with 1338 as one that the proxy sends to its own pod; what a connection with the mark of "
        "-t sends loses its own mark, and is dropped if it has no route without",
        "rules and routes tell them by the mark alone (SO_MARK needs the capability NET_ADMIN)",
        _carries_mark,
    ),
    OpenEnd(
        "other-proxy-users",
        "what all but the first user of the proxy send to their own pod reaches the application as it is",
        "the rule that leaves alone what is not from the first user over lo comes before those of the others",
        _other_proxy_users,
    ),
    OpenEnd(
        "same-port",
        "if -z is -p, what the proxy sends to its own pod comes back to its outbound port",
        "one port cannot be told from the other",
        _same_port,
    ),
    OpenEnd(
        "group-dns",
        "TCP to port 53 of the own pod comes in at the inbound port, if only the group is the proxy's",
        "with DNS redirection the exception of port 53 is made for users only",
        _group_dns,
    ),
    OpenEnd(
        "dns-own-pod",
        "with DNS redirection, TCP to port 53 of the own pod that is no captured DNS goes to the "
        "outbound port",
        "the rule that leaves the own pod alone makes an exception of port 53, whatever the server",
        _dns_own_pod,
    ),
    OpenEnd(
        "no-socket",
        "a packet that belongs to no socket is captured as the application's, whoever caused it",
        "only a packet of a socket has an owner",
        _no_socket,
    ),
    OpenEnd(
        "no-address",
        "REDIRECT drops what comes in by an interface without an address of its family, and with IPv6 "
        "without one of the scope of its destination (such as link-local)",
        "REDIRECT turns the destination into an address of that interface (nf_nat_redirect.c)",
        _no_address,
    ),
    OpenEnd(
        "link-local",
        "with TPROXY and IPv6, what is handed to the inbound port is dropped, if its destination "
        "belongs to a link (link-local, multicast) and is no address of the interface that it came in "
        "by",
        "for such a destination the kernel takes routes by that interface alone; that of TPROXY is by lo",
        _link_local,
    ),
    OpenEnd(
        "expected-tproxy",
        "with TPROXY the first packet of a connection that a helper of conntrack expected (RELATED) reaches "
        "the application as it is",
        "the rule that knows the packets of connections that are there takes RELATED for one of these",
        _expected_tproxy,
    ),
    OpenEnd(
        "rerouted-exclusions",
        "what comes in by an interface of -k goes to the outbound port if -i names its destination: "
        "-x, -o and -q do not count",
        "the rules of -k have the destinations of -i alone",
        _rerouted_exclusions,
    ),
    OpenEnd(
        "rerouted-tproxy",
        "with TPROXY what comes in by an interface of -k is handed to the inbound port, if -b has its port",
        "the rules of -k are in the table nat, those of TPROXY in mangle, which comes before",
        _rerouted_tproxy,
    ),
    OpenEnd(
        "tunnel-tproxy",
        "with TPROXY what comes to the tunnel port is handed to the inbound port, if -b has it",
        "the exception of the tunnel port is made in the table nat alone",
        _tunnel_tproxy,
    ),
    OpenEnd(
        "invalid-tproxy",
        "with TPROXY an INVALID packet is handed to the inbound port, unless --drop-invalid drops it; "
        "and that drops nothing on the interfaces of -c",
        "TPROXY is for packets, not for connections; in the table mangle the rules of -c come first",
        _invalid_tproxy,
    ),
)


def open_ends(terms: Terms) -> Iterator[Clause]:
    """Yield the clauses of all open ends for packets of one kind."""
    for end in OPEN_ENDS:
        yield from end.clauses(terms)
