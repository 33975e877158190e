"""refuting: a packet of a region that can be sent for real, and the verdict that the kernel had for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from istio_iptables.interpreter.explore import explore
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.packet import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Packet
from istio_iptables.interpreter.regions import Region
from istio_iptables.interpreter.routing import Network
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.prove.example import example
from istio_iptables.prove.space import Packets
from istio_iptables.rules.model import NO_ID

from .drawn_packets import number
from .known_connections import connection_of_later
from .pod_settings import CLIENT, OWN
from .testbed import LISTENING_PORTS, Observed
from .truth import direction_of

_FIN = 0x01
#: No rule tells them apart.
_SOURCE_PORTS = (20000, 39999)
_numbers = itertools.cycle(range(_SOURCE_PORTS[0], _SOURCE_PORTS[1] + 1))
_CABLES = ("eth0", "lo1", "vm0", "vm1")
_VERSIONS = {"ipv4": 4, "ipv6": 6}


def sendable(region: Region, every: Packets, network: Network) -> Packet | None:
    """Return a packet of a region that a process or a neighbour of a testbed can send, None if there is none.

    Nobody can send without a socket, nor with a mark from outside; nothing is sent to a broadcast address.
    A later packet is of TCP or UDP, one that belongs to no connection of TCP.
    """
    version = _VERSIONS[every.space.family]
    for field, values in _needed(every, network):
        region, _ = region.divide(field, values)
    if not region:
        return None
    for field, values in _plain(every, version):
        preferred, _ = region.divide(field, values)
        region = preferred or region
    packet = example(region, every, number(OWN[version][0]))
    if every.phase == "first":
        return packet.replace(flags=SYN, icmp_type=128 if packet.protocol == ICMPV6 else 8)
    return packet.replace(flags=ACK if every.phase == "later" else _FIN | ACK)


def from_another_port(packet: Packet, anyway: bool = False) -> Packet:
    """Return a packet from a port that has not been used for long, `anyway` also if it has one of its own.

    A listening socket remembers for a second who has called, and TPROXY finds that instead of the socket.
    """
    first, last = _SOURCE_PORTS
    if packet.has_ports and (anyway or first <= packet.source_port <= last):
        return packet.replace(source_port=next(_numbers))
    return packet


def _needed(every: Packets, network: Network) -> list[tuple[str, Any]]:
    icmp = ICMP if every.space.family == "ipv4" else ICMPV6
    # An error is about a packet that was sent before, and what is expected about a connection: none is made.
    protocols = {"first": (icmp, TCP, UDP), "later": (TCP, UDP), "invalid": (TCP,)}.get(every.phase, ())
    needed: list[tuple[str, Any]] = [
        ("protocol", tuple((each, each) for each in sorted(protocols))),
        ("destination", tuple(_hosts(every, network))),
    ]
    if every.direction == "in":
        needed.append(("received_on", every.space.words["received_on"] & frozenset(_CABLES)))
        needed.append(("mark", frozenset({(0, 0xFFFFFFFF)})))
    else:
        needed += [("uid", ((0, NO_ID - 1),)), ("gid", ((0, NO_ID - 1),))]
    return needed


def _plain(every: Packets, version: int) -> list[tuple[str, Any]]:
    own = tuple(sorted((number(text), number(text)) for text in OWN[version]))
    client = number(CLIENT[version])
    plain: list[tuple[str, Any]] = [
        ("source_port", (_SOURCE_PORTS,)),
        ("destination_port", ((1, 65535),)),
        ("protocol", ((TCP, TCP),)),
    ]
    if every.direction == "out":
        return [*plain, ("source", own), ("mark", frozenset({(0, 0xFFFFFFFF)}))]
    return [*plain, ("source", ((client, client),)), ("destination", own)]


def _hosts(every: Packets, network: Network) -> Iterator[tuple[int, int]]:
    """Yield the addresses that are one host's: what is sent to many is for those alone who say so."""
    _, last = every.space.ranges["destination"]
    many = {route.first for route in network.routes if route.kind == "broadcast"}
    first = 1
    for each in sorted(address for address in many if address <= last):
        if first < each:
            yield first, each - 1
        first = each + 1
    yield first, (224 << 24) - 1 if last >> 32 == 0 else last


def with_connection(world: World, packet: Packet, proxy: Proxy) -> Packet:
    """Return a later packet with its connection, in the zone in which rules look for it."""
    ways = explore(world, packet, direction_of(packet), proxy).ways
    end = ways[0].packet
    connection = connection_of_later(packet, end.zone, end.reply_zone)
    return packet.replace(connection=connection, connection_mark=0, first=True, state="NEW")


def seen_verdict(sent: Packet, observed: Observed) -> str:
    """Return the verdict that the kernel was seen to have, in the words of Verdict."""
    if observed.how not in ("delivered", "sent"):
        return observed.how
    event = observed.event
    assert event
    if observed.how == "delivered" and event.uid in LISTENING_PORTS:
        return f"tproxied {event.uid}"
    seen = event.packet
    if not sent.has_ports or seen.destination_port == sent.destination_port:
        return "direct" if seen.destination == sent.destination else "translated"
    return f"redirected {seen.destination_port}"
