"""Validation by real connections (SPEC section 7): success where redirection works, and who it takes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import pytest

from tests.support.validating import (
    BACKENDS,
    FAMILIES,
    QUIET,
    all_pass,
    lines,
    restricted,
    said,
    verdicts,
    whose,
)

from ..support.netns import ROOT, Namespace, Outcome, Pod, why_no_user_namespace
from ..support.validating import limited

# --- success ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_success_as_root_after_applying_and_as_the_proxy(
    new_pod: Callable[..., Pod], backend: str, family: str
) -> None:
    how, settings, families = FAMILIES[family]
    pod = new_pod(**how)
    for mode in ("REDIRECT", "TPROXY"):
        words = [*BACKENDS[backend], *settings, "-m", mode]
        wanted = all_pass(families)
        no_way = family == "ipv6"  # nothing but loopback has an IPv4 address, so nothing is sent out
        if no_way:
            wanted = {k: v for k, v in wanted.items() if k != "outbound, IPv4" and not k.endswith("ID, IPv4")}
            wanted["outbound, IPv4"] = "NOT TRIED"
        applied = pod.tool(*words, "--reconcile", "--run-validation")
        assert (applied.code, verdicts(applied)) == (0, wanted), applied
        again = pod.tool(*words, "--run-validation", QUIET)  # nothing to do, but something to prove
        assert (again.code, verdicts(again)) == (0, wanted), again
        proxy = restricted(pod, *words, "--run-validation", "--skip-rule-apply")
        assert proxy.code == 0, proxy
        assert verdicts(proxy) == {
            **{f"inbound, {f}": "PASS" for f in families},
            **{f"outbound, {f}": "NOT TRIED" for f in families},
            **{f"outbound of the proxy, {f}": "PASS" for f in families if not (no_way and f == "IPv4")},
        }


def test_what_is_dialled_where_it_arrives_and_that_nothing_is_left_behind(pod: Pod) -> None:
    pod.tool("--dual-stack")
    outcome = pod.tool("--dual-stack", "validate", "--json", "--iptables-probe-port", "17")
    assert outcome.code == 0, outcome
    document = json.loads(outcome.out)
    assert document["succeeded"] is True
    assert [
        (p["kind"], p["uid"], p["gid"], whose(p["address"]), p["port"], p["observed"]["arrived"])
        for p in document["probes"]
    ] == [
        ("inbound", 1337, 1337, "127.0.0.6", 17, 15006),
        ("inbound", 1337, 1337, "::6", 17, 15006),
        ("outbound", 0, 0, "192.0.2.", 17, 15001),
        ("exempt-uid", 1337, 0, "192.0.2.", 17, None),
        ("exempt-gid", 0, 1337, "192.0.2.", 17, None),
        ("outbound", 0, 0, "2001:db8::", 17, 15001),
        ("exempt-uid", 1337, 0, "2001:db8::", 17, None),
        ("exempt-gid", 0, 1337, "2001:db8::", 17, None),
    ]
    arrived = [p for p in document["probes"] if p["arrives"]]
    assert len(arrived) == 4
    assert [p["observed"]["original"] for p in arrived] == [[p["address"], 17] for p in arrived]
    # Not even a connection in TIME_WAIT is in the way of the proxy that is to listen here next.
    sockets = pod.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"]).stdout
    assert [line for line in sockets.splitlines() if f":{15001:04X}" in line or f":{15006:04X}" in line] == []
    processes = pod.run(["ip", "netns", "pids", pod.name]).stdout.split()
    assert len(processes) == 2  # the helper, and ip itself


@pytest.mark.parametrize(
    "settings",
    [
        ["-u", "2000,1337", "-g", "3000"],
        ["-i", "198.18.0.0/15", "-x", "198.18.0.0/16"],
        ["-i", "", "-q", "8080"],
        ["-i", ""],
        ["-c", "eth0"],
        ["-o", "15002", "-e", "15003"],
        ["-b", ""],
        ["-i", "127.1.0.0/16"],
        ["--redirect-dns", "--capture-all-dns", "--drop-invalid", "--compact"],
        ["-p", "16001", "-z", "16006", "--iptables-probe-port", "16001"],
    ],
    ids=" ".join,
)
def test_settings_of_many_kinds_are_validated(pod: Pod, settings: list[str]) -> None:
    applied = pod.tool(*settings, "--run-validation", QUIET)
    assert applied.code == 0, applied
    assert {line.status for line in lines(applied)} == {"PASS"}


def test_what_is_no_longer_to_be_captured_and_still_is(pod: Pod) -> None:
    assert pod.tool().code == 0
    outcome = pod.tool("-i", "", "validate")
    assert (outcome.code, verdicts(outcome)) == (126, {"inbound, IPv4": "PASS", "outbound, IPv4": "FAIL"})
    assert "sent to port 15001, but the settings leave it alone" in said(outcome, "outbound, IPv4")


@pytest.mark.parametrize("variable", ["ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"])
def test_groups_are_validated(pod: Pod, variable: str) -> None:
    applied = pod.tool("--run-validation", QUIET, env={variable: "0,4000"})
    assert (applied.code, verdicts(applied)) == (0, all_pass()), applied
    who = "other 0:0 " if variable.endswith("GROUPS") else "other 0:65534 "
    assert who in said(applied, "outbound, IPv4")


def test_without_a_route_there_is_nothing_to_probe_outbound(namespace: Namespace) -> None:
    applied = namespace.tool("--run-validation")
    assert applied.code == 0, applied
    assert verdicts(applied) == {"inbound, IPv4": "PASS", "outbound, IPv4": "NOT TRIED"}
    assert "no route" in said(applied, "outbound, IPv4")


def test_another_network_namespace_is_validated(pod: Pod) -> None:
    assert pod.tool().code == 0
    outcome = pod.client.tool("--network-namespace", pod.name, "validate")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass())
    assert pod.client.tool("validate").code == 126


def test_who_started_it_may_ignore_children(pod: Pod) -> None:
    assert pod.tool().code == 0
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(*eval(sys.argv[1]))"
    )
    command = [sys.executable, "-m", "istio_iptables", "validate"]
    words = [sys.executable, "-c", ignoring, repr((sys.executable, command))]
    done = pod.run(words, check=False, env={"PYTHONPATH": str(ROOT)})
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert (outcome.code, verdicts(outcome)) == (0, all_pass()), outcome


def test_cleanup_validates_nothing(pod: Pod) -> None:
    done = pod.tool("cleanup", "--run-validation")
    assert (done.code, done.out) == (0, "")
    assert "--run-validation has no effect" in done.err


# --- who may not become the proxy -------------------------------------------------------------


@pytest.mark.parametrize("capabilities", ["", ",+setuid", ",+setgid"])
def test_root_that_may_not_become_the_proxy(pod: Pod, capabilities: str) -> None:
    """As in Istio's init container, which has NET_ADMIN and NET_RAW alone."""
    outcome = limited(pod, f"-all,+net_admin,+net_raw{capabilities}", "--run-validation")
    assert outcome.code == 126, outcome
    assert verdicts(outcome) == {
        "inbound, IPv4": "UNPROVEN",
        "outbound, IPv4": "PASS",
        "outbound of the proxy, IPv4": "UNPROVEN",
    }
    words = said(outcome, "inbound, IPv4")
    assert "this process (UID 0, GID 0) may not become the proxy (UID 1337, GID 1337)" in words
    assert "add the capabilities SETUID and SETGID" in words
    assert "validate as UID 1337" in words
    assert "redirection could not be proven to work" in outcome.err
    assert "does not work" not in outcome.err
    assert pod.tool("validate").code == 0  # the rules are in place


