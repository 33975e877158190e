"""Verdicts on what was seen of the probes: FAIL rests on evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from istio_iptables.validation.live import probes
from istio_iptables.validation.model import Listening, Observation, Probe, succeeded
from istio_iptables.validation.verdict import judge
from tests.support.cases import all_cases
from tests.support.probes import (
    DIALLED,
    GID,
    GONE,
    IN,
    IN6,
    OUT,
    OWN_P,
    OWN_Z,
    QUERY,
    QUERY_OF_UID,
    ROOT,
    STUCK_P,
    TAKEN_P,
    TAKEN_Z,
    THERE,
    UID,
    planned,
    results,
)


@all_cases(
    ("probe", "seen", "listening", "status", "words"),
    [
        # it arrives where it has to
        (
            IN,
            Observation("connected", arrived=15006, original=("127.0.0.6", 15002)),
            OWN_Z,
            "pass",
            [
                "arrived at port 15006",
                "original destination 127.0.0.6:15002",
                "the proxy's own call to its pod",
            ],
        ),
        (OUT, THERE.replace(arrived=15001, original=DIALLED), OWN_P, "pass", ["all other outbound traffic"]),
        (IN, Observation("connected", arrived=15006), TAKEN_Z, "pass", ["UID 1337 listens already"]),
        # it arrives, but the proxy would not know where it was going
        (IN, Observation("connected", arrived=15006), OWN_Z, "fail", ["not readable", "SO_ORIGINAL_DST"]),
        (
            OUT,
            THERE.replace(arrived=15001, original=("10.0.0.9", 1)),
            OWN_P,
            "fail",
            ["original destination 10.0.0.9:1", "SO_ORIGINAL_DST"],
        ),
        # no rules
        (
            IN,
            Observation("refused"),
            OWN_Z,
            "fail",
            ["was refused", "no rule captures it", "`istio-iptables diff`"],
        ),
        (
            IN,
            Observation("refused", sent_to=("127.0.0.6", 15002)),
            OWN_Z,
            "fail",
            ["no rule captures IPv4 inbound traffic"],
        ),
        (
            OUT,
            GONE.replace(asked=True),
            OWN_P,
            "fail",
            ["left by eth0", "no rule captures IPv4 outbound traffic, or something drops", "no entry"],
        ),
        (
            OUT,
            GONE.replace(asked=True, sent_to=DIALLED, certain=False),
            OWN_P,
            "fail",
            ["no rule captures IPv4 outbound traffic"],
        ),
        # a silence alone is no evidence: this process may not ask connection tracking
        (OUT, GONE, OWN_P, "unproven", ["left by eth0", "where it went is not known", "NET_ADMIN"]),
        # nor is one that may be the machine's: what was sent later had not been received yet
        (
            OUT,
            GONE.replace(asked=True, sent_to=("127.0.0.1", 15001), certain=False),
            OWN_P,
            "unproven",
            ["not answered in time"],
        ),
        (OUT, GONE.replace(asked=True, certain=False), OWN_P, "unproven", ["not answered in time"]),
        (OUT, Observation("unclear"), TAKEN_P, "unproven", ["may be this one or another's"]),
        (UID, Observation("unclear"), TAKEN_P, "unproven", ["may be this one or another's"]),
        (OUT, THERE, OWN_P, "fail", ["arrived outside", "no rule captures IPv4 outbound"]),
        # another port
        (
            IN,
            Observation("connected", arrived=15007, listener_uid=5),
            OWN_Z,
            "fail",
            ["arrived at port 15007, where a process of UID 5 listens", "the settings say 15006"],
        ),
        (IN, Observation("connected", arrived=15002), OWN_Z, "fail", ["no rule captures IPv4 inbound"]),
        (
            OUT,
            GONE.replace(sent_to=("127.0.0.1", 15009)),
            OWN_P,
            "fail",
            ["redirected to 127.0.0.1:15009", "the settings say 15001", "--envoy-port"],
        ),
        # redirected, but dropped on the way
        (
            OUT,
            GONE.replace(sent_to=("127.0.0.1", 15001)),
            OWN_P,
            "fail",
            ["redirected to 127.0.0.1:15001", "something drops it"],
        ),
        # IPv6 without its address
        (
            IN6,
            Observation("error", "Cannot assign requested address", address_is_here=False),
            OWN_Z,
            "fail",
            ["the interface lo has no address ::6", "--dual-stack", "ip -6 addr add ::6/128 dev lo nodad"],
        ),
        (IN6, Observation("unanswered", address_is_here=False), OWN_Z, "fail", ["has no address ::6"]),
        (OUT, Observation("error", "Network is unreachable"), OWN_P, "fail", ["Network is unreachable"]),
        # slow, or stuck, or not to be told
        (OUT, GONE.replace(certain=False), OWN_P, "unproven", ["not answered in time", "--probe-timeout"]),
        (OUT, Observation("late"), OWN_P, "unproven", ["the time was up", "--probe-timeout"]),
        (OUT, GONE, STUCK_P, "unproven", ["does not accept", "port 15001"]),
        (OUT, Observation("reset"), TAKEN_P, "unproven", ["reset it before"]),
        (
            OUT,
            THERE.replace(arrived=15001),
            Listening(15001, problem="Permission denied"),
            "unproven",
            ["Permission"],
        ),
        (
            IN,
            Observation("cannot-become", "Invalid argument"),
            OWN_Z,
            "unproven",
            ["UID 1337", "Invalid argument"],
        ),
        (IN, Observation("no-dialler", "OSError: x"), OWN_Z, "unproven", ["OSError: x"]),
        # the proxy's own
        (UID, GONE, OWN_P, "pass", ["left by eth0", "not sent to port 15001", "(UID 1337)"]),
        (GID, THERE, OWN_P, "pass", ["arrived outside", "(GID 1337)"]),
        (UID, Observation("refused", address_is_here=False), OWN_P, "pass", ["was refused"]),
        (
            UID,
            Observation("refused", address_is_here=False, refused_here=True),
            OWN_P,
            "unproven",
            ["refused by this machine", "another rule redirects or rejects it"],
        ),
        (
            OUT,
            GONE.replace(certain=False),
            OWN_P,
            "unproven",
            ["something drops it", "rules of other programs"],
        ),
        (UID, GONE, TAKEN_P, "pass", []),
        (
            UID,
            THERE.replace(arrived=15001),
            OWN_P,
            "fail",
            ["exemption", "(UID 1337)", "endless loop", "--proxy-uid"],
        ),
        (GID, THERE.replace(arrived=15001), TAKEN_P, "fail", ["exemption", "(GID 1337)", "--proxy-gid"]),
        (UID, THERE.replace(arrived=15009), OWN_P, "fail", ["arrived at port 15009", "exemption"]),
        (UID, GONE.replace(sent_to=("127.0.0.1", 15001)), STUCK_P, "fail", ["redirected to 127.0.0.1:15001"]),
        (UID, GONE.replace(sent_to=DIALLED), OWN_P, "pass", []),
        # no success without a proof
        (UID, GONE, STUCK_P, "unproven", ["does not accept"]),
        (UID, GONE.replace(certain=False), OWN_P, "unproven", ["it is not known whether", "--probe-timeout"]),
        (UID, Observation("late"), OWN_P, "unproven", ["the time was up"]),
        (UID, Observation("reset"), TAKEN_P, "unproven", ["reset it before"]),
        (UID, Observation("error", "Network is unreachable"), OWN_P, "unproven", ["nothing was sent"]),
        (UID, GONE, Listening(15001, problem="x"), "unproven", ["port 15001 cannot be listened on: x"]),
    ],
    ids=str,
)
def test_verdicts(probe: Probe, seen: Observation, listening: Listening, status: str, words: Sequence[str]):
    result = judge(probe, seen, listening)
    assert result.status == status
    said = f"{result.where}: {result.meaning} / {result.remedy}"
    for word in words:
        assert word in said
    assert bool(result.remedy) or status == "pass" or seen.state in ("no-dialler", "error")


def test_the_proxys_own_call_to_a_captured_loopback_address_may_be_inbound():
    """The rules send it to the inbound port: that is no missing exemption."""
    [_, _, probe, _] = planned(istio_service_cidr="127.1.0.0/16")
    assert isinstance(probe, Probe)
    assert (probe.kind, probe.elsewhere) == ("exempt-uid", 15006)
    seen = Observation("connected", arrived=15006)
    assert judge(probe, seen, OWN_P).status == "pass"
    assert judge(probe, seen.replace(arrived=15001), OWN_P).status == "fail"
    assert judge(probe, seen.replace(arrived=15009), OWN_P).status == "fail"


def test_what_is_not_captured_and_arrives_all_the_same():
    [probe] = [item for item in planned(istio_service_cidr="") if item.kind == "outbound"]
    assert isinstance(probe, Probe)
    result = judge(probe, THERE.replace(arrived=15001), OWN_P)
    assert result.status == "fail"
    assert "sent to port 15001, but the settings leave it alone" in result.meaning


@pytest.mark.parametrize(
    ("probe", "seen"),
    [
        (IN, Observation("refused")),
        (OUT, GONE.replace(asked=True, sent_to=DIALLED)),
        (UID, THERE.replace(arrived=15001)),
    ],
    ids=str,
)
def test_where_the_rules_are_known_to_be_right_nobody_is_sent_to_compare_them(
    probe: Probe, seen: Observation
):
    assert "diff" in judge(probe, seen, OWN_P).remedy
    result = judge(probe, seen, OWN_P, in_place=True)
    assert result.status == "fail"
    assert "diff" not in result.remedy
    assert "rules of other programs that interfere" in result.remedy
    assert "no rule captures IPv4" not in result.meaning


@pytest.mark.parametrize(
    ("statuses", "success"),
    [
        (["pass"], True),
        (["pass", "not-probed"], True),
        (["pass", "unproven"], False),
        (["pass", "fail"], False),
        (["not-probed"], False),  # nothing was proven
        ([], False),
    ],
)
def test_success_is_a_proof_and_nothing_owed(statuses: list[str], success: bool):
    assert succeeded(results(*statuses)) is success


@pytest.mark.parametrize(("later", "status"), [(7, "fail"), (8, "unproven")])
def test_a_refusal_is_no_evidence_if_the_listener_has_ended_since(
    later: int, status: str, monkeypatch: pytest.MonkeyPatch
):
    """As another validation does, which had the proxy's port."""

    class OfAnother:
        """Listeners of which another process has the one that is asked for."""

        def ready(self, probe: Probe, until: float) -> Listening:
            return TAKEN_P.replace(inode=7)

        def at(self, probe: Probe) -> Listening:
            return TAKEN_P.replace(inode=later)

        def forget(self) -> None:
            pass

    refused = Observation("refused", address_is_here=False, refused_here=True)
    monkeypatch.setattr(probes, "observe", lambda *_: refused)
    monkeypatch.setattr(probes, "PAUSE", 0)
    tries = probes._Tries(OUT, ROOT, OfAnother(), in_place=True)  # type: ignore[arg-type]
    assert tries.result(time.monotonic() + 600).status == status
    assert tries.may_change == (status == "unproven")


