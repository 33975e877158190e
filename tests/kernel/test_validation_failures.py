"""Validation by real connections (SPEC section 7): every way to fail."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence

import pytest

from tests.support.validating import BACKENDS, all_pass, lines, notes, restricted, said, verdicts, whose

from ..support.netns import ROOT, Pod

# --- failure ----------------------------------------------------------------------------------


def test_no_rules(pod: Pod) -> None:
    outcome = pod.tool("--dual-stack", "validate")
    assert outcome.code == 126
    assert verdicts(outcome) == {
        **all_pass(["IPv4", "IPv6"]),
        **{f"{what}, {family}": "FAIL" for what in ("inbound", "outbound") for family in ("IPv4", "IPv6")},
    }
    assert "no rule captures" in said(outcome, "inbound, IPv4")
    assert "no rule captures" in said(outcome, "outbound, IPv4")
    assert "no rules of istio-iptables are in place in any backend" in notes(outcome)
    assert "redirection does not work" in outcome.err
    proxy = restricted(pod, "--run-validation", "--skip-rule-apply")
    assert (proxy.code, verdicts(proxy)["inbound, IPv4"]) == (126, "FAIL")
    assert "could not be read" in notes(proxy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_port(pod: Pod, backend: str) -> None:
    assert pod.tool(*BACKENDS[backend], "-p", "16001", "-z", "16006").code == 0
    expected = {**all_pass(), "inbound, IPv4": "FAIL", "outbound, IPv4": "FAIL"}
    unused = pod.tool(*BACKENDS[backend], "validate")
    assert (unused.code, verdicts(unused)) == (126, expected)
    assert "a port other than 15006" in said(unused, "inbound, IPv4")
    assert "which redirect to the ports 16001, 16006: they differ from those of the settings" in notes(unused)
    pod.listen("other", tcp=[16001, 16006], uid=77)
    used = pod.tool(*BACKENDS[backend], "validate")
    assert (used.code, verdicts(used)) == (126, expected)
    for subject, port, right in (("inbound, IPv4", 16006, 15006), ("outbound, IPv4", 16001, 15001)):
        words = said(used, subject)
        assert f"arrived at port {port}, where a process of UID 77 listens" in words
        assert f"the settings say {right}" in words
    proxy = restricted(pod, *BACKENDS[backend], "--run-validation", "--skip-rule-apply")
    assert (proxy.code, verdicts(proxy)["inbound, IPv4"]) == (126, "FAIL")
    assert "arrived at port 16006" in said(proxy, "inbound, IPv4")


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
@pytest.mark.parametrize("variant", ["legacy", "nft"])
@pytest.mark.parametrize("who", ["uid", "gid"])
def test_a_missing_exemption(pod: Pod, who: str, variant: str, mode: str) -> None:
    """Only of the user, or only of the group: the other's does not hide it."""
    assert pod.tool("--force-iptables-binary", variant, "-m", mode).code == 0
    rule = f"-t nat -D ISTIO_OUTPUT -m owner --{who}-owner 1337 -j RETURN"
    pod.run([f"iptables-{variant}", *rule.split()])
    subject = f"outbound of the proxy's {who.upper()}, IPv4"
    outcome = pod.tool("--force-iptables-binary", variant, "-m", mode, "validate")
    assert (outcome.code, verdicts(outcome)) == (126, {**all_pass(), subject: "FAIL"})
    words = said(outcome, subject)
    assert "arrived at port 15001" in words
    assert f"exemption of the proxy's own traffic ({who.upper()} 1337) is missing" in words
    # Of another process that has the port it can be told, too.
    pod.listen("proxy", tcp=[15001, 15006], uid=1337)
    taken = pod.tool("--force-iptables-binary", variant, "-m", mode, "validate")
    assert (taken.code, verdicts(taken)) == (126, {**all_pass(), subject: "FAIL"})


