"""packet: the packet that a trace is asked about, and what of it was filled in."""

from __future__ import annotations

from ..errors import SettingsError
from ..interpreter.algebra import One
from ..interpreter.packet import (
    ACK,
    ICMP,
    ICMPV6,
    SYN,
    TCP,
    UDP,
    Packet,
    address_text,
    endpoint_text,
    has_ports,
)
from ..interpreter.routing import LOOPBACK, Address
from ..rules.model import IPV4, NO_ID
from ..settings.packet_parsers import Endpoint
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, TypeAlias

    from ..interpreter.routing import Network, Routed
    from ..interpreter.verdict import Proxy
    from ..rules.model import Family

    Direction: TypeAlias = Literal["out", "in"]

#: A port that a kernel gives to a connection (net.ipv4.ip_local_port_range).
_SOME_PORT = 40000
#: Addresses for documentation (RFC 5737, RFC 3849): some peer, and a pod of which no address is known.
_SOME_PEER = {"ipv4": 0xC6336401, "ipv6": 0x20010DB8000000000000000000000001}
SOME_OWN = {"ipv4": 0xC6336402, "ipv6": 0x20010DB8000000000000000000000002}
_NO_OWN = "no own address is known: give --own"


class Question(Record):
    """What was asked: a packet as the options describe it; None and an empty Endpoint are not given."""

    direction: Direction
    to: Endpoint = Endpoint()
    source: Endpoint = Endpoint()
    uid: int | None = None
    gid: int | None = None
    protocol: int = TCP
    interface: str = ""
    mark: int = 0
    connection_mark: int = 0
    state: str = "NEW"
    zone: int = 0


#: The options of `trace` that describe its packet.
OPTIONS = (
    "to",
    "from",
    "uid",
    "gid",
    "udp",
    "protocol",
    "iface",
    "mark",
    "connmark",
    "ctstate",
    "zone",
)


def question_of(direction: Direction, options: Mapping[str, Any]) -> Question:
    """Return the question that options of `trace` ask. Raises SettingsError if they contradict each other."""
    protocol = options["protocol"]
    if options["udp"] and protocol not in (None, UDP):
        raise SettingsError(["--udp and --protocol: two protocols: give one of them"])
    return Question(
        direction,
        options["to"],
        options["from"],
        options["uid"],
        options["gid"],
        UDP if options["udp"] else TCP if protocol is None else protocol,
        options["iface"],
        options["mark"],
        options["connmark"],
        options["ctstate"],
        options["zone"],
    )


def words(question: Question) -> tuple[str, ...]:
    """Return a question as the arguments of `trace`, without those that have their defaults."""
    given = {
        "uid": "" if question.uid is None else _id(question.uid),
        "gid": "" if question.gid in (None, question.uid) else _id(question.gid or 0),
        "from": _endpoint(question.source),
        "to": _endpoint(question.to),
        "udp": "" if question.protocol != UDP else "true",
        "protocol": "" if question.protocol in (TCP, UDP) else str(question.protocol),
        "iface": question.interface,
        "mark": f"{question.mark:#x}" if question.mark else "",
        "connmark": f"{question.connection_mark:#x}" if question.connection_mark else "",
        "ctstate": question.state if question.state != "NEW" else "",
        "zone": str(question.zone) if question.zone else "",
    }
    found = [(f"--{name}", value) if name != "udp" else ("--udp",) for name, value in given.items() if value]
    return (question.direction, *(word for option in found for word in option))


def _id(number: int) -> str:
    return "none" if number == NO_ID else str(number)


def _endpoint(endpoint: Endpoint) -> str:
    if endpoint.address is None:
        return f":{endpoint.port}" if endpoint.port else ""
    return endpoint_text(endpoint.address.family, endpoint.address.address, endpoint.port)


class Filled(Record):
    """Something that was not given: what it is, the value that was taken, and why."""

    what: str
    value: str
    why: str


