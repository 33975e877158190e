"""The report of a validation, for people and as JSON."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from istio_iptables.validation import report as validation
from istio_iptables.validation.model import LOOPBACK, Identity, Observation, Result, Skipped, endpoint
from istio_iptables.validation.verdict import conclude, coverage, judge, may_change, skipped
from tests.support.probes import DIALLED, GONE, IN, OUT, OWN_P, OWN_Z, PROXY, THERE, UID, config_of, planned


def report() -> tuple[Result, ...]:
    owed = [skipped(item) for item in planned(may_become=False) if isinstance(item, Skipped)]
    left_out = [skipped(item) for item in planned(PROXY, may_become=False) if isinstance(item, Skipped)]
    passed = judge(IN, Observation("connected", arrived=15006, original=("127.0.0.6", 15002)), OWN_Z)
    failed = judge(UID, THERE.replace(arrived=15001), OWN_P)
    return passed, failed, owed[0], left_out[0]


def test_the_report_for_people_is_a_table_and_what_is_to_be_done_is_below_it():
    text = validation.text(report(), ["this is not covered"])
    table, failed, owed, left_out, note = text.split("\n\n")
    assert [line.split() for line in table.splitlines()] == [
        ["RESULT", "DIRECTION", "FAMILY", "FROM", "(UID:GID)", "TO", "MEANT", "FOR", "ARRIVED"],
        ["PASS", "inbound", "IPv4", "proxy", "1337:1337", "127.0.0.6:15002", "15006", "15006"],
        ["FAIL", "outbound", "IPv4", "proxy", "UID", "1337:0", "192.0.2.1:15002", "direct", "15001"],
        ["UNPROVEN", "inbound", "IPv4", "proxy", "-", "-", "-"],
        ["NOT", "TRIED", "outbound", "IPv4", "other", "-", "-", "-"],
    ]
    assert failed.startswith(
        "FAIL  outbound of the proxy's UID, IPv4: UID 1337, GID 0 dialled 192.0.2.1:15002: "
    )
    assert "endless loop" in failed
    assert failed.splitlines()[1].startswith("    what to do: ")
    assert owed.startswith("UNPROVEN  inbound, IPv4: this process (UID 0, GID 0) may not become")
    assert "SETUID and SETGID" in owed.splitlines()[1]
    assert left_out == "NOT TRIED  outbound, IPv4: only root can dial as a user other than the proxy"
    assert note == "note: this is not covered\n"
    assert "\x1b" not in text
    assert "\x1b[31mFAIL\x1b[0m " in validation.text(report(), [], colour=True)


def test_the_proof_of_everything_is_one_line_each():
    passed = [item for item in report() if item.status == "pass"]
    assert len(validation.text(passed, []).splitlines()) == 2


@given(st.integers(0, 2**32 - 2), st.ip_addresses(), st.integers(1, 65535), st.booleans())
def test_a_line_of_the_table_has_less_than_100_characters(
    number: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, dns: bool
):
    probe = UID.replace(
        identity=Identity(number, number),
        family=f"ipv{address.version}",
        address=str(address),
        port=port,
        dns=dns,
    )
    assume(str(address) != LOOPBACK[probe.family])  # that would be no redirection, and nothing to say
    seen = Observation("unanswered", sent_to=(LOOPBACK[probe.family], port), asked=True)
    for results in ((judge(probe, seen, OWN_P),), (*report(), judge(probe, seen, OWN_P))):
        table = validation.text(results, []).split("\n\n")[0]
        assert max(map(len, table.splitlines())) < 100
        assert len(table.splitlines()) == 1 + len(results)
    whole = validation.text((judge(probe, seen, OWN_P),), [])
    assert f"UID {number}, GID {number} dialled {endpoint(str(address), port)}" in whole


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["silent", "silent", "pass"], "pass"),
        (["silent", "silent", "silent"], "fail"),
        (["silent", "silent"], "unproven"),  # the time was up
        (["silent", "late", "silent"], "unproven"),
        (["elsewhere", "late"], "fail"),
        (["silent", "elsewhere", "silent"], "fail"),
        (["late"], "unproven"),
    ],
    ids=str,
)
def test_a_silence_counts_only_if_every_try_met_it(statuses: list[str], status: str):
    """SPEC section 7: what was not answered in time is dialled again or UNPROVEN, but never FAIL."""
    seen = {
        "silent": GONE.replace(asked=True),
        "elsewhere": GONE.replace(asked=True, sent_to=("127.0.0.1", 15009)),
        "late": Observation("late"),
        "pass": THERE.replace(arrived=15001, original=DIALLED),
    }
    found = conclude([judge(OUT, seen[name], OWN_P) for name in statuses], 3)
    assert found.status == status
    assert found.remedy or status == "pass"


def test_what_was_seen_says_more_than_that_the_time_was_up_then():
    dropped = GONE.replace(certain=False)
    found = conclude([judge(OUT, seen, OWN_P) for seen in (dropped, Observation("late"))], 3)
    assert (found.status, found.observation) == ("unproven", dropped)


@pytest.mark.parametrize(
    ("seen", "again"),
    [
        (Observation("late"), True),
        (Observation("unclear"), True),
        (GONE.replace(certain=False), True),
        (GONE, False),
        (Observation("cannot-become"), False),
    ],
    ids=str,
)
def test_what_the_machine_was_too_slow_for_is_dialled_again(seen: Observation, again: bool):
    assert may_change(judge(OUT, seen, OWN_P)) is again


def test_the_report_for_programs():
    document = json.loads(validation.json_text(report(), ["a note"], succeeded=False))
    assert (document["succeeded"], document["notes"]) == (False, ["a note"])
    passed, failed, owed, left_out = document["probes"]
    statuses = [entry["status"] for entry in document["probes"]]
    assert statuses == ["pass", "fail", "unproven", "not-probed"]
    assert passed["direction"] == "inbound"
    assert (passed["uid"], passed["gid"], passed["address"], passed["port"]) == (
        1337,
        1337,
        "127.0.0.6",
        15002,
    )
    assert passed["observed"]["original"] == ["127.0.0.6", 15002]
    assert (failed["direction"], failed["kind"], failed["arrives"]) == ("outbound", "exempt-uid", False)
    assert failed["observed"]["arrived"] == 15001
    assert failed["remedy"]
    assert owed["observed"] is left_out["observed"] is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "PREROUTING, which redirect them, are not tested"),
        ({"istio_inbound_interception_mode": "TPROXY"}, "(TPROXY), are not tested"),
        ({"istio_inbound_ports": ""}, "no inbound port is captured"),
    ],
    ids=str,
)
def test_what_is_not_covered_is_said(settings: dict[str, Any], words: str):
    assert words in " ".join(coverage(config_of(**settings)))
