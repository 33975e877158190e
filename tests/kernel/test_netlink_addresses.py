"""The netlink client's addresses against the kernel, with `ip` as the second opinion."""

from __future__ import annotations

import errno
import itertools
import os

import pytest

from istio_iptables.kernel.netlink import routing
from istio_iptables.kernel.netlink.routing import Address
from tests.support.netlink import explained, refused, seen_addresses, switch_ipv6_off

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]


def test_addresses_are_those_that_ip_shows(wired):
    for words in (
        "10.1.2.3/24 dev d0",
        "10.1.2.4/24 dev d0",
        "10.1.2.5/24 dev d0 label d0:1",
        "169.254.1.1/16 dev d0",
        "2001:db8::1/64 dev d0",
        "::6/128 dev lo",
    ):
        wired.ip(f"address add {words}")
    found = wired.call(routing.addresses)
    assert len(found) == len(set(found))
    assert set(found) == seen_addresses(wired)
    index = int(wired.run("cat", "/sys/class/net/d0/ifindex").stdout)
    assert Address("ipv4", "10.1.2.5", 24, "d0", index) in found
    assert Address("ipv6", "::6", 128, "lo", 1) in found


@pytest.mark.parametrize(
    ("words", "own"),
    [("10.9.0.1 peer 10.9.0.2/32", "10.9.0.1"), ("2001:db8::1 peer 2001:db8::2/128", "2001:db8::1")],
)
def test_of_a_point_to_point_link_the_own_address_counts(wired, words, own):
    wired.ip(f"address add {words} dev d0")
    found = wired.call(routing.addresses)
    assert own in [a.address for a in found]
    assert set(found) == seen_addresses(wired)


def test_interfaces_that_are_down_count_too(space):
    space.ip("link add d0 type veth peer name d1")
    space.ip("address add 10.1.2.3/24 dev d0")
    assert "d0" in [a.interface for a in space.call(routing.addresses)]


def test_two_hundred_addresses_come_whole_and_ipv4_first(wired):
    wired.ip_batch(f"address add 10.0.{n}.1/24 dev d0" for n in range(200))
    wired.ip_batch((f"address add 2001:db8:{n:x}::1/64 dev d0" for n in range(200)), "-6")
    found = wired.call(routing.addresses)
    assert len(found) == len(set(found)) > 400
    assert set(found) == seen_addresses(wired)
    families = [a.family for a in found]
    assert families == sorted(families)
    assert families.count("ipv4") == 201


def test_with_ipv6_off_there_are_only_ipv4_addresses(wired):
    wired.ip("address add 10.1.2.3/24 dev d0")
    switch_ipv6_off(wired)
    found = wired.call(routing.addresses)
    assert [a.address for a in found] == ["127.0.0.1", "10.1.2.3"]
    assert set(found) == seen_addresses(wired)


def test_a_namespace_without_addresses(space):
    space.ip("address flush dev lo")
    assert space.call(routing.addresses) == ()


def test_an_interface_that_goes_away_meanwhile_takes_its_addresses_along(wired):
    wired.ip("address add 10.1.2.3/24 dev d0")

    def read():
        dump = routing.dump  # type: ignore[attr-defined]

        def dump_and_lose_d0(*arguments):
            payloads = dump(*arguments)
            wired.ip("link delete d0")
            return payloads

        routing.dump = dump_and_lose_d0  # type: ignore[attr-defined]
        return routing.addresses()

    found = wired.call(read)
    assert [a.interface for a in found] == ["lo", "lo"]
    assert wired.call(routing.addresses) == found


def seen_settled(space):
    """Return what `ip address` shows, but for which addresses are still checked for duplicates."""
    links = space.see("address show")
    for address in itertools.chain.from_iterable(link["addr_info"] for link in links):
        address.pop("tentative", None)
    return links


