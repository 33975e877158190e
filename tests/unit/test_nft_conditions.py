"""Which packets have the conditions of nftables' rules, as versions of nft print them.

The rules are those of tests/support/nft_fixtures.py, each printed by a real nft. What packets really do is in
tests/kernel/test_nft_meaning.py.
"""

from __future__ import annotations

from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import ICMP, ICMPV6, SCTP, UDP, Packet
from istio_iptables.interpreter.routing import Network, Route, assumed_network, default_rules
from istio_iptables.rules.model import NO_ID, Cidr
from tests.support.cases import all_cases
from tests.support.nft_fixtures import RULES
from tests.support.nft_meaning import IPV6, PACKET, Changes, condition_of, rules_for, unmodelled_in

CONDITIONS, FOUR, EARLY = "inet t conditions", "ip four conditions", "inet early actions"

#: Packets that have a condition, and those that do not, by what is different in them.
CASES: dict[str, tuple[list[Changes], list[Changes]]] = {
    "ct state established,related": ([{"state": "ESTABLISHED"}, {"state": "RELATED"}], [{}]),
    "ct state new": ([{}], [{"state": "INVALID"}]),
    "ct state { established, related }": ([{"state": "RELATED"}], [{}, {"state": "UNTRACKED"}]),
    "ct state != new": ([{"state": "INVALID"}, {"state": "ESTABLISHED"}], [{}]),
    # Compared with both bits at once, which no packet has.
    "ct state != established,related": ([{}, {"state": "ESTABLISHED"}, {"state": "RELATED"}], []),
    "ct state & (established | related) == established": (
        [{"state": "ESTABLISHED"}],
        [{}, {"state": "RELATED"}],
    ),
    "ct status dnat": ([{"translated": True}], [{}, {"translated": True, "state": "INVALID"}]),
    "ct status snat,dnat": ([{"translated": True}, {"source_translated": True}], [{}]),
    "ct direction reply": ([{"direction": "reply"}], [{}, {"direction": "reply", "state": "UNTRACKED"}]),
    "ct original ip daddr 10.0.0.2": (
        [{}, {"destination": 9}],
        [{"original_destination": 9}, {"state": "INVALID"}],
    ),
    "meta l4proto tcp ct original proto-dst 80": ([{}], [{"original_port": 81}, {"protocol": UDP}]),
    "ct reply ip saddr 10.0.0.2": ([{}], [{"destination": 9}, IPV6]),
    "ct mark 5": ([{"connection_mark": 5}], [{}]),
    "ct mark != 5": ([{}], [{"connection_mark": 5}, {"state": "INVALID"}, {"state": "UNTRACKED"}]),
    "ct mark & 0xff == 0x5": ([{"connection_mark": 0x105}], [{"connection_mark": 0x15}]),
    "ct zone 7": ([{"zone": 7}], [{}]),
    "tcp flags syn": ([{}, {"flags": 0x12}], [{"flags": 0x10}, {"protocol": UDP}]),
    "tcp flags & (syn | ack) == syn": ([{}, {"flags": 0x03}], [{"flags": 0x12}]),
    "tcp flags { syn, syn | ack }": ([{}, {"flags": 0x12}], [{"flags": 0x10}, {"flags": 0x03}]),
    "tcp flags != syn": ([{"flags": 0x12}], [{}, {"protocol": UDP}]),
    "iif lo": ([{"received_on": "lo"}], [{}, {"received_on": ""}]),
    'iifname "eth0"': ([{}], [{"received_on": "eth00"}]),
    'iifname "eth*"': ([{}, {"received_on": "eth"}], [{"received_on": "lo"}, {"received_on": ""}]),
    'iifname { "eth0", "wlan0" }': ([{}, {"received_on": "wlan0"}], [{"received_on": "lo"}]),
    # What this machine sends has come in by no interface, whose name is empty.
    'iifname != "lo"': ([{}, {"received_on": ""}], [{"received_on": "lo"}]),
    'oifname "lo"': ([{"sent_to": "lo"}], [{}]),
    "meta iiftype loopback": ([{"received_on": "lo"}], [{}]),
    "meta pkttype { host, broadcast }": ([{}, {"packet_type": "broadcast"}], [{"packet_type": "multicast"}]),
    # Without a socket there is no user, whatever it is compared with.
    "meta skuid 1337": ([{"uid": 1337, "gid": 1}], [{}, {"uid": 1, "gid": 1337}]),
    "meta skuid != 1337": ([{"uid": 1, "gid": 1337}], [{}, {"uid": 1337, "gid": 1}]),
    "meta skuid 0-1000": ([{"uid": 0}, {"uid": 1000}], [{}, {"uid": 1001}]),
    "meta skgid > 1000": ([{"uid": 0, "gid": 1001}], [{"uid": 0, "gid": 1000}, {}]),
    "meta skuid != { 1, 2 }": ([{"uid": 3}], [{"uid": 2}, {}]),
    "meta protocol ip": ([{}], [IPV6]),
    "meta nfproto ipv6": ([IPV6], [{}]),
    "meta l4proto { tcp, udp } th dport 80": (
        [{}, {"protocol": UDP}],
        [{"destination_port": 81}, {"protocol": SCTP}, {"protocol": ICMP}],
    ),
    "meta l4proto ipv6-icmp": ([{"protocol": ICMPV6}], [{}]),
    "meta l4proto != udp": ([{}], [{"protocol": UDP}]),
    "th dport 80": ([{}, {"protocol": SCTP}], [{"destination_port": 81}]),
    "meta mark 5": ([{"mark": 5}], [{}]),
    "meta mark & 0xff00 == 0x500": ([{"mark": 0x50507}], [{"mark": 5}]),
    "meta mark & 0xff00 != 0": ([{"mark": 0x100}], [{"mark": 0x10000}]),
    "meta mark < 10": ([{}, {"mark": 9}], [{"mark": 10}]),
    "meta mark { 1, 5-7 }": ([{"mark": 1}, {"mark": 6}], [{"mark": 4}]),
    "ip saddr @plain": (
        [{}, {"source": 0xC0000205}, {"source": 0x0A000007}],
        [{"source": 0x0A000004}, IPV6, {**IPV6, "source": 0x0A000001}],
    ),
    "ip saddr != @plain": ([{"source": 0x0A000004}], [{}, IPV6]),
    "ip saddr . tcp dport @several": (
        [{}, {"source": 0x0A000007, "destination_port": 53}],
        [{"destination_port": 53}, {"protocol": UDP}, IPV6],
    ),
    "ip saddr @changing": ([{}], [{"source": 9}]),
    "ip saddr @counting": ([{}], [{"source": 9}]),
    "ip saddr @nobody": ([], [{}, {"source": 0}]),
    "ip saddr 10.0.0.0/24": ([{}, {"source": 0x0A0000FF}], [{"source": 0x0A000100}, IPV6]),
    "ip saddr & 0.0.0.255 == 0.0.0.1": ([{}, {"source": 0x05000001}], [{"source": 0x0A000002}]),
    "ip saddr != 10.0.0.1": ([{"source": 9}], [{}, {**IPV6, "source": 9}]),
    "ip protocol tcp": ([{}], [{"protocol": UDP}, IPV6]),
    "ip frag-off & 0x1fff != 0": ([{"fragment": True}], [{}]),
    "ip version 4": ([{}], [IPV6]),
    "ip6 nexthdr tcp": ([IPV6], [{}, {**IPV6, "protocol": UDP}]),
    "ip6 saddr fe80::/10": ([{**IPV6, "source": 0xFEBF << 112}], [IPV6, {}]),
    "ip6 daddr { ::1, fd00::1-fd00::5 }": (
        [IPV6, {**IPV6, "destination": (0xFD << 120) + 5}],
        [{**IPV6, "destination": (0xFD << 120) + 6}, {"destination": 1}],
    ),
    "icmp type echo-request": ([{"protocol": ICMP}], [{}, {"protocol": ICMP, "icmp_type": 0}]),
    "icmp type { echo-reply, destination-unreachable }": (
        [{"protocol": ICMP, "icmp_type": 3}],
        [{"protocol": ICMP}],
    ),
    "icmpv6 type { nd-neighbor-solicit, nd-router-advert }": (
        [{**IPV6, "protocol": ICMPV6, "icmp_type": 135}],
        [{**IPV6, "protocol": ICMPV6, "icmp_type": 133}, {"icmp_type": 135}],
    ),
    "icmp type . icmp code { echo-request . 0 }": (
        [{"protocol": ICMP}],
        [{"protocol": ICMP, "icmp_code": 1}, {}],
    ),
    "tcp dport { 80, 443, 8000-8100 }": ([{}, {"destination_port": 8050}], [{"destination_port": 81}]),
    "tcp dport != 80": ([{"destination_port": 81}], [{}, {"destination_port": 81, "protocol": UDP}]),
    "tcp dport >= 1024": ([{"destination_port": 1024}, {"destination_port": 65535}], [{}]),
    "tcp dport <= 1023": ([{}, {"destination_port": 1023}], [{"destination_port": 1024}]),
    "tcp dport 8000-8100": ([{"destination_port": 8100}], [{}]),
    "udp sport 53": ([{"protocol": UDP, "source_port": 53}], [{"source_port": 53}]),
    "sctp dport 80": ([{"protocol": SCTP}], [{}]),
    "tcp dport & 1 == 0": ([{}], [{"destination_port": 81}]),
    "ip saddr . ip daddr . meta l4proto . th dport { 10.0.0.1 . 10.0.0.2 . tcp . 80 }": (
        [{}],
        [{"protocol": UDP}, {"source": 9}, {"destination_port": 81}],
    ),
    'iifname . meta mark { "eth0" . 5 }': ([{"mark": 5}], [{}, {"mark": 5, "received_on": "lo"}]),
    'log prefix "x" counter name "packets_of_it"': ([{}], []),
}
CASES_OF_IPV4: dict[str, tuple[list[Changes], list[Changes]]] = {
    "ip saddr 10.0.0.1": ([{}], [{"source": 9}]),
    "@nh,96,32 0x0a000001": ([{}], [{"source": 9}]),
    "ip protocol udp": ([{"protocol": UDP}], [{}]),
    "tcp dport 80": ([{}], [{"protocol": UDP}]),
}
#: Conditions that cannot be told of the packets, and what is not known then, in nft's words.
UNMODELLED: dict[str, tuple[str, list[Changes]]] = {
    "ct status != dnat": ("ct status != dnat", [{}]),
    'ct helper "ftp"': ("ct helper", [{}]),
    "meta iiftype ether": ("meta iiftype", [{}]),
    "meta length > 100": ("meta length", [{}]),
    "meta cgroup 5": ("meta cgroup", [{}]),
    "ip ttl 1": ("ip ttl", [{}]),
    "@nh,96,32 0x0a000001": ("@nh,96,32", [{}]),
    "limit rate 5/second": ("limit rate 5/second", [{}]),
    'limit name "some"': ('limit name "some"', [{}]),
    "quota over 5 mbytes": ("quota over 5 mbytes", [{}]),
    "ct count over 5": ("ct count over 5", [{}]),
    "update @changing { ip saddr limit rate 1/second }": ("update @changing", [{}]),
    "numgen random mod 2 0": ("numgen random mod 2", [{}]),
    "socket transparent 1": ("socket transparent", [{}]),
    "rt classid 5": ("rt classid", [{}]),
    "ether saddr 00:11:22:33:44:55": ("ether saddr", [{}]),
    "tcp option maxseg exists": ("tcp option maxseg", [{}]),
    "fib daddr type local": ("own addresses are not known", [{}, IPV6]),
    "fib daddr type != local": ("own addresses are not known", [{}]),
    "fib saddr . iif oif missing": ("fib saddr . iif oif", [{}]),
    "fib saddr . mark . iif oif exists": ("fib saddr . mark . iif oif", [{}]),
}
#: What has no meaning for the packet, but needs that there is something to look at.
NEEDING: dict[str, tuple[list[Changes], list[Changes]]] = {"update @changing { ip saddr }": ([{}], [IPV6])}


