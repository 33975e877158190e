"""What foreign rules keep from the proxy, told from rules as iptables-save and nft print them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from istio_iptables import Cidr, Facts, build, configure
from istio_iptables.change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, Live
from istio_iptables.change.foreign import of_iptables
from istio_iptables.change.neighbours import interferences
from istio_iptables.formats import iptables_restore, nft_foreign, notices
from istio_iptables.rules.model import Ruleset
from tests.support.cases import all_cases

if TYPE_CHECKING:
    from istio_iptables.change.actions import Location

OWN = tuple(map(Cidr.from_ipaddress, ("127.0.0.1", "::1", "10.88.0.2", "172.17.0.1")))
DNS: dict[str, Any] = {"redirect_dns": True, "capture_all_dns": True}

#: What docker writes for a port that is published, and to be asked by name.
DOCKER = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""
EMBEDDED_DNS = """\
*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:41053
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:41053
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 41053 -j SNAT --to-source :53
COMMIT
"""
KUBE_PROXY = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
:KUBE-SEP-Y - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "kubernetes" -m tcp --dport 443 -j KUBE-SVC-X
-A KUBE-SVC-X -m statistic --mode random --probability 0.5 -j KUBE-SEP-Y
-A KUBE-SEP-Y -p tcp -m comment --comment "default/kubernetes" -m tcp -j DNAT --to-destination 10.0.0.5:6443
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"""


def ruleset(**settings: Any) -> Ruleset:
    return build(configure(environment=Facts(), **settings))


def found(
    saved: str,
    theirs: Location = IPTABLES_LEGACY,
    ours: Location = IPTABLES_LEGACY,
    *,
    forwards: bool = True,
    **settings: Any,
) -> list[tuple[Any, ...]]:
    """Return effect, certainty and traffic of what is found. `saved` is what iptables-save prints."""
    live = Live({theirs: iptables_restore.parse(saved, "ipv4")})
    result = interferences(of_iptables(live, ours), ruleset(**settings), OWN, forwards=forwards)
    return [(each.effect, each.certain, *each.traffic) for each in result]


def rules(*lines: str, table: str = "nat") -> str:
    return f"*{table}\n" + "".join(f"-A {line}\n" for line in lines) + "COMMIT\n"


PUBLISHED = ("inbound TCP to port 8080", "TCP to port 8080 that the proxy sends to its own pod")


def test_a_published_port_before_ours_bypasses_the_proxy():
    assert found(DOCKER) == [("bypass", True, *PUBLISHED)]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(IPTABLES_LEGACY, IPTABLES_NFT), (IPTABLES_NFT, IPTABLES_LEGACY), (IPTABLES_LEGACY, NFTABLES)],
)
def test_in_another_location_the_order_is_not_known(theirs: Location, ours: Location):
    assert found(DOCKER, theirs, ours) == [("bypass", False, *PUBLISHED)]


def test_the_same_rules_behind_ours_bypass_nothing():
    ours = """\
:ISTIO_INBOUND - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
"""
    behind = DOCKER.replace(":DOCKER", ours + ":DOCKER")
    assert found(behind) == []
    # In the other location the order of the rules says nothing.
    assert found(behind, IPTABLES_NFT) == [("bypass", False, *PUBLISHED)]


def test_a_port_that_is_not_captured_is_no_finding():
    # What the proxy sends to its own pod is captured whatever the ports (SPEC section 3, nat step 10a).
    others: list[dict[str, Any]] = [{"inbound_ports_excluded": [8080]}, {"inbound_ports": [80, 443]}]
    for settings in others:
        assert found(DOCKER, **settings) == [("bypass", True, PUBLISHED[1])]
    only_inbound = "".join(line for line in DOCKER.splitlines(keepends=True) if "OUTPUT" not in line)
    assert found(only_inbound, inbound_ports_excluded=[8080]) == []


def test_docker_translates_what_tproxy_captures():
    assert found(DOCKER, interception_mode="TPROXY") == [
        ("address", True, "inbound TCP to port 8080"),
        ("bypass", True, PUBLISHED[1]),
    ]


def test_dockers_dns_server_takes_dns_from_the_agent():
    assert found(EMBEDDED_DNS) == []
    assert found(EMBEDDED_DNS, **DNS) == [
        ("bypass", True, "DNS (TCP) to 127.0.0.11"),
        ("bypass", True, "DNS (UDP) to 127.0.0.11"),
        ("agent", True, "DNS over UDP to 127.0.0.11"),
    ]


def test_a_zone_for_the_application_alone_loses_no_answers():
    effects = {each[0] for each in found(EMBEDDED_DNS + DOCKER, **DNS)}
    assert effects == {"bypass", "agent", "answers"}
    assert {each[0] for each in found(EMBEDDED_DNS + DOCKER, **DNS, dns_single_zone=True)} == {"bypass"}


