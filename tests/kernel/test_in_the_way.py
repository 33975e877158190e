"""A foreign route or address where an owned one has to be; and planning leaves nothing behind."""

import json

import pytest

from istio_iptables import Facts, Machine, build, configure, prepare
from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL


@pytest.mark.parametrize(
    "arguments", [("unreachable", "default"), ("local", "default", "dev", "lo", "proto", "static")]
)
def test_another_default_route_in_the_table_is_an_error_and_stays(arguments):
    with Scratch(addresses=True) as scratch:
        scratch.ip("route", "add", *arguments, "table", "133")
        before = scratch.network()
        for more in ((), ("--reconcile",)):
            done = scratch.tool("-m", "TPROXY", *more)
            assert done.returncode == 1
            assert "routing table 133 (ipv4) already has another default route" in done.stderr
            assert "--istio-inbound-tproxy-route-table" in done.stderr
            assert scratch.network() == before
            assert "-A" not in scratch.save("legacy", "ipv4")
        scratch.apply("-m", "TPROXY", "-r", "140")


@pytest.mark.parametrize("route", [(), ("unreachable", "default")], ids=["no route", "a dead end"])
def test_a_foreign_rule_to_the_usual_table_is_not_owned(route):
    with Scratch(addresses=True) as scratch:
        scratch.ip("rule", "add", "fwmark", "1337", "lookup", "133", "pref", "50")
        if route:
            scratch.ip("route", "add", *route, "table", "133")
        before = scratch.network()
        scratch.apply()
        scratch.apply("-b", "80", "--reconcile")
        scratch.apply("cleanup")
        assert scratch.network() == before


def test_cleanup_takes_the_route_and_the_rule_that_a_flush_has_left():
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        scratch.apply("-m", "TPROXY")
        for table in ("nat", "mangle"):
            scratch.check("iptables-legacy", "-t", table, "-F")
            scratch.check("iptables-legacy", "-t", table, "-X")
        assert scratch.network() != before
        scratch.apply("cleanup")
        assert scratch.network() == before


def test_the_address_with_another_prefix_is_an_error_and_stays():
    with Scratch(addresses=True) as scratch:
        scratch.give("lo", "::6/64")
        before = scratch.network()
        done = scratch.tool("--dual-stack")
        assert done.returncode == 1
        assert "already has the address ::6" in done.stderr
        assert scratch.network() == before


def test_planning_makes_no_table():
    with Scratch() as scratch, scratch.inside(), Machine(cni_mode=True) as machine:
        prepared = prepare(machine, build(configure(environment=Facts())))
        assert prepared.plan.actions
        with open("/proc/self/net/ip_tables_names") as names:
            assert names.read() == ""
        prepared.apply()
        with open("/proc/self/net/ip_tables_names") as names:
            assert names.read().split() == ["nat"]


def test_a_machine_that_was_not_entered_is_refused():
    with pytest.raises(RuntimeError, match="with Machine"):
        prepare(Machine(), build(configure(environment=Facts())))


def test_a_rule_that_moved_is_a_difference_for_programs_too():
    with Scratch() as scratch:
        scratch.apply()
        rule = ("-p", "tcp", "--dport", "15008", "-j", "RETURN")
        for action in ("-D", "-A"):
            scratch.check("iptables-legacy", "-t", "nat", action, "ISTIO_INBOUND", *rule)
        done = scratch.tool("diff", "--json")
        assert done.returncode == 3
        (part,) = json.loads(done.stdout)["parts"]
        moved = "-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN"
        assert (part["removed"], part["added"]) == ([moved], [moved])
