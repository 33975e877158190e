"""traffic: checks of lists of ports, CIDRs and interfaces that do not do what they say.

What a list does follows from the order of the rules (policy/nat.py has them in the order that a packet meets
them). Outbound: excluded ports come first, then DNS, excluded CIDRs, captured ports, captured CIDRs. Inbound:
exclusions are used only if all ports are captured.
"""

from __future__ import annotations

from ...rules import istio
from ...settings.config import NO_INTERCEPTION, Everything
from ...settings.declared import DNS_CAPTURE, DUAL_STACK
from ...settings.parsers import TRUE, cidrs, host_cidr, members
from ...settings.texts import quoted
from ..annotations import ANNOTATIONS, BY_SETTING, INIT, MODE, PROXY, STATUS_PORT
from ..reading import proxy_variable, status_port
from .intervals import Interval, Intervals, interval

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Container
    from .findings import Finding
    from .subject import Check, Subject

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
    """Return the short name of a setting's annotation: includeInboundPorts."""
    return BY_SETTING[setting].short


# --- values one by one ----------------------------------------------------------------------


def bad_values(subject: Subject) -> Iterator[Finding]:
    """Values that cannot be used, such as wildcards where they are not allowed."""
    for given, problem in subject.bad:
        remedy = "correct it: no rules are made with this value"
        capitals = given.text.strip().upper()
        if given.setting.field == "interception_mode" and capitals in ("REDIRECT", "TPROXY", NO_INTERCEPTION):
            remedy = f"write {capitals}, in capitals"
        yield subject.finding("invalid", subject.place(given), problem, remedy)


def refused_by_istio(subject: Subject) -> Iterator[Finding]:
    """Annotations with values that this tool accepts and Istio's injector rejects."""
    for annotation in ANNOTATIONS:
        name = annotation.setting.name
        if name not in subject.given or not subject.where(name).startswith("annotation "):
            continue
        for member in members(subject.text(name)):
            if name in _PORTS and ("-" in member or ":" in member):
                problem = f"{quoted(member)} is a range, which Istio's injector rejects"
                yield subject.about(name, "istio", problem, "list each port by itself")
            if name in _CIDRS and member != "*" and "/" not in member:
                problem = f"{quoted(member)} has no prefix length, which Istio's injector rejects"
                length = "/128" if ":" in member else "/32"
                yield subject.about(name, "istio", problem, f"write {member}{length}")
    if subject.pod.annotations.get(STATUS_PORT) == "":
        problem = "is empty, which counts as absent here, and which Istio's injector rejects"
        yield subject.finding("istio", f"annotation {STATUS_PORT}", problem, "leave it out")


def interface_names(subject: Subject) -> Iterator[Finding]:
    """Names as ip(8) prints them, wildcards of a shell, and wildcards that Istio's injector rejects."""
    for name in (EXCLUDE_INTERFACES, REROUTE_INTERFACES):
        annotated = subject.where(name).startswith("annotation ")
        for member in members(subject.text(name)):
            real, at, _ = member.partition("@")
            if at and real:
                problem = f"{quoted(member)} is how ip(8) shows {real}: no interface has that name"
                yield subject.about(name, "interface", problem, f"write {real}")
            elif "*" in member and len(member) > 1:
                problem = f"{quoted(member)} is no wildcard here: it is the name itself"
                remedy = "list each interface" if annotated else f"write {real.replace('*', '')}+"
                yield subject.about(name, "interface", problem, remedy)
            elif member.endswith("+") and annotated:
                problem = f"{quoted(member)} is a wildcard, which Istio's injector rejects"
                yield subject.about(name, "istio", problem, "list each interface")


def host_bits(subject: Subject) -> Iterator[Finding]:
    """CIDRs that are written with host bits set."""
    for name in _CIDRS:
        for each in subject.intervals(name):
            address = host_cidr(each.text.partition("/")[0])
            if address is not None and address.address != each.first:
                cidr = f"{_address(each.first, each.version)}/{each.text.partition('/')[2]}"
                problem = f"{each.text} means all of {cidr}"
                yield subject.about(
                    name, "host-bits", problem, "write that, or the address alone with its own prefix length"
                )


