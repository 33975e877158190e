"""The route that packets take: rules one after the other, tables, and the source address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.condition import In, Masked, Unmodelled
from istio_iptables.interpreter.destinations import CannotTell, routes_of
from istio_iptables.interpreter.journey import Journey
from istio_iptables.interpreter.many import Many
from istio_iptables.interpreter.packet import TCP, Packet, address_text
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.route_table import RouteTable
from istio_iptables.interpreter.routing import Network, Route, Routed, RoutingRule
from istio_iptables.interpreter.source_address import source_address
from istio_iptables.interpreter.surroundings import World
from istio_iptables.prove.example import example, questions
from istio_iptables.prove.space import packets
from istio_iptables.rules.model import FULL_MASK, NO_ID
from tests.support.cases import all_cases

from ..support.many_routes import FIXTURES, PRINTED

if TYPE_CHECKING:
    from istio_iptables.interpreter.walk import Ended
    from istio_iptables.prove.space import Direction, Packets
    from istio_iptables.rules.model import Family

_ADDR = """\
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
_MAIN = """\
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


def network(rules: str = "", routes: str = _MAIN, addr: str = _ADDR, family: Family = "ipv4") -> Network:
    """Return a network with some rules, one a line, between those that are always there."""
    lines = ["0: from all lookup local", *rules.splitlines(), "32766: from all lookup main"]
    dumps = [ip_dump.read(addr), ip_dump.read(routes), ip_dump.read("\n".join(lines), family)]
    assert not any(dump.unread for dump in dumps)
    return ip_dump.joined(dumps)


def packet(destination: str, source: str = "", **fields: Any) -> Packet:
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


# --- rules ------------------------------------------------------------------------------------


@all_cases(
    ("rules", "marks"),
    [
        ("5: from all fwmark 0x1 lookup 7", {0: "eth0", 1: "eth1"}),
        ("5: not from all fwmark 0x1 lookup 7", {0: "eth1", 1: "eth0"}),
        # A rule without an action, and one whose target is not there, do nothing.
        ("5: from all nop\n6: from all goto 99 [unresolved]", {0: "eth0"}),
        ("5: from all fwmark 0x1 goto 7\n6: from all lookup 7\n7: from all nop", {0: "eth1", 1: "eth0"}),
        ("5: from all goto 6\n6: from all fwmark 0x1 lookup 7\n6: from all nop", {0: "eth0", 1: "eth1"}),
        # To the first of several rules of that priority, which decides if it holds.
        ("5: from all goto 7\n6: from all unreachable\n7: from all fwmark 0x1 lookup 7\n7: from all nop",
         {0: "eth0", 1: "eth1"}),
        # Packets meet again after the jump.
        ("5: from all fwmark 0x1 goto 7\n6: from all fwmark 0x1 unreachable\n7: from all lookup 7",
         {0: "eth1", 1: "eth1"}),
        # No table, no route there.
        ("5: from all lookup 99", {0: "eth0"}),
        # Only routes that are longer than the prefix count.
        ("5: from all lookup 7 suppress_prefixlength 0", {0: "eth0"}),
    ],
)  # fmt: skip
def test_rules(rules: str, marks: dict[int, str]) -> None:
    for mark, interface in marks.items():
        assert way(network(rules), packet("8.8.8.8", mark=mark)) == f"unicast {interface}"


def test_ends() -> None:
    kinds = ("unreachable", "blackhole", "prohibit")
    rules = "\n".join(f"5: from all fwmark {mark} {kind}" for mark, kind in enumerate(kinds, 1))
    for mark, kind in enumerate(("unicast eth0", *kinds)):
        assert way(network(rules), packet("8.8.8.8", mark=mark)) == kind
    assert way(network(routes="10.0.0.0/8 dev eth0 scope link"), packet("8.8.8.8")) == "none"


def test_throw_leads_to_the_next_rule_and_errors_end() -> None:
    where = network("5: from all lookup 7")
    assert way(where, packet("8.8.8.8")) == "unicast eth1"
    assert way(where, packet("20.0.0.1")) == "unicast eth0"
    assert way(where, packet("21.0.0.1")) == "blackhole"


def test_suppression() -> None:
    """Usual with VPNs: routes of main count but for the default route; errors are not suppressed."""
    where = network("5: from all lookup main suppress_prefixlength 0\n6: from all lookup 7")
    assert way(where, packet("10.88.0.9")) == "unicast eth0"
    assert way(where, packet("8.8.8.8")) == "unicast eth1"
    where = network("5: from all lookup 7 suppress_prefixlength 8")
    assert way(where, packet("21.0.0.1")) == "blackhole"


def test_what_is_not_known_is_asked() -> None:
    for rule in ("oif eth1", "tos 0x10", "dscp 0x05"):
        where = network(f"5: from all {rule} lookup 7")
        algebra = One()
        assert routed(where, packet("8.8.8.8"), algebra).interface == "eth0"
        [asked] = algebra.questions
        assert asked.about == f"ip rule 5: from all {rule} lookup 7"
        assert routed(where, packet("8.8.8.8"), One({asked.key: 1})).interface == "eth1"
    # What has come in belongs to no socket, and what is sent comes by no tunnel.
    assert (
        way(network("5: from all oif eth1 lookup 7"), packet("8.8.8.8", received_on="eth0")) == "unicast eth0"
    )
    assert way(network("5: from all tun_id 9 lookup 7"), packet("8.8.8.8")) == "unicast eth0"


def test_the_group_of_an_interface_is_not_known() -> None:
    where = network("5: from all lookup 7 suppress_ifgroup 5")
    algebra = One()
    assert routed(where, packet("8.8.8.8"), algebra).interface == "eth1"
    [asked] = algebra.questions
    assert "suppress_ifgroup 5" in str(asked.about)
    assert routed(where, packet("8.8.8.8"), One({asked.key: 1})).interface == "eth0"


def test_a_vrf_is_not_known() -> None:
    where = network("5: from all lookup [l3mdev-table]")
    algebra = One()
    assert routed(where, packet("8.8.8.8"), algebra).kind == "unicast"
    [asked] = algebra.questions
    found = routed(where, packet("8.8.8.8"), One({asked.key: 1}))
    assert (found.kind, found.error) == ("unknown", True)


def test_users() -> None:
    where = network("5: from all uidrange 1000-1001 lookup 7")
    expected = {1000: "eth1", 1001: "eth1", 1002: "eth0", 0: "eth0", NO_ID: "eth0"}
    for uid, interface in expected.items():
        assert way(where, packet("8.8.8.8", uid=uid)) == f"unicast {interface}"
    # What comes in, and what belongs to no socket, is root's.
    where = network("5: from all uidrange 0-0 lookup 7")
    assert way(where, packet("8.8.8.8", uid=NO_ID)) == "unicast eth1"
    assert way(where, packet("8.8.8.8", uid=1000, received_on="eth0")) == "unicast eth1"
    assert way(where, packet("8.8.8.8", uid=1000)) == "unicast eth0"


@pytest.mark.parametrize(("first", "once", "again"), [(1000, "eth1", "eth0"), (0, "eth1", "eth1")])
def test_ipv4_routes_again_as_root(first: int, once: str, again: str) -> None:
    where = network(f"5: from all to 8.0.0.0/8 uidrange {first}-2000 lookup 7")
    assert routed(where, packet("8.8.8.8")).interface == once
    assert routed(where, packet("8.8.8.8"), again=True).interface == again
    assert routed(where, packet("9.8.8.8"), again=True).interface == "eth0"
    where = network(f"5: from all uidrange {first}-2000 lookup 7", family="ipv6")
    assert routed(where, packet("2001::1")).interface == "eth1"
    assert routed(where, packet("2001::1"), again=True).interface == "eth1"


def test_what_is_sent_comes_from_lo() -> None:
    where = network("5: from all iif lo lookup 7")
    assert way(where, packet("8.8.8.8")) == "unicast eth1"
    assert way(where, packet("8.8.8.8", received_on="lo")) == "unicast eth1"
    assert way(where, packet("8.8.8.8", received_on="eth0")) == "unicast eth0"


# --- destinations that many have ----------------------------------------------------------------


def test_broadcast_and_multicast_of_ipv4() -> None:
    where = network()
    for destination, kind in (("255.255.255.255", "broadcast"), ("224.0.0.1", "multicast")):
        assert way(where, packet(destination)) == f"{kind} eth0"
        assert way(where, packet(destination, "10.89.0.2")) == f"{kind} eth1"
        assert way(where, packet(destination, received_on="eth1")) == kind
        assert routed(where, packet(destination, received_on="eth1")).is_local
    assert way(where, packet("10.88.0.255", received_on="eth1")) == "broadcast eth0"
    assert way(network(routes="10.88.0.0/24 dev eth0 scope link"), packet("224.0.0.1")) == "none"


def test_ipv6_destinations_of_one_link() -> None:
    lines = "".join(
        f"{route} dev {name} {rest} metric 256 pref medium\n"
        for name in ("eth0", "eth1")
        for route, rest in (("fe80::/64", ""), ("multicast ff00::/8", "table local"))
    )
    own = "local fe80::5 dev eth0 table local metric 0 pref medium\n"
    where = network(routes=_MAIN + lines + own, family="ipv6")
    for interface in ("eth0", "eth1"):
        assert way(where, packet("ff02::1", received_on=interface)) == f"multicast {interface}"
        assert way(where, packet("fe80::9", received_on=interface)) == f"unicast {interface}"
    assert way(where, packet("fe80::5", received_on="eth0")) == "local eth0"
    assert way(where, packet("fe80::5", received_on="eth1")) == "unicast eth1"
    assert way(where, packet("fe80::5")) == "local eth0"


# --- tables -----------------------------------------------------------------------------------


def test_the_best_of_several_routes() -> None:
    routes = """\
