"""The source address that the kernel chooses."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from istio_iptables.interpreter.packet import address_text
from istio_iptables.interpreter.routing import Network
from istio_iptables.interpreter.source_address import source_address

from ..support.routed import ADDR, network, packet

if TYPE_CHECKING:
    pass


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
    addr = ADDR.replace(
        "    inet 10.89.0.2/24", "    inet 172.16.0.2/24 scope global eth1\n    inet 10.89.0.2/24"
    )
    routes = "8.0.0.0/8 via 10.89.0.1 dev eth1\n9.0.0.0/8 dev eth1 scope link\n"
    assert source(network(routes=routes, addr=addr), "8.8.8.8") == "10.89.0.2"
    assert source(network(routes=routes, addr=addr), "9.9.9.9") == "172.16.0.2"


def test_an_interface_without_address_takes_that_of_another() -> None:
    addr = ADDR.replace(
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
    first_listed = ADDR.replace(second, "").replace("    inet 10.88.0.2", f"{second}    inet 10.88.0.2")
    assert source(network(addr=first_listed), "8.8.8.8") == "10.88.0.2"


def test_the_source_depends_on_rules() -> None:
    where = network("5: from all tos 0x10 lookup 7")
    found = source_address(where, packet("8.8.8.8"))
    assert found.address == int(ip_address("10.88.0.2"))
    assert found.depends == ("ip rule 5: from all tos 0x10 lookup 7",)
    # A rule with `from` needs a source that is not there yet.
    assert source(network("5: from 192.0.2.0/24 lookup 7"), "8.8.8.8") == "10.88.0.2"


@pytest.mark.parametrize(
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