def _address(number: int, version: int) -> str:
    from ...rules.model import Cidr

    return str(Cidr(version, number, 32 if version == 4 else 128)).partition("/")[0]


def repeated(subject: Subject) -> Iterator[Finding]:
    """Members that appear twice in a list, or are within another member."""
    for name in (*_PORTS, *_CIDRS):
        for one, other in subject.searchable(name).repeated:
            if one.text == other.text:
                problem = f"{one.text} appears twice"
            elif other.covers(one):
                problem = f"{one.text} is in {other.text} already"
            else:
                problem = f"{one.text} and {other.text} overlap"
            yield subject.about(
                name,
                "duplicate",
                problem,
                "remove one, and check that it is not a typing error for another value",
            )
    for name in (EXCLUDE_INTERFACES, REROUTE_INTERFACES):
        interfaces = members(subject.text(name))
        for interface in dict.fromkeys(i for i in interfaces if interfaces.count(i) > 1):
            yield subject.about(name, "duplicate", f"{interface} appears twice", "remove one")


def everything_excluded(subject: Subject) -> Iterator[Finding]:
    """Exclusions that leave nothing to capture."""
    for each in subject.intervals(EXCLUDE_CIDRS):
        if each.first == 0 and each.text.endswith("/0"):
            problem = f"{each.text} leaves no IPv{each.version} destination to capture"
            remedy = f'set {_short(INCLUDE_CIDRS)}: "" if nothing outbound is to be captured'
            yield subject.about(EXCLUDE_CIDRS, "everything", problem, remedy)
    for interface in members(subject.text(EXCLUDE_INTERFACES)):
        prefix = interface.removesuffix("+")
        if interface == "eth0" or (interface.endswith("+") and "eth0".startswith(prefix)):
            problem = f"{interface} is the pod's interface in nearly every cluster: nothing of it is captured"
            remedy = "list only additional interfaces of the pod"
            yield subject.about(EXCLUDE_INTERFACES, "everything", problem, remedy)


# --- inbound --------------------------------------------------------------------------------


def inbound_exclusions(subject: Subject) -> Iterator[Finding]:
    """Excluded inbound ports although the captured ports are listed."""
    excluded = subject.intervals(EXCLUDE_INBOUND)
    if not excluded or isinstance(subject.values["inbound_ports"], Everything):
        return
    included = Intervals(subject.intervals(INCLUDE_INBOUND))
    in_both = False
    for each in excluded:
        captured = included.meeting(each)
        if captured is not None:
            in_both = True
            problem = f"{each.text} is still captured, since {_short(INCLUDE_INBOUND)} lists {captured.text}"
            yield subject.about(EXCLUDE_INBOUND, "contradiction", problem, "remove it from one of the two")
    if not in_both:
        yield from subject.without_effect(EXCLUDE_INBOUND)


def _applications(subject: Subject) -> Iterator[Container]:
    return (c for c in subject.pod.containers if c.name not in (PROXY, INIT) and (c.sidecar or not c.init))


def _declared(subject: Subject) -> Iterator[tuple[Container, Interval, str]]:
    """Return the ports that applications declare: container, port, protocol."""
    for container in _applications(subject):
        for port in container.ports:
            if port.number.isascii() and port.number.isdigit() and len(port.number) < 6:
                number = int(port.number)
                yield container, Interval(port.number, 0, number, number), port.protocol