def test_the_proxy_notices_that_it_is_not_exempt(pod: Pod) -> None:
    assert pod.tool("--force-iptables-binary", "legacy").code == 0
    for who in ("uid", "gid"):
        rule = f"-t nat -D ISTIO_OUTPUT -m owner --{who}-owner 1337 -j RETURN"
        pod.run(["iptables-legacy", *rule.split()])
    outcome = restricted(pod, "--run-validation", "--skip-rule-apply")
    assert outcome.code == 126
    assert verdicts(outcome)["outbound of the proxy, IPv4"] == "FAIL"


@pytest.mark.parametrize(
    ("settings", "table", "note"),
    [
        (BACKENDS["iptables-nft"], "ip nat", "rules of istio-iptables are in place"),
        (BACKENDS["native"], "inet istio-proxy-nat", "something foreign in it"),
    ],
    ids=["iptables-nft", "native"],
)
def test_rules_that_are_there_and_do_not_work(pod: Pod, settings: list[str], table: str, note: str) -> None:
    assert pod.tool(*settings, "--run-validation").code == 0
    pod.run(["nft", f"add table {table} {{ flags dormant ; }}"])
    outcome = pod.tool(*settings, "validate")
    assert outcome.code == 126
    assert verdicts(outcome) == {**all_pass(), "inbound, IPv4": "FAIL", "outbound, IPv4": "FAIL"}
    assert note in notes(outcome)
    assert restricted(pod, *settings, "--run-validation", "--skip-rule-apply").code == 126


def test_rules_of_another_backend_do_as_well_if_they_work(pod: Pod) -> None:
    assert pod.tool("--native-nftables").code == 0
    outcome = pod.tool("--force-iptables-binary", "legacy", "validate")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass())


def test_ipv6_rules_are_missing(pod: Pod) -> None:
    assert pod.tool().code == 0
    expected = {**all_pass(["IPv4", "IPv6"]), "inbound, IPv6": "FAIL", "outbound, IPv6": "FAIL"}
    outcome = pod.tool("--dual-stack", "validate")
    assert (outcome.code, verdicts(outcome)) == (126, expected)
    assert "the interface lo has no address ::6" in said(outcome, "inbound, IPv6")
    assert "no rule captures it" in said(outcome, "outbound, IPv6")
    pod.ip("address add ::6/128 dev lo nodad")
    outcome = pod.tool("--dual-stack", "validate")
    assert (outcome.code, verdicts(outcome)) == (126, expected)
    assert "no rule captures" in said(outcome, "inbound, IPv6")
    proxy = restricted(pod, "--dual-stack", "--run-validation", "--skip-rule-apply")
    assert (proxy.code, verdicts(proxy)["inbound, IPv6"]) == (126, "FAIL")


@pytest.mark.parametrize("routed", [True, False])
def test_the_address_of_inbound_ipv6_is_missing(pod: Pod, routed: bool) -> None:
    assert pod.tool("--dual-stack").code == 0
    pod.ip("address delete ::6/128 dev lo", *([] if routed else ["route delete default via fd88::1"]))
    for outcome in (
        pod.tool("--dual-stack", "validate"),
        restricted(pod, "--dual-stack", "--run-validation", "--skip-rule-apply"),
    ):
        assert outcome.code == 126
        assert [line.subject for line in lines(outcome) if line.status == "FAIL"] == ["inbound, IPv6"]
        assert "lo has no address ::6" in said(outcome, "inbound, IPv6")
        assert "ip -6 addr add ::6/128 dev lo nodad" in said(outcome, "inbound, IPv6")


def test_a_firewall_that_drops_what_was_redirected(pod: Pod) -> None:
    assert pod.tool().code == 0
    rules = (
        "add chain inet f in { type filter hook input priority 0; }; add rule inet f in tcp dport 15001 drop"
    )
    pod.run(["nft", f"add table inet f; {rules}"])
    outcome = pod.tool("validate")
    assert (outcome.code, verdicts(outcome)) == (126, {**all_pass(), "outbound, IPv4": "FAIL"})
    assert "redirected to 127.0.0.1:15001" in said(outcome, "outbound, IPv4")
    assert "something drops it" in said(outcome, "outbound, IPv4")


