"""Traffic checks: lists of ports, networks and interfaces that do not do what they say.

What they do is what the rules do (policy/nat.py is in a packet's order): outbound, excluded ports come first,
then DNS, excluded networks, captured ports, captured networks; inbound, an exclusion is only looked at when
all ports are captured.
"""

from __future__ import annotations

from ...rules import istio
from ...settings.config import Everything
from ...settings.declared import DNS_CAPTURE, DUAL_STACK
from ...settings.parsers import host_cidr, members
from ..annotations import ANNOTATIONS, BY_SETTING, INIT, PROXY
from .intervals import Interval, Intervals, interval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..manifest import Container
    from .subject import Check, Finding, Subject

INCLUDE_INBOUND = "istio-inbound-ports"
EXCLUDE_INBOUND = "istio-local-exclude-ports"
INCLUDE_CIDRS = "istio-service-cidr"
EXCLUDE_CIDRS = "istio-service-exclude-cidr"
INCLUDE_OUTBOUND = "istio-outbound-ports"
EXCLUDE_OUTBOUND = "istio-local-outbound-ports-exclude"
EXCLUDE_INTERFACES = "istio-exclude-interfaces"
REROUTE_INTERFACES = "kube-virt-interfaces"

_PORTS = (INCLUDE_INBOUND, EXCLUDE_INBOUND, INCLUDE_OUTBOUND, EXCLUDE_OUTBOUND)
_CIDRS = (INCLUDE_CIDRS, EXCLUDE_CIDRS)
_NO_CAPTURE = f"remove {DNS_CAPTURE}"
_DNS_PORT = Interval(str(istio.DNS_PORT), 0, istio.DNS_PORT, istio.DNS_PORT)


def _short(setting: str) -> str:
    """Return an annotation's name as people say it: includeInboundPorts."""
    return BY_SETTING[setting].short


# --- values one by one ----------------------------------------------------------------------


def bad_values(subject: Subject) -> Iterator[Finding]:
    """Values that cannot be used, wildcards where there are none among them."""
    for given, problem in subject.bad:
        remedy = "correct it, no rules are made with it"
        if given.setting.field == "interception_mode" and given.text.strip().upper() in (
            "REDIRECT",
            "TPROXY",
        ):
            remedy = f"write {given.text.strip().upper()}, in capitals"
        yield subject.finding("invalid", subject.place(given), problem, remedy)


def refused_by_istio(subject: Subject) -> Iterator[Finding]:
    """What this tool takes and Istio's injector does not, in annotations."""
    for annotation in ANNOTATIONS:
        name = annotation.setting.name
        if name not in subject.given or not subject.where(name).startswith("annotation "):
            continue
        for member in members(subject.text(name)):
            if name in _PORTS and ("-" in member or ":" in member):
                problem = f"{member!r} is a range, which Istio's injector refuses"
                yield subject.about(name, "istio", problem, "list the ports one by one for its sake")
            if name in _CIDRS and member != "*" and "/" not in member:
                problem = f"{member!r} has no mask, which Istio's injector refuses"
                mask = "/128" if ":" in member else "/32"
                yield subject.about(name, "istio", problem, f"write {member}{mask} for its sake")


def host_bits(subject: Subject) -> Iterator[Finding]:
    """Networks that were written by an address within."""
    for name in _CIDRS:
        for each in subject.spans(name):
            address = host_cidr(each.text.partition("/")[0])
            if address is not None and address.address != each.first:
                network = f"{_address(each.first, each.version)}/{each.text.partition('/')[2]}"
                problem = f"{each.text} means the whole network {network}"
                yield subject.about(
                    name, "host-bits", problem, "write the network, or the address and its mask"
                )


def _address(number: int, version: int) -> str:
    from ...rules.model import Cidr

    return str(Cidr(version, number, 32 if version == 4 else 128)).partition("/")[0]