def container_ports(subject: Subject) -> Iterator[Finding]:
    """Ports of applications that are missing in a list, and listed ports that are not TCP.

    A port that is excluded is missing on purpose, and so are all ports if nothing inbound is captured.
    """
    declared = list(_declared(subject))
    included, excluded = subject.searchable(INCLUDE_INBOUND), subject.searchable(EXCLUDE_INBOUND)
    of_the_proxy = {port.first for port, _ in _proxy_ports(subject)}  # see ports_of_the_proxy
    for container, port, protocol in declared if included else ():
        if (
            protocol != "TCP"
            or port.first in of_the_proxy
            or included.meeting(port)
            or excluded.meeting(port)
        ):
            continue
        where = f"container {container.name}: containerPort {port.text}"
        problem = f"connections to it bypass the proxy, since {_short(INCLUDE_INBOUND)} does not list it"
        yield subject.finding("container-port", where, problem, "list it, or check that this is intended")
    tcp = Intervals(port for _, port, protocol in declared if protocol == "TCP")
    other = {port.text: protocol for _, port, protocol in declared if protocol != "TCP"}
    for name in (INCLUDE_INBOUND, EXCLUDE_INBOUND):
        for each in subject.intervals(name):
            if each.text in other and not tcp.meeting(each):
                problem = f"{each.text} is a {other[each.text]} port, which is never captured"
                yield subject.about(name, "not-tcp", problem, "leave it out")


def _proxy_ports(subject: Subject) -> Iterator[tuple[Interval, str]]:
    values = subject.values
    status, listeners = int(status_port(subject.pod)), dict(istio.LISTENERS)
    what = listeners.pop(istio.METRICS_PORT)
    ports = {
        **({status: what} if status else {}),
        **listeners,
        values["outbound_port"]: "outbound connections",
        values["inbound_port"]: "inbound connections",
        values["tunnel_port"]: "HBONE tunnels",
    }
    return ((Interval(str(port), 0, port, port), what) for port, what in sorted(ports.items()))


def ports_of_the_proxy(subject: Subject) -> Iterator[Finding]:
    """Captured ports that the sidecar itself listens on, and applications that listen on them too."""
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
                problem = f"{port.text}{within} is {own}: connections to it are lost in the proxy"
            yield subject.about(INCLUDE_INBOUND, "proxy-port", problem, "leave it out")
        for container, each, protocol in declared:
            if each.first == port.first and protocol == "TCP":
                where = f"container {container.name}: containerPort {port.text}"
                problem = f"the sidecar listens on it, for {what}"
                yield subject.finding("proxy-port", where, problem, "let the application use another port")


# --- outbound -------------------------------------------------------------------------------


def nothing_captured(subject: Subject) -> Iterator[Finding]:
    """Inclusion lists that are all empty."""
    lists = {
        INCLUDE_INBOUND: "inbound_ports",
        INCLUDE_CIDRS: "outbound_cidrs",
        INCLUDE_OUTBOUND: "outbound_ports",
    }
    if any(subject.values[field] != () for field in lists.values()):
        return
    captured = "only DNS" if subject.values["redirect_dns"] else "nothing"
    problem = f"is empty, and so is every list of outbound traffic to capture: {captured} is captured"
    remedy = f"list what to capture, or set {_short(MODE.name)} to {NO_INTERCEPTION} if that is intended"
    yield subject.about(INCLUDE_INBOUND, "nothing", problem, remedy)


def outbound_lists(subject: Subject) -> Iterator[Finding]:
    """Outbound lists that other lists leave without effect."""
    everything = isinstance(subject.values["outbound_cidrs"], Everything)
    included, ports = subject.intervals(INCLUDE_CIDRS), subject.intervals(INCLUDE_OUTBOUND)
    if everything and ports:
        problem = f"has no effect: {_short(INCLUDE_CIDRS)} is '*', so every port is captured anyway"
        remedy = f"leave it out, or give {_short(INCLUDE_CIDRS)} a list"
        yield subject.about(INCLUDE_OUTBOUND, "no-effect", problem, remedy)
    if not everything and not included and not ports:
        for name in (EXCLUDE_CIDRS, EXCLUDE_OUTBOUND):
            if subject.intervals(name):
                problem = f"has no effect: {_short(INCLUDE_CIDRS)} is empty, so nothing outbound is captured"
                yield subject.about(name, "no-effect", problem, "leave it out")
        return
    excluded_ports = subject.searchable(EXCLUDE_OUTBOUND)
    for each in ports:
        excluded = excluded_ports.meeting(each)
        if excluded is not None:
            problem = f"{each.text} is not captured, since {_short(EXCLUDE_OUTBOUND)} lists {excluded.text}"
            yield subject.about(INCLUDE_OUTBOUND, "contradiction", problem, "remove it from one of the two")
    if everything:
        return
    captured = Intervals(included)
    for each in subject.intervals(EXCLUDE_CIDRS):
        if not ports and captured.meeting(each) is None:
            problem = f"{each.text} has no effect: it is in no CIDR of {_short(INCLUDE_CIDRS)}"
            yield subject.about(EXCLUDE_CIDRS, "no-effect", problem, "leave it out")