def with_socket(changes: Changes) -> Packet:
    """Return the packet; one that has a user has a group, too."""
    packet = PACKET.replace(**changes)
    return packet.replace(gid=0) if packet.uid != NO_ID and packet.gid == NO_ID else packet


@all_cases(
    ("where", "text"),
    [(CONDITIONS, text) for text in {**CASES, **NEEDING}] + [(FOUR, text) for text in CASES_OF_IPV4],
)
def test_a_condition_holds_for_the_right_packets(where: str, text: str) -> None:
    cases = CASES_OF_IPV4 if where == FOUR else {**CASES, **NEEDING}
    yes, no = cases[text]
    versions = rules_for(where, text)
    if text in NEEDING:  # 0.9.8 does not say whether there is a limit
        versions = versions[1:]
    for rule in versions:
        for changes in yes:
            assert value_of(condition_of(rule), with_socket(changes)) is True, changes
        for changes in no:
            assert value_of(condition_of(rule), with_socket(changes)) is False, changes


@all_cases("text", UNMODELLED)
def test_what_is_not_modelled_is_named(text: str) -> None:
    why, packets = UNMODELLED[text]
    for rule in rules_for(CONDITIONS, text):
        assert any(part.why.startswith(why) for part in unmodelled_in(condition_of(rule)))
        for changes in packets:
            assert value_of(condition_of(rule), PACKET.replace(**changes)) is None


