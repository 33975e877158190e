"""Which traffic the matches of other tools' rules leave: interfaces, marks, states, numbers."""

from __future__ import annotations

from typing import Any

from istio_iptables.rules.model import (
    Cidr,
    ConnectionMark,
    ConntrackState,
    Destination,
    DestinationPort,
    InInterface,
    Mark,
    OutInterface,
    PortRange,
    Transport,
)
from istio_iptables.rules.traffic import Interfaces, everything
from tests.support.cases import all_cases

ALL = everything("ipv4")


def interfaces(*conditions: str) -> Interfaces | None:
    """Interfaces that have several conditions: a name, or with `!` before it not this name."""
    found: Interfaces | None = Interfaces()
    for each in conditions:
        found = found.narrowed(each.removeprefix("!"), each.startswith("!")) if found else None
    return found


@all_cases(
    ("conditions", "possible"),
    [
        (["eth0"], True),
        (["eth0", "eth0"], True),
        (["eth0", "eth1"], False),
        (["eth+", "eth0"], True),
        (["eth0", "eth+"], True),
        (["eth+", "eth1+", "eth10"], True),
        (["eth+", "lo"], False),
        (["eth1+", "eth2+"], False),
        (["eth0", "!eth0"], False),
        (["!eth0", "eth0"], False),
        (["eth0", "!eth1"], True),
        (["eth0", "!eth+"], False),
        (["eth+", "!eth0"], True),
        (["!eth0", "!eth1"], True),
    ],
)
def test_no_interface_has_two_names(conditions: list[str], possible: bool):
    assert (interfaces(*conditions) is not None) == possible


@all_cases(
    ("inner", "outer", "within"),
    [
        (["eth0"], [], True),
        ([], ["eth0"], False),
        (["eth0"], ["eth+"], True),
        (["eth+"], ["eth0"], False),
        (["eth0"], ["!eth1"], True),
        (["eth0"], ["!eth+"], None),
        (["!eth+"], ["!eth0"], True),
        (["!eth0"], ["!eth+"], False),
        (["eth+"], ["!eth0"], False),
    ],
)
def test_interfaces_within_others(inner: list[str], outer: list[str], within: bool | None):
    one, other = interfaces(*inner), interfaces(*outer)
    assert one is not None
    assert other is not None
    assert one.within(other) == bool(within)


@all_cases(
    ("match", "leaves_all"),
    [
        (Mark(0), True),
        (Mark(5), False),
        (Mark(5, negated=True), True),
        (Mark(0, negated=True), False),
        (ConnectionMark(0), True),
        (ConnectionMark(7), False),
        (ConntrackState(frozenset({"NEW", "RELATED"})), True),
        (ConntrackState(frozenset({"ESTABLISHED"})), False),
        (ConntrackState(frozenset({"ESTABLISHED"}), True), True),
        (ConntrackState(frozenset({"NEW"}), True), False),
        (Destination(Cidr(4, 0, 0)), True),
    ],
)
def test_first_packets_have_no_mark_and_are_new(match: Any, leaves_all: bool):
    assert ALL.with_match(match) == (ALL if leaves_all else None)


def test_numbers_are_those_that_are_in_both():
    web = ALL.with_match(DestinationPort(PortRange(80, 90)))
    assert web is not None
    assert web.ports == ((80, 90),)
    assert web.with_match(DestinationPort(PortRange(91, 100))) is None
    some = web.with_match(DestinationPort(PortRange(82, 85), True))
    assert some is not None
    assert some.ports == ((80, 81), (86, 90))
    tcp = ALL.with_match(Transport("tcp"))
    assert tcp is not None
    assert tcp.with_match(Transport("udp")) is None
    assert tcp.with_match(Transport("tcp", True)) is None


def test_traffic_without_other_traffic():
    web = ALL.narrowed([DestinationPort(PortRange(80, 80))])
    assert web is not None
    rest = ALL.without(web)
    assert rest is not None
    assert not any(first <= 80 <= last for first, last in rest.ports)
    assert web.without(ALL) is None
    here = ALL.narrowed([InInterface("eth0")])
    assert here is not None
    assert ALL.without(here) == ALL, "what comes by other interfaces is left"
    assert here.without(ALL) is None
    there = ALL.narrowed([OutInterface("eth0"), DestinationPort(PortRange(80, 80))])
    assert there is not None
    assert there.without(web) is None