def shadowed_cidrs(subject: Subject) -> Iterator[Finding]:
    """CIDRs to capture that are within excluded ones."""
    excluded = subject.searchable(EXCLUDE_CIDRS)
    for each in subject.intervals(INCLUDE_CIDRS):
        other = excluded.covering(each)
        if other is not None:
            problem = (
                f"{each.text} is not captured, since it is within {other.text} of {_short(EXCLUDE_CIDRS)}"
            )
            yield subject.about(INCLUDE_CIDRS, "shadowed", problem, "remove one of the two")


def dual_stack(subject: Subject) -> Iterator[Finding]:
    """CIDRs of both families where only one family is captured."""
    if subject.values["dual_stack"]:
        return
    for name in _CIDRS:
        intervals = subject.intervals(name)
        if {each.version for each in intervals} == {4, 6}:
            sixth = next(each.text for each in intervals if each.version == 6)
            problem = (
                f"{sixth} has no effect in a pod with addresses of both families: IPv6 is not captured there"
            )
            remedy = f"set {DUAL_STACK}=true in container {PROXY}, or leave the IPv6 CIDRs out"
            yield subject.about(name, "one-family", problem, remedy)


def _captures_ipv6(subject: Subject) -> bool:
    """Tell whether IPv6 is captured: without ISTIO_DUAL_STACK only if the pod has no IPv4 address.

    The pod's addresses are not in the manifest. If that has an IPv4 CIDR or DNS server, the pod has IPv4 too.
    """
    if subject.values["dual_stack"]:
        return True
    servers = [host_cidr(text) for text in subject.pod.dns_servers]
    versions = {server.version for server in servers if server is not None}
    versions |= {each.version for name in _CIDRS for each in subject.intervals(name)}
    return 4 not in versions


def dns(subject: Subject) -> Iterator[Finding]:
    """The pod's DNS servers in lists of CIDRs, and port 53 in lists of ports."""
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
            problem = f"{out.text} contains the pod's DNS server {text}, but queries still go to the agent"
            yield subject.about(EXCLUDE_CIDRS, "dns", problem, f"{_NO_CAPTURE} if they must not")
        if not captured and into is not None and out is None:
            problem = (
                f"{into.text} contains the pod's DNS server {text}: "
                "its TCP queries go to Envoy, its UDP queries do not"
            )
            remedy = f"exclude the server ({_short(EXCLUDE_CIDRS)}), or set {DNS_CAPTURE}"
            yield subject.about(INCLUDE_CIDRS, "dns", problem, remedy)
    port = subject.searchable(EXCLUDE_OUTBOUND).meeting(_DNS_PORT)
    if captured and port is not None:
        problem = f"{port.text} makes all DNS queries bypass the agent, which should answer them"
        yield subject.about(EXCLUDE_OUTBOUND, "dns", problem, f"leave port 53 out, or {_NO_CAPTURE}")


def lost_answers(subject: Subject) -> Iterator[Finding]:
    """DNS whose answers are looked up in another conntrack zone than the queries: see policy/raw.py."""
    if not subject.values["redirect_dns"] or subject.values["dns_single_zone"]:
        return
    if _DOCKERS_DNS in subject.pod.dns_servers:
        problem = (
            f"the pod's DNS server {_DOCKERS_DNS} is docker's, whose own rules may take queries before they "
            "get to the agent, and the agent's own UDP queries to it get no answers"
        )
        yield subject.finding("dns", "spec.dnsConfig", problem, _SINGLE_ZONE)