def test_a_service_that_answers_outside_is_not_the_proxy(pod: Pod) -> None:
    pod.client.listen("service", tcp=[15002])
    outcome = pod.tool("-i", "198.18.0.1/32", "validate")
    assert outcome.code == 126
    for subject in ("outbound, IPv4", "outbound of the proxy's UID, IPv4"):
        # Or no answer came: a TTL of 1 may not suffice.
        assert re.search(
            r" 198\.18\.0\.1:15002 .*( direct| no answer)$", said(outcome, subject), re.MULTILINE
        )
    assert verdicts(outcome)["outbound, IPv4"] == "FAIL"


@pytest.mark.parametrize("settings", [(), ("--dual-stack",)], ids=" ".join)
def test_a_port_that_connection_tracking_remembers(pod: Pod, settings: Sequence[str]) -> None:
    """There is no other one: the kernel gives the redirected connection a source port of its own choice."""
    pod.sysctl("net/ipv4/ip_local_port_range", "40000 40001")
    assert pod.tool(*settings).code == 0
    families = ("IPv4", "IPv6") if settings else ("IPv4",)
    for _ in range(4):
        outcome = pod.tool(*settings, "validate", "--probe-timeout", "60s")
        assert (outcome.code, verdicts(outcome)) == (0, all_pass(families)), outcome


def test_correct_rules_pass_however_often_they_are_tried(pod: Pod) -> None:
    """Connection tracking remembers earlier probes, and nat is not asked about what it takes for the same."""
    pod.sysctl("net/ipv4/ip_local_port_range", "40000 40199")
    assert pod.tool("--force-iptables-binary", "legacy").code == 0
    outcomes = [pod.tool("--force-iptables-binary", "legacy", "validate") for _ in range(30)]
    assert [(outcome.code, verdicts(outcome)) for outcome in outcomes] == [(0, all_pass())] * 30


def test_a_redirection_of_somebody_else_is_no_exemption(pod: Pod) -> None:
    assert pod.tool("--force-iptables-binary", "legacy").code == 0
    rule = "-t nat -I OUTPUT -p tcp ! -o lo -m owner --uid-owner 1337 -j REDIRECT --to-ports 9999"
    pod.run(["iptables-legacy", *rule.split()])
    outcome = pod.tool("--force-iptables-binary", "legacy", "validate")
    subject = "outbound of the proxy's UID, IPv4"
    assert (outcome.code, verdicts(outcome)) == (126, {**all_pass(), subject: "UNPROVEN"}), outcome
    assert "refused by this machine" in said(outcome, subject)
    proxy = restricted(pod, "--run-validation", "--skip-rule-apply")
    assert proxy.code == 126
    assert verdicts(proxy)["outbound of the proxy, IPv4"] == "UNPROVEN"


def test_a_refusal_of_the_first_router_is_no_redirection(pod: Pod) -> None:
    """It comes back as fast, over a veth, but another machine has sent it."""
    assert pod.tool().code == 0
    pod.client.ip("route add local 192.0.2.0/24 dev lo")
    outcome = pod.tool("validate")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass()), outcome
    assert "refused" in said(outcome, "outbound of the proxy's UID, IPv4")


@pytest.mark.parametrize(
    "settings", [["-x", "0.0.0.0/0"], ["-i", "10.0.0.0/8", "-x", "10.0.0.0/8"]], ids=" ".join
)
def test_where_all_is_excluded_nothing_arrives(pod: Pod, settings: list[str]) -> None:
    applied = pod.tool(*settings, "--run-validation")
    expected = {"inbound, IPv4": "PASS", "outbound, IPv4": "PASS"}
    assert (applied.code, verdicts(applied)) == (0, expected), applied
    assert pod.tool("--reconcile").code == 0
    still = pod.tool(*settings, "validate")
    assert (still.code, verdicts(still)["outbound, IPv4"]) == (126, "FAIL")


