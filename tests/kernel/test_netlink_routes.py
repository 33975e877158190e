"""The netlink client's routes against the kernel, with `ip` as the second opinion."""

from __future__ import annotations

import errno
import os

import pytest

from istio_iptables.kernel.netlink import routing
from istio_iptables.kernel.netlink.routing import Route
from tests.support.netlink import FLAG, OTHER, each_family, each_table, explained, refused, switch_ipv6_off

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]


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