def test_every_condition_of_the_fixture_is_tested() -> None:
    assert {*CASES, *UNMODELLED, *NEEDING} == set(RULES[CONDITIONS])
    assert set(CASES_OF_IPV4) == set(RULES[FOUR])


# --- addresses and routes ---------------------------------------------------------------------

OWN = Known(assumed_network([("eth0", Cidr(4, 0x0A000002, 24))], why="for the test"))
READ = Known(
    Network(
        routes=(
            Route("ipv4", "local", "local", 0x0A000002, 0x0A000002, "eth0"),
            Route("ipv4", "main", "unicast", 0x0A000000, 0x0A0000FF, "eth0"),
            Route("ipv4", "main", "unicast", 0x0A000000, 0x0A00000F, "eth1"),
            Route("ipv4", "main", "unreachable", 0x0A000080, 0x0A00008F),
        ),
        rules=default_rules(),
    )
)


@all_cases(
    ("text", "known", "changes", "expected"),
    [
        ("fib daddr type local", OWN, {}, True),
        ("fib daddr type local", OWN, {"destination": 0x0A000003}, False),
        ("fib daddr type local", OWN, IPV6, True),
        ("fib daddr type != local", OWN, {"destination": 0x0A000003}, True),
        ("fib saddr . iif oif missing", READ, {"source": 0x0A000020}, False),
        ("fib saddr . iif oif missing", READ, {"source": 0x0A000001}, True),
        ("fib saddr . iif oif missing", READ, {"source": 0x0A000001, "received_on": "eth1"}, False),
        ("fib saddr . iif oif missing", READ, {"source": 0x0A000081}, True),
        ("fib saddr . iif oif missing", READ, {"source": 0x0B000000}, True),
        ("fib saddr . iif oif missing", READ, {"received_on": "lo"}, False),
        ("fib saddr . iif oif missing", OWN, {}, None),  # routes that are assumed decide nothing
    ],
)
def test_addresses_and_routes_decide_where_they_are_known(
    text: str, known: Known, changes: Changes, expected: bool | None
) -> None:
    for rule in rules_for(CONDITIONS, text, known):
        assert value_of(condition_of(rule), PACKET.replace(**changes)) is expected
