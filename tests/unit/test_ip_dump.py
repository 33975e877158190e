"""What `ip rule`, `ip route` and `ip addr` print is read as a Network, and what is not read is told.

tests/fixtures/ip has what iproute2 6.1 prints of the namespace of tests/support/many_routes.py.
"""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.condition import (
    ALWAYS,
    NEVER,
    AllOf,
    AnyOf,
    Condition,
    In,
    Masked,
    Named,
    Not,
    Unmodelled,
)
from istio_iptables.interpreter.route import Address, Hop, Route, RoutingRule
from istio_iptables.interpreter.routing import Network, default_rules
from tests.support.cases import all_cases

from ..support.many_routes import FIXTURES, PRINTED

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


def only_rule(text: str, family: Family = "ipv4") -> RoutingRule:
    [rule] = ip_dump.read(text, family).rules
    return rule


def only_route(text: str) -> Route:
    [route] = ip_dump.read(text).routes
    return route


def number(address: str) -> int:
    return int(ip_address(address))


# --- whole dumps ------------------------------------------------------------------------------


def test_plain_text_and_json_say_the_same() -> None:
    plain, json = (
        ip_dump.joined(ip_dump.read(fixture(f"{name}.{suffix}")) for name in PRINTED)
        for suffix in ("txt", "json")
    )
    assert plain == json
    assert (plain.assumed, plain.unread) == ((), ())
    assert plain.interfaces == ("lo", "p0", "eth0", "p1", "eth1")
    assert (len(plain.addresses), len(plain.rules)) == (16, 53)
    assert len(plain.routes) == len(fixture("route.txt").splitlines()) - fixture("route.txt").count("nexthop")


def test_texts_may_stand_one_after_the_other_in_any_order() -> None:
    expected = ip_dump.joined(ip_dump.read(fixture(f"{name}.txt")) for name in PRINTED)
    draw = random.Random(1)
    for _ in range(20):
        names = [f"{name}.{draw.choice(('txt', 'json'))}" for name in PRINTED]
        draw.shuffle(names)
        dump = ip_dump.read("\n".join(fixture(name) for name in names))
        assert not dump.unread
        found = ip_dump.joined([dump])
        for part in ("addresses", "rules", "interfaces"):
            assert getattr(found, part) == getattr(expected, part)
        assert set(found.routes) == set(expected.routes)


def test_counts() -> None:
    dump = ip_dump.read(fixture("addr.txt") + fixture("rule.txt") + "what is this?\n")
    assert dump.counts == {"interfaces": 5, "addresses": 16, "rules": 27, "routes": 0, "unread": 1}


def test_line_ends_of_windows() -> None:
    text = "".join(fixture(f"{name}.txt") for name in PRINTED)
    assert ip_dump.read(text.replace("\n", "\r\n")) == ip_dump.read(text)


# --- rules ------------------------------------------------------------------------------------

_BOUND = "whether the socket is bound to this interface"
_SENT = Named("received_on", "")
_ROOT = 0xFFFFFFFF  # packets without a socket count as root's


