"""The order of tables, what nat chooses from ranges, destinations that are no host's: asked of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from istio_iptables.interpreter.packet import Packet

from ..support.admin_namespace import LOCAL, LOCAL6
from ..support.fixed_packets import (
    BEYOND,
    FAR,
    FAR6,
    GUEST,
    GUEST6,
    NEAR,
    NEAR6,
    OWN,
    OWN6,
    SIDE,
    seen,
    tcp,
    udp,
)
from ..support.testbed import Setup, Step, Testbed, lines
from ..support.truth import Compared


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


# --- the order of tables ----------------------------------------------------------------------

TABLES = {
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "security", "nat"),
    "FORWARD": ("mangle", "filter", "security"),
    "OUTPUT": ("raw", "mangle", "nat", "filter", "security"),
    "POSTROUTING": ("mangle", "nat"),
}
#: As linux/netfilter_ipv4.h has them.
PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0}
SOURCES_LAST = {"INPUT": 100, "POSTROUTING": 100}
#: As `nft list ruleset` shows them, iptables-nft has this table elsewhere.
SECURITY = {"legacy": 50, "nft": 150}
IN, THROUGH, OUT = (
    {"ipv4": udp(NEAR, OWN, by="eth0"), "ipv6": udp(NEAR6, OWN6, by="eth0")},
    {"ipv4": udp(NEAR, GUEST, by="eth0"), "ipv6": udp(NEAR6, GUEST6, by="eth0")},
    {"ipv4": udp(OWN, FAR), "ipv6": udp(OWN6, FAR6)},
)
WAYS = {"PREROUTING": IN, "INPUT": IN, "FORWARD": THROUGH, "OUTPUT": OUT, "POSTROUTING": OUT}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize("chain", TABLES)
def test_tables_are_asked_in_the_order_of_their_priorities(
    bed: Testbed, chain: str, variant: str, family: str
) -> None:
    """Each table counts the mark up if the one before it has done so; nft stands between them."""
    of_variant = {**PRIORITIES, "nat": SOURCES_LAST.get(chain, -100), "security": SECURITY[variant]}
    tables = sorted(TABLES[chain], key=of_variant.__getitem__)
    text = "".join(
        f"*{table}\n-A {chain} -m mark --mark {2 * at} -j MARK --set-mark {2 * at + 1}\nCOMMIT\n"
        for at, table in enumerate(tables)
    )
    between = "".join(
        f"chain c{at} {{ type filter hook {chain.lower()} priority {of_variant[table] + 5}; "
        f"meta mark {2 * at + 1} meta mark set {2 * at + 2}; }}\n"
        for at, table in enumerate(tables)
    )
    key = {"ipv4": "ip", "ipv6": "ip6"}[family]
    steps = (Step(f"{variant} {family}", text), Step("nft", f"table {key} between {{\n{between}}}\n"))
    [found] = seen(bed, Setup(steps), [WAYS[chain][family]])
    assert found.observed.event
    assert found.observed.event.mark == 2 * len(tables)
    assert not found.depends


# --- ranges -----------------------------------------------------------------------------------


def of_iptables(target: str, variant: str = "legacy") -> Step:
    return Step(f"{variant} ipv4", f"*nat\n-A OUTPUT -p tcp -j {target}\nCOMMIT\n")


def of_nft(statement: str) -> Step:
    rule = f"meta l4proto tcp {statement}"
    return Step("nft", f"table ip nats {{ chain out {{ type nat hook output priority -100; {rule}; }}; }}\n")


def ends(found: Compared) -> set[str]:
    """Return the ends that were foretold."""
    return {way.verdict.to for way in found.foretold.ways}


PORTS = (79, 8000, 8003, 9000, 65535)


@pytest.mark.parametrize(
    ("target", "by_port"),
    [
        (f"DNAT --to-destination {FAR}:8000-8005", "8000 8000 8003 8000 8000"),
        (f"DNAT --to-destination {FAR}:9000-9010/8000", "? 9000 9003 ? ?"),
        (f"DNAT --to-destination {FAR}:8000-8005/8000", "? 8000 8003 ? ?"),
        ("REDIRECT --to-ports 8000-8005", "8000 8000 8003 8000 8000"),
    ],
)
@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_a_range_of_ports_keeps_or_shifts(bed: Testbed, target: str, by_port: str, variant: str) -> None:
    packets = [tcp(OWN, BEYOND, port) for port in PORTS]
    found = seen(bed, Setup((of_iptables(target, variant),)), packets)
    foretold = []
    for each in found:
        address_and_port = str(each.foretold.verdict).split()[-1]
        foretold.append("?" if each.depends else address_and_port.rpartition(":")[2])
    assert foretold == by_port.split()


def test_a_map_of_nft_shifts_ports(bed: Testbed) -> None:
    ports = f"dnat to tcp dport map {{ 8000 : {FAR} . 9000, 8001-8003 : {GUEST} . 9100 }}"
    found = seen(bed, Setup((of_nft(ports),)), [tcp(OWN, BEYOND, port) for port in (7999, 8000, 8003, 8004)])
    assert [str(each.foretold.verdict) for each in found] == [
        "direct",
        f"translated {FAR}:9000",
        f"translated {GUEST}:9100",
        "direct",
    ]


@pytest.mark.parametrize(
    "step",
    [
        of_iptables(f"DNAT --to-destination {FAR}:8000-8003 --random"),
        of_iptables(f"DNAT --to-destination {FAR}:8000-8003 --random", "nft"),
        of_nft(f"dnat to {FAR}:8000-8003 random"),
    ],
)
def test_a_port_by_chance_is_one_of_those_foretold(bed: Testbed, step: Step) -> None:
    found = seen(bed, Setup((step,)), [tcp(OWN, BEYOND, port) for port in (80, 8001)] * 8)
    for each in found:
        assert each.depends
        assert ends(each) == {f"{FAR}:{port}" for port in range(8000, 8004)}
    assert len({each.observed.event.packet.destination_port for each in found if each.observed.event}) > 1


@pytest.mark.parametrize(
    "step",
    [
        of_iptables("DNAT --to-destination 198.18.0.1-198.18.0.6"),
        of_iptables("DNAT --to-destination 198.18.0.1-198.18.0.6", "nft"),
        of_nft("dnat to 198.18.0.1-198.18.0.6"),
    ],
)
def test_an_address_of_several_is_one_of_those_foretold(bed: Testbed, step: Step) -> None:
    found = seen(bed, Setup((step,)), [tcp(OWN, f"198.19.0.{last}") for last in range(1, 9)])
    for each in found:
        assert each.depends
        assert ends(each) == {f"198.18.0.{last}:7000" for last in range(1, 7)}
    assert len({each.observed.event.packet.destination for each in found if each.observed.event}) > 1


@pytest.mark.parametrize(
    "step",
    [
        of_iptables(f"DNAT --to-destination {FAR}:8000-8900 --random"),
        of_iptables("DNAT --to-destination 198.18.0.1-198.18.0.200"),
        of_nft(f"dnat to {FAR}:8000-8900 fully-random"),
    ],
)
def test_of_too_many_no_end_is_foretold(bed: Testbed, step: Step) -> None:
    for each in seen(bed, Setup((step,)), [tcp(OWN, BEYOND)]):
        assert each.depends


def test_chance_that_makes_no_difference_is_no_question(bed: Testbed) -> None:
    """Whichever port it gets, the packet is dropped: the verdict is that."""
    step = of_iptables(f"DNAT --to-destination {FAR}:8000-8003 --random")
    drop = Step("legacy ipv4", "*filter\n-A OUTPUT -p tcp -m tcp --dport 8000:8003 -j DROP\nCOMMIT\n")
    [found] = seen(bed, Setup((step, drop)), [tcp(OWN, BEYOND)])
    assert str(found.foretold.verdict) == "dropped"
    # What is not said of any port may be anywhere: no verdict, although each outcome that is known is this.
    much = of_iptables(f"DNAT --to-destination {FAR}:8000-8900 --random")
    rest = Step("legacy ipv4", "*filter\n-A OUTPUT -p tcp -m tcp --dport 7000 -j DROP\nCOMMIT\n")
    [found] = seen(bed, Setup((much, rest)), [tcp(OWN, BEYOND)])
    assert found.depends


# --- destinations that are no host's -----------------------------------------------------------

LOCALS = Step("ip", LOCAL), Step("ip -6", LOCAL6)
NOWHERE_ELSE = (
    (udp(NEAR, "10.88.0.255", by="eth0"), "delivered"),
    (udp(NEAR, "255.255.255.255", by="eth0"), "delivered"),
    (udp(NEAR, "10.89.0.255", by="eth0"), "delivered"),
    (udp("0.0.0.0", "255.255.255.255", by="lo1"), "delivered"),  # a host that has no address yet
    (udp("0.0.0.0", "10.88.0.255", by="eth0"), "dropped"),
    (udp("224.0.0.9", "255.255.255.255", by="eth0"), "dropped"),
    (udp(NEAR, "0.0.0.0", by="eth0"), "dropped"),
    (udp(NEAR, "0.0.0.9", by="eth0"), "sent"),
    (udp("0.0.0.9", OWN, by="eth0"), "delivered"),
    (udp("127.0.0.1", "127.200.3.4"), "delivered"),
    (udp(OWN, "127.0.0.9"), "delivered"),
    (udp(OWN, "203.0.113.200"), "delivered"),
    (udp(NEAR, "203.0.113.200", by="eth0"), "delivered"),
    (udp(NEAR6, "fd88::", by="eth0"), "delivered"),  # anycast: every router of the network
    (udp(NEAR6, "2001:db8:bad:9::5", by="eth0"), "delivered"),
    (udp(OWN6, "2001:db8:bad:9::5"), "delivered"),
)


def test_destinations_that_are_no_hosts(bed: Testbed) -> None:
    """Broadcast, anycast, the network 127.0.0.0/8, and whole networks that a route makes local."""
    packets: list[Packet] = [packet for packet, _ in NOWHERE_ELSE]
    found = seen(bed, Setup(LOCALS), packets)
    assert [each.observed.how for each in found] == [how for _, how in NOWHERE_ELSE]
    assert not any(each.depends for each in found)


def test_rules_see_what_kind_of_destination_it_is(bed: Testbed) -> None:
    """REDIRECT of what is local, by addrtype and by fib; each in one bit of the mark for what is not TCP."""
    kinds = ("LOCAL", "BROADCAST", "UNICAST")
    rules, nft = [], ""
    for at, kind in enumerate(kinds):
        rules.append(f"-A PREROUTING -m addrtype --dst-type {kind} -j MARK --or-mark {1 << at}")
        nft += f"fib daddr type {kind.lower()} meta mark set meta mark or {8 << at};"
    chain = f"chain c {{ type filter hook prerouting priority -140; {nft} }};"
    steps = (
        *LOCALS,
        Step("legacy ipv4", f"*mangle\n{lines(rules)}COMMIT\n"),
        Step("nft", f"table inet kinds {{ {chain} }}\n"),
    )
    packets = [packet for packet, _ in NOWHERE_ELSE if packet.family == "ipv4"]
    found = seen(bed, Setup(steps), [*packets, udp(NEAR, SIDE, by="eth0"), udp(NEAR, GUEST, by="eth0")])
    assert {each.observed.event.mark for each in found if each.observed.event} == {9, 18, 36}


def test_who_has_no_address_is_not_filtered(bed: Testbed) -> None:
    strict = (("ipv4/conf/all/rp_filter", 1),)
    [found] = seen(bed, Setup((), True, strict), [udp("0.0.0.0", "255.255.255.255", by="lo1")])
    assert found.observed.how == "delivered"
