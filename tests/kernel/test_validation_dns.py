"""Validation of DNS capture by real queries, over UDP and TCP (SPEC section 3, nat 10 to 12, and raw)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from ..support.netns import Outcome, Pod
from ..support.validating import limited, restricted

BACKENDS = {
    "legacy": ["--force-iptables-binary", "legacy"],
    "nft": ["--force-iptables-binary", "nft"],
    "native": ["--native-nftables"],
}
RESOLV_CONF = "nameserver 10.88.0.1\nnameserver fd88::1\n"
SERVER = {"ipv4": "10.88.0.1", "ipv6": "fd88::1"}
#: The agent's port: SPEC section 3, nat 12.
AGENT = 15053


def queries(outcome: Outcome) -> list[dict[str, Any]]:
    return [probe for probe in json.loads(outcome.out)["probes"] if probe["dns"]]


def verdicts(outcome: Outcome) -> dict[tuple[str, str], str]:
    """The verdicts on queries in IPv4, by protocol and by kind."""
    return {(q["protocol"], q["kind"]): q["status"] for q in queries(outcome) if q["family"] == "ipv4"}


KINDS = ("outbound", "exempt-uid", "exempt-gid")
ALL_PASS = {(protocol, kind): "pass" for protocol in ("udp", "tcp") for kind in KINDS}


@pytest.fixture
def served(new_pod: Callable[..., Pod]) -> Pod:
    """A pod whose /etc/resolv.conf names its neighbour, in both families."""
    return new_pod(resolv_conf=RESOLV_CONF)


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("listen", [True, False])
def test_queries_arrive_at_the_agents_port(served: Pod, backend: str, mode: str, listen: bool) -> None:
    """Whether an agent listens there or not; those of the proxy arrive at the server, if one listens."""
    settings = [*BACKENDS[backend], "--dual-stack", "--redirect-dns", "-m", mode]
    assert served.tool(*settings).code == 0
    if listen:
        served.listen("agent", tcp=[AGENT], udp=[AGENT], uid=1337, gid=1337)
        served.client.listen("server", tcp=[53], udp=[53])
    outcome = served.tool(*settings, "validate", "--json")
    assert outcome.code == 0, outcome
    found = queries(outcome)
    assert {q["status"] for q in found} == {"pass"}
    assert [
        (q["family"], q["protocol"], q["kind"], q["address"], q["port"], q["watched"]) for q in found
    ] == [
        (family, protocol, kind, SERVER[family], 53, AGENT)
        for family in ("ipv4", "ipv6")
        for protocol in ("udp", "tcp")
        for kind in KINDS
    ]
    for query in found:
        seen = query["observed"]
        if query["arrives"]:
            assert seen["arrived"] == AGENT
            assert listen or seen["original"] == [query["address"], 53]
        else:
            assert seen["arrived"] is None
            assert seen["sent_to"] in (None, [query["address"], 53])


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_all_dns_captured_no_server_is_needed(pod: Pod, backend: str) -> None:
    settings = [*BACKENDS[backend], "--redirect-dns", "--capture-all-dns"]
    outcome = pod.tool(*settings, "--run-validation", "--log_output_level=default:warn")
    assert outcome.code == 0, outcome
    outcome = pod.tool(*settings, "validate", "--json")
    assert (outcome.code, verdicts(outcome)) == (0, ALL_PASS)


def test_without_dns_capture_nothing_is_queried(served: Pod) -> None:
    assert served.tool().code == 0
    assert queries(served.tool("validate", "--json")) == []


def test_dns_rules_are_missing(served: Pod) -> None:
    assert served.tool(*BACKENDS["legacy"]).code == 0
    outcome = served.tool(*BACKENDS["legacy"], "--redirect-dns", "validate", "--json")
    expected = {**ALL_PASS, ("udp", "outbound"): "fail", ("tcp", "outbound"): "fail"}
    assert (outcome.code, verdicts(outcome)) == (126, expected)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_one_rule_is_missing(served: Pod, protocol: str) -> None:
    """The other protocol's does not hide it."""
    assert served.tool(*BACKENDS["legacy"], "--redirect-dns").code == 0
    rule = f"-D ISTIO_OUTPUT_DNS -d 10.88.0.1/32 -p {protocol} --dport 53 -j REDIRECT --to-ports {AGENT}"
    served.run(["iptables-legacy", "-t", "nat", *rule.split()])
    outcome = served.tool(*BACKENDS["legacy"], "--redirect-dns", "validate", "--json")
    assert (outcome.code, verdicts(outcome)) == (126, {**ALL_PASS, (protocol, "outbound"): "fail"})


