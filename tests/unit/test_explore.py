"""All ways of one packet: the verdict depends on what cannot be told only if it matters."""

from __future__ import annotations

import pytest

from istio_iptables.formats import iptables_compiled, iptables_dump
from istio_iptables.interpreter.explore import Explored, Fork, Way, explore
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import TCP, Packet
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.routing import assumed_network
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.rules.model import Cidr

SOMETIMES = "-A OUTPUT -m limit --limit 1/hour"


def explored(*tables: str) -> Explored:
    """Return what becomes of a connection to 10.9.9.9:80, with tables of iptables."""
    network = assumed_network([("eth0", Cidr(4, 0x0A000002, 24))], why="for a test")
    text = ""
    for each in tables:
        name, _, rules = each.partition(": ")
        text += f"*{name}\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n"
    program = Program(iptables_compiled.compiled(iptables_dump.read(text), Known(network)))
    packet = Packet("ipv4", TCP, 0x0A000002, 0x0A090909, 40000, 80, uid=1000, gid=1000)
    return explore(World(program, network), packet, "out", Proxy())


@pytest.mark.parametrize(
    ("tables", "verdict", "outcomes"),
    [
        ((f"filter: {SOMETIMES} -j DROP",), "depends", {"direct", "dropped"}),
        ((f"filter: {SOMETIMES} -j ACCEPT",), "direct", {"direct"}),
        ((f"mangle: {SOMETIMES} -j MARK --set-mark 1",), "direct", {"direct"}),
        ((f"mangle: {SOMETIMES} -j MARK --set-mark 1", "filter: -A OUTPUT -j DROP"), "dropped", {"dropped"}),
        ((f"filter: {SOMETIMES} -j DROP\n-A OUTPUT -j REJECT",), "depends", {"dropped", "rejected"}),
        (("filter: -A OUTPUT -j QUEUE\n-A OUTPUT -j DROP",), "depends", {"direct", "dropped"}),
        # In nat, what is not modelled may send the connection elsewhere, whatever else it does.
        (
            ("nat: -A OUTPUT -j FAR-AWAY", "filter: -A OUTPUT -d 10.9.9.9 -j DROP"),
            "depends",
            {"dropped", "depends"},
        ),
        (
            ("nat: -A OUTPUT -p tcp -j DNAT --to-destination 10.9.9.1:8000-8001 --random",),
            "depends",
            {"translated 10.9.9.1:8000", "translated 10.9.9.1:8001"},
        ),
        (
            (
                "nat: -A OUTPUT -p tcp -j DNAT --to-destination 10.9.9.1:8000-8001 --random",
                "filter: -A OUTPUT -d 10.9.9.1 -j REJECT",
            ),
            "rejected",
            {"rejected"},
        ),
    ],
)
def test_the_verdict_depends_only_on_what_matters(
    tables: tuple[str, ...], verdict: str, outcomes: set[str]
) -> None:
    found = explored(*tables)
    assert str(found.verdict) == verdict
    assert {str(way.verdict) for way in found.ways} == outcomes


def test_ways_that_leave_something_behind_are_told_apart() -> None:
    """One verdict, but a mark or none: both ways are there, with what they depend on."""
    found = explored(f"mangle: {SOMETIMES} -j MARK --set-mark 1")
    assert isinstance(found.found, Fork)
    assert {way.packet.mark for way in found.ways} == {0, 1}
    assert isinstance(explored(f"filter: {SOMETIMES} -j ACCEPT").found, Way)


def test_more_ways_than_are_followed_are_no_verdict() -> None:
    marks = "\n".join(f"{SOMETIMES} -j MARK --or-mark {1 << bit}" for bit in range(8))
    found = explored(f"mangle: {marks}")
    assert found.cut
    assert str(found.verdict) == "depends"