@all_cases(
    ("selector", "condition"),
    [
        ("from all", ALWAYS),
        ("from 10.0.0.0/8", In("source", ((0x0A000000, 0x0AFFFFFF),))),
        ("from 10.1.2.3", In("source", ((0x0A010203, 0x0A010203),))),
        ("from 0/8", In("source", ((0, 0x00FFFFFF),))),
        ("from all to 10.1.2.3", In("destination", ((0x0A010203, 0x0A010203),))),
        ("from all fwmark 0x539", Masked("mark", 0x539, 0xFFFFFFFF)),
        ("from all fwmark 0x81/0xf0", Masked("mark", 0x80, 0xF0)),
        ("from all fwmark 0/0xf0", Masked("mark", 0, 0xF0)),
        ("from all iif eth0", Named("received_on", "eth0")),
        ("from all iif eth9 [detached]", Named("received_on", "eth9")),
        ("from all iif lo", AnyOf((Named("received_on", "lo"), _SENT))),
        ("from all iif eth+", Unmodelled("iif eth+")),
        ("from all oif eth0", AllOf((_SENT, Unmodelled(f"oif eth0: {_BOUND}")))),
        ("from all uidrange 5-9", AllOf((_SENT, In("uid", ((5, 9),))))),
        ("from all uidrange 0-9", AnyOf((Not(_SENT), In("uid", ((0, 9), (_ROOT, _ROOT)))))),
        ("from all ipproto tcp", In("protocol", ((6, 6),))),
        ("from all ipproto ipproto-99", In("protocol", ((99, 99),))),
        ("from all ipproto quic", Unmodelled("ipproto quic")),
        ("from all sport 1000-2000", In("source_port", ((1000, 2000),))),
        ("from all dport 80", In("destination_port", ((80, 80),))),
        ("from all dport 0x50/0xff", Unmodelled("dport 0x50/0xff")),
        ("from all tos 0x10", Unmodelled("tos 0x10")),
        (
            "from all tun_id 7",
            AllOf((Not(_SENT), Unmodelled("tun_id 7: whether the packet has come by this tunnel"))),
        ),
        ("from all dscp 0x05", Unmodelled("dscp 0x05")),
        ("from all flowlabel 0x1/0xff", Unmodelled("flowlabel 0x1/0xff")),
        ("not from all", Not(ALWAYS)),
        ("not from 10.1.2.3", Not(In("source", ((0x0A010203, 0x0A010203),)))),
        (
            "not from all to 10.1.2.3 fwmark 0x1",
            Not(AllOf((In("destination", ((0x0A010203, 0x0A010203),)), Masked("mark", 1, 0xFFFFFFFF)))),
        ),
    ],
)  # fmt: skip
def test_selectors(selector: str, condition: Condition) -> None:
    rule = only_rule(f"77:\t{selector} lookup 133 proto static\n")
    assert (rule.condition, rule.table, rule.priority) == (condition, "133", 77)


@all_cases(
    ("action", "expected"),
    [
        ("lookup local", {"table": "local"}),
        ("lookup 255", {"table": "local"}),
        ("lookup istio", {"table": "istio"}),
        ("lookup main suppress_prefixlength 0", {"table": "main", "suppress_prefix": 0}),
        ("lookup 100 suppress_ifgroup 5 realms 1/2", {"table": "100", "suppress_group": "5"}),
        ("unreachable", {"ends": "unreachable"}),
        ("prohibit", {"ends": "prohibit"}),
        ("blackhole", {"ends": "blackhole"}),
        ("7", {"ends": "unreachable"}),
        ("goto 200", {"goto": 200}),
        ("goto 200 [unresolved]", {"goto": 200}),
        ("nop", {}),
        ("lookup 5 masquerade", {"ends": "blackhole"}),
        ("lookup 5 map-to 10.0.0.1", {"ends": "blackhole"}),
    ],
)
def test_actions(action: str, expected: dict[str, object]) -> None:
    rule = only_rule(f"77:\tfrom all {action}\n")
    plain = RoutingRule("ipv4", 77, ALWAYS, text=rule.text)
    assert rule == plain.replace(**expected)


def test_a_packet_that_is_routed_again_counts_as_roots() -> None:
    """IPv4 alone: the other conditions stay, and `not` turns round what is left."""
    to = In("destination", ((0x0A010203, 0x0A010203),))
    for selector, again in (
        ("from all to 10.1.2.3 uidrange 0-9", to),
        ("from all to 10.1.2.3 uidrange 1-9", NEVER),
        ("not from all to 10.1.2.3 uidrange 0-9", Not(to)),
        ("not from all to 10.1.2.3 uidrange 1-9", Not(NEVER)),
        ("from all to 10.1.2.3", None),
        ("from all to fd00::1 uidrange 0-9", None),
    ):
        assert only_rule(f"77:\t{selector} lookup 133\n").again == again, selector


