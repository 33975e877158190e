"""What another program puts into native tables that are owned."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.native import NATIVE, native

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

NAT = "inet istio-proxy-nat"
BY_HAND: dict[str, str] = {
    "a rule": f"insert rule {NAT} istio-output tcp dport 22 counter accept",
    "a rule in a base chain": f"add rule {NAT} prerouting meta l4proto {{ tcp, udp }} counter return",
    "a rule without a counter": f"add rule {NAT} istio-output return",
    "a mark on a connection": f"add rule {NAT} istio-output ct mark set 0x1",
    "a mark, then a match": f"add rule {NAT} istio-output meta mark set 0x7 tcp dport 80 counter",
    "states": f"add rule {NAT} istio-output ct state {{ new, established }} counter return",
    "not a protocol": f"add rule {NAT} istio-output meta l4proto != tcp counter return",
    "a limit": f"add rule {NAT} istio-redirect limit rate 3/hour counter accept",
    "a map": f"add rule {NAT} istio-output tcp dport vmap {{ 80 : accept, 81 : return }}",
    "a comment": f'insert rule {NAT} istio-output counter return comment "mine"',
    "a chain": f"add chain {NAT} mine; add rule {NAT} mine counter accept",
    "an empty chain": f"add chain {NAT} mine",
    "a base chain": f"add chain {NAT} late {{ type nat hook prerouting priority -90; policy accept; }}",
    "a policy": f"add chain {NAT} output {{ policy drop; }}",
    "a set": f"add set {NAT} mine {{ type ipv4_addr; elements = {{ 10.0.0.1 }}; }}",
    "a set that is used": f"add set {NAT} mine {{ type ipv4_addr; timeout 1h; }}\n"
    f"insert rule {NAT} istio-output ip daddr @mine counter return",
    "a counter": f"add counter {NAT} mine",
    "a quota": f"add quota {NAT} mine {{ over 5 mbytes; }}",
    "a table": "add table inet istio-proxy-raw",
    "less": f"flush chain {NAT} istio-output",
    "a table asleep": f"add table {NAT} {{ flags dormant; }}",
}

#: Those that a tool of Istio's could have made, too. Everything else in the tables is foreign.
DIFFERENCES = ("not a protocol", "a comment", "a table", "less")


@pytest.mark.parametrize("case", DIFFERENCES)
def test_changes_by_hand_are_a_difference_and_are_reconciled(case: str) -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack")
        wanted = native(scratch)
        scratch.nft(script=BY_HAND[case])
        changed = scratch.nft("list", "ruleset")
        generation = scratch.generation()
        shown = scratch.tool(*NATIVE, "--dual-stack")
        assert shown.returncode == 3, shown.stderr
        assert shown.stdout
        assert (scratch.nft("list", "ruleset"), scratch.generation()) == (changed, generation)
        scratch.apply(*NATIVE, "--dual-stack", "--reconcile")
        assert native(scratch) == wanted


@pytest.mark.parametrize("case", sorted(BY_HAND.keys() - set(DIFFERENCES)))
def test_something_foreign_in_the_tables_is_refused(case: str) -> None:
    """A table is not owned by its name alone: nothing is changed until the foreign part is gone."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "--dual-stack")
        scratch.nft(script=BY_HAND[case])
        changed = scratch.nft("list", "ruleset")
        generation = scratch.generation()
        for arguments in ([], ["--reconcile"], ["cleanup"]):
            refused = scratch.tool(*NATIVE, "--dual-stack", *arguments)
            assert refused.returncode == 1, refused.stderr
            assert "foreign" in refused.stderr
        assert (scratch.nft("list", "ruleset"), scratch.generation()) == (changed, generation)


def test_a_rule_that_moved_is_a_difference() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE)
        chain = scratch.nft("-a", "list", "chain", *NAT.split(), "istio-inbound")
        [handle] = re.findall(r"dport 15008 .*# handle (\d+)", chain)
        scratch.nft("delete", "rule", *NAT.split(), "istio-inbound", "handle", handle)
        scratch.nft("add", "rule", *NAT.split(), "istio-inbound", "tcp dport 15008 counter return")
        done = scratch.tool(*NATIVE, "diff", "--json")
        assert done.returncode == 3
        (part,) = json.loads(done.stdout)["parts"]
        moved = "istio-inbound: tcp dport 15008 counter return"
        assert (part["removed"], part["added"]) == ([moved], [moved])
