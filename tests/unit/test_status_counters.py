"""What status says about counters, and what has changed when it looks again."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest

from istio_iptables.change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, Live
from istio_iptables.rules.model import (
    Comment,
    Counters,
    Jump,
    Redirect,
    Rule,
)
from istio_iptables.status.changes import changes
from istio_iptables.status.counters import notes
from istio_iptables.status.report import CountedRule, Memory, Status, report
from istio_iptables.testing import FakeKernel
from tests.support.status import Location, counted, edited, every_location, in_place, only, rows, rules_for

# --- counters -----------------------------------------------------------------------------------


def remarks(live: Live) -> dict[str, str]:
    return {note.code: note.text for note in notes(report(live))}


@every_location
def test_nat_counts_connections(location: Location):
    assert (
        "the first packet of a connection alone"
        in remarks(in_place(rules_for(), location).live())["nat-counts-connections"]
    )


def test_nothing_has_come():
    found = remarks(in_place(rules_for()).live())
    assert "none has come to OUTPUT since" in found["nothing-captured-outbound"]
    assert "none has come to PREROUTING since" in found["nothing-captured-inbound"]


@pytest.mark.parametrize(
    ("location", "output", "istio_output"),
    [(IPTABLES_LEGACY, "OUTPUT", "ISTIO_OUTPUT"), (NFTABLES, "output", "istio-output")],
)
def test_all_was_let_go(location: Location, output: str, istio_output: str):
    wanted = rules_for(outbound_cidrs_excluded="10.0.0.0/8")
    live = in_place(wanted, location).live()
    live = counted(live, {(output, Jump(istio_output)): 5})
    live = live.replace(
        tables={w: tuple(map(_count_the_excluded, t)) for w, t in live.tables.items()},
        native=tuple(map(_count_the_excluded, live.native)),
    )
    words = remarks(live)["nothing-captured-outbound"]
    assert f"5 connections came to {istio_output} and were let go by `" in words
    assert words.endswith(
        "10.0.0.0/8 counter return` (4)" if location == NFTABLES else "-d 10.0.0.0/8 -j RETURN` (4)"
    )


def _count_the_excluded(table: Any) -> Any:
    def rule(given: Rule) -> Rule:
        found = "address=167772160" in repr(given.matches) or "167772160" in repr(given.matches)
        return given.replace(counters=Counters(4, 400)) if found else given

    return table.replace(chains=tuple(c.replace(rules=tuple(map(rule, c.rules))) for c in table.chains))


def test_what_is_captured_needs_no_explanation():
    live = in_place(rules_for()).live()
    live = counted(
        live, {("ISTIO_REDIRECT", Redirect(15001)): 1, ("ISTIO_INBOUND", Jump("ISTIO_IN_REDIRECT")): 1}
    )
    assert set(remarks(live)) == {"nat-counts-connections"}


def test_tproxy_captures_packets_in_mangle():
    found = remarks(in_place(rules_for(interception_mode="TPROXY")).live())
    assert found["nothing-captured-inbound"].startswith("ipv4 mangle: no inbound packet was captured")
    live = in_place(rules_for(interception_mode="TPROXY")).live()
    live = counted(live, {("ISTIO_INBOUND", Jump("ISTIO_TPROXY")): 1})
    assert "nothing-captured-inbound" not in remarks(live)


def test_where_nothing_leads_to_the_chain():
    live = edited(in_place(rules_for()), "OUTPUT")
    assert "no rule leads from OUTPUT to ISTIO_OUTPUT" in remarks(live)["nothing-captured-outbound"]


# --- looking again ------------------------------------------------------------------------------


def test_what_has_counted_between_two_looks():
    live = in_place(rules_for()).live()
    key = ("ISTIO_REDIRECT", Redirect(15001))
    before, after = report(counted(live, {key: 3})), report(counted(live, {key: 5}))
    change = only(changes(before, after))
    assert (change.chain, change.number, change.reason) == (
        "ISTIO_REDIRECT",
        1,
        "to the proxy's outbound listener",
    )
    assert (change.packets, change.packets_added, change.bytes, change.bytes_added) == (5, 2, 500, 200)
    assert changes(after, after) == []
    reset = only(changes(after, before))
    assert (reset.packets, reset.packets_added) == (3, 3)


@pytest.mark.parametrize(
    "after",
    [
        report(in_place(rules_for(inbound_ports="80")).live()),
        report(in_place(rules_for(), IPTABLES_NFT).live()),
        report(FakeKernel().live()),
        report(in_place(rules_for()).live()).replace(compared="equal"),
        report(in_place(rules_for()).live()).replace(unreadable=("ip nat",)),
    ],
)
def test_other_rules_are_no_change_of_counters(after: Status):
    assert changes(report(in_place(rules_for()).live()), after) is None


def test_settings_are_read_again_only_if_the_rules_are_others():
    memory = Memory()
    live = in_place(rules_for()).live()
    first = report(live, memory)
    again = report(counted(live, {("ISTIO_REDIRECT", Redirect(15001)): 5}), memory)
    assert again.places[0].settings is first.places[0].settings
    assert [row.rule.counters.packets for row in rows(again) if row.rule.counters.packets] == [5]
    other = report(in_place(rules_for(inbound_ports="80")).live(), memory)
    assert other.places[0].settings.settings["istio-inbound-ports"] == "80"


# --- what rich shows ----------------------------------------------------------------------------


def test_a_terminal_obeys_nothing_that_a_rule_says():
    """rich writes by itself, and strips no escape sequence."""
    from rich.console import Console

    from istio_iptables.cli.status_watch import _table, _text

    rule = Rule((Comment("\x1b[2Jgone"),), Redirect(15001), counters=Counters(7, 420), reason="\x9b1mwhy")
    shown = StringIO()
    console = Console(file=shown, width=200, force_terminal=True, color_system=None)
    counted_rule = CountedRule(1, rule, "-m comment --comment \x1b[2Jgone", rule.reason)
    chain = SimpleNamespace(name="OUTPUT", rules=(counted_rule,))
    table = SimpleNamespace(family="ipv4", name="nat", chains=(chain,))
    found = SimpleNamespace(places=(SimpleNamespace(location="x", tables=(table,)),))
    console.print(_table(found, [], 1.0, has_room=True))  # type: ignore[arg-type]  # it has what is asked
    console.print(_text("\x1b]0;title\x07"))
    assert "gone" in shown.getvalue()
    assert not {"\x1b", "\x9b", "\x07"} & set(shown.getvalue())