@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize("who", ["uid", "gid"])
def test_the_proxys_queries_come_back_to_the_agent(served: Pod, who: str, listen: bool) -> None:
    assert served.tool(*BACKENDS["legacy"], "--redirect-dns").code == 0
    if listen:
        served.listen("agent", tcp=[AGENT], udp=[AGENT], uid=1337, gid=1337)
    served.run(
        ["iptables-legacy", "-t", "nat", *f"-D ISTIO_OUTPUT -m owner --{who}-owner 1337 -j RETURN".split()]
    )
    outcome = served.tool(*BACKENDS["legacy"], "--redirect-dns", "validate", "--json")
    expected = {**ALL_PASS, ("udp", f"exempt-{who}"): "fail", ("tcp", f"exempt-{who}"): "fail"}
    assert (outcome.code, verdicts(outcome)) == (126, expected)


def test_a_query_that_is_sent_to_another_port(served: Pod) -> None:
    """Only connection tracking knows of a query where it went."""
    assert served.tool(*BACKENDS["legacy"], "--redirect-dns").code == 0
    rule = "-I OUTPUT -p udp --dport 53 -m owner --uid-owner 0 --gid-owner 0 -j REDIRECT --to-ports 5353"
    served.run(["iptables-legacy", "-t", "nat", *rule.split()])
    served.listen("other", udp=[5353])
    outcome = served.tool(*BACKENDS["legacy"], "--redirect-dns", "validate", "--json")
    assert (outcome.code, verdicts(outcome)) == (126, {**ALL_PASS, ("udp", "outbound"): "fail"})
    [query] = [q for q in queries(outcome) if q["status"] == "fail"]
    assert "5353" in query["where"]


@pytest.mark.parametrize("listen", [True, False])
def test_the_proxys_user_needs_no_capability(served: Pod, listen: bool) -> None:
    """Where an agent has the port, only connection tracking could tell where its query over UDP went."""
    assert served.tool("--redirect-dns").code == 0
    if listen:
        served.listen("agent", tcp=[AGENT], udp=[AGENT], uid=1337, gid=1337)
        served.client.listen("server", tcp=[53], udp=[53])  # without it, a refusal shows where the query went
    settings = ("--redirect-dns", "--run-validation", "--skip-rule-apply", "--log_output_level=default:none")
    outcome = restricted(served, *settings)
    assert outcome.code == 0, outcome
    rows = [re.split(" {2,}", line) for line in outcome.out.split("\n\n")[0].splitlines()]
    found = {(row[1], re.sub(" .*", "", row[3])): row[0] for row in rows if row[1].startswith("DNS")}
    assert found == {
        ("DNS, UDP", "other"): "NOT TRIED",
        ("DNS, UDP", "proxy"): "NOT TRIED" if listen else "PASS",
        ("DNS, TCP", "other"): "NOT TRIED",
        ("DNS, TCP", "proxy"): "PASS",
    }


def test_root_without_net_admin_sees_queries_arrive(served: Pod) -> None:
    assert served.tool("--redirect-dns").code == 0
    settings = ("--skip-rule-apply", "--run-validation", "--redirect-dns")
    outcome = limited(served, "-all,+setuid,+setgid", *settings)
    assert outcome.code == 0, outcome
    assert outcome.out.count("\nPASS ") == 10