def test_root_that_may_become_the_proxy_needs_nothing_more(pod: Pod) -> None:
    assert pod.tool().code == 0
    outcome = limited(pod, "-all,+setuid,+setgid", "--skip-rule-apply", "--run-validation")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass()), outcome


def test_a_user_that_cannot_be_had(pod: Pod) -> None:
    """A user namespace that knows root alone: the kernel refuses to become anybody else."""
    if why := why_no_user_namespace():
        pytest.skip(f"needs a user namespace: {why}")
    assert pod.tool().code == 0
    words = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "istio_iptables", "validate"]
    done = pod.run(words, check=False, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]})
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert outcome.code == 126, outcome
    assert verdicts(outcome)["inbound, IPv4"] == "UNPROVEN"
    assert "cannot become UID 1337" in said(outcome, "inbound, IPv4")


# --- time -------------------------------------------------------------------------------------


def test_the_time_is_bounded_where_nothing_is_answered(pod: Pod) -> None:
    """Even what is sent over lo to see that it comes back is lost, so nothing can be told early."""
    assert pod.tool().code == 0
    pod.run(
        ["nft", "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }"]
    )
    for outcome, seconds in (timed(restricted, pod, "--skip-rule-apply"), timed(Pod.tool, pod)):
        assert outcome.code == 126
        assert "PASS" not in verdicts(outcome)["inbound, IPv4"]
        assert seconds < 15
    proxy, _ = timed(restricted, pod, "--skip-rule-apply")
    assert verdicts(proxy)["outbound of the proxy, IPv4"] == "UNPROVEN"