def repeated(subject: Subject) -> Iterator[Finding]:
    """Members that are in the list already, or in a list that is there anyway."""
    for name in (*_PORTS, *_CIDRS):
        for one, other in subject.searchable(name).repeated:
            if one.text == other.text:
                problem = f"{one.text} stands there twice"
            elif other.covers(one):
                problem = f"{one.text} is in {other.text} already"
            else:
                problem = f"{one.text} and {other.text} overlap"
            yield subject.about(
                name, "duplicate", problem, "once is enough: see that none of them was meant otherwise"
            )
    for name in (EXCLUDE_INTERFACES, REROUTE_INTERFACES):
        interfaces = members(subject.text(name))
        for interface in dict.fromkeys(i for i in interfaces if interfaces.count(i) > 1):
            yield subject.about(name, "duplicate", f"{interface} stands there twice", "once is enough")


def everything_excluded(subject: Subject) -> Iterator[Finding]:
    """Exclusions after which nothing is left."""
    for each in subject.spans(EXCLUDE_CIDRS):
        if each.first == 0 and each.text.endswith("/0"):
            problem = f"{each.text} leaves no destination of IPv{each.version} to capture"
            remedy = f'give {_short(INCLUDE_CIDRS)}: "" if nothing outbound is to be captured'
            yield subject.about(EXCLUDE_CIDRS, "everything", problem, remedy)
    for interface in members(subject.text(EXCLUDE_INTERFACES)):
        prefix = interface.removesuffix("+")
        if interface == "eth0" or (interface.endswith("+") and "eth0".startswith(prefix)):
            problem = (
                f"{interface} is the pod's own interface in nearly every cluster: nothing of it is captured"
            )
            remedy = "name the pod's additional interfaces alone"
            yield subject.about(EXCLUDE_INTERFACES, "everything", problem, remedy)


# --- inbound --------------------------------------------------------------------------------


def inbound_exclusions(subject: Subject) -> Iterator[Finding]:
    """Excluded inbound ports where not all ports are captured anyway."""
    excluded = subject.spans(EXCLUDE_INBOUND)
    if not excluded or isinstance(subject.values["inbound_ports"], Everything):
        return
    included = Intervals(subject.spans(INCLUDE_INBOUND))
    in_both = False
    for each in excluded:
        captured = included.meeting(each)
        if captured is not None:
            in_both = True
            problem = (
                f"{each.text} is captured all the same, since {_short(INCLUDE_INBOUND)} lists {captured.text}"
            )
            yield subject.about(EXCLUDE_INBOUND, "contradiction", problem, "take it out of one of the two")
    if not in_both:
        yield from subject.without_effect(EXCLUDE_INBOUND)


def _applications(subject: Subject) -> Iterator[Container]:
    return (c for c in subject.pod.containers if c.name not in (PROXY, INIT) and (c.sidecar or not c.init))


def _declared(subject: Subject) -> Iterator[tuple[Container, Interval, str]]:
    """Return the ports that applications say they listen on: container, port, protocol."""
    for container in _applications(subject):
        for port in container.ports:
            if port.number.isascii() and port.number.isdigit() and len(port.number) < 6:
                number = int(port.number)
                yield container, Interval(port.number, 0, number, number), port.protocol


def container_ports(subject: Subject) -> Iterator[Finding]:
    """Ports of applications that a list forgot, and ports of lists that are not TCP.

    A port that is excluded, and every port if nothing inbound is captured, is meant so.
    """
    declared = list(_declared(subject))
    included, excluded = subject.searchable(INCLUDE_INBOUND), subject.searchable(EXCLUDE_INBOUND)
    settled = {port.first for port, _ in _proxy_ports(subject)}  # ports_of_the_proxy speaks of these
    for container, port, protocol in declared if included else ():
        if protocol != "TCP" or port.first in settled or included.meeting(port) or excluded.meeting(port):
            continue
        where = f"container {container.name}: containerPort {port.text}"
        problem = f"callers reach it past the proxy, since {_short(INCLUDE_INBOUND)} does not list it"
        yield subject.finding("container-port", where, problem, "list it, or see that it is meant so")
    tcp = Intervals(port for _, port, protocol in declared if protocol == "TCP")
    other = {port.text: protocol for _, port, protocol in declared if protocol != "TCP"}
    for name in (INCLUDE_INBOUND, EXCLUDE_INBOUND):
        for each in subject.spans(name):
            if each.text in other and not tcp.meeting(each):
                problem = f"{each.text} is a port of {other[each.text]}, of which nothing is ever captured"
                yield subject.about(name, "not-tcp", problem, "leave it out")


