"""routed: a network of two interfaces, and the routes that packets take in it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.packet import TCP, Packet
from istio_iptables.interpreter.routing import Network, Routed

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

ADDR = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536
    inet 127.0.0.1/8 scope host lo
    inet6 ::1/128 scope host
2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500
    inet 10.88.0.2/24 scope global eth0
    inet 10.88.0.3/24 scope global secondary eth0
    inet6 fd88::2/64 scope global
3: eth1: <BROADCAST,UP,LOWER_UP> mtu 1500
    inet 10.89.0.2/24 scope global eth1
    inet6 fd89::2/64 scope global
"""
MAIN = """\
default via 10.88.0.1 dev eth0
10.88.0.0/24 dev eth0 scope link src 10.88.0.2
10.89.0.0/24 dev eth1 scope link src 10.89.0.2
default via 10.89.0.1 dev eth1 table 7
throw 20.0.0.0/8 table 7
blackhole 21.0.0.0/8 table 7
default via fd88::1 dev eth0 metric 1024 pref medium
fd88::/64 dev eth0 metric 256 pref medium
fd89::/64 dev eth1 metric 256 pref medium
default via fd89::1 dev eth1 table 7 metric 1024 pref medium
"""


def network(rules: str = "", routes: str = MAIN, addr: str = ADDR, family: Family = "ipv4") -> Network:
    """Return a network with some rules, one a line, between those that are always there."""
    lines = ["0: from all lookup local", *rules.splitlines(), "32766: from all lookup main"]
    dumps = [ip_dump.read(addr), ip_dump.read(routes), ip_dump.read("\n".join(lines), family)]
    assert not any(dump.unread for dump in dumps)
    return ip_dump.joined(dumps)


def packet(destination: str, source: str = "", **fields: Any) -> Packet:
    """Return a packet of TCP, of the user 1000."""
    family: Family = "ipv6" if ":" in destination else "ipv4"
    uid = fields.pop("uid", 1000)
    return Packet(
        family,
        TCP,
        int(ip_address(source)) if source else 0,
        int(ip_address(destination)),
        uid=uid,
        **fields,
    )


def routed(where: Network, what: Packet, algebra: One | None = None, again: bool = False) -> Routed:
    """Return the route that a packet takes."""
    algebra = algebra or One()
    found = [
        routed for part, routed in where.route(algebra, what, what.family, again=again) if part is not None
    ]
    assert len(found) == 1
    return found[0]


def way(where: Network, what: Packet) -> str:
    """Return kind and interface of the route, which has to be certain."""
    algebra = One()
    found = routed(where, what, algebra)
    assert not algebra.questions
    return f"{found.kind} {found.interface}".rstrip()
