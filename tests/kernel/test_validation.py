"""Validation by real connections (SPEC section 7): success where redirection works, and every way to fail."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from ..support import everyone
from ..support.netns import ROOT, Namespace, Outcome, Pod, why_no_user_namespace

BACKENDS = {
    "libiptc": [],
    "iptables-nft": ["--force-iptables-binary", "nft"],
    "native": ["--native-nftables"],
}
FAMILIES = {
    "ipv4": ({"ipv6": False}, [], ["IPv4"]),
    "dual-stack": ({}, ["--dual-stack"], ["IPv4", "IPv6"]),
    "ipv6": ({"ipv4": False}, [], ["IPv4", "IPv6"]),  # IPv4 rules are always made
}
QUIET = "--log_output_level=default:warn"

#: As Istio's CNI plugin has it: the proxy's user, no capability and no way to get any, nothing to be written,
#: no lock file.
READ_ONLY = """
mount -t tmpfs none /run
for point in /run /mnt /tmp /; do mount -o remount,bind,ro "$point" 2>/dev/null || test "$point" = /tmp; done
for file in /run/xtables.lock /mnt/file /file; do
    if touch "$file" 2>/dev/null; then echo "$file can be written" >&2; exit 99; fi
done
"""
_PROXY = "setpriv --reuid=1337 --regid=1337 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"


def restricted(pod: Namespace, *arguments: str) -> Outcome:
    """Run the tool as the proxy's user, who may do nothing."""
    command = everyone.command(_PROXY.split(), *arguments, script=READ_ONLY)
    done = pod.run(command, check=False, env=everyone.PACKAGE_ALONE)
    return Outcome(done.returncode, done.stdout, done.stderr)


def limited(pod: Namespace, capabilities: str, *arguments: str) -> Outcome:
    """Run the tool as root with some capabilities only."""
    words = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["XTABLES_LOCKFILE"] = str(pod.directory / "xtables.lock")
    done = pod.run([*words, sys.executable, "-m", "istio_iptables", *arguments], check=False, env=environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


class Line(NamedTuple):
    """A line of the table, with all that is said of it below the table: the remedy, and so on."""

    status: str
    subject: str
    text: str


#: What is probed, by the direction and the dialler in the table.
SUBJECTS = {
    ("inbound", "proxy"): "inbound",
    ("outbound", "other"): "outbound",
    ("outbound", "proxy"): "outbound of the proxy",
    ("outbound", "proxy UID"): "outbound of the proxy's UID",
    ("outbound", "proxy GID"): "outbound of the proxy's GID",
}


def lines(outcome: Outcome) -> list[Line]:
    """The report, which has the same order in the table and below it."""
    assert "Traceback" not in outcome.err
    table, *below = outcome.out.rstrip("\n").split("\n\n")
    headings, *rows = table.splitlines()
    assert headings.split() == "RESULT DIRECTION FAMILY FROM (UID:GID) TO MEANT FOR ARRIVED".split()  # noqa: SIM905
    assert max(map(len, table.splitlines())) < 100
    found: list[Line] = []
    for row in rows:
        status, direction, family, who, *_ = re.split(" {2,}", row)
        dns, _, protocol = direction.partition(", ")
        title = SUBJECTS["outbound" if dns == "DNS" else direction, re.sub(r" \d+:\d+$", "", who)]
        subject = f"DNS over {protocol}, {title}, {family}" if dns == "DNS" else f"{title}, {family}"
        about = ""
        if status != "PASS":
            about = below.pop(0)
            assert about.startswith(f"{status}  {subject}: "), about
        found.append(Line(status, subject, f"{row}\n{about}"))
    assert [line[:6] for text in below for line in text.splitlines()] == ["note: "] * len(
        notes(outcome).splitlines()
    )
    return found


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdicts by subject: (`inbound, IPv4`, `outbound of the proxy's UID, IPv6`, ...)."""
    found = lines(outcome)
    assert len({line.subject for line in found}) == len(found)
    return {line.subject: line.status for line in found}


def said(outcome: Outcome, subject: str) -> str:
    """All that is said of a subject."""
    return next(line.text for line in lines(outcome) if line.subject == subject)


def whose(address: str) -> str:
    """A documentation address without its end, which is drawn at random; any other as it is."""
    return next((start for start in ("192.0.2.", "2001:db8::") if address.startswith(start)), address)


def notes(outcome: Outcome) -> str:
    return "\n".join(line for line in outcome.out.splitlines() if line.startswith("note: "))


OF_ROOT = ("outbound", "outbound of the proxy's UID", "outbound of the proxy's GID")


def all_pass(families: Sequence[str] = ("IPv4",)) -> dict[str, str]:
    return {f"{what}, {family}": "PASS" for family in families for what in ("inbound", *OF_ROOT)}


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


# --- ports that another process has already -----------------------------------------------------


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