def timed(run: Callable[..., Outcome], pod: Pod, *arguments: str) -> tuple[Outcome, float]:
    started = time.monotonic()
    outcome = run(pod, "--run-validation", "--probe-timeout", "1s", *arguments)
    return outcome, time.monotonic() - started


def test_no_time_at_all_is_no_success(pod: Pod) -> None:
    assert pod.tool().code == 0
    outcome = pod.tool("validate", "--probe-timeout", "1ns")
    assert outcome.code == 126
    assert set(verdicts(outcome).values()) == {"UNPROVEN"}
    assert "--probe-timeout" in said(outcome, "inbound, IPv4")


def test_nobody_outside_meets_the_listeners(pod: Pod) -> None:
    assert pod.tool("-b", "").code == 0
    slow_down(pod)  # so that there is time to look
    words = ["-m", "istio_iptables", "-b", "", "validate", "--probe-timeout", "60s"]
    pod.start(["env", f"PYTHONPATH={ROOT}", sys.executable, *words])
    pod.wait_for(15001, 15006)
    for port in (15001, 15006):
        assert pod.client.connect("10.88.0.2", port).error == "refused"


def slow_down(pod: Pod) -> None:
    """Let a thousand bytes a second through lo: a segment without data takes a twentieth of one."""
    words = "tc qdisc add dev lo root tbf rate 8kbit burst 150 latency 60s"
    pod.run(words.split())


def test_a_slow_machine_changes_no_verdict(pod: Pod) -> None:
    """Whatever is sent over lo takes its time: what is redirected there must not pass for what is not."""
    assert pod.tool("--force-iptables-binary", "legacy").code == 0
    slow_down(pod)
    outcome = pod.tool("validate", "--probe-timeout", "60s")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass()), outcome
    for who in ("uid", "gid"):
        rule = f"-t nat -D ISTIO_OUTPUT -m owner --{who}-owner 1337 -j RETURN"
        pod.run(["iptables-legacy", *rule.split()])
    for outcome in (
        pod.tool("validate", "--probe-timeout", "60s"),
        restricted(pod, "--run-validation", "--skip-rule-apply", "--probe-timeout", "60s"),
    ):
        assert outcome.code == 126
        exemptions = {v for k, v in verdicts(outcome).items() if k.startswith("outbound of the proxy")}
        assert exemptions == {"FAIL"}


def test_the_commands_of_the_documentation(pod: Pod) -> None:
    text = (ROOT / "docs" / "validation.md").read_text()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("    istio-iptables ")]
    assert len(commands) == 4
    assert pod.tool("--dual-stack").code == 0
    for command in commands:
        outcome = pod.tool(*command)
        assert outcome.code == 0, outcome
        assert outcome.out.count('"pass"' if "--json" in command else "PASS") == 8
