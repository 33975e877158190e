"""The netlink client: tables of nftables, privileges, old kernels, and the conversation with the kernel."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from istio_iptables.kernel.netlink import messages, nftables, routing
from istio_iptables.kernel.netlink.routing import NetlinkError, PolicyRule
from istio_iptables.rules import model
from istio_iptables.startup import c_modules
from tests.support.netlink import ALL_ONES, FAMILIES, each_family, explained, refused, seen_addresses

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]

NOBODY = 65534


# --- nftables ---------------------------------------------------------------------------------


def test_a_fresh_namespace_has_no_nftables(space):
    assert space.call(nftables.tables) == ()


def test_nft_tables_are_those_that_nft_lists(space):
    for family in ("inet", "ip", "ip6", "arp", "bridge", "netdev"):
        space.run("nft", "add", "table", family, "istio-proxy-nat")
    space.run("nft", "add", "table", "ip", "x" * 200)
    space.run("nft", "add", "table", "inet", "asleep", "{ flags dormant; }")
    space.run("iptables-nft", "-t", "nat", "-N", "ISTIO_OUTPUT")
    listed = json.loads(space.run("nft", "-j", "list", "tables").stdout)["nftables"]
    expected = [(t["table"]["family"], t["table"]["name"]) for t in listed if "table" in t]
    tables = space.call(nftables.tables)
    found = [(table.family, table.name) for table in tables]
    assert found == expected
    assert [table.name for table in tables if table.objects] == ["nat"]
    assert {("inet", "istio-proxy-nat"), ("ip", "nat"), ("netdev", "istio-proxy-nat")} <= set(found)
    space.run("nft", "delete", "table", "inet", "istio-proxy-nat")
    assert nftables.TableInfo("inet", "istio-proxy-nat", 0) not in space.call(nftables.tables)


def test_tables_with_nat_chains_are_told_from_others(space):
    nat = "chain {1} {{ type nat hook {0} priority -100; }};"
    script = f"""