AGENT = Listening(15053)


@all_cases(
    ("probe", "seen", "listening", "status", "words"),
    [
        (
            QUERY,
            Observation("connected", arrived=15053, original=("10.96.0.10", 53), asked=True),
            AGENT,
            "pass",
            ["queries are sent to the agent", "10.96.0.10:53"],
        ),
        (QUERY, Observation("connected", arrived=15053), AGENT, "pass", ["only a process with NET_ADMIN"]),
        (
            QUERY,
            Observation("connected", arrived=15053, original=("10.96.0.11", 53), asked=True),
            AGENT,
            "fail",
            ["the agent does not learn", "10.96.0.11:53"],
        ),
        (
            QUERY,
            GONE.replace(asked=True, sent_to=("10.96.0.10", 53)),
            AGENT,
            "fail",
            ["no rule captures IPv4 DNS"],
        ),
        (QUERY, GONE, AGENT, "unproven", ["NET_ADMIN"]),
        (QUERY_OF_UID, GONE, AGENT, "pass", ["not sent to port 15053"]),
        (
            QUERY_OF_UID,
            Observation("connected", arrived=15053, asked=True),
            AGENT,
            "fail",
            ["its queries come back to the agent"],
        ),
        (
            QUERY_OF_UID,
            GONE.replace(asked=True, sent_to=("127.0.0.1", 15053)),
            AGENT.replace(taken=True),
            "fail",
            ["(UID 1337) is missing"],
        ),
        (QUERY_OF_UID, GONE, AGENT.replace(taken=True), "not-probed", ["another process listens"]),
        # docker's rule for its server: what is redirected to the agent would be sent to 127.0.0.1
        (
            QUERY_OF_UID,
            GONE.replace(asked=True, sent_to=("127.0.0.11", 41053)),
            AGENT,
            "pass",
            ["a rule of another program sends it there"],
        ),
        (
            QUERY_OF_UID.replace(protocol="tcp"),
            Observation("connected", arrived=41053, arrived_at="127.0.0.11", listener_uid=65534),
            AGENT,
            "pass",
            ["a rule of another program sends it there"],
        ),
        (
            QUERY_OF_UID.replace(protocol="tcp"),
            Observation("connected", arrived=41053, arrived_at="127.0.0.1", listener_uid=65534),
            AGENT,
            "fail",
            ["(UID 1337) is missing"],
        ),
        (
            QUERY,
            GONE.replace(asked=True, sent_to=("127.0.0.11", 41053)),
            AGENT,
            "fail",
            ["a rule of another program sends it to 127.0.0.11:41053", "look for rules of other programs"],
        ),
    ],
    ids=str,
)
def test_verdicts_on_dns(
    probe: Probe, seen: Observation, listening: Listening, status: str, words: Sequence[str]
):
    result = judge(probe, seen, listening)
    assert result.status == status
    said = f"{result.where}: {result.meaning} / {result.remedy}"
    for word in words:
        assert word in said