SOME_ADDRESSES = [
    ("ipv4", "10.1.2.3", 24, False),
    ("ipv4", "127.0.0.6", 32, False),
    ("ipv4", "10.1.2.3", 32, True),
    ("ipv6", "::6", 128, True),
    ("ipv6", "::6", 128, False),
    ("ipv6", "2001:db8::1", 64, True),
]


@pytest.mark.parametrize("interface", ["lo", "d0"])
@pytest.mark.parametrize(("family", "address", "prefix", "nodad"), SOME_ADDRESSES)
def test_an_added_address_is_the_one_that_ip_adds(wired, family, address, prefix, nodad, interface):
    words = f"{address}/{prefix} dev {interface}"
    before = seen_settled(wired)
    wired.ip(f"address add {words}{' nodad' if nodad and family == 'ipv6' else ''}")
    theirs = seen_settled(wired)
    wired.ip(f"address delete {words}")
    assert seen_settled(wired) == before

    wired.call(routing.add_address, family, address, prefix, interface, nodad=nodad and family == "ipv6")
    assert seen_settled(wired) == theirs
    assert (family, address, prefix, interface) in [
        (a.family, a.address, a.prefix, a.interface) for a in wired.call(routing.addresses)
    ]

    wired.call(routing.delete_address, family, address, prefix, interface)
    assert seen_settled(wired) == before


@pytest.mark.parametrize(("family", "address", "prefix", "_nodad"), SOME_ADDRESSES)
def test_addresses_made_by_ip_can_be_deleted_and_the_other_way_round(space, family, address, prefix, _nodad):
    before = space.see("address show")
    space.ip(f"address add {address}/{prefix} dev lo")
    space.call(routing.delete_address, family, address, prefix, "lo")
    assert space.see("address show") == before
    space.call(routing.add_address, family, address, prefix, "lo")
    space.ip(f"address delete {address}/{prefix} dev lo")
    assert space.see("address show") == before


@pytest.mark.parametrize(("family", "address", "prefix"), [("ipv4", "10.1.2.3", 24), ("ipv6", "::6", 128)])
def test_an_address_twice_and_none_say_why_as_ip_does(space, family, address, prefix):
    space.call(routing.add_address, family, address, prefix, "lo")
    error = refused(space, routing.add_address, family, address, prefix, "lo")
    assert error.errno == errno.EEXIST
    assert f"add address {address}/{prefix} to lo: File exists" in str(error)
    assert explained(error) == space.refusal(f"address add {address}/{prefix} dev lo")

    error = refused(space, routing.delete_address, family, address, prefix - 1, "lo")
    assert error.errno == errno.EADDRNOTAVAIL
    assert f"delete address {address}/{prefix - 1} from lo" in str(error)
    assert explained(error) == space.refusal(f"address delete {address}/{prefix - 1} dev lo")
    assert address in [a.address for a in space.call(routing.addresses)]


@pytest.mark.parametrize("function", [routing.add_address, routing.delete_address])
def test_what_is_no_address_or_no_interface(space, function):
    for family, address in (("ipv4", "::6"), ("ipv6", "10.0.0.1"), ("ipv4", "10.0.0.1; reboot")):
        error = refused(space, function, family, address, 32, "lo")
        assert error.errno == errno.EINVAL
        assert address in str(error)
    for interface in ("d0", "a-name-of-more-than-fifteen-characters"):
        error = refused(space, function, "ipv4", "10.0.0.1", 32, interface)
        assert error.errno == errno.ENODEV
        assert f"(interface {interface})" in str(error)
    assert refused(space, function, "ipv4", "10.0.0.1", 33, "lo").errno in (errno.EINVAL, errno.EADDRNOTAVAIL)


def test_an_ipv6_address_where_ipv6_is_off_says_why(space):
    switch_ipv6_off(space)
    error = refused(space, routing.add_address, "ipv6", "::6", 128, "lo", nodad=True)
    assert error.errno == errno.EACCES
    assert explained(error) == space.refusal("-6 address add ::6/128 dev lo nodad")