def test_masquerade_loses_answers_only_where_packets_are_forwarded_and_dns_is_captured():
    saved = rules("POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE")
    assert found(saved, **DNS) == [("answers", True, "DNS over UDP that is forwarded")]
    assert found(saved, **DNS, forwards=False) == []
    assert found(saved) == []
    assert found(rules("POSTROUTING -p tcp -j MASQUERADE"), **DNS) == []


def test_services_that_the_application_calls_are_named_and_forwarded_ones_are_not():
    """A ClusterIP is no address of the machine: what comes to it from outside only passes through."""
    assert found(KUBE_PROXY) == [("bypass", True, "outbound TCP to port 443 of 10.96.0.1")]
    assert found(KUBE_PROXY, outbound_cidrs_excluded=["10.96.0.0/12"]) == []


@all_cases(
    "rule",
    [
        "PREROUTING -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1",
        "OUTPUT -o docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1",
        "PREROUTING -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2",
        "PREROUTING -p icmp -j DNAT --to-destination 172.17.0.2",
        "PREROUTING -d 10.9.9.9/32 -p tcp -j DNAT --to-destination 172.17.0.2",
        "PREROUTING -p tcp -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "PREROUTING -p tcp -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "OUTPUT -o eth0 -p tcp -m owner --uid-owner 1337 -j ACCEPT",
        "OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1",
        "POSTROUTING -o eth0 -j MASQUERADE",
        "PREROUTING -i eth1 -j RETURN",  # the warning about -c names it
        "PREROUTING -p tcp -j LOG",
    ],
)
def test_rules_about_other_traffic_are_no_interferences(rule: str):
    assert found(rules(rule)) == []


@pytest.mark.parametrize(
    ("rule", "traffic"),
    [
        ("PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080", "inbound TCP to port 80"),
        ("PREROUTING -i eth0 -p tcp -j DNAT --to-destination 10.0.0.1", "inbound TCP by eth0"),
        ("PREROUTING -d 10.88.0.2/32 -p tcp -j DNAT --to-destination 10.0.0.1", "inbound TCP"),
        ("PREROUTING -p tcp -m multiport --dports 80,443 -j ACCEPT", "inbound TCP to ports 80, 443"),
        ("PREROUTING -s 10.0.0.0/8 -j RETURN", "inbound TCP"),
        ("OUTPUT -d 203.0.113.0/24 -p tcp -j ACCEPT", "outbound TCP to 203.0.113.0/24"),
    ],
)
def test_what_takes_a_packet_is_named_with_what_it_takes(rule: str, traffic: str):
    [(effect, certain, *texts)] = found(rules(rule))
    assert (effect, certain) == ("bypass", True)
    # The hole for the tunnel's port is not captured, so the text says which ports are.
    assert texts[0].startswith(traffic.split(" by ")[0])


@pytest.mark.parametrize("rule", ["PREROUTING -p tcp -j ACCEPT", "PREROUTING -s 10.0.0.0/8 -j RETURN"])
def test_the_end_of_another_chain_ends_only_that(rule: str):
    assert found(rules(rule), IPTABLES_NFT) == []


def test_what_is_not_tracked_is_not_redirected():
    saved = rules("PREROUTING -p tcp -m tcp --dport 8080 -j CT --notrack", table="raw")
    for location in (IPTABLES_LEGACY, IPTABLES_NFT):
        assert found(saved, location) == [("bypass", True, "inbound TCP to port 8080")]


def test_mangle_counts_only_with_tproxy():
    saved = rules("PREROUTING -p tcp -m tcp --dport 8080 -j ACCEPT", table="mangle")
    assert found(saved) == []
    assert found(saved, interception_mode="TPROXY") == [("bypass", True, "inbound TCP to port 8080")]


def test_matches_that_are_not_understood_are_said():
    saved = rules("PREROUTING -p tcp -m set --match-set x dst -j DNAT --to-destination 10.0.0.1")
    live = Live({IPTABLES_LEGACY: iptables_restore.parse(saved, "ipv4")})
    [each] = interferences(of_iptables(live, IPTABLES_LEGACY), ruleset(), OWN)
    assert each.vague
    [text] = notices.neighbours([each])
    assert "if its other matches hold" in text
    assert "-A PREROUTING -p tcp -m set --match-set x dst -j DNAT --to-destination 10.0.0.1" in text


