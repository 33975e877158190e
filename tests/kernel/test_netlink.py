"""The netlink client against the kernel, with `ip` and `nft` as the second opinion.

Every test has a network namespace of its own. The module works in the namespace of the calling
process, so what a test calls runs in a forked child that has entered the namespace first; what
such a child patches is gone with it.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from istio_iptables.kernel.netlink import messages, nftables, routing
from istio_iptables.kernel.netlink.routing import Address, NetlinkError, PolicyRule, Route
from istio_iptables.rules import model
from istio_iptables.startup import c_modules

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]

CLONE_NEWNET = 0x40000000
NOBODY = 65534
ALL_ONES = 0xFFFFFFFF

FAMILIES = ("ipv4", "ipv6")
TABLES = (133, 4000)
MARKS = (1337, ALL_ONES)
FLAG = {"ipv4": "-4", "ipv6": "-6"}
OTHER = {"ipv4": "ipv6", "ipv6": "ipv4"}

each_family = pytest.mark.parametrize("family", FAMILIES)
each_table = pytest.mark.parametrize("table", TABLES)
each_mark = pytest.mark.parametrize("mark", MARKS)


class Namespace:
    """A network namespace: commands and functions run inside, and what `ip` sees there."""

    def __init__(self, name):
        self.name = name

    def run(self, *command, check=True, stdin=""):
        inside = ("ip", "netns", "exec", self.name)
        done = subprocess.run([*inside, *command], input=stdin, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done

    def ip(self, words):
        return self.run("ip", *words.split()).stdout

    def ip_batch(self, lines, flag="-4"):
        self.run("ip", flag, "-batch", "-", stdin="\n".join(lines) + "\n")

    def see(self, words):
        """Return all that `ip` knows, with details, as parsed JSON."""
        return json.loads(self.ip(f"-details -json {words}") or "[]")

    def refusal(self, words):
        """Return why the kernel refuses an `ip` command, with its own explanation if there is one."""
        done = self.run("ip", *words.split(), check=False)
        assert done.returncode != 0
        return done.stderr.splitlines()[0].removeprefix("Error: ").removesuffix(".")

    def call(self, function, *arguments, user=None, **named):
        """Return what the function returns, or raise what it raises, in here, as `user` if given."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            self._report(write_end, user, lambda: function(*arguments, **named))
        os.close(write_end)
        with os.fdopen(read_end, "rb") as stream:
            report = stream.read()
        os.waitpid(child, 0)
        succeeded, outcome = pickle.loads(report)
        if succeeded:
            return outcome
        raise outcome

    def _report(self, write_end, user, function):
        """Run the function in the child and send back what came of it; never return."""
        try:
            signal.alarm(60)  # a child that hangs must not outlive the test, nor keep its namespace
            try:
                enter(self.name)
                if user is not None:
                    os.setgroups([])
                    os.setresuid(user, user, user)
                outcome = (True, function())
            except BaseException as error:
                outcome = (False, error)
            with os.fdopen(write_end, "wb") as stream:
                pickle.dump(outcome, stream)
        finally:
            os._exit(0)


def enter(name):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


numbers = itertools.count()


@pytest.fixture
def space():
    name = f"nlt-{os.getpid()}-{next(numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        namespace = Namespace(name)
        namespace.ip("link set lo up")
        yield namespace
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def wired(space):
    """A namespace with the interfaces d0 and d1 beside lo, which have no addresses of their own."""
    space.run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")  # no link-local address
    space.ip("link add d0 type veth peer name d1")
    space.ip("link set d0 up")
    space.ip("link set d1 up")
    return space


def switch_ipv6_off(space):
    for name in ("all", "default"):
        space.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")


def refused(space, function, *arguments, **named):
    """Return the NetlinkError that the call raises."""
    with pytest.raises(NetlinkError) as caught:
        space.call(function, *arguments, **named)
    return caught.value


def explained(error):
    """Return the explanation at the end of an error's text."""
    return str(error).rpartition(" (")[2].removesuffix(")")


# --- addresses ------------------------------------------------------------------------------


def seen_addresses(space):
    """Return what `ip address` shows, in the form of netlink.addresses()."""
    family = {"inet": "ipv4", "inet6": "ipv6"}
    return {
        Address(family[a["family"]], a["local"], a["prefixlen"], link["ifname"], link["ifindex"])
        for link in space.see("address show")
        for a in link["addr_info"]
    }


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


# --- policy rules ---------------------------------------------------------------------------


def seen_rules(space, family):
    return space.see(f"{FLAG[family]} rule show")