def _proxy_ports(subject: Subject) -> Iterator[tuple[Interval, str]]:
    values = subject.values
    ports = {
        **istio.LISTENERS,
        values["outbound_port"]: "outbound connections",
        values["inbound_port"]: "inbound connections",
        values["tunnel_port"]: "HBONE tunnels",
    }
    return ((Interval(str(port), 0, port, port), what) for port, what in sorted(ports.items()))


def ports_of_the_proxy(subject: Subject) -> Iterator[Finding]:
    """Captured ports on which the sidecar listens itself, and applications that want to."""
    included = subject.searchable(INCLUDE_INBOUND)
    declared = list(_declared(subject))
    for port, what in _proxy_ports(subject):
        listed = included.meeting(port)
        if listed is not None:
            within = "" if listed.text == port.text else f" (in {listed.text})"
            if port.first == subject.values["tunnel_port"]:
                problem = f"{port.text}{within} is for {what} and is never captured"
            else:
                own = f"the sidecar's own port, for {what}"
                problem = f"{port.text}{within} is {own}: calls to it get lost in the proxy"
            yield subject.about(INCLUDE_INBOUND, "proxy-port", problem, "leave it out")
        for container, each, protocol in declared:
            if each.first == port.first and protocol == "TCP":
                where = f"container {container.name}: containerPort {port.text}"
                problem = f"the sidecar listens on it, for {what}"
                yield subject.finding("proxy-port", where, problem, "let the application use another port")


# --- outbound -------------------------------------------------------------------------------


def outbound_lists(subject: Subject) -> Iterator[Finding]:
    """Lists of outbound traffic that others make pointless."""
    everything = isinstance(subject.values["outbound_cidrs"], Everything)
    included, ports = subject.spans(INCLUDE_CIDRS), subject.spans(INCLUDE_OUTBOUND)
    if everything and ports:
        problem = f"has no effect: {_short(INCLUDE_CIDRS)} is '*', so every port is captured anyway"
        remedy = f"leave it out, or give {_short(INCLUDE_CIDRS)} a list"
        yield subject.about(INCLUDE_OUTBOUND, "no-effect", problem, remedy)
    if not everything and not included and not ports:
        for name in (EXCLUDE_CIDRS, EXCLUDE_OUTBOUND):
            if subject.spans(name):
                problem = f"has no effect: {_short(INCLUDE_CIDRS)} is empty, so nothing outbound is captured"
                yield subject.about(name, "no-effect", problem, "leave it out")
        return
    excluded_ports = subject.searchable(EXCLUDE_OUTBOUND)
    for each in ports:
        excluded = excluded_ports.meeting(each)
        if excluded is not None:
            problem = f"{each.text} is not captured, since {_short(EXCLUDE_OUTBOUND)} lists {excluded.text}"
            yield subject.about(INCLUDE_OUTBOUND, "contradiction", problem, "take it out of one of the two")
    if everything:
        return
    captured = Intervals(included)
    for each in subject.spans(EXCLUDE_CIDRS):
        if not ports and captured.meeting(each) is None:
            problem = f"{each.text} has no effect: it is in no network of {_short(INCLUDE_CIDRS)}"
            yield subject.about(EXCLUDE_CIDRS, "no-effect", problem, "leave it out")