def test_long_lists_of_ours_are_followed():
    """The destination is in the last of ten thousand CIDRs, and another is in none of them."""
    cidrs = [f"10.{n // 256}.{n % 256}.0/24" for n in range(10_000)]
    saved = rules("OUTPUT -d 10.39.15.1/32 -p tcp -j DNAT --to-destination 10.0.0.1")
    assert found(saved, outbound_cidrs=cidrs) == [("bypass", True, "outbound TCP to 10.39.15.1")]
    assert found(saved.replace("10.39.15.1", "10.39.16.1"), outbound_cidrs=cidrs) == []


# --- nftables -------------------------------------------------------------------------------


def table(
    *rules: tuple[str, list[object]], priority: int = -100, family: str = "ip", extra: tuple[object, ...] = ()
) -> tuple[str, str]:
    """Return what nft prints of a table `docker`, as JSON and as text, with rules for chains."""
    chains = dict.fromkeys(["prerouting", *(chain for chain, _ in rules)])
    objects: list[object] = [{"table": {"family": family, "name": "docker", "handle": 1}}]
    for name in chains:
        made: dict[str, object] = {"family": family, "table": "docker", "name": name, "handle": 1}
        if name in ("prerouting", "output", "postrouting"):
            made |= {"type": "nat", "hook": name, "prio": priority, "policy": "accept"}
        objects.append({"chain": made})
    text = ""
    for handle, (chain, expr) in enumerate(rules, 10):
        objects.append({"rule": {"table": "docker", "chain": chain, "handle": handle, "expr": expr}})
        text += f"\t\trule number {handle} # handle {handle}\n"
    return json.dumps({"nftables": [{"metainfo": {}}, *objects, *extra]}), text


def match(left: object, right: object, op: str = "==") -> object:
    return {"match": {"op": op, "left": left, "right": right}}


LOCAL = match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
TO_8080 = match({"payload": {"protocol": "tcp", "field": "dport"}}, 8080)
DNAT = {"dnat": {"addr": "172.17.0.2", "port": 80}}


def in_nft(printed: tuple[str, str], **settings: Any) -> list[tuple[Any, ...]]:
    result = interferences(nft_foreign.neighbours(*printed), ruleset(**settings), OWN)
    return [(each.rule, each.effect, each.certain, *each.traffic) for each in result]


@pytest.mark.parametrize(("priority", "certain"), [(-100, False), (-101, True), (-150, True)])
def test_a_chain_of_nft(priority: int, certain: bool):
    printed = table(
        ("prerouting", [LOCAL, {"counter": None}, {"jump": {"target": "DOCKER"}}]),
        ("DOCKER", [match({"meta": {"key": "iifname"}}, "docker0", "!="), TO_8080, DNAT]),
        priority=priority,
    )
    assert in_nft(printed) == [("rule number 11", "bypass", certain, "inbound TCP to port 8080")]


def test_a_chain_of_nft_after_ours_takes_nothing():
    assert in_nft(table(("prerouting", [TO_8080, DNAT]), priority=-90)) == []


def test_what_a_chain_of_nft_accepts_goes_on():
    assert in_nft(table(("prerouting", [TO_8080, {"accept": None}]), priority=-150)) == []


def test_chains_of_a_verdict_map():
    """kube-proxy's mode nftables: which chain a packet goes to is the kernel's to look up."""
    elements = [[{"concat": ["10.96.0.1", "tcp", 443]}, {"goto": {"target": "service"}}]]
    named = {"map": {"family": "ip", "name": "services", "table": "docker", "elem": elements}}
    key = {"concat": [{"payload": {"protocol": "ip", "field": "daddr"}}]}
    printed = table(
        ("output", [{"vmap": {"key": key, "data": "@services"}}]), ("service", [DNAT]), extra=(named,)
    )
    [each] = interferences(nft_foreign.neighbours(*printed), ruleset(), OWN)[:1]
    assert each.vague
    assert each.rule == "rule number 11"


def test_a_table_of_iptables_that_only_nft_can_read():
    """nft names the extensions of iptables, no more. The chains of istio-iptables are not foreign."""
    extensions = (("match", "addrtype"), ("target", "DNAT"))
    xt = [{"xt": {"type": kind, "name": name}} for kind, name in extensions]
    printed = table(
        ("prerouting", [TO_8080, *xt]),
        ("prerouting", [{"counter": None}, {"jump": {"target": "ISTIO_INBOUND"}}]),
        ("ISTIO_INBOUND", [TO_8080, {"redirect": {"port": 15006}}]),
    )
    [each] = interferences(nft_foreign.neighbours(*printed), ruleset(), OWN)
    assert (each.rule, each.vague) == ("rule number 10", True)


def test_a_table_of_both_families_is_read_for_each():
    only_6 = match({"payload": {"protocol": "ip6", "field": "daddr"}}, "::1")
    printed = table(("prerouting", [only_6, DNAT]), ("prerouting", [TO_8080, DNAT]), family="inet")
    assert {rule for rule, *_ in in_nft(printed)} == {"rule number 11"}
    assert in_nft(printed, dual_stack=True) == in_nft(printed)


