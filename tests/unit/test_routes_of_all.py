"""Routes of all destinations and of all packets at once, as far as rules tell them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.destinations import CannotTell, routes_of
from istio_iptables.interpreter.journey import Journey
from istio_iptables.interpreter.many import Many
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.surroundings import World
from istio_iptables.kernel.sysctls import Sysctls
from istio_iptables.prove.example import example, questions
from istio_iptables.prove.space import packets
from istio_iptables.rules.model import FULL_MASK
from istio_iptables.trace.world import with_sysctls

from ..support.many_routes import FIXTURES, PRINTED
from ..support.routed import network, packet, routed

if TYPE_CHECKING:
    from istio_iptables.interpreter.walk import Ended
    from istio_iptables.prove.space import Direction, Packets
    from istio_iptables.rules.model import Family


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
    # For 0.0.0.0, multicast and broadcast there is more than tables.
    destination = data.draw(st.sampled_from(sorted(edges)) | st.integers(0, FULL_MASK))
    destination = min(max(destination, 1), 0xDFFFFFFF)
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
    # What another part of the condition excludes does not depend on it.
    unknown = packet("0.0.0.0").replace(source=None)
    for rule in ("from 10.0.0.0/8 fwmark 0x1", "not from all to 0.0.0.0/0", "from 10.0.0.0/8 uidrange 5-6"):
        assert list(routes_of(network(f"5: {rule} lookup 7"), unknown))
    with pytest.raises(CannotTell, match="ip rule 5"):
        list(routes_of(network("5: from 10.0.0.0/8 lookup 7"), unknown))


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


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("direction", ["out", "in"])
def test_variables_of_the_kernel_mean_the_same_for_all_packets(family: Family, direction: Direction) -> None:
    """Forwarding, loopback addresses and filters of sources by interface, by both algebras."""
    said = Sysctls(
        {"ipv4": True, "ipv6": False},
        forwarding=frozenset({("ipv4", "eth1"), ("ipv6", "eth0")}),
        route_localnet=frozenset({"eth1"}),
        rp_filter={"eth0": 1, "eth1": 2},
        src_valid_mark=frozenset({"eth0"}),
    )
    where = network("5: from 10.89.0.0/24 lookup 7\n6: from all fwmark 0x1 lookup 7")
    world = with_sysctls(World(Program(), where), said)
    asked = packets([world], family, direction, "first")
    algebra = Many(asked.space)
    notes = set()
    for ended in ways(world, algebra.all(asked.fixed, asked.free, asked.possible), algebra, asked):
        for region in ended.packets.values():
            assert not questions(region)
            [one] = ways(world, example(region, asked), One(), asked)
            assert (one.how, one.note) == (ended.how, ended.note)
            notes.add(ended.note)
    assert any("forward" in note for note in notes) == (direction == "in"), notes
    assert any("rp_filter" in note for note in notes) == ((family, direction) == ("ipv4", "in"))
