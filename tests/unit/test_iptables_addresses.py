"""What types of addresses and sets mean in rules of iptables: iptables-extensions(8), ipset(8).

The kernel has the last word on them in tests/kernel/test_iptables_meaning.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.interpreter.addresses import address
from istio_iptables.interpreter.iptables_sets import read
from istio_iptables.interpreter.known import Known, Scope
from istio_iptables.interpreter.routing import Address, Network, Route, assumed_network
from istio_iptables.rules.model import Cidr
from tests.support.cases import all_cases
from tests.support.meeting import meets, packet

# --- types of addresses ---------------------------------------------------------------------------------


def _route(kind: str, first: str, last: str, interface: str) -> Route:
    family, low = address(first)
    return Route(family, "local", kind, low, address(last)[1], interface)  # type: ignore[arg-type]


NETWORK = Network(
    addresses=(Address("eth0", "ipv4", address("10.0.0.1")[1], 24),),
    routes=(
        _route("local", "127.0.0.0", "127.255.255.255", "lo"),
        _route("local", "127.0.0.1", "127.0.0.1", "lo"),
        _route("broadcast", "127.255.255.255", "127.255.255.255", "lo"),
        _route("local", "10.0.0.1", "10.0.0.1", "eth0"),
        _route("broadcast", "10.0.0.255", "10.0.0.255", "eth0"),
        _route("local", "::1", "::1", "lo"),
        _route("local", "fd00::1", "fd00::1", "eth0"),
        _route("anycast", "fd00::", "fd00::", "eth0"),
        _route("multicast", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "eth0"),
    ),
    interfaces=("lo", "eth0"),
)
KNOWN = Known(NETWORK)


EVERY = """
10.0.0.1 10.0.0.2 10.0.0.255 127.0.0.1 127.9.9.9 127.255.255.255 255.255.255.255 0.0.0.0 0.1.2.3 224.0.0.1
239.255.255.255 8.8.8.8 240.0.0.1 ::1 fd00::1 fd00::2 fd00:: ff02::1 :: ::ffff:1.2.3.4
""".split()  # noqa: SIM905, a list of words is easier to read


@all_cases(
    ("kind", "addresses"),
    [
        ("LOCAL", "10.0.0.1 127.0.0.1 127.9.9.9 ::1 fd00::1"),
        ("BROADCAST", "10.0.0.255 127.255.255.255 255.255.255.255 0.0.0.0"),
        ("MULTICAST", "224.0.0.1 239.255.255.255 ff02::1"),
        ("UNICAST", "10.0.0.2 0.1.2.3 8.8.8.8 240.0.0.1 fd00::2 ::1 fd00::1 fd00::"),  # in IPv6 own, too
        ("ANYCAST", "fd00::"),
        ("LOCAL,BROADCAST", "10.0.0.1 127.0.0.1 127.9.9.9 10.0.0.255 127.255.255.255 255.255.255.255 "
         "0.0.0.0"),  # the kernel takes no BROADCAST in IPv6
        ("UNSPEC", "::"),
        ("PROHIBIT", ""),
    ],
)  # fmt: skip
def test_types_of_addresses(kind: str, addresses: str):
    """Of these addresses exactly those are of the type."""
    for text in EVERY:
        family = address(text)[0]
        wanted = text in addresses.split()
        for option, field in (("--src-type", "source"), ("--dst-type", "destination")):
            scope = Scope(KNOWN, family)
            fields: dict[str, Any] = {"source": text, "destination": text}
            assert meets(f"-m addrtype {option} {kind}", scope, **fields) is wanted, (text, field)
            assert meets(f"-m addrtype ! {option} {kind}", scope, **fields) is not wanted
            anywhere = Scope(KNOWN)
            assert meets(f"-m addrtype {option} {kind}", anywhere, **fields) is wanted, (text, field)


@all_cases(
    ("options", "to", "interface", "met"),
    [
        ("--dst-type LOCAL --limit-iface-in", "10.0.0.1", "eth0", True),
        ("--dst-type LOCAL --limit-iface-in", "10.0.0.1", "lo", False),
        ("--dst-type LOCAL --limit-iface-in", "127.0.0.1", "lo", True),
        ("--dst-type UNICAST --limit-iface-in", "10.0.0.1", "lo", True),
        ("--dst-type UNICAST --limit-iface-in", "10.0.0.1", "eth0", False),
        ("--dst-type UNICAST --limit-iface-in", "10.0.0.1", "eth9", True),
        ("--dst-type LOCAL --limit-iface-in", "10.0.0.1", "eth9", False),
        ("--dst-type LOCAL --limit-iface-in", "fd00::1", "eth0", True),
        ("--dst-type LOCAL --limit-iface-in", "fd00::1", "lo", False),
    ],
)
def test_an_address_is_local_to_its_interface(options: str, to: str, interface: str, met: bool):
    family = address(to)[0]
    fields: dict[str, Any] = {"source": to, "destination": to, "received_on": interface}
    assert meets(f"-m addrtype {options}", Scope(KNOWN, family), **fields) is met


def test_without_a_network_only_what_an_address_shows_is_known():
    for to, met in (("10.0.0.1", None), ("8.8.8.8", None), ("224.0.0.1", False), ("255.255.255.255", True)):
        assert meets("-m addrtype --dst-type LOCAL,BROADCAST", destination=to) is met
    assert meets("-m addrtype --dst-type MULTICAST", destination="8.8.8.8") is False


def test_an_assumed_network_has_the_broadcast_address_of_its_networks():
    network = assumed_network([("eth0", Cidr.from_ipaddress("10.0.0.5/32").replace(prefix=24))], why="a test")
    scope = Scope(Known(network), "ipv4")
    assert meets("-m addrtype --dst-type BROADCAST", scope, destination="10.0.0.255") is True
    assert meets("-m addrtype --dst-type LOCAL", scope, destination="10.0.0.5") is True
    assert meets("-m addrtype --dst-type UNICAST", scope, destination="10.0.0.254") is True


# --- sets -------------------------------------------------------------------------------------------------

SAVED = """\
create ips hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add ips 10.0.0.2
add ips 10.0.0.9 timeout 30 comment "a b" packets 1 bytes 2
create nets hash:net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add nets 10.0.0.0/8
add nets 10.0.0.0/16 nomatch
add nets 10.0.0.0/24
create ports bitmap:port range 0-65535
add ports 80
create both hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add both 10.0.0.2,tcp:80
add both 10.0.0.2,icmp:echo-request
create six hash:ip family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add six fd00::2
create ways hash:net,iface family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add ways 10.0.0.0/24,eth0
add ways 10.1.0.0/24,eth wildcard
create three hash:ip,port,net family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add three 10.0.0.2,udp:53,10.0.0.0/24
create empty hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
create list list:set size 8
add list ips
add list ports
create macs hash:mac hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1
add macs 01:02:03:04:05:06
create masked hash:ip family inet hashsize 1024 maxelem 65536 netmask 24 bucketsize 12 initval 0x1
add masked 10.0.0.0
"""
SETS = Known(sets=read(SAVED))

MEMBERS: list[tuple[str, dict[str, Any], bool]] = [
    ("--match-set ips dst", {}, True),
    ("--match-set ips dst", {"destination": "10.0.0.9"}, True),
    ("--match-set ips src", {}, False),
    ("! --match-set ips src", {}, True),
    ("--match-set ips dst,src", {}, True),
    ("--match-set nets dst", {"destination": "10.9.0.0"}, True),
    ("--match-set nets dst", {"destination": "10.0.1.0"}, False),
    ("--match-set nets dst", {"destination": "10.0.0.7"}, True),
    ("--match-set nets dst", {"destination": "11.0.0.0"}, False),
    ("--match-set ports dst", {}, True),
    ("--match-set ports src", {}, False),
    ("--match-set ports dst", {"protocol": 17}, True),
    ("--match-set ports dst", {"protocol": 132}, False),
    ("--match-set both dst,dst", {}, True),
    ("--match-set both dst,dst", {"protocol": 17}, False),
    ("--match-set both dst,src", {}, False),
    ("--match-set both dst", {}, False),
    ("! --match-set both dst", {}, True),
    ("--match-set both dst,dst", {"protocol": 1, "icmp_type": 8}, True),
    ("--match-set both dst,dst", {"protocol": 1, "icmp_type": 0}, False),
    ("--match-set six dst", {"destination": "fd00::2"}, True),
    ("--match-set six dst", {"destination": "fd00::3"}, False),
    ("--match-set six dst", {"destination": "10.0.0.2"}, False),
    ("--match-set ips dst", {"destination": "::a00:2"}, False),  # the same number, and another family
    ("--match-set ways dst,dst", {}, True),
    ("--match-set ways dst,dst", {"sent_to": "eth1"}, False),
    ("--match-set ways dst,src", {"received_on": "eth0"}, True),
    ("--match-set ways dst,dst", {"destination": "10.1.0.1", "sent_to": "eth7"}, True),
    ("--match-set three dst,dst,src", {"protocol": 17, "destination_port": 53}, True),
    ("--match-set three dst,dst,src", {"protocol": 17, "destination_port": 53, "source": "10.0.1.0"}, False),
    ("--match-set empty dst", {}, False),
    ("--match-set list dst", {}, True),
    ("--match-set list dst", {"destination": "10.0.0.3", "destination_port": 80}, True),
    ("--match-set list dst", {"destination": "10.0.0.3", "destination_port": 81}, False),
    ("--set ips dst", {}, True),
    ("--match-set ips dst ! --update-counters", {}, True),
]  # fmt: skip


@all_cases(("options", "fields", "met"), MEMBERS)
def test_members_of_sets(options: str, fields: dict[str, Any], met: bool):
    found = packet(**fields)
    assert meets(f"-m set {options}", Scope(SETS, found.family), **fields) is met
    assert meets(f"-m set {options}", Scope(SETS), **fields) is met


@pytest.mark.parametrize(
    "options",
    [
        "--match-set macs src",
        "--match-set masked dst",
        "--match-set nowhere dst",
        "--return-nomatch --match-set ips dst",
        "--match-set ips dst --packets-gt 5",
        "--match-set ips inside",
    ],
)
def test_sets_that_cannot_be_told(options: str):
    assert meets(f"-m set {options}", Scope(SETS, "ipv4")) is None
    assert meets(f"-m set {options}", Scope(SETS, "ipv4"), protocol=None) is None


def test_no_set_is_known_by_default():
    assert meets("-m set --match-set ips dst") is None
