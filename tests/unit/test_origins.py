"""Which sources IPv4 takes from an interface: the way back to them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.condition import Unmodelled
from istio_iptables.interpreter.origins import LOOSE, STRICT, Refused, SourceCheck, refused
from istio_iptables.interpreter.routing import Routed, default_rules

from ..support.routed import ADDR, MAIN, network, packet

if TYPE_CHECKING:
    from istio_iptables.interpreter.routing import Network

HERE = Routed("local", "eth0")
#: A rule that changes nothing: the kernel then looks at routes for every packet.
RULE = "5: from all fwmark 0x9 lookup main"
ONLY_NEAR = "\n".join(line for line in MAIN.splitlines() if not line.startswith("default")) + "\n"


def found(
    where: Network,
    source: str,
    check: SourceCheck,
    interface: str = "eth1",
    way: Routed = HERE,
    mark: int = 0,
) -> str:
    """Return why a packet to 10.89.0.2 is refused."""
    conditions = refused(where, check, interface, way)
    asked = packet("10.89.0.2", source, received_on=interface, mark=mark)
    values = {name: value_of(getattr(conditions, name), asked) for name in Refused._fields}
    return " ".join(name if value else f"{name}?" for name, value in values.items() if value is not False)


@pytest.mark.parametrize(
    ("source", "off", "loose", "strict"),
    [
        ("10.89.0.9", "", "", ""),  # the way back is the one that it came by
        ("10.88.0.9", "", "", "filtered"),
        ("8.8.8.8", "", "", "filtered"),
        ("10.88.0.2", "martian", "martian", "martian"),
        ("10.88.0.255", "martian?", "martian", "martian"),  # unless there was a rule, only own addresses are
    ],
)
def test_the_way_back_counts(source: str, off: str, loose: str, strict: str) -> None:
    where = network().replace(rules=default_rules())
    wanted = {0: off, LOOSE: loose, STRICT: strict}
    assert {mode: found(where, source, SourceCheck(mode, ever_routed=None)) for mode in wanted} == wanted
    assert found(network(RULE), source, SourceCheck()) == off.rstrip("?")
    assert found(where, source, SourceCheck(ever_routed=True)) == off.rstrip("?")
    assert found(where, source, SourceCheck()) == off.replace("martian?", "")


def test_a_source_without_a_way_back() -> None:
    for mode, why in ((0, ""), (LOOSE, "filtered"), (STRICT, "filtered")):
        assert found(network(routes=ONLY_NEAR), "8.8.8.8", SourceCheck(mode)) == why


def test_an_interface_without_an_address_is_filtered_strictly() -> None:
    addr = ADDR.replace("    inet 10.89.0.2/24 scope global eth1\n", "")
    assert found(network(addr=addr), "8.8.8.8", SourceCheck(LOOSE)) == "filtered"
    assert found(network(addr=addr), "8.8.8.8", SourceCheck()) == ""


def test_every_way_of_a_route_counts() -> None:
    hops = "\tnexthop via 10.88.0.1 dev eth0 weight 1\n\tnexthop via 10.89.0.1 dev eth1 weight 1\n"
    both = f"default\n{hops}"
    where = network(routes=MAIN.replace("default via 10.88.0.1 dev eth0\n", both))
    assert [found(where, "8.8.8.8", SourceCheck(STRICT), by) for by in ("eth0", "eth1")] == ["", ""]


def test_the_way_back_is_from_where_the_packet_goes() -> None:
    """A rule with `from` looks at its destination, one with `iif` at where it leaves."""
    back = network("5: from 10.89.0.0/24 lookup 7")
    assert found(back, "8.8.8.8", SourceCheck(STRICT), "eth1") == ""
    assert found(back, "8.8.8.8", SourceCheck(STRICT), "eth0") == "filtered"
    by = network("5: from all iif eth0 lookup 7")
    out = Routed("unicast", "eth0")
    assert found(by, "8.8.8.8", SourceCheck(STRICT), "eth1", out) == ""
    assert found(by, "8.8.8.8", SourceCheck(STRICT), "eth1", HERE) == "filtered"
    # What is for many has no destination on the way back.
    to_many = Routed("broadcast", "eth1")
    assert found(back, "8.8.8.8", SourceCheck(STRICT), "eth1", to_many) == "filtered"


def test_own_addresses_may_be_accepted() -> None:
    for mode in (0, LOOSE):
        assert found(network(), "10.88.0.2", SourceCheck(mode, accept_local=True)) == ""


def test_what_cannot_be_told_is_asked() -> None:
    unread = SourceCheck(None)
    assert found(network(), "10.88.0.9", unread) == "filtered?"
    assert found(network(), "10.89.0.9", unread) == ""
    assert found(network(), "10.88.0.2", unread) == "martian filtered?"
    assert isinstance(
        refused(network("5: from all tos 0x10 lookup 7"), SourceCheck(1), "eth1", HERE).filtered, Unmodelled
    )


@pytest.mark.parametrize(
    ("mark", "by_mark"),
    [(0, ""), (1, "filtered"), (2, ""), (0x11, "filtered"), (0x101, "filtered"), (0x30, "")],
)
def test_the_mark_counts_with_src_valid_mark_alone(mark: int, by_mark: str) -> None:
    """Table 7 leads back by eth1: what rules send there must not come from eth0."""
    marked = network(
        "5: from all fwmark 0x1/0xf lookup 7\n"
        "6: from all fwmark 0x10/0x10 lookup main\n"
        "7: from all fwmark 0x100/0x100 lookup 7"
    )
    assert found(marked, "8.8.8.8", SourceCheck(STRICT), "eth0", mark=mark) == ""
    assert found(marked, "8.8.8.8", SourceCheck(STRICT, by_mark=True), "eth0", mark=mark) == by_mark