def test_a_vrf_is_not_modelled() -> None:
    rule = only_rule("1000:\tfrom all lookup [l3mdev-table]\n")
    assert (type(rule.condition), rule.ends, rule.table) == (Unmodelled, "unknown", "")
    assert rule == only_rule('[{"priority":1000,"src":"all","l3mdev":null}]')


def test_json_that_a_later_ip_prints() -> None:
    """Keys that are not known become a condition that cannot be told, and never nothing."""
    rule = only_rule('[{"priority":9,"src":"all","flowlabel":"0x5","flowlabel_mask":"0xff","table":"main"}]')
    assert rule.condition == AllOf((Unmodelled("flowlabel 0x5"), Unmodelled("flowlabel_mask 0xff")))
    rule = only_rule('[{"priority":9,"src":"all","dport":80,"dport_mask":"0xf0","table":"main"}]')
    assert rule.condition == AllOf((Unmodelled("dport 80"), Unmodelled("dport_mask 0xf0")))


def test_the_family_of_rules() -> None:
    first = "0:\tfrom all lookup local\n"
    main = "32766:\tfrom all lookup main\n"
    default = "32767:\tfrom all lookup default\n"
    ipv6 = "5:\tfrom all to fd00::/8 lookup 7\n"
    for text, family in ((first + main + default, "ipv4"), (first + ipv6 + main, "ipv6")):
        dump = ip_dump.read(text)
        assert {rule.family for rule in dump.rules} == {family}
        assert not dump.assumed
    dump = ip_dump.read(first + main)
    assert {rule.family for rule in dump.rules} == {"ipv6"}
    assert dump.assumed == (
        "the rules from line 1 on are taken for those of IPv6: none of them has an address",
    )
    dump = ip_dump.read("5:\tfrom all fwmark 0x1 lookup 7\n", name="dump.txt")
    assert {rule.family for rule in dump.rules} == {"ipv4"}
    assert dump.assumed[0].startswith("dump.txt the rules from line 1 on are taken for those of IPv4")
    # Who knows it better says so.
    dump = ip_dump.read(first + main, family="ipv4")
    assert {rule.family for rule in dump.rules} == {"ipv4"}
    assert not dump.assumed
    # Two lists one after the other are two lists.
    dump = ip_dump.read(first + main + default + first + main)
    assert [rule.family for rule in dump.rules] == ["ipv4"] * 3 + ["ipv6"] * 2


# --- routes -----------------------------------------------------------------------------------


def test_a_route_with_everything() -> None:
    line = (
        "unicast 10.0.0.0/8 tos 0x10 via 10.88.0.1 dev eth0 table 100 proto static scope site src 10.88.0.2 "
        "metric 7 onlink mtu lock 1400 advmss 1300 realm 5 rto_min lock 5ms quickack 1 expires 60sec\n"
    )
    dump = ip_dump.read(line)
    assert dump.routes == (
        Route(
            "ipv4",
            "100",
            "unicast",
            number("10.0.0.0"),
            number("10.255.255.255"),
            "eth0",
            number("10.88.0.2"),
            7,
            200,
            "10.88.0.1",
            tos="0x10",
        ),
    )
    assert dump.unread == ()


@all_cases(
    ("line", "family"),
    [
        ("default via 10.0.0.1 dev eth0", "ipv4"),
        ("default via fe80::1 dev eth0", "ipv6"),
        ("default dev eth0 scope link", "ipv4"),
        ("default dev eth0 metric 1024 pref medium", "ipv6"),
        ("default via inet6 fe80::1 dev eth0", "ipv4"),
        ("local default dev lo table 133 scope host", "ipv4"),
        ("local default dev lo table 133 metric 1024 pref medium", "ipv6"),
        ("unreachable default dev lo metric 4294967295 error -101 pref medium", "ipv6"),
        ("default proto static \n\tnexthop via fd00::1 dev eth0 weight 1", "ipv6"),
    ],
)
def test_the_family_of_a_route(line: str, family: str) -> None:
    route = only_route(line)
    bits = 32 if family == "ipv4" else 128
    assert (route.family, route.first, route.last) == (family, 0, (1 << bits) - 1)