class Asked(Record):
    """A complete packet, and what was filled in."""

    direction: Direction
    packet: Packet
    filled: tuple[Filled, ...]


def complete(question: Question, network: Network, proxy: Proxy) -> Asked:
    """Fill in what was not given. Raises SettingsError if the packet cannot be made of what was."""
    if mistakes := [*mistakes_in(question), *_mistakes_here(question, network)]:
        raise SettingsError(mistakes)
    return _Filling(question, network, proxy).asked()


def mistakes_in(question: Question) -> list[str]:
    """Return what is wrong with a question, whatever the network is."""
    mistakes = []
    to, source = question.to, question.source
    with_ports = has_ports(question.protocol)
    if with_ports and not to.port:
        mistakes.append("--to: needs a port, such as --to 10.0.0.1:80 or --to [fd00::1]:80")
    if not with_ports and (to.port or source.port):
        mistakes.append("--to and --from: this protocol has no ports: give addresses alone")
    if question.direction == "out" and (to.port or not with_ports) and to.address is None:
        mistakes.append("--to: `trace out` needs an address, such as --to 10.0.0.1:80")
    if to.address and source.address and to.address.version != source.address.version:
        mistakes.append("--from and --to: one is an IPv4 address, the other an IPv6 address")
    if question.direction == "in":
        for name, value in (("--uid", question.uid), ("--gid", question.gid)):
            if value is not None:
                mistakes.append(f"{name}: a packet that comes in belongs to no socket: use `trace out`")
    return mistakes


def mistakes_in_way(question: Question) -> list[str]:
    """Return what is wrong with the way that a packet is to begin: nothing from outside comes in by lo."""
    if question.direction == "out" or question.interface != LOOPBACK:
        return []
    return [
        "--iface: what comes in by lo was sent by this machine, and rules have seen it then: use `trace out`"
    ]


def mistakes_in_endpoint(endpoint: Endpoint) -> list[str]:
    """Return what is wrong with the endpoint that the proxy is to choose; an empty one is not given."""
    if bool(endpoint.address) == bool(endpoint.port):
        return []
    return ["--endpoint: needs an address and a port, such as --endpoint 10.0.0.2:8080"]


def _mistakes_here(question: Question, network: Network) -> list[str]:
    """Return what is wrong with a question in a network that is known, not assumed."""
    if question.interface in ("", *network.interfaces) or network.assumed:
        return []
    known = ", ".join(network.interfaces)
    return [f"--iface: {question.interface!r} is not an interface of this network namespace (it has {known})"]


def source_for(network: Network, packet: Packet) -> tuple[int, str]:
    """Return the source address that a socket gets that was not bound to one, and why it is that one."""
    routed = _first_route(network, packet)
    if routed.source is not None:
        return routed.source, _whose(Address(routed.interface, packet.family, routed.source, 0))
    if routed.kind == "local":
        return packet.destination, "what is for this machine comes from the same address"
    own = network.own(packet.family, routed.interface) or network.own(packet.family)
    if own:
        return own[0].address, _whose(own[0])
    return SOME_OWN[packet.family], _NO_OWN


def _whose(own: Address) -> str:
    """Return why an own address is taken. That of an interface of which nothing is known is an example."""
    if own.address == SOME_OWN[own.family]:
        return _NO_OWN
    if own.address == SOME_OWN[own.family] + 1:
        return f"an example: no address of {own.interface} is known"
    return f"the address of {own.interface}"


