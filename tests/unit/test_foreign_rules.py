"""What is understood of another tool's rules: their matches, what they do, and whether something is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from istio_iptables.api import build, configure
from istio_iptables.change.actions import IPTABLES_LEGACY, Live, UnreadableTable
from istio_iptables.change.conflicts import conflicts
from istio_iptables.change.execute import execute
from istio_iptables.change.foreign import Step, of_iptables
from istio_iptables.change.neighbours import Interference
from istio_iptables.change.plan import make_plan
from istio_iptables.errors import KernelError
from istio_iptables.formats import iptables_restore, nft_foreign, notices
from istio_iptables.rules.model import (
    RETURN,
    Chain,
    Cidr,
    Destination,
    DestinationPort,
    DestinationPorts,
    ForeignTarget,
    GidOwner,
    InInterface,
    OutInterface,
    PortRange,
    Rule,
    Source,
    SourcePort,
    Table,
    Transport,
    UidOwner,
)
from istio_iptables.settings.facts import Facts
from istio_iptables.testing import FakeKernel
from tests.support.cases import all_cases

#: A match that this tool does not know: the whole rule then stays arguments, which are read here.
UNKNOWN = "-m statistic --mode random --probability 0.5"
TCP, UDP = Transport("tcp"), Transport("udp")


def fib(flags: str | list[str], kind: str = "local") -> dict[str, Any]:
    """A match about what an address is to this machine, as nft prints it."""
    return {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": flags}}, "right": kind}}


def step(rule: str) -> Step:
    """What is understood of a rule of OUTPUT, as iptables-save prints it."""
    tables = iptables_restore.parse(f"*nat\n-A OUTPUT {rule}\nCOMMIT\n", "ipv4")
    [neighbour] = of_iptables(Live({IPTABLES_LEGACY: tables}), IPTABLES_LEGACY)
    [[found]] = [base.steps for base in neighbour.bases]
    return found


def port(first: int, last: int | None = None) -> DestinationPort:
    return DestinationPort(PortRange(first, last or first))


@all_cases(
    ("options", "matches"),
    [
        ("-p tcp -m tcp --dport 80", [TCP, port(80)]),
        ("-p tcp -m tcp ! --dport 80", [TCP, DestinationPort(PortRange(80, 80), True)]),
        ("-p tcp -m tcp --dport 8000:8100", [TCP, port(8000, 8100)]),
        ("-p tcp -m tcp --dport 8000:", [TCP, port(8000, 65535)]),
        ("-p udp -m udp --dport :1023", [UDP, DestinationPort(PortRange(0, 1023))]),
        ("-p tcp -m tcp --sport 1:2", [TCP, SourcePort(PortRange(1, 2))]),
        (
            "-p tcp -m multiport --dports 80,8000:8100",
            [TCP, DestinationPorts((PortRange(80, 80), PortRange(8000, 8100)))],
        ),
        ("! -p tcp", [Transport("tcp", True)]),
        ("-p icmp", [TCP, UDP]),
        ("! -p icmp", []),
        ("-i eth0 ! -o lo", [InInterface("eth0"), OutInterface("lo", True)]),
        ("! -s 10.0.0.0/8", [Source(Cidr(4, 0x0A000000, 8), True)]),
        ("-d 10.0.0.1/32", [Destination(Cidr(4, 0x0A000001, 32))]),
        ("-m owner --uid-owner 7", [UidOwner(7)]),
        ("-m owner ! --gid-owner 8", [GidOwner(8, True)]),
    ],
)
def test_known_matches_beside_one_that_is_not_known(options: str, matches: list[Any]):
    found = step(f"{options} {UNKNOWN} -j ACCEPT")
    assert (list(found.matches), found.vague, found.local) == (matches, True, False)


@all_cases(
    ("options", "vague", "local"),
    [
        ("-m addrtype --dst-type LOCAL", False, True),
        ("-m addrtype ! --dst-type LOCAL", True, False),
        ("-m addrtype --dst-type UNICAST", True, False),
        ("-m addrtype --dst-type LOCAL -m tcp --dport http", True, True),
        ("-s nowhere", True, False),
    ],
)
def test_what_is_left_over_is_said(options: str, vague: bool, local: bool):
    found = step(f"{options} -j ACCEPT")
    assert (found.vague, found.local) == (vague, local)
    assert type(found.vague) is bool


@all_cases(
    ("target", "kind", "to", "chains"),
    [
        ("-j ACCEPT", "accept", "", ()),
        ("-j RETURN", "return", "", ()),
        ("-j DROP", "other", "", ()),
        ("-j REDIRECT --to-ports 81", "translate", "port 81", ()),
        ("-j REDIRECT --to-ports 81-90", "translate", "81-90", ()),
        ("-j DNAT --to-destination 10.0.0.9:80", "translate", "10.0.0.9:80", ()),
        ("-j NETMAP --to 10.0.0.0/8", "translate", "10.0.0.0/8", ()),
        ("-j DNAT", "translate", "", ()),
        ("-j SNAT --to-source 10.0.0.9", "source", "", ()),
        ("-j MASQUERADE", "source", "", ()),
        ("-j NOTRACK", "untrack", "", ()),
        ("-j CT --notrack", "untrack", "", ()),
        ("-j LOG --log-prefix x", "other", "", ()),
        ("", "other", "", ()),
    ],
)
def test_what_a_rule_does(target: str, kind: str, to: str, chains: tuple[str, ...]):
    found = step(f"-d 10.0.0.1/32 {target}".rstrip())
    assert (found.kind, found.to, found.chains) == (kind, to, chains)


@all_cases(
    ("expression", "kind", "to", "local", "vague"),
    [
        ([{"dnat": {"addr": "10.0.0.9", "port": 81}}], "translate", "10.0.0.9:81", False, False),
        ([{"dnat": {"addr": "10.0.0.9"}}], "translate", "10.0.0.9", False, False),
        ([{"redirect": {"port": 81}}], "translate", ":81", False, False),
        ([fib("daddr"), {"redirect": {"port": 81}}], "translate", ":81", True, False),
        ([fib(["daddr"]), {"accept": None}], "accept", "", True, False),
        ([fib(["saddr"]), {"accept": None}], "accept", "", False, True),
        ([fib(["daddr"], "unicast"), {"accept": None}], "accept", "", False, True),
    ],
)
def test_what_a_native_rule_does(expression: list[Any], kind: str, to: str, local: bool, vague: bool):
    where = {"family": "ip", "table": "t"}
    hook = {"type": "nat", "hook": "output", "prio": -100, "policy": "accept", "handle": 2}
    objects = [
        {"table": {"family": "ip", "name": "t", "handle": 1}},
        {"chain": {**where, "name": "c", **hook}},
        {"rule": {**where, "chain": "c", "handle": 3, "expr": expression}},
    ]
    [neighbour] = nft_foreign.neighbours(json.dumps({"nftables": objects}), "")
    [[found]] = [base.steps for base in neighbour.bases]
    assert (found.kind, found.to, found.local, found.vague) == (kind, to, local, vague)


def test_the_warnings_in_whole():
    each = Interference("ipv4 nat (x)", "OUTPUT", "-j ACCEPT", "address", ("TCP to port 80",), vague=True)
    [text] = notices.neighbours([each])
    assert text.count("TCP to port 80 (if its other matches hold)") == 1
    rule = Rule((OutInterface("eth1"),), RETURN)
    assert notices.unclaimed(IPTABLES_LEGACY, Table("ipv4", "nat"), "OUTPUT", rule) == (
        "-A OUTPUT -o eth1 -j RETURN (ipv4 nat, iptables-legacy) keeps traffic from the proxy: Istio's own "
        "tool may have left it, or another program wrote it, so it stays; to remove it: "
        "iptables-legacy -t nat -D OUTPUT -o eth1 -j RETURN"
    )


def test_a_signal_before_anything_is_done_says_so():
    plan = make_plan(Live({}), build(configure(environment=Facts())), IPTABLES_LEGACY)
    with pytest.raises(KernelError) as caught:
        execute(plan, FakeKernel(), interrupted=lambda: True)
    assert (caught.value.cause, caught.value.remedy) == (
        "interrupted by a signal",
        "everything is as before: run again",
    )


def test_a_conflict_in_a_table_that_only_nft_can_read_names_the_rule():
    rule = Rule((Transport("tcp"),), ForeignTarget(("-j", "LOG")))
    part = Table("ipv4", "nat", (Chain("ISTIO_OUTPUT", (rule,)),))
    unreadable = UnreadableTable("ipv4", "nat", part=part, hidden=("ISTIO_INBOUND", "MINE"))
    wanted = build(configure(environment=Facts()))
    found = list(conflicts(Live({}, unreadable=(unreadable,)), wanted, IPTABLES_LEGACY))
    assert [(each.where, each.chain, each.rule) for each in found] == [
        ("ip nat (iptables-nft)", "ISTIO_OUTPUT", rule),
        ("ip nat", "ISTIO_INBOUND", None),
    ]
    assert found[1].part == "chain ISTIO_INBOUND has a rule that only nft can show"
