"""What the matches and targets of this tool's native tables mean, one by one.

Whole tables are held against those of iptables in test_translate.py, and against what nft prints of them in
tests/kernel/test_nft_meaning.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from istio_iptables.interpreter import nft_rules
from istio_iptables.interpreter.action import Unknown
from istio_iptables.interpreter.algebra import value_of
from istio_iptables.interpreter.condition import Unmodelled
from istio_iptables.interpreter.packet import UDP
from istio_iptables.rules import model
from istio_iptables.rules.model import Match
from istio_iptables.rules.nftables import model as nftables
from tests.support.nft_meaning import IPV6, PACKET

OWNER = nftables.Owners("user", ((1337, 1337),))
OTHERS = nftables.Owners("user", ((1337, 1337),), negated=True)
TEN = nftables.Addresses("destination", "ipv4", ((0x0A000000, 0x0AFFFFFF),), negated=True)
PORT = nftables.Ports("destination", "tcp", ((443, 443),), negated=True)


@pytest.mark.parametrize(
    ("match", "changes", "expected"),
    [
        pytest.param(OWNER, {"uid": 1337, "gid": 1}, True, id="the user"),
        pytest.param(OTHERS, {"uid": 1, "gid": 1}, True, id="another user"),
        pytest.param(OTHERS, {}, False, id="no socket, so no other user"),
        pytest.param(TEN, {"destination": 1}, True, id="another address"),
        pytest.param(TEN, IPV6, False, id="another family is no other address"),
        pytest.param(PORT, {}, True, id="another port"),
        pytest.param(PORT, {"protocol": UDP}, False, id="another protocol is no other port"),
        pytest.param(nftables.NfProto("ipv6"), IPV6, True, id="the family"),
        pytest.param(nftables.NfProto("ipv6"), {}, False, id="the other family"),
        pytest.param(model.ConnectionMark(0), {"state": "INVALID"}, False, id="no connection, no mark"),
        pytest.param(model.ForeignMatch(("meta time",)), {}, None, id="foreign"),
    ],
)
def test_a_match_holds_for_the_right_packets(
    match: Match, changes: dict[str, Any], expected: bool | None
) -> None:
    assert value_of(nft_rules.condition(match), PACKET.replace(**changes)) is expected


def test_a_foreign_target_may_end_the_rule_or_the_way() -> None:
    condition, action = nft_rules.action(model.ForeignTarget(("queue", "num 1")))
    assert (condition, action) == (Unmodelled("queue num 1"), Unknown("queue num 1"))


def test_a_table_is_where_its_hooks_are_and_names_its_rules() -> None:
    hook = nftables.Hook("nat", "output", -100, "drop")
    rule = model.Rule((), model.RETURN, "a reason", counters=model.Counters(1, 2))
    table = nft_rules.compiled(
        nftables.NativeTable("t", (nftables.NativeChain("c", hook, (rule,)),)), lambda rule: "its text"
    )
    [base] = table.bases
    assert (base.chain, base.hook, base.priority, base.kind, base.drops) == ("c", "output", -100, "nat", True)
    [found] = table.rules("c")
    assert (found.number, found.text, found.reason, found.counters.packets) == (1, "its text", "a reason", 1)
    assert (table.title, sorted(table.families), table.ours) == (
        "nftables table inet t",
        ["ipv4", "ipv6"],
        True,
    )