10.0.0.0/8 dev eth0 scope link metric 20
10.0.0.0/8 dev eth1 scope link metric 10
2001:db8::/32 dev eth0 metric 10 pref medium
2001:db8::/32 dev eth1 metric 10 pref high
2001:db8:5::/48 dev eth0 metric 10 pref medium
2001:db8:5::/48 dev eth1 metric 10 pref medium
"""
    where = network(routes=routes)
    assert way(where, packet("10.0.0.1")) == "unicast eth1"
    where = network(routes=routes, family="ipv6")
    assert way(where, packet("2001:db8::1")) == "unicast eth1"
    assert way(where, packet("2001:db8:5::1")) == "unicast eth0"  # the kernel's order


def test_routes_for_some_sources() -> None:
    routes = _MAIN + "default from fd89::/64 via fd89::1 dev eth1 metric 1024 pref medium\n"
    where = network(routes=routes, family="ipv6")
    assert way(where, packet("2001::1", "fd88::2")) == "unicast eth0"
    assert way(where, packet("2001::1", "fd89::2")) == "unicast eth1"
    assert way(where, packet("fd88::9", "fd89::2")) == "unicast eth0"  # the destination counts first


def test_a_route_for_a_tos_is_asked_about() -> None:
    where = network(
        routes=_MAIN + "8.0.0.0/8 tos 0x10 via 10.89.0.1 dev eth1\n8.0.0.0/8 dev eth0 scope link\n"
    )
    algebra = One()
    assert routed(where, packet("8.8.8.8"), algebra).interface == "eth0"
    [asked] = algebra.questions
    assert "tos 0x10" in str(asked.about)
    assert routed(where, packet("8.8.8.8"), One({asked.key: 1})).interface == "eth1"


def test_several_ways_are_asked_about_if_interfaces_differ() -> None:
    hop = "\tnexthop via {} dev {} weight 1\n"
    two = "8.0.0.0/8\n" + hop.format("10.88.0.1", "eth0") + hop.format("10.89.0.1", "eth1")
    algebra = One()
    where = network(routes=_MAIN + two)
    assert routed(where, packet("8.8.8.8"), algebra).interface == "eth0"
    [asked] = algebra.questions
    assert (asked.options, "nexthop via 10.89.0.1 dev eth1" in str(asked.about)) == (2, True)
    assert routed(where, packet("8.8.8.8"), One({asked.key: 1})).interface == "eth1"
    same = "8.0.0.0/8\n" + hop.format("10.88.0.1", "eth0") + hop.format("10.88.0.9", "eth0")
    assert way(network(routes=_MAIN + same), packet("8.8.8.8")) == "unicast eth0"


def test_local_and_main_are_one_table_until_there_is_a_rule() -> None:
    routes = _MAIN + "local 198.18.0.0/15 dev lo table local scope host\n198.18.1.0/24 dev eth1 scope link\n"
    where = ip_dump.joined([ip_dump.read(_ADDR + routes)])  # and so the rules of a new namespace
    algebra = One()
    assert routed(where, packet("198.18.1.1"), algebra).kind == "local"
    [asked] = algebra.questions
    assert "ever been" in str(asked.about)
    assert routed(where, packet("198.18.1.1"), One({asked.key: 1})).interface == "eth1"
    assert way(where, packet("198.18.2.1")) == "local lo"
    assert way(network("5: from all fwmark 0x1 lookup 7", routes), packet("198.18.1.1")) == "local lo"


_BITS = 6
_nets = st.integers(0, _BITS).flatmap(
    lambda prefix: st.tuples(st.just(prefix), st.integers(0, (1 << prefix) - 1), st.integers(0, 2))
)


@given(st.lists(_nets, max_size=12))
def test_a_table_finds_the_longest_prefix_then_the_smallest_metric(nets: list[tuple[int, int, int]]) -> None:
    top = 32 - _BITS  # networks in 0.0.0.0 to 0.0.0.63, which is the whole of it
    routes = []
    for number, (prefix, value, metric) in enumerate(nets):
        first = value << (_BITS - prefix)
        last = first + (1 << (_BITS - prefix)) - 1
        routes.append(Route("ipv4", "main", "unicast", first, last, f"if{number}", metric=metric))
    table = RouteTable(routes, lambda route: route.condition)
    grouped = table.groups()
    for address in range(1 << _BITS):
        fitting = [route for route in routes if route.first <= address <= route.last]
        best = min(fitting, key=lambda route: (-route.prefix, route.metric), default=None)
        assert table.choice(address) == ((best,) if best else ())
        inside = [
            choice
            for destinations, choice in grouped
            if any(first <= address <= last for first, last in destinations.ranges)
        ]
        assert [choice[0].interface for choice in inside] == ([best.interface] if best else [])
    assert all(route.prefix >= top for route in routes)


# --- all destinations at once -------------------------------------------------------------------


@given(st.integers(0, 3), st.sampled_from(["", "eth0", "eth1"]), st.data())
def test_all_destinations_at_once_are_each_of_them(mark: int, interface: str, data: st.DataObject) -> None:
    rules = """\
