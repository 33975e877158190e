"""What a namespace takes for the sender of what leaves, and which sockets TPROXY finds in it."""

from __future__ import annotations

from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.condition import AnyOf, In
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.route import Address
from istio_iptables.interpreter.routing import Network
from istio_iptables.interpreter.surroundings import Host
from istio_iptables.interpreter.walk import Observer
from istio_iptables.rules.model import IPV4, IPV6
from tests.support.cases import all_cases

LOOPBACK4, LOOPBACK6 = Address("lo", IPV4, 0x7F000001, 8), Address("lo", IPV6, 1, 128)
POD, LINK_LOCAL4 = Address("eth0", IPV4, 0x0A000002, 16), Address("eth0", IPV4, 0xA9FE0001, 16)
POD6, LINK_LOCAL6 = Address("eth0", IPV6, 0xFD << 120 | 2, 64), Address("eth0", IPV6, 0xFE80 << 112 | 2, 64)
SECOND = Address("eth1", IPV4, 0x0A010002, 16)


@all_cases(
    ("family", "interface", "addresses", "sender"),
    [
        (IPV4, "eth0", [LOOPBACK4, POD], POD.address),
        (IPV4, "eth0", [LOOPBACK4, LINK_LOCAL4, POD], POD.address),
        (IPV4, "eth0", [LOOPBACK4, LINK_LOCAL4, SECOND], SECOND.address),
        (IPV4, "eth0", [LOOPBACK4, LINK_LOCAL4], 0),
        (IPV4, "eth0", [LOOPBACK4, POD, Address("eth0", IPV4, 0x0A000003, 16)], None),
        (IPV4, "lo", [LOOPBACK4, POD], POD.address),
        (IPV6, "eth0", [LOOPBACK6, LINK_LOCAL6, POD6], POD6.address),
        (IPV6, "eth0", [LOOPBACK6, LINK_LOCAL6], None),
        (IPV6, "lo", [LOOPBACK6, POD6], None),
    ],
)
def test_what_masquerade_takes(family: str, interface: str, addresses: list[Address], sender: int | None):
    network = Network(addresses=tuple(addresses), interfaces=("lo", "eth0", "eth1"))
    assert network.sender(family, interface) == sender  # type: ignore[arg-type]  # one of them


def test_tproxy_finds_the_transparent_sockets_on_its_port():
    sockets = frozenset({("tcp", 15006), ("udp", 15006), ("tcp", 15001)})
    world = World(Program(), Network(), listening=sockets)
    found = [Host(world, IPV4, One(), Observer()).listening(port) for port in (15006, 15001, 15002)]
    tcp, udp = In("protocol", ((6, 6),)), In("protocol", ((17, 17),))
    assert found == [AnyOf((tcp, udp)), AnyOf((tcp,)), AnyOf()]
    unknown = World(Program(), Network(), listening=None)
    assert Host(unknown, IPV4, One(), Observer()).listening(15006) == In("listening", ((1, 1),))
