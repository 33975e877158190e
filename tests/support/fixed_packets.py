"""fixed_packets: packets of a pod of testbed.py that are written down, and what has to become of them."""

from __future__ import annotations

from collections.abc import Iterable

from istio_iptables.interpreter.packet import ICMP, ICMPV6, SYN, TCP, UDP, Packet
from istio_iptables.rules.model import NO_ID

from .drawn_packets import number, with_original
from .testbed import Setup, Testbed
from .truth import Compared, compare

#: Addresses of the pod, and of others: near, beyond the side link, far away, a guest of vm0.
OWN, SIDE, LO = "10.88.0.2", "10.89.0.2", "10.99.0.1"
NEAR, NEAR_SIDE, BEYOND, FAR, GUEST = "10.88.0.1", "10.89.0.1", "198.19.0.1", "198.18.0.1", "192.168.50.2"
OWN6, NEAR6, FAR6, GUEST6 = "fd88::2", "fd88::1", "2001:db8::1", "fd50::2"


def udp(source: str, destination: str, port: int = 7000, by: str = "", source_port: int = 40000) -> Packet:
    """Return the first packet of a connection of UDP: it comes in by an interface, or a process sends it."""
    return _first(UDP, source, destination, source_port, port, by)


def tcp(source: str, destination: str, port: int = 7000, by: str = "", source_port: int = 40000) -> Packet:
    """Return the first packet of a connection of TCP."""
    return _first(TCP, source, destination, source_port, port, by, flags=SYN)


def echo(source: str, destination: str, by: str = "") -> Packet:
    """Return an echo request."""
    protocol, kind = (ICMPV6, 128) if ":" in source else (ICMP, 8)
    return _first(protocol, source, destination, 0, 0, by, icmp_type=kind)


def _first(
    protocol: int,
    source: str,
    destination: str,
    source_port: int,
    port: int,
    by: str,
    flags: int = 0,
    icmp_type: int = 8,
) -> Packet:
    owner = NO_ID if by else 1000
    made = Packet(
        "ipv6" if ":" in source else "ipv4",
        protocol,
        number(source),
        number(destination),
        source_port,
        port,
        received_on=by,
        uid=owner,
        gid=owner,
        flags=flags,
        icmp_type=icmp_type,
    )
    return with_original(made)


def seen(bed: Testbed, setup: Setup, packets: Iterable[Packet], *, talk: bool = False) -> list[Compared]:
    """Send packets to a pod; all that was foretold has to have happened."""
    try:
        bed.load(setup)
        world = bed.world()
        found = [
            each for packet in packets for each in compare(bed, world, packet, talk and packet.has_ports)
        ]
    finally:
        bed.unload()
    wrong = [str(each) for each in found if each.differences]
    assert not wrong, "\n".join(wrong)
    return found
