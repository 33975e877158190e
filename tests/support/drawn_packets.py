"""drawn_packets: Hypothesis strategies for packets that rules may tell apart, in a pod of testbed.py.

The values are those that the rules compare with, whichever tool wrote them, and what is next to them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from istio_iptables.interpreter.action import Assign, Choose
from istio_iptables.interpreter.condition import AllOf, AnyOf, Condition, In, Masked, Not
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.packet import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Packet
from istio_iptables.rules.model import IPV4, NO_ID

from .netns import VM_LINKS
from .pod_settings import AGENT_PORT, CLIENT, DIALLED_PORTS, OTHERS, OWN, PASSTHROUGH, SERVERS

_FIN, _RST = 0x01, 0x04
_VERSIONS = {"ipv4": 4, "ipv6": 6}


def number(text: str) -> int:
    """Return an address as a number."""
    return int(ipaddress.ip_address(text))


#: Addresses beyond the pod: those of services that foreign rules know, and those that no route leads to.
SERVICES = {
    "ipv4": (
        "10.96.0.1",
        "10.96.0.10",
        "10.96.7.7",
        "10.244.1.5",
        "203.0.113.1",
        "203.0.113.70",
        "203.0.113.200",
    ),
    "ipv6": (
        "fd00:96::1",
        "fd00:96::a",
        "fd00:244::5",
        "2001:db8:bad:1::1",
        "2001:db8:bad:2::1",
        "2001:db8:bad:9::5",
    ),
}
_NOWHERE = {"ipv4": ("203.0.113.130",), "ipv6": ("2001:db8:bad:3::1",)}


class Values(NamedTuple):
    """What packets are made of, by family where that matters."""

    addresses: dict[str, list[int]]
    hosts: dict[str, list[int]]  #: addresses but those that are no single host's
    reached: dict[str, list[int]]  #: of these, those that the pod has a way to
    ports: list[int]
    uids: list[int]
    gids: list[int]
    marks: list[int]


def values_of(world: World) -> Values:
    """Return what the rules compare with."""
    found: dict[str, set[int]] = {}
    for field, first, last in _compared(world):
        found.setdefault(field, set()).update(
            (first, last, max(first - 1, 0), last + 1) if first != last else (first,)
        )
    numbers = found.get("source", set()) | found.get("destination", set())
    addresses = {}
    for family, version in _VERSIONS.items():
        texts = (*OWN[version], CLIENT[version], *OTHERS[version], PASSTHROUGH[version])
        texts += (*SERVICES[family], *_NOWHERE[family], *(each for each in SERVERS if _is(family, each)))
        own = {number(text) for text in texts}
        addresses[family] = sorted({each for each in numbers if _is_host(family, each)} | own)
    ports = found.get("source_port", set()) | found.get("destination_port", set())
    several = {route.first for route in world.network.routes if route.kind in ("broadcast", "anycast")}
    hosts = {family: sorted({*every} - several) for family, every in addresses.items()}
    lost = [r for r in world.network.routes if r.kind in ("unreachable", "prohibit", "blackhole")]
    reached = {
        family: [each for each in found if not any(route.first <= each <= route.last for route in lost)]
        for family, found in hosts.items()
    }
    return Values(
        addresses,
        hosts,
        reached,
        sorted(port for port in {*ports, 53, 80, 443, AGENT_PORT, 15006} if 0 < port < 65536),
        sorted(each for each in found.get("uid", set()) | {0, 1000, 1337} if each < NO_ID),
        sorted(each for each in found.get("gid", set()) | {0, 1000, 1337} if each < NO_ID),
        sorted(each for each in found.get("mark", set()) | {0, 1337, 1338} if each < 1 << 32),
    )


def _is(family: str, text: str) -> bool:
    return (":" in text) == (family != IPV4)


def _is_host(family: str, address: int) -> bool:
    """Tell whether an address is one that a host may have."""
    if family == IPV4:
        return 1 << 24 <= address < 224 << 24
    return 1 << 125 <= address < 0xFE80 << 112 or address in (1, 6)


def _compared(world: World) -> Iterator[tuple[str, int, int]]:
    for table in world.program.tables:
        for rules in table.chains.values():
            for rule in rules:
                for statement in rule.statements:
                    yield from _of_statement(statement)
    for each in world.network.rules:
        yield from _of_statement(each.condition)


def _of_statement(statement: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(statement, Condition):
        yield from _of_condition(statement)
    elif isinstance(statement, Choose):
        for condition, _ in statement.branches:
            yield from _of_condition(condition)
    elif isinstance(statement, Assign) and statement.flip:
        yield "mark", statement.flip, statement.flip


def _of_condition(condition: Condition) -> Iterator[tuple[str, int, int]]:
    if isinstance(condition, (AllOf, AnyOf)):
        for part in condition.parts:
            yield from _of_condition(part)
    elif isinstance(condition, Not):
        yield from _of_condition(condition.part)
    elif isinstance(condition, In):
        for first, last in condition.ranges:
            yield condition.field, first, last
    elif isinstance(condition, Masked):
        yield condition.field, condition.value, condition.value
        yield condition.field, condition.value | (~condition.mask & 0x10100), condition.value


# --- packets ----------------------------------------------------------------------------------

_INTERFACES = ("eth0", "lo1", "vm0", "vm1")


def _own(family: str) -> list[int]:
    return [number(text) for text in OWN[_VERSIONS[family]]]


def _sources(family: str, interface: str) -> list[int]:
    """Return sources of packets that come in: neighbours, others, and seldom what cannot be."""
    version = _VERSIONS[family]
    neighbour = {"vm0": 0, "vm1": 1}.get(interface)
    link = VM_LINKS[neighbour] if neighbour is not None else None
    near = (link.ipv4 if version == 4 else link.ipv6)[1] if link else CLIENT[version]
    outside = [text for text in OTHERS[version] if not text.startswith(("127.", "::1"))]
    return [number(text) for text in (near, near, near, *outside)]


@st.composite
def packets(draw: DrawFn, values: Values) -> Packet:
    """A packet that a socket of the pod sends, or that comes in."""
    family = draw(st.sampled_from(["ipv4", "ipv4", "ipv6"]))
    protocol, flags, state = draw(st.sampled_from(_KINDS))
    if protocol == ICMP and family != IPV4:
        protocol = ICMPV6
    ports: SearchStrategy[int] = st.sampled_from(values.ports) | st.sampled_from(DIALLED_PORTS)
    has_ports = protocol in (TCP, UDP)
    source_port = draw(st.just(40000) | st.just(40000) | ports) if has_ports else 0
    packet = Packet(
        family,  # type: ignore[arg-type]  # one of the two
        protocol,
        0,
        0,
        source_port,
        draw(ports) if has_ports else 0,
        flags=flags,
        state=state,
        icmp_type=128 if protocol == ICMPV6 else 8,
    )
    packet = _coming_in(draw, packet, values) if draw(st.integers(0, 2)) == 0 else _sent(draw, packet, values)
    return with_original(packet)


#: Protocol, flags of TCP, and what conntrack makes of the first packet.
_KINDS = (
    *[(TCP, SYN, "NEW")] * 6,
    (TCP, ACK, "NEW"),
    (TCP, _FIN | ACK, "INVALID"),
    *[(UDP, 0, "NEW")] * 3,
    (ICMP, 0, "NEW"),
)


def with_original(packet: Packet) -> Packet:
    """Return a first packet with what conntrack notes of it."""
    return packet.replace(
        original_source=packet.source,
        original_source_port=packet.source_port,
        original_destination=packet.destination,
        original_port=packet.destination_port,
    )


def _sent(draw: DrawFn, packet: Packet, values: Values) -> Packet:
    family = packet.family
    everywhere = st.sampled_from(values.hosts[family])
    destination = draw(everywhere | everywhere | st.sampled_from(_own(family)))
    loopback = number("127.0.0.1" if family == IPV4 else "::1")
    own = _own(family)
    others = st.sampled_from(values.reached[family])  # who is refused can be told
    source = draw(st.sampled_from([own[0], own[0], own[1], loopback]) | others)
    if draw(st.integers(0, 9)) and destination >> 24 == 127 and family == IPV4:
        source = loopback
    uids, gids = st.sampled_from(values.uids), st.sampled_from(values.gids)
    groups = draw(st.just([]) | st.just([]) | st.lists(gids, max_size=2, unique=True))
    return packet.replace(
        source=source,
        destination=destination,
        uid=draw(uids),
        gid=draw(gids),
        groups=tuple(groups),
        mark=draw(st.just(0) | _marks(values.marks)),
    )


def _marks(marks: Iterable[int]) -> SearchStrategy[int]:
    return st.sampled_from(sorted(marks))


def _coming_in(draw: DrawFn, packet: Packet, values: Values) -> Packet:
    family = packet.family
    interface = draw(st.sampled_from(_INTERFACES[:1] * 3 + _INTERFACES[1:]))
    everywhere = st.sampled_from(values.addresses[family])
    near, others = st.sampled_from(_sources(family, interface)), st.sampled_from(values.reached[family])
    return packet.replace(
        received_on=interface,
        source=draw(st.sampled_from([near, near, near, near, others]).flatmap(lambda of: of)),
        destination=draw(st.sampled_from(_own(family)) | everywhere),
    )