5: from all fwmark 0x1 lookup 7
6: from all to 30.0.0.0/8 fwmark 0x2 goto 9
7: from all iif eth1 lookup main suppress_prefixlength 8
8: from all to 16.0.0.0/4 lookup 7
9: from all fwmark 0x3 prohibit
"""
    where = network(rules)
    asked = packet("0.0.0.0", mark=mark, received_on=interface)
    found = [(ranges, each) for ranges, each in routes_of(where, asked)]
    sizes = sum(last - first + 1 for ranges, _ in found for first, last in ranges)
    assert sizes == 1 << 32
    edges = {edge for ranges, _ in found for span in ranges for edge in span}
    # For multicast and broadcast there is more than tables.
    destination = data.draw(st.sampled_from(sorted(edges)) | st.integers(0, FULL_MASK))
    destination = min(destination, 0xDFFFFFFF)
    [one] = [each for ranges, each in found if any(first <= destination <= last for first, last in ranges)]
    assert one == routed(where, asked.replace(destination=destination))


def test_what_depends_cannot_be_told_for_all_destinations() -> None:
    for rule in ("from all tos 0x10 lookup 7", "from all oif eth0 lookup 7"):
        with pytest.raises(CannotTell, match="ip rule 5"):
            list(routes_of(network(f"5: {rule}"), packet("0.0.0.0")))
    hops = "".join(f"\tnexthop dev eth{number} weight 1\n" for number in range(2))
    several = network(routes=f"8.0.0.0/8\n{hops}")
    with pytest.raises(CannotTell, match=r"ip route 8\.0\.0\.0/8"):
        list(routes_of(several, packet("0.0.0.0")))
    assert isinstance(several.own_sources("ipv4"), In)  # no way makes them local
    # What another part of the condition excludes does not depend on it.
    unknown = packet("0.0.0.0").replace(source=None)
    for rule in ("from 10.0.0.0/8 fwmark 0x1", "not from all to 0.0.0.0/0", "from 10.0.0.0/8 uidrange 5-6"):
        assert list(routes_of(network(f"5: {rule} lookup 7"), unknown))
    with pytest.raises(CannotTell, match="ip rule 5"):
        list(routes_of(network("5: from 10.0.0.0/8 lookup 7"), unknown))


def test_sources_that_nobody_outside_may_have() -> None:
    own = network().own_sources("ipv4")
    assert isinstance(own, In)
    spans = [(str(ip_address(first)), str(ip_address(last))) for first, last in own.ranges]
    assert ("10.88.0.2", "10.88.0.3") in spans
    assert ("127.0.0.0", "127.255.255.255") in spans
    assert any(first == "10.88.0.255" for first, _ in spans)
    assert isinstance(network("5: from all tos 0x10 lookup 7").own_sources("ipv4"), Unmodelled)


# --- the source address -------------------------------------------------------------------------


def source(where: Network, destination: str, **fields: Any) -> str:
    found = source_address(
        where, packet(destination, "192.0.2.1" if "." in destination else "2::1", **fields)
    )
    return (
        "" if found.address is None else address_text("ipv6" if ":" in destination else "ipv4", found.address)
    )


def test_sources_of_ipv4() -> None:
    where = network()
    assert source(where, "10.89.0.9") == "10.89.0.2"  # the route's src
    assert source(where, "8.8.8.8") == "10.88.0.2"  # of the network of the gateway
    assert source(where, "10.89.0.2") == "10.89.0.2"
    assert source(where, "127.0.0.5") == "127.0.0.1"
    assert source(network(routes="10.0.0.0/8 dev eth1 scope link"), "8.8.8.8") == ""
    # The network that the gateway is in counts, before the order of addresses.
    addr = _ADDR.replace(
        "    inet 10.89.0.2/24", "    inet 172.16.0.2/24 scope global eth1\n    inet 10.89.0.2/24"
    )
    routes = "8.0.0.0/8 via 10.89.0.1 dev eth1\n9.0.0.0/8 dev eth1 scope link\n"
    assert source(network(routes=routes, addr=addr), "8.8.8.8") == "10.89.0.2"
    assert source(network(routes=routes, addr=addr), "9.9.9.9") == "172.16.0.2"


def test_an_interface_without_address_takes_that_of_another() -> None:
    addr = _ADDR.replace(
        "    inet 10.89.0.2/24 scope global eth1\n", "    inet 169.254.1.1/16 scope link eth1\n"
    )
    where = network(routes="default via 10.89.0.1 dev eth1 onlink\n", addr=addr)
    assert source(where, "8.8.8.8") == "10.88.0.2"
    # A route of the link may use an address of the link, but none of another interface's link.
    other = addr.replace("    inet 10.88.0.2", "    inet 169.254.2.2/16 scope link eth0\n    inet 10.88.0.2")
    other = other.replace("inet 169.254.1.1/16 scope link eth1", "link/ether")
    where = network(routes="10.89.0.0/24 dev eth1 scope link\n", addr=other)
    assert source(where, "10.89.0.9") == "10.88.0.2"
    assert (
        source(network(routes="10.89.0.0/24 dev eth1 scope link\n", addr=addr), "10.89.0.9") == "169.254.1.1"
    )


def test_a_secondary_address_is_no_source() -> None:
    second = "    inet 10.88.0.3/24 scope global secondary eth0\n"
    first_listed = _ADDR.replace(second, "").replace("    inet 10.88.0.2", f"{second}    inet 10.88.0.2")
    assert source(network(addr=first_listed), "8.8.8.8") == "10.88.0.2"


def test_the_source_depends_on_rules() -> None:
    where = network("5: from all tos 0x10 lookup 7")
    found = source_address(where, packet("8.8.8.8"))
    assert found.address == int(ip_address("10.88.0.2"))
    assert found.depends == ("ip rule 5: from all tos 0x10 lookup 7",)
    # A rule with `from` needs a source that is not there yet.
    assert source(network("5: from 192.0.2.0/24 lookup 7"), "8.8.8.8") == "10.88.0.2"


@all_cases(
    ("addresses", "destination", "expected"),
    [
        (["fd88::2/64"], "2001:db8::1", "fd88::2"),
        (["fd88::2/64", "2001:db8:5::2/64"], "2001:db8::1", "2001:db8:5::2"),  # label
        (["2001:db8:5::2/64", "fd88::2/64"], "fd00::1", "fd88::2"),
        (["2001:0:1::2/64", "2a00::2/64"], "2001:db8::1", "2a00::2"),  # before the longest match
        (["fd88::2/64", "fd88::3/64"], "fd00::1", "fd88::2"),  # the first of equals
        (["fd88::2/64", "fd88::7001/64"], "fd88::7002", "fd88::2"),  # no longer than the prefix
        (["fd88::2/64", "fd88::7001/128"], "fd88::7002", "fd88::7001"),  # longest match
        (["fd88::2/64 deprecated", "fd99::1/64"], "fd88::9", "fd99::1"),
        (["fd88::2/64 tentative", "fd99::1/64"], "fd88::9", "fd99::1"),
        (["fd88::2/64 temporary", "fd88::3/64"], "fd88::9", "fd88::3"),
        (["fd88::2/64", "fd88::3/64"], "fd88::3", "fd88::3"),  # the same address
        (["fe80::7/64"], "2001:db8::1", "fe80::7"),  # of two too small scopes that of the interface
    ],
)
def test_sources_of_ipv6(addresses: list[str], destination: str, expected: str) -> None:
    addr = "1: lo: <LOOPBACK> mtu 9\n    inet6 ::1/128 scope host\n2: eth0: <UP> mtu 9\n"
    for text in addresses:
        scope = "link" if text.startswith("fe80") else "global"
        network_of, *flags = text.split()
        addr += f"    inet6 {network_of} scope {scope} {' '.join(flags)}\n"
    where = network(routes="default via fe80::1 dev eth0 metric 1024 pref medium\n", addr=addr, family="ipv6")
    assert source(where, destination) == expected


def test_link_local_destinations_have_link_local_sources() -> None:
    addr = (
        "1: lo: <LOOPBACK> mtu 9\n    inet6 ::1/128 scope host\n"
        "2: eth0: <UP> mtu 9\n    inet6 fd88::2/64 scope global\n    inet6 fe80::2/64 scope link\n"
        "3: eth1: <UP> mtu 9\n    inet6 fd89::2/64 scope global\n    inet6 fe80::3/64 scope link\n"
    )
    where = network(
        routes="fe80::/64 dev eth1 metric 256 pref medium\ndefault dev eth0 metric 1024 pref medium\n",
        addr=addr,
        family="ipv6",
    )
    assert source(where, "fe80::9") == "fe80::3"
    assert source(where, "2001::1") == "fd88::2"


def test_a_table_is_made_once() -> None:
    where = network()
    assert where.table("main", "ipv4") is where.table("main", "ipv4")
    assert where == where.replace()
    assert hash(where) == hash(where.replace())


def test_the_rule_of_a_mark_is_the_same_however_it_is_made() -> None:
    from istio_iptables.interpreter.routing import mark_rule

    read = network("32765: from all fwmark 0x539 lookup 133").rules[1]
    assert (
        read
        == mark_rule("ipv4", 0x539, "133")
        == RoutingRule(
            "ipv4", 32765, Masked("mark", 0x539, FULL_MASK), "133", text="from all fwmark 0x539 lookup 133"
        )
    )


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("direction", ["out", "in"])
def test_all_packets_at_once_go_the_ways_of_each(family: Family, direction: Direction) -> None:
    """In a network of rules and routes of many kinds, by the interpreter's two algebras."""
    where = ip_dump.joined(ip_dump.read((FIXTURES / f"{name}.txt").read_text()) for name in PRINTED)
    world = World(Program(), where)
    asked = packets([world], family, direction, "first")
    algebra = Many(asked.space)
    compared = set()
    for ended in ways(world, algebra.all(asked.fixed, asked.free, asked.possible), algebra, asked):
        for changed, region in ended.packets.items():
            if not questions(region):
                [one] = ways(world, example(region, asked), One(), asked)
                fields = {name: changed.fields[name] for name in ("sent_to", "leaves_by", "route")}
                assert (one.how, one.packets.as_dict() | fields) == (ended.how, one.packets.as_dict())
                compared.add((ended.how, *fields.values()))
    assert len(compared) >= 2  # whether IPv4 takes what comes in depends on a rule with `from`


def ways(world: World, some: Any, algebra: Any, asked: Packets) -> list[Ended]:
    journey: Journey[Any] = Journey(world, asked.space.family, algebra)
    return journey.outbound(some) if asked.direction == "out" else journey.inbound(some)