def test_routes_of_several_ways() -> None:
    hops = "\tnexthop via 10.88.0.1 dev eth0 weight 1 \n\tnexthop dev eth1 weight 1 onlink \n"
    text = f"10.0.0.0/8 nhid 7 \n{hops}"
    route = only_route(text)
    assert route.hops == (Hop("eth0", "10.88.0.1"), Hop("eth1"))
    assert (route.interface, route.interfaces, route.gateway) == ("eth0", ("eth0", "eth1"), "")
    assert route == only_route(text.replace("\n", "\\"))  # ip -oneline


def test_what_is_dead_is_not_used() -> None:
    text = "10.0.0.0/8 \n\tnexthop dev eth0 weight 1 dead linkdown \n\tnexthop dev eth1 weight 1\n"
    dump = ip_dump.read(text)
    assert [(route.interface, route.hops) for route in dump.routes] == [("eth1", ())]
    assert any("dead" in str(each) for each in dump.unread)
    dump = ip_dump.read("10.0.0.0/8 dev eth0 scope link dead linkdown\n")
    assert (dump.routes, [each.why for each in dump.unread][-1]) == ((), "no way of it is usable")


def test_what_packets_are_put_into_is_told() -> None:
    encapsulation = "encap ip id 5 src 1.1.1.1 dst 2.2.2.2 ttl 0 tos 0"
    dump = ip_dump.read(f"10.0.0.0/8 {encapsulation} via 10.88.0.1 dev eth0\n")
    assert [(route.gateway, route.source) for route in dump.routes] == [("10.88.0.1", None)]
    assert [each.why for each in dump.unread] == [encapsulation]


def test_words_that_are_not_known_are_told() -> None:
    dump = ip_dump.read("10.0.0.0/8 dev eth0 blue\n")
    assert len(dump.routes) == 1
    [unread] = dump.unread
    assert (unread.why, unread.line, unread.text) == ("blue ", 1, "ip route 10.0.0.0/8 dev eth0")


def test_tables_that_are_not_named() -> None:
    """`ip route show table all` names every table but main; `ip route show table local` names none."""
    local = "local 10.88.0.2 dev eth0 proto kernel scope host src 10.88.0.2\n"
    near = "10.88.0.0/24 dev eth0 proto kernel scope link src 10.88.0.2\n"
    assert [route.table for route in ip_dump.read(near + local).routes] == ["main", "local"]
    assert "table local" in ip_dump.read(near + local).assumed[0]
    named = "broadcast 10.88.0.255 dev eth0 table local scope link\n"
    assert [route.table for route in ip_dump.read(near + local + named).routes] == ["main", "main", "local"]


@all_cases(
    "text",
    [
        "8.8.8.8 via 10.88.0.1 dev eth0 src 10.88.0.2 uid 0 \n    cache \n",  # ip route get
        "-A OUTPUT -j ACCEPT\n",
        "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n",
        "[{'priority': 1}]\n",
        '[{"priority":1,"src":"all","ta',
        '["rule"]\n',
        '[{"colour":"red"}]\n',
        '[{"priority":"first","src":"all"}]\n',
        '[{"priority":5,"src":"10.0.0.300"}]\n',
        '[{"dst":"10.0.0.0/99x"}]\n',
        '[{"type":"nat","dst":"10.0.0.1"}]\n',
        '[{"ifname":"eth0","addr_info":[{"family":"inet","local":"nowhere","prefixlen":8}]}]\n',
        '[{"dst":"10.0.0.0/33"}]\n',
        '[{"dst":["10.0.0.0"]}]\n',
        '[{"dst":"10.0.0.0/8","nexthops":["10.0.0.1"]}]\n',
        '[{"priority":5,"src":"fd00::","srclen":-1}]\n',
        '[{"priority":5,"src":"10.0.0.0","srclen":64}]\n',
        '[{"ifname":"eth0","addr_info":["10.0.0.1"]}]\n',
        '[{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":33}]}]\n',
        f"10.0.0.0/8 dev eth0 metric {'9' * 5000}\n",
        "10.0.0/24 dev eth0\n",
        "5: from nowhere lookup main\n",
        "eth0             UP             10.88.0.2/24\n",  # ip -brief
    ],
)
def test_whatever_else_is_told_and_never_an_error(text: str) -> None:
    dump = ip_dump.read(text, name="f")
    assert (dump.routes, dump.rules, dump.addresses) == ((), (), ())
    assert dump.unread
    assert all(each.line >= 1 and str(each).startswith("f line ") for each in dump.unread)
    assert all(len(str(each)) < 600 for each in dump.unread)
    ip_dump.joined([dump])


