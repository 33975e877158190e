"""The route that packets take: rules one after the other, and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.condition import Masked
from istio_iptables.interpreter.route_table import RouteTable
from istio_iptables.interpreter.routing import Route, RoutingRule
from istio_iptables.rules.model import FULL_MASK, NO_ID
from tests.support.cases import all_cases

from ..support.routed import ADDR, MAIN, network, packet, routed, way

if TYPE_CHECKING:
    pass


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
    where = network(routes=MAIN + lines + own, family="ipv6")
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
    routes = MAIN + "default from fd89::/64 via fd89::1 dev eth1 metric 1024 pref medium\n"
    where = network(routes=routes, family="ipv6")
    assert way(where, packet("2001::1", "fd88::2")) == "unicast eth0"
    assert way(where, packet("2001::1", "fd89::2")) == "unicast eth1"
    assert way(where, packet("fd88::9", "fd89::2")) == "unicast eth0"  # the destination counts first


def test_a_route_for_a_tos_is_asked_about() -> None:
    where = network(
        routes=MAIN + "8.0.0.0/8 tos 0x10 via 10.89.0.1 dev eth1\n8.0.0.0/8 dev eth0 scope link\n"
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
    where = network(routes=MAIN + two)
    assert routed(where, packet("8.8.8.8"), algebra).interface == "eth0"
    [asked] = algebra.questions
    assert (asked.options, "nexthop via 10.89.0.1 dev eth1" in str(asked.about)) == (2, True)
    assert routed(where, packet("8.8.8.8"), One({asked.key: 1})).interface == "eth1"
    same = "8.0.0.0/8\n" + hop.format("10.88.0.1", "eth0") + hop.format("10.88.0.9", "eth0")
    assert way(network(routes=MAIN + same), packet("8.8.8.8")) == "unicast eth0"


def test_local_and_main_are_one_table_until_there_is_a_rule() -> None:
    routes = MAIN + "local 198.18.0.0/15 dev lo table local scope host\n198.18.1.0/24 dev eth1 scope link\n"
    where = ip_dump.joined([ip_dump.read(ADDR + routes)])  # and so the rules of a new namespace
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