def test_rules_that_cannot_be_tried_are_compared(pod: Pod) -> None:
    tool = ("--force-iptables-binary", "legacy")
    assert pod.tool(*tool).code == 0
    equal = pod.tool(*tool, "validate")
    assert (equal.code, "rules of istio-iptables" in notes(equal)) == (0, False)
    pod.run(["iptables-legacy", "-t", "nat", "-D", "PREROUTING", "1"])
    outcome = pod.tool(*tool, "validate")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass())
    assert "differ from those of the settings (`diff`" in notes(outcome)
    assert "the inbound probe takes the path of the proxy's own calls to its pod" in notes(outcome)


def test_the_routes_of_tproxy_are_compared(pod: Pod) -> None:
    assert pod.tool("-m", "TPROXY").code == 0
    assert "not those" not in notes(pod.tool("-m", "TPROXY", "validate"))
    pod.ip("route flush table 133")
    outcome = pod.tool("-m", "TPROXY", "validate")
    assert outcome.code == 0
    assert "differ from those of the settings" in notes(outcome)


def test_somebody_elses_rule_in_the_way_of_right_rules(pod: Pod) -> None:
    tool = ("--force-iptables-binary", "legacy")
    assert pod.tool(*tool).code == 0
    pod.run(
        [
            "iptables-legacy",
            *("-t", "nat", "-I", "OUTPUT", "-p", "tcp", "-m", "owner", "--uid-owner", "0"),
            *("-j", "REDIRECT", "--to-ports", "9"),
        ]
    )
    outcome = pod.tool(*tool, "validate")
    assert (outcome.code, verdicts(outcome)["outbound, IPv4"]) == (126, "FAIL")
    words = said(outcome, "outbound, IPv4")
    assert "diff" not in words
    assert "rules of other programs" in words


def test_a_firewall_that_drops_all_that_is_sent(pod: Pod) -> None:
    assert pod.tool().code == 0
    pod.run(["iptables-legacy", "-A", "OUTPUT", "-j", "DROP"])
    outcome = pod.tool("validate", "--probe-timeout", "1s")
    assert outcome.code == 126
    for subject in ("inbound, IPv4", "outbound, IPv4"):
        assert "drop it" in said(outcome, subject)
        assert "look for rules of other programs" in said(outcome, subject)


# --- ports that another process has already ---------------------------------------------------


@pytest.mark.parametrize("uid", [1337, 0])
def test_a_proxy_that_is_running_already_is_probed_through(pod: Pod, uid: int) -> None:
    assert pod.tool("--dual-stack").code == 0
    proxy = pod.listen("proxy", tcp=[15001, 15006], uid=uid, gid=uid)
    both = ["IPv4", "IPv6"]
    outcome = pod.tool("--dual-stack", "validate")
    assert (outcome.code, verdicts(outcome)) == (0, all_pass(both)), outcome
    for family in both:
        words = said(outcome, f"inbound, {family}")
        assert f"15006 (UID {uid})" in words
    # It has been disturbed by one connection for each probe, and goes on working.
    arrived = [(a.port, (whose(a.original[0]), a.original[1])) for a in proxy.arrivals() if a.original]
    assert sorted(arrived) == [
        (15001, ("192.0.2.", 15002)),
        (15001, ("2001:db8::", 15002)),
        (15006, ("127.0.0.6", 15002)),
        (15006, ("::6", 15002)),
    ]
    assert restricted(pod, "--dual-stack", "--run-validation", "--skip-rule-apply").code == 0
    call = pod.connect("198.18.0.1", 80, uid=1000, gid=1000)
    assert call.arrival is not None
    assert call.arrival.port == 15001


