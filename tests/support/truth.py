"""truth: what the interpreter foretells of a packet held against what the kernel did with it.

A `Case` is a packet, or with its answer and a later packet a conversation, each of which is compared.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

from istio_iptables.interpreter.connection import Connection, connection_of
from istio_iptables.interpreter.explore import Explored, Fork, Way, explore
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.packet import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Packet, endpoint_text
from istio_iptables.interpreter.verdict import DEPENDS, Proxy
from istio_iptables.rules.model import IPV4, NO_ID

from .testbed import Observed, Testbed
from .watcher import Connected
from .wire import Numbers

_numbers = itertools.count(1)
PROXY = Proxy()


class Compared(NamedTuple):
    """One packet: what was foretold, what was seen, and in what these differ (nothing, if all is well)."""

    what: str
    packet: Packet
    foretold: Explored
    observed: Observed
    differences: tuple[str, ...]

    @property
    def depends(self) -> bool:
        """True if the interpreter says that it depends."""
        return self.foretold.verdict == DEPENDS

    @property
    def is_unknown(self) -> bool:
        """True if it depends on a match or target that is not modelled."""
        at_a_rule = any(way.end.how == "not known" and way.end.place for way in self.foretold.ways)
        return at_a_rule or any(not isinstance(about, tuple) for about in _questions(self.foretold.found))

    def __str__(self) -> str:
        lines = [f"{self.what}: {describe(self.packet)}"]
        lines += [f"  foretold: {_way_text(way)}" for way in self.foretold.ways]
        lines.append(f"  observed: {_observed_text(self.observed)}")
        return "\n".join([*lines, *(f"  {each}" for each in self.differences if each)])


def _questions(node: Way | Fork) -> Iterator[object]:
    if isinstance(node, Fork):
        yield node.about
        for branch in node.branches:
            yield from _questions(branch)


def compare(bed: Testbed, world: World, packet: Packet, talk: bool) -> list[Compared]:
    """Send a packet and compare; with `talk` also its answer, and a later packet of the same connection."""
    bed.forget()
    number = next(_numbers) % 0xFFFF + 1
    numbers = Numbers(number, number << 16)
    first = explore(world, packet, direction_of(packet), PROXY)
    found = [_compared(bed, world, "first", packet, first, numbers)]
    way = _true_way(world, found[0])
    if not talk or way is None:
        return found
    connection, observed = connection_of(packet, way.packet), found[0].observed
    if connection is None or observed.event is None or observed.connection is None:
        return found
    if connection.original == connection.reply:  # TCP takes the first packet for its own answer
        return found
    return found + list(_talk(bed, world, found[0], _completed(connection, observed.connection), numbers))


def alone(bed: Testbed, world: World, packet: Packet, proxy: Proxy) -> Compared:
    """Send one packet and compare; conntrack knows its connection, if it has one, and no other."""
    bed.forget()
    if packet.connection:
        bed.know(packet)
    number = next(_numbers) % 0xFFFF + 1
    foretold = explore(world, packet, direction_of(packet), proxy)
    return _compared(bed, world, "alone", packet, foretold, Numbers(number, number << 16, 1))


def _talk(
    bed: Testbed, world: World, first: Compared, connection: Connection, numbers: Numbers
) -> Iterator[Compared]:
    packet, event = first.packet, first.observed.event
    assert event
    answer = _answer(packet, connection, event.device if event.where == "sent" else "")
    back = Numbers(numbers.tag + 0x10000, numbers.sequence + 0x8000, numbers.sequence + 1)
    foretold = explore(world, answer, direction_of(answer), PROXY)
    compared = _compared(bed, world, "answer", answer, foretold, back)
    yield compared
    way = _true_way(world, compared)
    if way is None or not way.packet.tracked or _state(way.packet) != "ESTABLISHED reply":
        return
    if way.packet.state == "UNTRACKED":  # conntrack has not seen that there was an answer
        return
    connection = connection.replace(replied=True, mark=way.packet.connection_mark)
    later = packet.replace(connection=connection, flags=ACK if packet.protocol == TCP else 0)
    there = Numbers(numbers.tag + 0x20000, numbers.sequence + 1, back.sequence + 1)
    foretold = explore(world, later, direction_of(later), PROXY)
    yield _compared(bed, world, "later", later, foretold, there)


def direction_of(packet: Packet) -> Literal["out", "in"]:
    """Return `in` if it comes in, else `out`."""
    return "in" if packet.received_on else "out"


def _answer(packet: Packet, connection: Connection, sent_by: str) -> Packet:
    """Return the answer: from outside if the first packet was sent there, else by a process of the pod."""
    source, source_port, destination, destination_port = connection.reply
    assert source is not None and destination is not None  # noqa: PT018
    owner = NO_ID if sent_by else 1000
    return Packet(
        packet.family,
        packet.protocol,
        source,
        destination,
        source_port or 0,
        destination_port or 0,
        received_on=sent_by,
        uid=owner,
        gid=owner,
        flags=SYN | ACK,
        state="INVALID" if packet.protocol == TCP else "NEW",
        connection=connection,
        packet_type=packet.packet_type,
    )


def _completed(connection: Connection, kernel: Connected) -> Connection:
    """Return a connection with what could not be foretold: the source that nat chose."""
    reply = kernel.reply
    known = (reply.source, reply.source_port, reply.destination, reply.destination_port)
    return connection.replace(reply=known, source_translated=known[2:] != connection.original[:2])


# --- one packet -------------------------------------------------------------------------------


def _compared(
    bed: Testbed, world: World, what: str, packet: Packet, foretold: Explored, numbers: Numbers
) -> Compared:
    observed = bed.send(packet, numbers)
    found = [_differences(world, packet, way, observed) for way in foretold.ways]
    best = min(found, key=len)
    return Compared(what, packet, foretold, observed, tuple(best))


def _true_way(world: World, compared: Compared) -> Way | None:
    """Return the way that the packet took, None if none of those foretold is it."""
    for way in compared.foretold.ways:
        if not _differences(world, compared.packet, way, compared.observed):
            return way
    return None


def _differences(world: World, sent: Packet, way: Way, observed: Observed) -> list[str]:
    how, end = way.end.how, way.packet
    if how == "not known":  # that is no answer, and cannot be wrong
        return []
    if how in ("dropped", "rejected"):
        return _of_ended(world, sent, way, observed)
    if observed.how != how:
        return [f"it was {observed.how}, not {how}", *[""] * 9]  # fewer is nearer
    event = observed.event
    assert event
    seen = event.packet
    device = end.sent_to if how == "sent" else end.received_on
    pairs: list[tuple[str, object, object]] = [
        ("interface", device, event.device),
        ("source", end.source, seen.source),
        ("destination", end.destination, seen.destination),
        ("mark", end.mark, event.mark),
        ("state", _state(end), event.state),
    ]
    if end.has_ports:
        pairs.append(("source port", end.source_port, seen.source_port))
        pairs.append(("destination port", end.destination_port, seen.destination_port))
    if how == "delivered" and not (end.tproxied and event.uid is None):
        pairs.append(("port of TPROXY", end.tproxied, event.uid or 0))
    if observed.connection and end.state not in ("INVALID", "UNTRACKED"):
        pairs.append(("connection mark", end.connection_mark, observed.connection.mark))
        pairs.append(("zone", end.zone, observed.connection.zone))
        pairs.append(("zone of answers", end.reply_zone, observed.connection.reply_zone))
    return [
        f"{name}: foretold {_hex(want)}, seen {_hex(got)}"
        for name, want, got in pairs
        if want is not None and want != got
    ]


def _of_ended(world: World, sent: Packet, way: Way, observed: Observed) -> list[str]:
    """Compare a packet that does not arrive. Of routes the kernel tells only some senders, and not always."""
    how, by_rule = way.end.how, way.end.place is not None
    if observed.how in ("delivered", "sent"):
        return [f"it was {observed.how}, not {how}", *[""] * 9]  # fewer is nearer
    if how == "dropped" and (observed.how == how or (not by_rule and not observed.told)):
        return []
    if how == "rejected" and (observed.how == how or (not by_rule and sent.received_on)):
        if by_rule and not observed.told:
            return ["no refusal was seen"]
        return []
    if how == "rejected" and not _can_be_told(world, way.packet):
        return []
    return [f"it was {observed.how} (error {observed.errno}), not {how}"]


def _can_be_told(world: World, end: Packet) -> bool:
    """Tell whether an ICMP error can be sent: it comes from what the packet was sent to (icmp_send).

    That cannot be an address that is not the pod's, nor a loopback address if it has to go elsewhere, and
    nobody refuses a broadcast. The first address of a network on a link is anycast, to which IPv6 sends none
    (ipv6_anycast_destination).
    """
    routes = world.network.routes
    if any(route.kind == "broadcast" and route.first == end.destination for route in routes):
        return False
    if end.family != IPV4:
        near = (route for route in routes if route.prefix < 127 and not route.gateway)
        return all(route.family == IPV4 or route.first != end.source for route in near)
    delivered = end.received_on and not end.sent_to
    if delivered and not world.network.is_local(end.family, end.destination):
        return False
    is_told = end.source is not None and end.source >> 24 == 127
    return is_told or end.destination >> 24 != 127


def _state(packet: Packet) -> str:
    if packet.state in ("INVALID", "UNTRACKED"):
        return packet.state
    return f"{packet.state} {packet.direction}"


# --- text -------------------------------------------------------------------------------------


def _hex(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


_NAMES = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}


def describe(packet: Packet) -> str:
    """Return a packet as text."""
    ends = " > ".join(
        endpoint_text(packet.family, address, port)
        for address, port in (
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
    )
    by = f" in by {packet.received_on}" if packet.received_on else f" of {packet.uid}:{packet.gid}"
    groups = f" groups {packet.groups}" if packet.groups else ""
    return (
        f"{_NAMES.get(packet.protocol, packet.protocol)} {ends}{by}{groups}, mark {packet.mark:#x}, "
        f"flags {packet.flags:#x}, {packet.state}"
    )


def _way_text(way: Way) -> str:
    end = way.packet
    where = way.end.place or way.end.note
    return (
        f"{way.verdict} ({way.end.how}{f', {where}' if where else ''}): out {end.sent_to or '-'}, "
        f"in {end.received_on or '-'}, {_ends(end)}, mark {end.mark:#x}, connection mark "
        f"{end.connection_mark:#x}, zone {end.zone}, {_state(end)}, tproxied {end.tproxied}, "
        f"if {[(str(about), answer) for about, answer in way.assumed]}"
    )


def _ends(packet: Packet) -> str:
    return " > ".join(
        "?" if address is None else endpoint_text(packet.family, address, port or 0)
        for address, port in (
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
    )


def _observed_text(observed: Observed) -> str:
    name = errno.errorcode.get(observed.errno, "") if observed.errno else ""
    lines = [f"{observed.how} {name} {'told' if observed.told else ''} {observed.connection or ''}"]
    for event in observed.events:
        seen = event.packet
        family = "ipv6" if max(seen.source, seen.destination) >> 32 or seen.source < 1 << 24 else "ipv4"
        ends = [
            endpoint_text(family, address, port)  # type: ignore[arg-type]  # one of the two
            for address, port in ((seen.source, seen.source_port), (seen.destination, seen.destination_port))
        ]
        lines.append(
            f"    {event.where} {event.device} {event.state} {' > '.join(ends)} protocol {seen.protocol} "
            f"flags {seen.flags:#x} mark {event.mark:#x} uid {event.uid}"
        )
    return "\n".join(lines)