_DOCKERS_DNS = "127.0.0.11"
_SINGLE_ZONE = "give istio-init the argument --dns-single-zone"


def dns_of_others(subject: Subject) -> Iterator[Finding]:
    """Rerouted interfaces with DNS capture, such as docker0.

    An answer that comes in is put into conntrack zone 1 (policy/raw.py). The query that was forwarded for a
    container is in zone 0, so its masquerading is not undone.
    """
    if not subject.values["redirect_dns"] or subject.values["dns_single_zone"]:
        return
    for interface in members(subject.text(REROUTE_INTERFACES)):
        problem = (
            f"what is behind {interface} gets no answers from DNS servers: with DNS capture they are in "
            "another conntrack zone than its queries"
        )
        yield subject.about(REROUTE_INTERFACES, "dns", problem, _SINGLE_ZONE)


#: The variable by which Istio's agent gives addresses to hosts without one, and their CIDRs.
_AUTO_ALLOCATE = "ISTIO_META_DNS_AUTO_ALLOCATE"
_ALLOCATED = ("240.240.0.0/16", "2001:2::/48")


def auto_allocated(subject: Subject) -> Iterator[Finding]:
    """Addresses that the agent's DNS answers with, and that only the proxy can reach."""
    text, _ = proxy_variable(subject.pod, _AUTO_ALLOCATE)
    if text not in TRUE or not subject.values["redirect_dns"]:
        return
    included, excluded = subject.searchable(INCLUDE_CIDRS), subject.searchable(EXCLUDE_CIDRS)
    everything = isinstance(subject.values["outbound_cidrs"], Everything)
    for each in _allocated(subject):
        out = excluded.meeting(each)
        if out is not None:
            problem = f"{out.text} contains addresses of {each.text}, which {_AUTO_ALLOCATE} gives to hosts"
            remedy = "leave them out: only the proxy can reach these addresses"
            yield subject.about(EXCLUDE_CIDRS, "auto-allocate", problem, remedy)
        elif not everything and included.covering(each) is None:
            problem = f"{each.text} is missing, from which {_AUTO_ALLOCATE} gives addresses to hosts"
            remedy = "add it: only the proxy can reach these addresses"
            yield subject.about(INCLUDE_CIDRS, "auto-allocate", problem, remedy)


def _allocated(subject: Subject) -> list[Interval]:
    """Return the CIDRs of the families that the pod captures, as far as the manifest tells."""
    versions = {each.version for each in subject.intervals(INCLUDE_CIDRS)}
    wanted = {4, 6} if subject.values["dual_stack"] else {6} if versions == {6} else {4}
    found = [interval(text, cidr) for text in _ALLOCATED for cidr in cidrs(text, subject.names)]
    return [each for each in found if each.version in wanted]


def interfaces(subject: Subject) -> Iterator[Finding]:
    """Interfaces that are both excluded and rerouted, or rerouted with TPROXY."""
    rerouted = members(subject.text(REROUTE_INTERFACES))
    for interface in sorted(set(rerouted) & set(members(subject.text(EXCLUDE_INTERFACES)))):
        problem = f"{interface} is still captured, since {_short(REROUTE_INTERFACES)} lists it"
        yield subject.about(EXCLUDE_INTERFACES, "contradiction", problem, "remove it from one of the two")
    yield from subject.without_effect(REROUTE_INTERFACES)


CHECKS: tuple[Check, ...] = (
    bad_values,
    refused_by_istio,
    interface_names,
    host_bits,
    repeated,
    everything_excluded,
    inbound_exclusions,
    container_ports,
    ports_of_the_proxy,
    nothing_captured,
    outbound_lists,
    shadowed_cidrs,
    dual_stack,
    dns,
    lost_answers,
    dns_of_others,
    auto_allocated,
    interfaces,
)