HOLDER = """
import socket, sys
held = []
for port in (15001, 15006):
    made = socket.socket(socket.AF_INET6) if sys.argv[1] == "both" else socket.socket()
    made.bind(("", port))
    if sys.argv[2] != "none":
        made.listen(int(sys.argv[2]))
    held.append(made)
for called in sys.argv[3:]:
    calling = socket.create_connection(("127.0.0.1", int(called)))
    held.append(calling)
socket.socket(socket.AF_UNIX).bind("\\0ready")
print("holding", flush=True)
sys.stdin.read() or __import__("signal").pause()
"""


def hold(pod: Pod, *arguments: str) -> None:
    """Have a process take the proxy's ports and accept nothing."""
    pod.start([sys.executable, "-c", HOLDER, *arguments], uid=0, gid=1337)
    deadline = time.monotonic() + 30
    while "holding" not in pod.output():
        assert time.monotonic() < deadline, pod.output()
        time.sleep(0.01)


@pytest.mark.parametrize("family", ["ipv4", "both"])
def test_a_port_of_somebody_who_never_accepts(pod: Pod, family: str) -> None:
    """Redirection can still be proven, and nothing hangs."""
    assert pod.tool().code == 0
    hold(pod, family, "1")
    started = time.monotonic()
    outcome = pod.tool("validate", "--probe-timeout", "60s")
    assert time.monotonic() - started < 30
    assert (outcome.code, verdicts(outcome)) == (0, all_pass()), outcome
    assert "15006 (UID 0)" in said(outcome, "inbound, IPv4")


def test_a_port_whose_queue_is_full(pod: Pod) -> None:
    """A connection to it would not be answered either: what is not known is no success."""
    assert pod.tool().code == 0
    hold(pod, "ipv4", "0", "15001", "15006")
    started = time.monotonic()
    proxy = restricted(pod, "--run-validation", "--skip-rule-apply", "--probe-timeout", "60s")
    outcome = pod.tool("validate", "--probe-timeout", "60s")
    assert time.monotonic() - started < 30
    assert proxy.code == outcome.code == 126
    assert verdicts(proxy)["inbound, IPv4"] == verdicts(outcome)["inbound, IPv4"] == "UNPROVEN"
    assert verdicts(proxy)["outbound of the proxy, IPv4"] == "UNPROVEN"
    assert "does not accept" in said(outcome, "inbound, IPv4")
    assert "could not be proven" in outcome.err


def test_a_port_that_is_bound_but_not_listened_on(pod: Pod) -> None:
    assert pod.tool().code == 0
    hold(pod, "ipv4", "none")
    outcome = pod.tool("validate")
    assert outcome.code == 126
    assert set(verdicts(outcome).values()) == {"UNPROVEN"}
    assert "another process has it" in said(outcome, "inbound, IPv4")
    assert "see which process has port 15006" in said(outcome, "inbound, IPv4")


def test_a_port_that_may_not_be_listened_on(pod: Pod) -> None:
    pod.sysctl("net/ipv4/ip_unprivileged_port_start", 1024)
    assert pod.tool("-z", "80").code == 0
    outcome = restricted(pod, "-z", "80", "--run-validation", "--skip-rule-apply")
    assert (outcome.code, verdicts(outcome)["inbound, IPv4"]) == (126, "UNPROVEN")
    assert "port 80 cannot be listened on: Permission denied" in said(outcome, "inbound, IPv4")
    assert "NET_BIND_SERVICE" in said(outcome, "inbound, IPv4")


def test_several_validations_at_once(pod: Pod) -> None:
    assert pod.tool().code == 0
    command = (
        'for i in 1 2 3 4 5 6; do "$0" -m istio_iptables validate --probe-timeout 60s & p="$p $!"; done; '
    )
    command += 'for i in $p; do wait "$i" || echo "ended with $?"; done'
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = pod.run(["sh", "-c", command, sys.executable], check=False, env=environment)
    assert "ended with" not in done.stdout, done.stdout
    assert done.stdout.count("PASS") == 24