table ip a {{ {nat.format("prerouting", "c")} }}
table ip6 b {{ {nat.format("output", "c")} }}
table inet c {{ {nat.format("postrouting", "c")} chain d {{ }}; }}
table inet d {{ chain c {{ type filter hook prerouting priority -300; }}; }}
table ip e {{ chain nat {{ }}; }}
"""
    space.run("nft", "-f", "-", stdin=script)
    assert space.call(nftables.nat_tables) == (("ip", "a"), ("ip6", "b"), ("inet", "c"))


def test_five_hundred_nft_tables_come_whole(space):
    space.run("nft", "-f", "-", stdin="".join(f"add table inet t{n}\n" for n in range(500)))
    assert set(space.call(nftables.tables)) == {nftables.TableInfo("inet", f"t{n}", 0) for n in range(500)}


@pytest.mark.parametrize(("name", "number"), [("_GETTABLE", 15 << 8 | 1), ("NETLINK_NETFILTER", 31)])
def test_a_kernel_without_nftables_has_no_tables(space, name, number):
    """15 is no netfilter subsystem, 31 no netlink protocol: the kernel answers as one without nftables."""

    def without():
        setattr(nftables, name, number)
        return nftables.tables()

    space.run("nft", "add", "table", "inet", "x")
    assert space.call(without) == ()


# --- privileges, old kernels ------------------------------------------------------------------


def test_reading_needs_no_privilege(space):
    for family in FAMILIES:
        space.call(routing.add_policy_rule, family, 1337, 133)
        space.call(routing.add_local_default_route, family, 133)
        for function, arguments in ((routing.policy_rules, (family,)), (routing.routes, (family, 133))):
            found = space.call(function, *arguments, user=NOBODY)
            assert found == space.call(function, *arguments)
            assert found
    assert space.call(routing.addresses, user=NOBODY) == space.call(routing.addresses)


@pytest.mark.parametrize(
    ("operation", "function", "arguments"),
    [
        ("add address ::6/128 to lo", routing.add_address, ("ipv6", "::6", 128, "lo")),
        ("delete address 127.0.0.1/8 from lo", routing.delete_address, ("ipv4", "127.0.0.1", 8, "lo")),
        ("add ipv4 policy rule fwmark 0x539 lookup 133", routing.add_policy_rule, ("ipv4", 1337, 133)),
        (
            "delete ipv4 policy rule fwmark 0x7/0xffffffff lookup 7 priority 32765",
            routing.delete_policy_rule,
            (PolicyRule("ipv4", 7, ALL_ONES, 7, 32765, True),),
        ),
        ("add ipv6 route", routing.add_local_default_route, ("ipv6", 133)),
        ("delete ipv6 route", routing.delete_local_default_route, ("ipv6", 7)),
        ("list nftables tables", nftables.tables, ()),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
def test_without_privilege_nothing_is_changed(space, operation, function, arguments):
    space.call(routing.add_policy_rule, "ipv4", 7, 7)
    space.call(routing.add_local_default_route, "ipv6", 7)

    def state():
        return [space.see(words) for words in ("address show", "rule show", "-6 route show table all")]

    before = state()
    error = refused(space, function, *arguments, user=NOBODY)
    assert error.errno == errno.EPERM
    assert str(error).startswith(f"[Errno 1] {operation}")
    assert "Operation not permitted" in str(error)
    assert state() == before


def on_an_old_kernel(function):
    """Call the function as on a kernel that has none of the socket options (before 4.3)."""
    messages.prepare = lambda connection: None
    return function()


@each_family
def test_an_old_kernel_gives_the_same_answers(space, family):
    for table in (7, 133, 4000):
        space.call(routing.add_local_default_route, family, table)
    for function in (
        routing.addresses,
        lambda: routing.policy_rules(family),
        lambda: routing.routes(family, 133),
        lambda: routing.routes(family, 99),
        nftables.tables,
    ):
        assert space.call(on_an_old_kernel, function) == space.call(function)


@each_family
def test_an_old_kernel_gives_the_same_error_numbers(space, family):
    space.call(routing.add_local_default_route, family, 133)
    error = refused(space, on_an_old_kernel, lambda: routing.add_local_default_route(family, 133))
    assert error.errno == errno.EEXIST
    assert str(error).endswith("File exists")
    error = refused(space, on_an_old_kernel, lambda: routing.delete_local_default_route(family, 134))
    assert error.errno == errno.ESRCH


def test_what_an_old_kernel_repeats_of_the_request_is_no_explanation(space):
    space.call(routing.add_address, "ipv4", "10.1.2.3", 0, "lo")
    error = refused(space, on_an_old_kernel, lambda: routing.add_address("ipv4", "10.1.2.3", 0, "lo"))
    assert error.errno == errno.EEXIST
    assert str(error).endswith("File exists")


def test_options_that_the_kernel_does_not_know_are_left_out(space):
    def with_an_unknown_option():
        messages._NETLINK_CAP_ACK = 99
        return routing.routes("ipv4", 255)

    assert space.call(with_an_unknown_option) == space.call(routing.routes, "ipv4", 255) != ()


def test_a_kernel_without_ipv6(space):
    """12 was DECnet: no kernel of today has it, and so answers as it would without IPv6."""

    def without_ipv6(function):
        model.ADDRESS_FAMILIES["ipv6"] = 12  # type: ignore[index]
        return function()

    assert {a.family for a in space.call(without_ipv6, routing.addresses)} == {"ipv4"}
    assert space.call(without_ipv6, lambda: routing.policy_rules("ipv6")) == ()
    for table in (254, 255, 4000):
        assert space.call(without_ipv6, lambda table=table: routing.routes("ipv6", table)) == ()
    error = refused(space, without_ipv6, lambda: routing.add_policy_rule("ipv6", 1337, 133))
    assert error.errno == errno.EAFNOSUPPORT
    error = refused(space, without_ipv6, lambda: routing.add_local_default_route("ipv6", 133))
    assert error.errno == errno.EOPNOTSUPP


# --- the conversation -------------------------------------------------------------------------


class Listener(c_modules.socket.socket):
    """A socket on which a test does something before a request is sent, or after a part is read."""

    before_request = staticmethod(lambda connection: None)
    after_part = staticmethod(lambda: None)

    def sendto(self, *arguments):
        type(self).before_request(self)
        return super().sendto(*arguments)

    def recvmsg(self, *arguments):
        received = super().recvmsg(*arguments)
        type(self).after_part()
        return received


def addresses_while(**hooks):
    """List the addresses through a Listener that does the given things meanwhile."""
    patch = pytest.MonkeyPatch()
    patch.setattr(c_modules.socket, "socket", Listener)
    for name, function in hooks.items():
        patch.setattr(Listener, name, staticmethod(function))
    return routing.addresses()


class Meddler:
    """Adds another address every time that it is called, `times` times at most."""

    def __init__(self, times):
        self.left = times

    def __call__(self):
        if self.left:
            left, self.left = self.left - 1, 0  # the request below comes by here too
            routing.add_address("ipv4", f"10.77.{left >> 8}.{left & 255}", 32, "lo")
            self.left = left


@pytest.fixture
def crowded(wired):
    """A namespace with so many addresses that the kernel gives the list in several parts."""
    wired.ip_batch(f"address add 10.{n >> 8}.{n & 255}.1/24 dev d0" for n in range(1000))
    return wired


@pytest.mark.parametrize("times", [1, 2, 10])
def test_a_list_that_changes_while_it_is_read_is_read_again(crowded, times):
    found = crowded.call(addresses_while, after_part=Meddler(times))
    assert len(found) == len(set(found)) == 1000 + times + 2
    assert set(found) == seen_addresses(crowded)


def test_a_list_that_never_stops_changing_is_given_up(crowded):
    error = refused(crowded, addresses_while, after_part=Meddler(1000))
    assert error.errno == errno.EINTR
    assert "list addresses" in str(error)
    assert "the list changed while it was read, 20 times over" in str(error)


def test_only_the_kernel_is_listened_to(space):
    plain_socket = socket.socket

    def intrude(connection):
        connection.bind((0, 0))
        end_of_list = struct.pack("=IHHIIi", 20, messages._NLMSG_DONE, 0, messages._SEQUENCE, 0, 0)
        with plain_socket(socket.AF_NETLINK, socket.SOCK_RAW, messages.NETLINK_ROUTE) as intruder:
            intruder.sendto(end_of_list, (connection.getsockname()[0], 0))

    assert space.call(addresses_while, before_request=intrude) == space.call(routing.addresses) != ()


def test_an_answer_to_another_request_is_passed_over(space):
    send = c_modules.socket.socket.sendto

    def ask_something_else(connection):
        # The kernel knows no such type and says so, under the number of this request.
        send(connection, struct.pack("=IHHII", 16, 9999, messages._NLM_F_REQUEST, 77, 0), (0, 0))

    found = space.call(addresses_while, before_request=ask_something_else)
    assert found == space.call(routing.addresses) != ()


def test_an_answer_that_does_not_fit_is_an_error_and_not_half_a_list(space):
    def read():
        messages._BUFFER = 64
        return routing.addresses()

    error = refused(space, read)
    assert error.errno == errno.EMSGSIZE
    assert "an answer of more than 64 bytes" in str(error)


def test_no_socket_stays_open(space):
    def use_everything():
        before = os.listdir("/proc/self/fd")
        for family in FAMILIES:
            routing.policy_rules(family)
            routing.add_local_default_route(family, 133)
            for _ in range(3):
                with pytest.raises(NetlinkError):
                    routing.add_local_default_route(family, 133)
            routing.routes(family, 133)
        routing.addresses()
        nftables.tables()
        return before, os.listdir("/proc/self/fd")

    before, after = space.call(use_everything)
    assert before == after


def open_no_more_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


@pytest.mark.parametrize(
    ("operation", "function", "arguments"),
    [
        ("list addresses", routing.addresses, ()),
        ("list ipv4 policy rules", routing.policy_rules, ("ipv4",)),
        ("list ipv6 routes of table 133", routing.routes, ("ipv6", 133)),
        ("list nftables tables", nftables.tables, ()),
    ],
)
def test_what_cannot_be_read_is_never_taken_for_empty(space, operation, function, arguments):
    def read():
        open_no_more_files()
        return function(*arguments)

    error = refused(space, read)
    assert error.errno == errno.EMFILE
    assert str(error) == f"[Errno 24] {operation}: Too many open files"


def test_an_interface_that_cannot_be_named_is_not_taken_for_gone(space):
    error = refused(space, addresses_while, after_part=open_no_more_files)
    assert "name interface 1: " in str(error)  # the C library may give another reason than EMFILE


def test_a_list_that_ends_with_an_error_says_why_as_ip_does(space):
    request = routing._ROUTE_HEADER.pack(2, 0, 0, 0, 0, 0, 0, 0, 0) + messages.pack_u32(15, 4000)
    error = refused(space, messages.dump, "list", messages.NETLINK_ROUTE, routing._RTM_GETROUTE, request)
    assert error.errno == errno.ENOENT
    assert explained(error) == space.refusal("route show table 4000")


@pytest.mark.parametrize("text", ["a name", ""])
@pytest.mark.parametrize("length", [0, 1, 4, 5])
def test_attributes_survive_packing(text, length):
    first = text.encode() + b"x" * length
    packed = messages.pack_attribute(3, first) + messages.pack_attribute(0x8005, b"abcd")
    assert len(packed) % 4 == 0
    assert messages.parse_attributes(packed) == {3: first, 5: b"abcd"}


def test_importing_stays_light():
    heavy = {"dataclasses", "enum", "logging", "re", "socket", "subprocess", "typing"}
    root = Path(routing.__file__).parents[3]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); before = set(sys.modules); "
        "import istio_iptables.kernel.netlink.routing; print(*set(sys.modules) - before)"
    )
    imported = subprocess.check_output([sys.executable, "-I", "-S", "-c", code], text=True).split()
    assert "istio_iptables.kernel.netlink.routing" in imported
    assert heavy.isdisjoint(imported)