def test_an_address_belongs_to_no_interface_of_another_text() -> None:
    link, address = "2: eth0: <UP> mtu 1500\n", "    inet 10.0.0.2/24 scope global eth0\n"
    assert [each.interface for each in ip_dump.read(link + address).addresses] == ["eth0"]
    for between in ("[]\n", "10.0.0.0/8 dev eth1\n"):
        dump = ip_dump.read(link + between + address)
        assert dump.addresses == ()
        assert [each.text for each in dump.unread] == [address.strip()]


def test_empty_texts() -> None:
    for text in ("", "\n\n", "[]", "[ ]\n[]\n", "[{},{}]"):
        assert ip_dump.read(text) == ip_dump.Dump()


# --- addresses --------------------------------------------------------------------------------


def test_addresses() -> None:
    addresses = {address.address: address for address in ip_dump.read(fixture("addr.txt")).addresses}
    expected = [
        Address("lo", "ipv4", number("127.0.0.1"), 8, 254),
        Address("eth0", "ipv4", number("10.88.0.3"), 24, 0, frozenset({"secondary"})),
        Address("eth1", "ipv4", number("10.1.1.1"), 32, 0, peer=number("10.1.1.2")),
        Address("eth1", "ipv4", number("169.254.7.7"), 16, 253),
        Address("eth0", "ipv6", number("fd88::99"), 64, 0, frozenset({"deprecated"})),
        Address("eth0", "ipv6", number("fe80::ff:fe00:10"), 64, 253),
    ]
    assert [addresses[each.address] for each in expected] == expected


def test_addresses_in_one_line_each() -> None:
    text = (
        "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n"
        "2: eth0    inet 10.0.0.2/24 brd 10.0.0.255 scope global dynamic eth0\\    valid_lft 9sec\n"
        "2: eth0    inet6 fe80::1/64 scope link tentative \\       valid_lft forever\n"
    )
    dump = ip_dump.read(text)
    assert [(each.interface, each.address, each.flags) for each in dump.addresses] == [
        ("lo", number("127.0.0.1"), frozenset()),
        ("eth0", number("10.0.0.2"), frozenset()),
        ("eth0", number("fe80::1"), frozenset({"tentative"})),
    ]
    assert (dump.interfaces, dump.unread) == (("lo", "eth0"), ())


# --- what is missing --------------------------------------------------------------------------

_ADDR = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    inet 127.0.0.1/8 scope host lo
    inet6 ::1/128 scope host
2: eth0@if9: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    inet 10.88.0.2/24 brd 10.88.0.255 scope global eth0
    inet6 fd88::2/64 scope global nodad