class _Filling:
    """Makes the packet of a question, and keeps what it filled in."""

    def __init__(self, question: Question, network: Network, proxy: Proxy) -> None:
        self._question = question
        self._network = network
        self._proxy = proxy
        self._filled: list[Filled] = []
        given = question.to.address or question.source.address
        self._family: Family = given.family if given else IPV4
        if given is None:
            self._fill("family", "IPv4", "no address was given")

    def asked(self) -> Asked:
        """Return the packet."""
        question = self._question
        is_error = question.protocol in (ICMP, ICMPV6)  # RELATED to a connection that there is
        first = question.state == "NEW" or (question.state == "RELATED" and not is_error)
        packet = Packet(
            self._family,
            question.protocol,
            0,
            question.to.address.address if question.to.address else 0,
            self._source_port(),
            question.to.port,
            mark=question.mark,
            connection_mark=question.connection_mark,
            state=question.state,
            zone=question.zone,
            first=first,
            flags=SYN if first else ACK,
        )
        packet = self._outbound(packet) if question.direction == "out" else self._inbound(packet)
        packet = packet.replace(
            original_source=packet.source,
            original_source_port=packet.source_port,
            original_destination=packet.destination,
            original_port=packet.destination_port,
        )
        return Asked(question.direction, packet, tuple(self._filled))

    def _source_port(self) -> int:
        given = self._question.source.port
        if given or not has_ports(self._question.protocol):
            return given
        self._fill("source port", str(_SOME_PORT), "a kernel gives some port")
        return _SOME_PORT

    def _fill(self, what: str, value: str, why: str) -> None:
        self._filled.append(Filled(what, value, why))

    def _outbound(self, packet: Packet) -> Packet:
        question = self._question
        uid = question.uid
        if uid is None:
            uid = 1000
            while uid in self._proxy.uids:
                uid += 1
            self._fill("UID", str(uid), "a user that is not the proxy's")
        gid = question.gid
        if gid is None:
            gid = uid
            if gid != NO_ID:
                self._fill("GID", str(gid), "the same as the UID")
        packet = self._dialled(packet.replace(uid=uid, gid=gid, bound=question.interface))
        return packet.replace(source=self._source(packet))

    def _dialled(self, packet: Packet) -> Packet:
        """Who dials 0.0.0.0 or :: dials this machine (ip_route_output_key_hash_rcu, tcp_v6_connect)."""
        if packet.destination:
            return packet
        given = self._question.source.address
        loopback = 1 if self._family != IPV4 else given.address if given else 0x7F000001
        written = address_text(self._family, packet.destination)
        why = f"a socket that dials {written} dials this machine"
        self._fill("destination", address_text(self._family, loopback), why)
        return packet.replace(destination=loopback)

    def _source(self, packet: Packet) -> int:
        if self._question.source.address:
            return self._question.source.address.address
        source, why = source_for(self._network, packet)
        self._fill("source", address_text(self._family, source), why)
        return source

    def _inbound(self, packet: Packet) -> Packet:
        question, network = self._question, self._network
        interface = question.interface
        destination = packet.destination
        if question.to.address is None:
            own = network.own(self._family, interface)
            destination = own[0].address if own else SOME_OWN[self._family]
            why = _whose(own[0]) if own else _NO_OWN
            self._fill("destination", address_text(self._family, destination), why)
        if not interface:
            interface, why = self._receiving(destination)
            self._fill("interface", interface, why)
        source = question.source.address
        if source is None:
            self._fill("source", address_text(self._family, _SOME_PEER[self._family]), "some peer")
        return packet.replace(
            destination=destination,
            received_on=interface,
            source=source.address if source else _SOME_PEER[self._family],
        )

    def _receiving(self, destination: int) -> tuple[str, str]:
        """Return the interface that a packet for an address comes in by."""
        for each in self._network.addresses:
            if each.family == self._family and each.address == destination:
                return each.interface, "the interface that has the address"
        others = [name for name in self._network.interfaces if name != LOOPBACK]
        return (others[0], "the first interface") if others else ("eth0", "no interface is known")


def leaves_by(network: Network, packet: Packet) -> str:
    """Return the interface that a packet which is sent here has in the hook output, before any rule.

    What is for this machine itself leaves by lo, also from a socket that is bound to another interface.
    """
    return _first_route(network, packet).leaves_by or packet.bound


def _first_route(network: Network, packet: Packet) -> Routed:
    """Return the route that a packet takes before any rule has seen it."""
    return next(routed for _, routed in network.route(One(), packet, packet.family, bound=packet.bound))