def our_rules(space, family):
    """Return the rules that are not the kernel's own."""
    found = space.call(routing.policy_rules, family)
    return [rule for rule in found if rule.priority not in (0, 32766, 32767)]


@each_family
def test_a_fresh_namespace_has_the_kernels_rules(space, family):
    found = space.call(routing.policy_rules, family)
    tables = {"local": 255, "main": 254, "default": 253}
    assert [(r.priority, r.table) for r in found] == [
        (r["priority"], tables[r["table"]]) for r in seen_rules(space, family)
    ]
    assert {(r.family, r.mark, r.mask, r.plain) for r in found} == {(family, 0, 0, False)}


@each_family
@each_table
@each_mark
def test_an_added_rule_is_the_one_that_ip_adds(space, family, table, mark):
    before = seen_rules(space, family)
    others = seen_rules(space, OTHER[family])
    space.ip(f"{FLAG[family]} rule add fwmark {mark} lookup {table}")
    theirs = seen_rules(space, family)
    text = space.ip(f"{FLAG[family]} rule show")
    space.ip(f"{FLAG[family]} rule delete fwmark {mark} lookup {table}")

    space.call(routing.add_policy_rule, family, mark, table)
    assert seen_rules(space, family) == theirs
    assert space.ip(f"{FLAG[family]} rule show") == text
    assert seen_rules(space, OTHER[family]) == others

    rule = PolicyRule(family, mark, ALL_ONES, table, 32765, True)
    assert our_rules(space, family) == [rule]
    space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before


@each_family
@each_table
@each_mark
def test_rules_made_by_ip_can_be_deleted_and_the_other_way_round(space, family, table, mark):
    before = seen_rules(space, family)
    space.ip(f"{FLAG[family]} rule add fwmark {mark} lookup {table}")
    [rule] = our_rules(space, family)
    space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before
    space.call(routing.add_policy_rule, family, mark, table)
    space.ip(f"{FLAG[family]} rule delete fwmark {mark} lookup {table}")
    assert seen_rules(space, family) == before


@each_family
@pytest.mark.parametrize("earlier", ["priority 100", "priority 20000 from all", "priority 1 fwmark 7"])
def test_the_priority_is_chosen_as_for_ip(space, family, earlier):
    space.ip(f"{FLAG[family]} rule add {earlier} lookup 77")
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133")
    theirs = seen_rules(space, family)
    space.ip(f"{FLAG[family]} rule delete fwmark 1337 lookup 133")
    space.call(routing.add_policy_rule, family, 1337, 133)
    assert seen_rules(space, family) == theirs


@each_family
def test_the_kernel_takes_a_second_rule_for_another_one_as_with_ip(space, family):
    space.call(routing.add_policy_rule, family, 1337, 133)
    space.call(routing.add_policy_rule, family, 1337, 133)
    first, second = our_rules(space, family)
    assert (first.priority, second.priority) == (32764, 32765)
    space.call(routing.delete_policy_rule, second)
    assert our_rules(space, family) == [first]