def shadowed_cidrs(subject: Subject) -> Iterator[Finding]:
    """Networks to capture that lie in excluded ones."""
    excluded = subject.searchable(EXCLUDE_CIDRS)
    for each in subject.spans(INCLUDE_CIDRS):
        other = excluded.covering(each)
        if other is not None:
            problem = f"{each.text} is not captured, since it lies in {other.text} of {_short(EXCLUDE_CIDRS)}"
            yield subject.about(INCLUDE_CIDRS, "shadowed", problem, "take one of the two out")


def dual_stack(subject: Subject) -> Iterator[Finding]:
    """Networks of both families where only one is captured."""
    if subject.values["dual_stack"]:
        return
    for name in _CIDRS:
        spans = subject.spans(name)
        if {each.version for each in spans} == {4, 6}:
            sixth = next(each.text for each in spans if each.version == 6)
            problem = (
                f"{sixth} has no effect in a pod with addresses of both families: IPv6 is not captured there"
            )
            remedy = f"set {DUAL_STACK}=true in container {PROXY}, or leave the networks of IPv6 out"
            yield subject.about(name, "one-family", problem, remedy)


def _captures_ipv6(subject: Subject) -> bool:
    """Tell whether IPv6 is captured in the pod: not without ISTIO_DUAL_STACK, if it has IPv4 too.

    What addresses it has is not in its manifest; where IPv4 is spoken of, there is some.
    """
    if subject.values["dual_stack"]:
        return True
    servers = [host_cidr(text) for text in subject.pod.dns_servers]
    versions = {server.version for server in servers if server is not None}
    versions |= {each.version for name in _CIDRS for each in subject.spans(name)}
    return 4 not in versions


def dns(subject: Subject) -> Iterator[Finding]:
    """The pod's DNS servers in lists of networks, and port 53 in lists of ports."""
    captured = subject.values["redirect_dns"]
    excluded, included = subject.searchable(EXCLUDE_CIDRS), subject.searchable(INCLUDE_CIDRS)
    for text in subject.pod.dns_servers:
        address = host_cidr(text)
        if address is None:
            continue
        server = interval(text, address)
        if server.version == 6 and not _captures_ipv6(subject):
            continue
        out, into = excluded.covering(server), included.covering(server)
        if captured and out is not None:
            problem = (
                f"{out.text} holds the pod's DNS server {text}, but queries go to the agent all the same"
            )
            yield subject.about(EXCLUDE_CIDRS, "dns", problem, f"{_NO_CAPTURE} if they are not to")
        if not captured and into is not None and out is None:
            problem = (
                f"{into.text} holds the pod's DNS server {text}: queries by TCP, and only they, go to Envoy"
            )
            remedy = f"exclude the server ({_short(EXCLUDE_CIDRS)}), or set {DNS_CAPTURE}"
            yield subject.about(INCLUDE_CIDRS, "dns", problem, remedy)
    port = subject.searchable(EXCLUDE_OUTBOUND).meeting(_DNS_PORT)
    if captured and port is not None:
        problem = f"{port.text} lets all DNS queries pass by the agent, which is to answer them"
        yield subject.about(EXCLUDE_OUTBOUND, "dns", problem, f"leave port 53 out, or {_NO_CAPTURE}")


def interfaces(subject: Subject) -> Iterator[Finding]:
    """Interfaces that are both excluded and rerouted, or rerouted under TPROXY."""
    rerouted = members(subject.text(REROUTE_INTERFACES))
    for interface in sorted(set(rerouted) & set(members(subject.text(EXCLUDE_INTERFACES)))):
        problem = f"{interface} is captured all the same, since {_short(REROUTE_INTERFACES)} lists it"
        yield subject.about(EXCLUDE_INTERFACES, "contradiction", problem, "take it out of one of the two")
    yield from subject.without_effect(REROUTE_INTERFACES)


CHECKS: tuple[Check, ...] = (
    bad_values,
    refused_by_istio,
    host_bits,
    repeated,
    everything_excluded,
    inbound_exclusions,
    container_ports,
    ports_of_the_proxy,
    outbound_lists,
    shadowed_cidrs,
    dual_stack,
    dns,
    interfaces,
)
