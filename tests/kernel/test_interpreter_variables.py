"""What the kernel's variables (sysctls) do to packets: real ones in a pod, foretold by the interpreter.

What is expected is said here as ip-sysctl.rst has it; both the kernel and the interpreter have to agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from istio_iptables.interpreter.explore import Fork, explore
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.packet import Packet
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.kernel.sysctls import Sysctls
from istio_iptables.trace.world import with_sysctls

from ..support.fixed_packets import BEYOND, GUEST, GUEST6, NEAR, NEAR6, NEAR_SIDE, OWN, OWN6, udp
from ..support.testbed import Setup, Step, Testbed
from ..support.truth import compare


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


class Case(NamedTuple):
    """A packet of UDP from `source` to `destination`, by the interface `by` or sent by a process."""

    by: str
    source: str
    destination: str
    how: str


FAR, FAR6, OWN_SIDE = "10.244.1.5", "fd00:244::5", "10.89.0.2"
ALL, ETH0, LO1, VM0 = (f"ipv4/conf/{name}" for name in ("all", "eth0", "lo1", "vm0"))


def packet(case: Case) -> Packet:
    return udp(case.source, case.destination, by=case.by)


def agree(bed: Testbed, setup: Setup, *cases: Case) -> None:
    """Send packets; what becomes of each is what is said, and what was foretold."""
    try:
        bed.load(setup)
        world = bed.world()
        for case in cases:
            [found] = compare(bed, world, packet(case), talk=False)
            assert not found.differences, str(found)
            assert not found.depends, str(found)
            assert found.observed.how == case.how, str(found)
            assert {way.end.how for way in found.foretold.ways} == {case.how}, str(found)
    finally:
        bed.unload()


@pytest.mark.parametrize(
    ("forwards", "variables", "near", "guest"),
    [
        (True, (), "sent", "sent"),
        (False, (), "dropped", "dropped"),
        (True, ((f"{ETH0}/forwarding", 0),), "dropped", "sent"),
        (False, ((f"{VM0}/forwarding", 1),), "dropped", "sent"),
    ],
)
def test_ipv4_forwards_by_interface(
    bed: Testbed, forwards: bool, variables: tuple[tuple[str, int], ...], near: str, guest: str
) -> None:
    setup = Setup((), forwards, variables)
    agree(bed, setup, Case("eth0", NEAR, GUEST, near), Case("vm0", GUEST, FAR, guest))
    # IPv6 does as the variable of all says, whatever those of interfaces are.
    how = "sent" if forwards else "dropped"
    agree(bed, setup, Case("eth0", NEAR6, GUEST6, how), Case("vm0", GUEST6, FAR6, how))


def test_ipv6_forwards_as_the_variable_of_all_says(bed: Testbed) -> None:
    packets = ("eth0", NEAR6, GUEST6), ("vm0", GUEST6, FAR6)
    off = Setup((), True, (("ipv6/conf/all/forwarding", 0), ("ipv6/conf/vm0/forwarding", 1)))
    agree(bed, off, *(Case(*each, "dropped") for each in packets), Case("vm0", GUEST, FAR, "sent"))


def test_ipv6_forwards_by_force(bed: Testbed) -> None:
    if not os.path.exists("/proc/sys/net/ipv6/conf/all/force_forwarding"):
        pytest.skip("this kernel has no force_forwarding: it is older than 6.17")
    forced = Setup((), False, (("ipv6/conf/vm0/force_forwarding", 1),))
    agree(bed, forced, Case("eth0", NEAR6, GUEST6, "dropped"), Case("vm0", GUEST6, FAR6, "sent"))


def test_where_there_is_no_route_the_sender_is_told_if_its_interface_forwards(bed: Testbed) -> None:
    nowhere = "203.0.113.1"
    agree(bed, Setup((), True), Case("eth0", NEAR, nowhere, "rejected"))
    setup = Setup((), True, ((f"{ETH0}/forwarding", 0),))
    agree(bed, setup, Case("eth0", NEAR, nowhere, "dropped"), Case("vm0", GUEST, nowhere, "rejected"))


@pytest.mark.parametrize(
    ("variables", "eth0", "lo1"),
    [
        ((), "dropped", "dropped"),
        (((f"{ETH0}/route_localnet", 1),), "delivered", "dropped"),
        (((f"{LO1}/route_localnet", 1),), "dropped", "delivered"),
        (((f"{ALL}/route_localnet", 1),), "delivered", "delivered"),
    ],
)
def test_loopback_addresses_come_and_go_by_interface(
    bed: Testbed, variables: tuple[tuple[str, int], ...], eth0: str, lo1: str
) -> None:
    away = {"delivered": "sent", "dropped": "rejected"}
    agree(
        bed,
        Setup((), True, variables),
        Case("eth0", NEAR, "127.0.0.1", eth0),
        Case("lo1", NEAR_SIDE, "127.9.9.9", lo1),
        Case("", "127.0.0.1", FAR, away[eth0]),
        Case("", "127.0.0.1", BEYOND, away[lo1]),
        Case("", "127.0.0.1", "127.0.0.1", "delivered"),
    )


UNREACHABLE = "203.0.113.1"
#: Packets that come in by lo1, to the pod and to be forwarded.
FILTERED = (
    (NEAR_SIDE, OWN),
    (NEAR, OWN),
    (UNREACHABLE, OWN),
    (NEAR_SIDE, GUEST),
    (NEAR, GUEST),
    (FAR, OWN_SIDE),
)


@pytest.mark.parametrize(
    ("variables", "passed"),
    [
        ((), "111111"),
        (((f"{LO1}/rp_filter", 1),), "100100"),
        (((f"{LO1}/rp_filter", 2),), "110111"),
        (((f"{ALL}/rp_filter", 1),), "100100"),
        (((f"{ALL}/rp_filter", 1), (f"{LO1}/rp_filter", 2)), "110111"),  # the greater one counts
        (((f"{ALL}/rp_filter", 2), (f"{LO1}/rp_filter", 1)), "110111"),
        (((f"{ETH0}/rp_filter", 1),), "111111"),
    ],
)
def test_sources_are_filtered_by_the_way_back(
    bed: Testbed, variables: tuple[tuple[str, int], ...], passed: str
) -> None:
    cases = []
    for (source, destination), passes in zip(FILTERED, passed, strict=True):
        there = "sent" if destination == GUEST else "delivered"
        cases.append(Case("lo1", source, destination, there if passes == "1" else "dropped"))
    # ::1 and IPv6 have nothing of the kind; a socket's packets are not filtered.
    cases += [Case("lo1", NEAR6, OWN6, "delivered"), Case("", OWN, OWN, "delivered")]
    zero = tuple((f"{name}/rp_filter", 0) for name in (ALL, ETH0, LO1))
    agree(bed, Setup((), True, (*zero, *variables)), *cases)


def test_a_routing_rule_may_be_the_way_back(bed: Testbed) -> None:
    """From an own address of the side, table 300 leads there; on the way back that is the source."""
    strict = ((f"{LO1}/rp_filter", 1),)
    steps = (Step("ip", f"rule add from {OWN_SIDE} lookup 300\n"),)
    agree(
        bed,
        Setup(steps, True, strict),
        Case("lo1", FAR, OWN_SIDE, "delivered"),
        Case("lo1", FAR, OWN, "dropped"),
    )


@pytest.mark.parametrize(("by_mark", "way_back"), [(0, "dropped"), (1, "delivered")])
def test_the_mark_may_choose_the_way_back(bed: Testbed, by_mark: int, way_back: str) -> None:
    """As a VPN has it: what a rule has marked goes back by another interface."""
    steps = (
        Step("ip", "rule add fwmark 0x51 lookup 300\n"),
        Step("legacy ipv4", "*mangle\n-A PREROUTING -i lo1 -j MARK --set-mark 0x51\nCOMMIT\n"),
    )
    variables = ((f"{ALL}/rp_filter", 1), (f"{ALL}/src_valid_mark", by_mark))
    agree(
        bed,
        Setup(steps, True, variables),
        Case("lo1", FAR, OWN_SIDE, way_back),
        Case("eth0", FAR, OWN, "delivered"),
    )


def test_own_addresses_from_outside(bed: Testbed) -> None:
    agree(bed, Setup((), True, ((f"{LO1}/rp_filter", 0),)), Case("lo1", OWN, OWN_SIDE, "dropped"))
    accepted = ((f"{LO1}/accept_local", 1), (f"{LO1}/rp_filter", 0))
    agree(bed, Setup((), True, accepted), Case("lo1", OWN, OWN_SIDE, "delivered"))
    loose = ((f"{LO1}/accept_local", 1), (f"{LO1}/rp_filter", 2))
    packets = Case("lo1", OWN, OWN_SIDE, "delivered"), Case("lo1", "10.88.0.255", OWN_SIDE, "dropped")
    agree(bed, Setup((), True, loose), *packets)
    # With any rule of a user the kernel looks the way back up; a broadcast address is then none, either.
    steps = (Step("ip", "rule add fwmark 0x7 lookup 300\n"),)
    unfiltered = ((f"{LO1}/rp_filter", 0),)
    agree(bed, Setup(steps, True, unfiltered), *(case._replace(how="dropped") for case in packets))


@pytest.mark.parametrize("rule", ["", "rule add fwmark 0x7 lookup 300\n"])
def test_whether_there_was_a_rule_shows_in_what_is_a_martian(rule: str) -> None:
    """Only in a namespace that never had one, a broadcast address is no martian."""
    case = Case("lo1", "10.88.0.255", OWN_SIDE, "")
    unfiltered = ((f"{ALL}/rp_filter", 0), (f"{LO1}/rp_filter", 0))
    with Testbed() as fresh:
        if rule:
            fresh.load(Setup((Step("ip", rule),)))
            fresh.unload()
        fresh.load(Setup((), True, unfiltered))
        [found] = compare(fresh, fresh.world(), packet(case), talk=False)
    assert not found.differences
    assert found.observed.how == ("dropped" if rule else "delivered")
    assert "ever was another routing rule" in str(found)


def test_what_cannot_be_read_is_no_answer(bed: Testbed) -> None:
    unread = Sysctls({"ipv4": None, "ipv6": None}, rp_filter=None)
    world: World = with_sysctls(bed.world(), unread)

    def verdict(by: str, source: str, destination: str) -> str:
        found = explore(world, packet(Case(by, source, destination, "")), "in", Proxy())
        return f"depends on {found.found.about}" if isinstance(found.found, Fork) else str(found.verdict)

    assert verdict("lo1", NEAR, OWN) == "depends on net.ipv4.conf.lo1.rp_filter, which could not be read"
    assert verdict("lo1", NEAR_SIDE, OWN) == "direct"
    forwards = "depends on whether this machine forwards, which could not be read"
    assert verdict("eth0", NEAR, GUEST) == forwards
    assert verdict("eth0", NEAR6, GUEST6) == forwards
    assert verdict("eth0", NEAR6, OWN6) == "direct"