"""
_ROUTE = """\
default via 10.88.0.1 dev eth0
10.88.0.0/24 dev eth0 proto kernel scope link src 10.88.0.2
"""


def joined(*texts: str) -> Network:
    return ip_dump.joined(ip_dump.read(text) for text in texts)


def local(network: Network, family: Family) -> set[str]:
    return {
        str(ip_network((route.first, route.prefix)))
        for route in network.routes
        if (route.family, route.table, route.kind) == (family, "local", "local")
    }


def test_rules_that_are_not_given_are_those_of_a_new_namespace() -> None:
    network = joined(_ADDR, _ROUTE)
    assert network.rules == default_rules()
    assert "IPv4: no routing rule was given; those of a new network namespace are assumed" in network.assumed
    network = joined(_ROUTE + "default dev eth1 scope link table 7\n")
    assert any(note.endswith("nothing leads to 7") for note in network.assumed)


def test_local_routes_that_are_not_given_are_made_from_addresses() -> None:
    network = joined(_ADDR, _ROUTE)
    assert local(network, "ipv4") == {"10.88.0.2/32", "127.0.0.0/8", "127.0.0.1/32"}
    assert local(network, "ipv6") == {"::1/128", "fd88::2/128"}
    assert [route.text for route in network.routes if route.kind == "broadcast"] == [
        "broadcast 127.255.255.255 dev lo table local src 127.0.0.1",
        "broadcast 10.88.0.255 dev eth0 table local src 10.88.0.2",
    ]
    assert any("table local was not given" in note for note in network.assumed)
    assert network.is_local("ipv4", number("127.5.5.5"))


def test_the_kernel_makes_the_same_local_routes() -> None:
    """The fixture has both: what is made from the addresses is what the kernel has made."""
    everything = ip_dump.read(fixture("route.txt"))
    made_by_hand = {"198.18.0.0/15", "28.255.255.255/32", "2001:db8:30::/48"}
    network = joined(fixture("addr.txt"))
    expected = {
        (route.family, route.kind, route.first, route.last, route.interface)
        for route in everything.routes
        if route.table == "local" and route.kind in ("local", "broadcast")
        if str(ip_network((route.first, route.prefix))) not in made_by_hand
    }
    found = {
        (route.family, route.kind, route.first, route.last, route.interface)
        for route in network.routes
        if route.table == "local"
    }
    assert found == expected


def test_addresses_that_are_not_given_are_those_of_routes() -> None:
    network = joined(_ROUTE)
    assert network.own("ipv4") == [Address("eth0", "ipv4", number("10.88.0.2"), 24)]
    assert local(network, "ipv4") == {"10.88.0.2/32", "127.0.0.0/8", "127.0.0.1/32"}
    assert network.interfaces == ("lo", "eth0")
    assert "IPv4: no address was given; those are taken that the routes name" in network.assumed
    # From the table local, if that is there.
    network = joined(fixture("route.txt"))
    addresses = joined(fixture("addr.txt")).own("ipv4")
    assert {(a.interface, a.address) for a in network.own("ipv4")} == {
        (a.interface, a.address) for a in addresses
    }


def test_routes_that_are_not_given_lead_to_the_neighbours_and_out() -> None:
    network = joined(_ADDR)
    texts = [route.text for route in network.routes if route.table == "main"]
    assert texts == [
        "10.88.0.0/24 dev eth0 src 10.88.0.2",
        "default dev eth0 src 10.88.0.2",
        "fd88::/64 dev eth0 metric 256",
        "default dev eth0 src fd88::2",
    ]
    assert "IPv4: no route was given; a default route by eth0 is assumed" in network.assumed
    only_local = joined(_ADDR, "local 10.88.0.2 dev eth0 proto kernel scope host src 10.88.0.2\n")
    assert any("a default route by eth0" in note for note in only_local.assumed)


def test_a_table_main_without_routes_stays_so() -> None:
    everything = "local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1\n"
    assert all(route.table == "local" for route in joined(everything).routes if route.family == "ipv4")


def test_a_family_without_addresses_is_off() -> None:
    network = joined("".join(line for line in _ADDR.splitlines(True) if "inet6" not in line), _ROUTE)
    assert not [route for route in network.routes if route.family == "ipv6"]
    assert "IPv6: it has no address, so it is taken as switched off" in network.assumed


def test_nothing_at_all() -> None:
    network = joined()
    assert network.rules == default_rules()
    assert {route.interface for route in network.routes if route.table == "main"} == {"eth0"}
    assert len(network.assumed) >= 6


def test_two_dumps_of_the_same_are_one() -> None:
    once = joined(_ADDR, _ROUTE)
    assert joined(_ADDR, _ROUTE, _ROUTE, _ADDR) == once