@each_family
def test_a_rule_for_mark_zero_is_the_one_that_ip_adds(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 0 lookup 133")
    theirs = seen_rules(space, family)
    [rule] = our_rules(space, family)
    assert rule == PolicyRule(family, 0, 0, 133, 32765, True)
    space.call(routing.delete_policy_rule, rule)
    space.call(routing.add_policy_rule, family, 0, 133)
    assert seen_rules(space, family) == theirs


@each_family
def test_a_mask_and_a_priority_leave_a_rule_plain(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 0x10/0xf0 lookup 4000 priority 4294967295")
    rule = our_rules(space, family)[-1]
    assert rule == PolicyRule(family, 0x10, 0xF0, 4000, 4294967295, True)
    space.call(routing.delete_policy_rule, rule)
    assert our_rules(space, family) == []


NOT_PLAIN_RULES = [
    "from NETWORK fwmark 1337 lookup 133",
    "to NETWORK fwmark 1337 lookup 133",
    "iif lo fwmark 1337 lookup 133",
    "oif lo fwmark 1337 lookup 133",
    "oif eth7 fwmark 1337 lookup 133",
    "not fwmark 1337 lookup 133",
    "tos 0x10 fwmark 1337 lookup 133",
    "uidrange 0-4294967294 fwmark 1337 lookup 133",
    "uidrange 1000-1000 fwmark 1337 lookup 133",
    "ipproto tcp fwmark 1337 lookup 133",
    "sport 80 fwmark 1337 lookup 133",
    "dport 80-90 fwmark 1337 lookup 133",
    "tun_id 5 fwmark 1337 lookup 133",
    "l3mdev fwmark 1337",
    "fwmark 1337 lookup 133 suppress_prefixlength 0",
    "fwmark 1337 lookup 133 suppress_ifgroup 0",
    "fwmark 1337 lookup 133 protocol static",
    "fwmark 1337 goto 32766",
    "fwmark 1337 goto 32000",
    "fwmark 1337 blackhole",
    "fwmark 1337 unreachable",
    "fwmark 1337 prohibit",
    "fwmark 1337 type nop",
]


@each_family
@pytest.mark.parametrize("words", NOT_PLAIN_RULES)
def test_a_rule_with_anything_more_is_not_plain(space, family, words):
    words = words.replace("NETWORK", {"ipv4": "10.0.0.0/8", "ipv6": "2001:db8::/32"}[family])
    space.ip(f"{FLAG[family]} rule add {words} priority 100")
    before = seen_rules(space, family)
    [rule] = our_rules(space, family)
    assert (rule.mark, rule.mask, rule.priority, rule.plain) == (1337, ALL_ONES, 100, False)
    with pytest.raises(ValueError, match="priority=100"):
        space.call(routing.delete_policy_rule, rule)
    assert seen_rules(space, family) == before


@each_family
def test_a_foreign_rule_with_more_selectors_is_never_deleted_instead(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 iif lo priority 100")
    before = seen_rules(space, family)
    wanted = PolicyRule(family, 1337, ALL_ONES, 133, 100, True)
    error = refused(space, routing.delete_policy_rule, wanted)
    assert error.errno == errno.ENOTUNIQ
    assert "plain=False" in str(error)
    assert seen_rules(space, family) == before

    # The kernel would take the first one, which is still the foreign one.
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 priority 100")
    assert refused(space, routing.delete_policy_rule, wanted).errno == errno.ENOTUNIQ
    assert len(our_rules(space, family)) == 2


@each_family
@pytest.mark.parametrize("mark", [0, 1337])
def test_foreign_rules_of_the_same_priority_are_left_alone(space, family, mark):
    selector = f"fwmark {mark} " if mark else ""
    space.ip(f"{FLAG[family]} rule add {selector}lookup 133 priority 100")
    space.ip(f"{FLAG[family]} rule add fwmark 7 lookup 133 priority 100")
    space.ip(f"{FLAG[family]} rule add {selector}lookup 133 iif lo priority 100")
    space.ip(f"{FLAG[family]} rule add {selector}lookup 134 priority 100")
    owned, *foreign = our_rules(space, family)
    space.call(routing.delete_policy_rule, owned)
    assert our_rules(space, family) == foreign


@each_family
def test_mark_zero_is_no_wildcard_when_a_rule_is_deleted(space, family):
    space.ip(f"{FLAG[family]} rule add fwmark 7 lookup 133 priority 100")
    before = seen_rules(space, family)
    error = refused(space, routing.delete_policy_rule, PolicyRule(family, 0, 0, 133, 100, True))
    assert error.errno == errno.ENOTUNIQ
    assert seen_rules(space, family) == before


@each_family
@pytest.mark.parametrize(
    ("part", "value"), [("mark", 1338), ("mask", 0xFFFF), ("table", 134), ("priority", 101)]
)
def test_a_rule_that_differs_in_one_part_is_another_rule(space, family, part, value):
    space.ip(f"{FLAG[family]} rule add fwmark 1337 lookup 133 priority 100")
    before = seen_rules(space, family)
    [rule] = our_rules(space, family)
    error = refused(space, routing.delete_policy_rule, rule.replace(**{part: value}))
    assert error.errno == errno.ENOENT
    assert f"delete {family} policy rule fwmark" in str(error)
    assert seen_rules(space, family) == before


def test_rules_stay_readable_and_can_be_made_with_ipv6_off(space):
    switch_ipv6_off(space)
    space.call(routing.add_policy_rule, "ipv6", 1337, 133)
    assert our_rules(space, "ipv6") == [PolicyRule("ipv6", 1337, ALL_ONES, 133, 32765, True)]


@each_family
def test_a_thousand_rules_come_whole(space, family):
    space.ip_batch((f"rule add fwmark {n} lookup {n}" for n in range(1, 1001)), FLAG[family])
    assert [r.mark for r in our_rules(space, family)] == list(range(1000, 0, -1))


# --- routes ---------------------------------------------------------------------------------


def seen_routes(space, family, table):
    """Return what `ip route` shows of a table: both forms that it can show it in."""
    # `table all` is no error where the table does not exist, and names the table of each route.
    found = [
        route
        for route in space.see(f"{FLAG[family]} route show table all")
        if route.get("table", "main") == str(table)
    ]
    lines = space.ip(f"{FLAG[family]} route show table all").splitlines()
    return found, [line for line in lines if f" table {table} " in line]


@each_family
@each_table
def test_an_added_route_is_the_one_that_ip_adds(space, family, table):
    before = space.see(f"{FLAG[family]} route show table all")
    assert space.call(routing.routes, family, table) == ()
    space.ip(f"{FLAG[family]} route add local default dev lo table {table}")
    theirs = seen_routes(space, family, table)
    assert theirs[0]
    space.ip(f"{FLAG[family]} route delete local default dev lo table {table}")

    space.call(routing.add_local_default_route, family, table)
    assert seen_routes(space, family, table) == theirs
    assert space.call(routing.routes, family, table) == (Route(family, table, 2, None, 0, "lo", True),)
    assert space.call(routing.routes, OTHER[family], table) == ()

    space.call(routing.delete_local_default_route, family, table)
    assert space.see(f"{FLAG[family]} route show table all") == before


@each_family
@each_table
def test_routes_made_by_ip_can_be_deleted_and_the_other_way_round(space, family, table):
    before = space.see(f"{FLAG[family]} route show table all")
    space.ip(f"{FLAG[family]} route add local default dev lo table {table}")
    assert space.call(routing.routes, family, table) == (Route(family, table, 2, None, 0, "lo", True),)
    space.call(routing.delete_local_default_route, family, table)
    assert space.see(f"{FLAG[family]} route show table all") == before
    space.call(routing.add_local_default_route, family, table)
    space.ip(f"{FLAG[family]} route delete local default dev lo table {table}")
    assert space.see(f"{FLAG[family]} route show table all") == before


@each_family
@each_table
def test_a_route_twice_and_none(space, family, table):
    space.call(routing.add_local_default_route, family, table)
    error = refused(space, routing.add_local_default_route, family, table)
    assert error.errno == errno.EEXIST
    assert f"add {family} route local default dev lo to table {table}: File exists" in str(error)
    assert len(space.call(routing.routes, family, table)) == 1

    space.call(routing.delete_local_default_route, family, table)
    error = refused(space, routing.delete_local_default_route, family, table)
    assert error.errno == errno.ESRCH
    assert f"delete {family} route local default dev lo from table {table}" in str(error)


@each_family
def test_other_tables_are_neither_shown_nor_touched(space, family):
    for table in (1, 133, 4000, 4001):
        space.call(routing.add_local_default_route, family, table)
    space.call(routing.delete_local_default_route, family, 133)
    assert space.call(routing.routes, family, 133) == ()
    for table in (1, 4000, 4001):
        assert [r.table for r in space.call(routing.routes, family, table)] == [table]


NOT_PLAIN_ROUTES = [
    ("ipv4", "local default dev lo metric 5"),
    ("ipv4", "local default dev lo src 127.0.0.1"),
    ("ipv4", "local default dev lo proto static"),
    ("ipv4", "local default dev lo tos 0x10"),
    ("ipv4", "local default dev lo mtu 1400"),
    ("ipv4", "local default dev lo realms 5"),
    ("ipv4", "local default dev lo onlink"),
    ("ipv4", "local 0.0.0.0/1 dev lo"),
    ("ipv4", "default dev lo"),
    ("ipv4", "default dev d0"),
    ("ipv4", "default via 10.1.2.1"),
    ("ipv4", "default nexthop via 10.1.2.1 nexthop via 10.1.2.2"),
    ("ipv4", "blackhole default"),
    ("ipv4", "unreachable default"),
    ("ipv4", "throw default"),
    ("ipv6", "local default dev lo metric 5"),
    ("ipv6", "local default dev lo src ::1"),
    ("ipv6", "local default dev lo proto static"),
    ("ipv6", "local default dev lo mtu 1400"),
    ("ipv6", "local default dev lo expires 600"),
    ("ipv6", "local default dev lo pref high"),
    ("ipv6", "local default from 2001:db8::/64 dev lo"),
    ("ipv6", "local ::/1 dev lo"),
    ("ipv6", "default dev lo"),
    ("ipv6", "default dev d0"),
    ("ipv6", "default via 2001:db8::2"),
    ("ipv6", "default nexthop via 2001:db8::2 nexthop via 2001:db8::3"),
    ("ipv6", "blackhole default"),
]


@pytest.mark.parametrize(("family", "words"), NOT_PLAIN_ROUTES)
def test_a_route_with_anything_more_is_not_plain_and_never_deleted(wired, family, words):
    wired.ip("address add 10.1.2.3/24 dev d0")
    wired.ip("address add 2001:db8::1/64 dev d0")
    done = wired.run("ip", FLAG[family], "route", "add", "table", "133", *words.split(), check=False)
    if "from" in words and done.returncode != 0:
        pytest.skip("this kernel has no IPv6 routes by source address")
    assert done.returncode == 0, done.stderr
    before, _ = seen_routes(wired, family, 133)
    assert before
    found = wired.call(routing.routes, family, 133)
    assert found
    assert not any(route.plain for route in found)
    to_lo = [route for route in found if route.destination is None and route.interface == "lo"]
    error = refused(wired, routing.delete_local_default_route, family, 133)
    assert error.errno == (errno.ENOTUNIQ if to_lo else errno.ESRCH)
    after, _ = seen_routes(wired, family, 133)
    assert [without_expiry(route) for route in after] == [without_expiry(route) for route in before]


def without_expiry(route):
    return {name: value for name, value in route.items() if name != "expires"}


@each_family
def test_a_table_that_has_another_default_route_gets_no_second_one(space, family):
    space.ip(f"{FLAG[family]} route add unreachable default table 133")
    before = seen_routes(space, family, 133)
    assert refused(space, routing.add_local_default_route, family, 133).errno == errno.EEXIST
    assert seen_routes(space, family, 133) == before


def test_a_plain_route_on_another_interface_is_plain_there(wired):
    wired.ip("route add local default dev d0 table 133")
    assert wired.call(routing.routes, "ipv4", 133) == (Route("ipv4", 133, 2, None, 0, "d0", True),)
    assert refused(wired, routing.delete_local_default_route, "ipv4", 133).errno == errno.ESRCH


def test_a_foreign_route_that_the_kernel_meets_first_is_not_deleted_instead(space):
    space.call(routing.add_local_default_route, "ipv4", 133)
    space.ip("route prepend local default dev lo src 127.0.0.1 table 133")
    foreign, owned = space.call(routing.routes, "ipv4", 133)
    assert (foreign.plain, owned.plain) == (False, True)
    error = refused(space, routing.delete_local_default_route, "ipv4", 133)
    assert error.errno == errno.ENOTUNIQ
    assert space.call(routing.routes, "ipv4", 133) == (foreign, owned)


@each_family
def test_a_foreign_route_with_a_higher_metric_stays(space, family):
    space.call(routing.add_local_default_route, family, 133)
    space.ip(f"{FLAG[family]} route add local default dev lo metric 2000 table 133")
    space.call(routing.delete_local_default_route, family, 133)
    [left] = space.call(routing.routes, family, 133)
    assert not left.plain


@each_family
@pytest.mark.parametrize(("table", "name"), [(254, "main"), (255, "local")])
def test_destinations_are_those_that_ip_shows(wired, family, table, name):
    wired.ip("address add 10.1.2.3/24 dev d0")
    wired.ip("address add 2001:db8::1/64 dev d0")
    wired.ip("route add default via 10.1.2.1")
    wired.ip("-6 route add default via 2001:db8::2")
    kinds = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}
    seen = [
        (kinds[route["type"]], route["dst"], route.get("dev"))
        for route in wired.see(f"{FLAG[family]} route show table {name}")
    ]
    host = {"ipv4": 32, "ipv6": 128}[family]
    found = [
        (
            route.kind,
            "default"
            if route.destination is None
            else route.destination + (f"/{route.prefix}" if route.prefix != host else ""),
            route.interface,
        )
        for route in wired.call(routing.routes, family, table)
    ]
    assert found == seen
    assert len(found) >= 2


def test_a_table_of_three_thousand_routes_comes_whole(space):
    space.ip_batch(f"route add local 10.{n >> 8}.{n & 255}.0/24 dev lo table 4000" for n in range(3000))
    found = space.call(routing.routes, "ipv4", 4000)
    assert {r.destination for r in found} == {f"10.{n >> 8}.{n & 255}.0" for n in range(3000)}
    assert len(found) == 3000


def test_a_route_where_ipv6_is_off_says_why(space):
    switch_ipv6_off(space)
    error = refused(space, routing.add_local_default_route, "ipv6", 133)
    assert error.errno == errno.EACCES
    assert explained(error) == space.refusal("-6 route add local default dev lo table 133")
    assert space.call(routing.routes, "ipv6", 133) == ()


# --- nftables -------------------------------------------------------------------------------


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


# --- privileges, old kernels ----------------------------------------------------------------


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
    messages._set_options = lambda connection: None
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


# --- the conversation -----------------------------------------------------------------------


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