def test_nft_that_prints_no_table():
    with pytest.raises(ValueError, match="not the JSON of a table"):
        list(nft_foreign.neighbours('{"nftables": [{"table": {}}]}', ""))


# --- what is said ---------------------------------------------------------------------------


def test_the_warning_names_the_rule_what_it_takes_and_what_to_do():
    live = Live({IPTABLES_NFT: iptables_restore.parse(DOCKER, "ipv4")})
    [text] = notices.neighbours(interferences(of_iptables(live, IPTABLES_NFT), ruleset(), OWN))
    rule = "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
    assert f"the foreign rule {rule} (ipv4 nat (iptables-nft)) comes before those of istio-iptables" in text
    assert "inbound TCP to port 8080" in text
    assert "--native-nftables" in text
    [text] = notices.neighbours(interferences(of_iptables(live, NFTABLES), ruleset(), OWN))
    assert "may come before" in text
    assert "does not tell which were" in text
    assert "cleanup" in text


LATER = "if it does, run `istio-iptables cleanup` and apply again"
NEVER = "whatever is made first: remove it, or have its program leave that traffic out"


@pytest.mark.parametrize(("priority", "remedy"), [(-100, LATER), (-101, NEVER)])
def test_the_remedy_for_a_chain_of_another_priority_is_definite(priority: int, remedy: str):
    printed = table(("prerouting", [TO_8080, DNAT]), priority=priority)
    [text] = notices.neighbours(interferences(nft_foreign.neighbours(*printed), ruleset(), OWN))
    assert remedy in text
    assert ("if it does" in text) == (remedy == LATER)


@pytest.mark.parametrize("location", [IPTABLES_LEGACY, NFTABLES])
def test_what_is_not_tracked_is_not_translated_wherever_our_rules_are(location: Location):
    saved = rules("PREROUTING -p tcp -m tcp --dport 8080 -j CT --notrack", table="raw")
    live = Live({IPTABLES_LEGACY: iptables_restore.parse(saved, "ipv4")})
    [text] = notices.neighbours(interferences(of_iptables(live, location), ruleset(), OWN))
    assert "comes before those of istio-iptables" in text
    assert text.endswith(NEVER)


def test_many_rules_are_five_warnings_and_a_number():
    saved = rules(*(f"PREROUTING -p tcp -m tcp --dport {n} -j ACCEPT" for n in range(8000, 8300)))
    live = Live({IPTABLES_LEGACY: iptables_restore.parse(saved, "ipv4")})
    texts = list(notices.neighbours(interferences(of_iptables(live, IPTABLES_LEGACY), ruleset(), OWN)))
    assert len(texts) == 6
    assert texts[-1].startswith("295 more foreign rules")


ALL_TEXTS = [
    (DOCKER, IPTABLES_LEGACY, {}),
    (DOCKER, NFTABLES, {"interception_mode": "TPROXY"}),
    (EMBEDDED_DNS + DOCKER, IPTABLES_LEGACY, DNS),
    (KUBE_PROXY, NFTABLES, {}),
    (rules(*(f"PREROUTING -p tcp -m tcp --dport {n} -j ACCEPT" for n in range(9))), IPTABLES_LEGACY, {}),
]


@pytest.mark.parametrize(("saved", "ours", "settings"), ALL_TEXTS)
def test_every_warning_is_in_the_index_of_messages(saved: str, ours: Location, settings: dict[str, Any]):
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    entries = re.findall(r"`([^`\n]*foreign rule[^`\n]*)`", page)
    patterns = [".+".join(map(re.escape, words.split("…"))) for words in entries]
    live = Live({IPTABLES_LEGACY: iptables_restore.parse(saved, "ipv4")})
    texts = list(notices.neighbours(interferences(of_iptables(live, ours), ruleset(**settings), OWN)))
    assert texts
    for text in texts:
        assert any(re.match(pattern, text.replace("`", "")) for pattern in patterns), text


def test_traffic_of_ipv6_is_told_by_its_addresses():
    saved = rules("OUTPUT -d fd00:9::1/128 -p tcp -m tcp --dport 80 -j ACCEPT")
    live = Live({IPTABLES_LEGACY: iptables_restore.parse(saved, "ipv6")})
    both = build(configure(environment=Facts(True, True), dual_stack=True))
    [each] = interferences(of_iptables(live, IPTABLES_LEGACY), both, OWN)
    assert (each.effect, each.certain) == ("bypass", True)
    [traffic] = each.traffic
    assert "fd00:9::1" in traffic
