"""Planning of probes, verdicts on what was seen, and the report: all without a machine."""

from __future__ import annotations

import ipaddress
import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables import Config, Facts, build, configure
from istio_iptables.rules.model import (
    Chain,
    Cidr,
    ForeignMatch,
    ForeignTarget,
    Rule,
    Ruleset,
    SetMark,
    Table,
)
from istio_iptables.validation import report as validation
from istio_iptables.validation.live import probes
from istio_iptables.validation.model import (
    Identity,
    Listening,
    Observation,
    Probe,
    Result,
    Skipped,
    endpoint,
    succeeded,
)
from istio_iptables.validation.plan import Situation, plan
from istio_iptables.validation.trace import Outcome, Packet, Tracer
from istio_iptables.validation.verdict import conclude, coverage, judge, may_change, skipped
from tests.support import strategies

ROOT, PROXY = Identity(0, 0), Identity(1337, 1337)
ADDRESSES = tuple(
    Cidr(version, int(ipaddress.ip_address(address)), prefix)
    for version, address, prefix in (
        (4, "127.0.0.1", 8),
        (4, "10.88.0.2", 24),
        (6, "::1", 128),
        (6, "::6", 128),
        (6, "fd88::2", 64),
        (6, "fe80::2", 64),
    )
)


def to_the_world(family: str, address: str) -> str | None:
    """Everything is behind eth0, but for what is here."""
    parsed = ipaddress.ip_address(address)
    local = parsed.is_loopback or any(int(parsed) == own.address for own in ADDRESSES)
    return "lo" if local else "eth0"


def on_link_only(family: str, address: str) -> str | None:
    return "eth0" if address.startswith(("10.88.0.", "fd88::")) else None


def config_of(*, facts: Facts | None = None, **settings: Any) -> Config:
    named = {name.replace("_", "-"): value for name, value in settings.items() if name.islower()}
    named |= {name: value for name, value in settings.items() if not name.islower()}
    return configure(named, environment=facts or Facts(ipv4=True, ipv6=True))


def planned(
    identity: Identity = ROOT,
    may_become: bool = True,
    route: Callable[[Any, str], str | None] = to_the_world,
    port: int = 15002,
    **settings: Any,
) -> tuple[Probe | Skipped, ...]:
    config = config_of(**settings)
    return plan(config, build(config), Situation(identity, may_become, ADDRESSES, route), port)


def seen_as(item: Probe | Skipped) -> tuple[object, ...]:
    """The part of a plan that tests look at: what, in which family, as whom, where to, and whether there."""
    if isinstance(item, Skipped):
        return (item.kind, item.family, item.required)
    who = (item.identity.uid, item.identity.gid)
    return (
        item.kind,
        item.family,
        who,
        f"{item.address} {item.port}",
        item.watched if item.arrives else None,
    )


# --- trace ------------------------------------------------------------------------------------


def packet(
    address: str, identity: Identity, *, port: int = 80, interface: str = "eth0", source: str = ""
) -> Packet:
    parsed = ipaddress.ip_address(address)
    origin = int(ipaddress.ip_address(source)) if source else 0
    return Packet(f"ipv{parsed.version}", origin, int(parsed), port, interface, identity)  # type: ignore[arg-type]


APP = Identity(1000, 1000)


@pytest.mark.parametrize(
    ("settings", "sent", "port"),
    [
        ({}, packet("1.2.3.4", APP), 15001),
        ({}, packet("1.2.3.4", PROXY), None),
        ({}, packet("1.2.3.4", Identity(1337, 5)), None),
        ({}, packet("1.2.3.4", Identity(5, 1337)), None),
        ({}, packet("127.0.0.1", APP, interface="lo"), None),
        ({}, packet("127.0.0.6", PROXY, interface="lo"), 15006),
        ({}, packet("127.0.0.6", PROXY, interface="lo", source="127.0.0.6"), None),
        ({}, packet("127.0.0.6", PROXY, interface="lo", port=15008), None),
        ({}, packet("127.0.0.6", APP, interface="lo"), None),
        ({"inbound_capture_port": 7}, packet("127.0.0.6", PROXY, interface="lo"), 7),
        ({"istio_exclude_interfaces": "eth+"}, packet("1.2.3.4", APP), None),
        ({"istio_exclude_interfaces": "eth"}, packet("1.2.3.4", APP), 15001),
        ({"istio_service_exclude_cidr": "1.2.0.0/16"}, packet("1.2.255.255", APP), None),
        ({"istio_service_exclude_cidr": "1.2.0.0/16"}, packet("1.3.0.0", APP), 15001),
        ({"istio_service_cidr": "1.2.0.0/16"}, packet("1.2.0.0", APP), 15001),
        ({"istio_service_cidr": "1.2.0.0/16"}, packet("1.1.255.255", APP), None),
        ({"istio_service_cidr": "", "istio_outbound_ports": "80-90"}, packet("1.1.1.1", APP, port=90), 15001),
        ({"istio_service_cidr": "", "istio_outbound_ports": "80-90"}, packet("1.1.1.1", APP, port=91), None),
        ({"istio_local_outbound_ports_exclude": "80"}, packet("1.1.1.1", APP), None),
        (
            {"istio_local_outbound_ports_exclude": "1,80", "compact": True},
            packet("1.1.1.1", APP),
            None,
        ),
        ({"rule_comments": True}, packet("1.2.3.4", APP), 15001),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS": "5"}, packet("1.2.3.4", APP), None),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS": "5,1000"}, packet("1.2.3.4", APP), 15001),
        ({"redirect_dns": True, "capture_all_dns": True}, packet("1.2.3.4", APP, port=53), 15053),
        ({"dual_stack": True}, packet("2001:db8::1", APP), 15001),
        ({}, packet("2001:db8::1", APP), None),
    ],
    ids=str,
)
def test_where_the_rules_send_a_connection(settings: dict[str, Any], sent: Packet, port: int | None):
    assert Tracer(build(config_of(**settings))).trace(sent).port == port


def test_the_reason_is_that_of_the_rule_that_decides():
    ruleset = build(config_of(istio_service_exclude_cidr="1.2.0.0/16"))
    tracer = Tracer(ruleset)
    assert tracer.trace(packet("1.2.3.4", APP)) == Outcome(None, "destination 1.2.0.0/16 is excluded")
    captured = tracer.trace(packet("8.8.8.8", APP))
    assert captured == Outcome(15001, "all other outbound traffic is captured")
    assert Tracer(Ruleset()).trace(packet("8.8.8.8", APP)) == Outcome(None, "no rule captures it")


@pytest.mark.parametrize(
    "rule",
    [
        Rule((ForeignMatch(("-m", "time")),), SetMark(1)),
        Rule((), ForeignTarget(("-j", "DNAT"))),
    ],
)
def test_what_has_no_place_in_nat_is_not_passed_over(rule: Rule):
    ruleset = Ruleset((Table("ipv4", "nat", (Chain("OUTPUT", (rule,)),)),))
    with pytest.raises(ValueError, match="in nat"):
        Tracer(ruleset).trace(packet("1.2.3.4", APP))


# --- planning ---------------------------------------------------------------------------------

INBOUND = ("inbound", "ipv4", (1337, 1337), "127.0.0.6 15002", 15006)
INBOUND6 = ("inbound", "ipv6", (1337, 1337), "::6 15002", 15006)


def outbound(address: str = "192.0.2.1", port: int = 15002, family: str = "ipv4") -> list[tuple[object, ...]]:
    dialled = f"{address} {port}"
    return [
        ("outbound", family, (0, 0), dialled, 15001),
        ("exempt-uid", family, (1337, 0), dialled, None),
        ("exempt-gid", family, (0, 1337), dialled, None),
    ]


def test_as_root_everything_is_probed_and_exemptions_apart():
    """Each with the other half of a user who is captured: together they would hide that one is missing."""
    assert [seen_as(item) for item in planned()] == [INBOUND, *outbound()]
    both = [seen_as(item) for item in planned(dual_stack=True)]
    assert both == [INBOUND, INBOUND6, *outbound(), *outbound("2001:db8::1", family="ipv6")]


def test_ipv6_alone_leaves_ipv4_rules_but_no_way_to_probe_them():
    found = planned(
        route=lambda family, address: "eth0" if family == "ipv6" else None,
        facts=Facts(ipv4=False, ipv6=True),
    )
    assert [seen_as(item) for item in found] == [
        INBOUND,
        INBOUND6,
        ("outbound", "ipv4", False),
        *outbound("2001:db8::1", family="ipv6"),
    ]
    assert "no route" in next(item.why for item in found if isinstance(item, Skipped))


def test_the_probe_is_dialled_from_an_address_that_the_rules_do_not_return():
    sources = [item.source for item in planned(dual_stack=True) if isinstance(item, Probe)]
    assert sources == ["127.0.0.1", "::1", *[""] * 6]


def test_as_the_proxy_what_only_root_can_is_left_out_and_nothing_is_owed():
    found = [seen_as(item) for item in planned(PROXY, may_become=False)]
    exempt = ("exempt", "ipv4", (1337, 1337), "192.0.2.1 15002", None)
    assert found == [INBOUND, ("outbound", "ipv4", False), exempt]


def test_as_root_that_may_not_become_the_proxy_inbound_is_owed():
    found = planned(may_become=False)
    assert [seen_as(item) for item in found] == [
        ("inbound", "ipv4", True),
        ("outbound", "ipv4", (0, 0), "192.0.2.1 15002", 15001),
        ("exempt", "ipv4", True),
    ]
    for item in found:
        if isinstance(item, Skipped):
            assert "UID 0, GID 0" in item.why
            assert "UID 1337" in item.why
            assert "SETUID and SETGID" in item.remedy
            assert "as UID 1337" in item.remedy


def test_with_tproxy_root_with_the_proxys_group_is_the_proxy():
    found = planned(istio_inbound_interception_mode="TPROXY")
    assert [seen_as(item) for item in found] == [INBOUND, *outbound()]
    itself = planned(Identity(0, 1337), may_become=False, istio_inbound_interception_mode="TPROXY")
    assert [seen_as(item) for item in itself] == [
        ("inbound", "ipv4", True),  # only the UID's calls to the pod are inbound
        ("outbound", "ipv4", False),
        ("exempt", "ipv4", (0, 1337), "192.0.2.1 15002", None),
    ]


def test_each_of_several_proxies_is_exempt_and_the_first_one_calls_in():
    found = [seen_as(item) for item in planned(proxy_uid="1,2", proxy_gid="3,4")]
    assert found == [
        ("inbound", "ipv4", (1, 3), "127.0.0.6 15002", 15006),
        ("outbound", "ipv4", (0, 0), "192.0.2.1 15002", 15001),
        ("exempt-uid", "ipv4", (1, 0), "192.0.2.1 15002", None),
        ("exempt-uid", "ipv4", (2, 0), "192.0.2.1 15002", None),
        ("exempt-gid", "ipv4", (0, 3), "192.0.2.1 15002", None),
        ("exempt-gid", "ipv4", (0, 4), "192.0.2.1 15002", None),
    ]


def test_each_of_several_proxies_calls_in_where_the_rules_let_it():
    """With a loopback address among the destinations there is no rule that returns the others."""
    found = planned(proxy_uid="1,2", istio_service_cidr="127.1.0.0/16")
    assert [seen_as(item)[2] for item in found if item.kind == "inbound"] == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    ("settings", "other"),
    [
        ({"proxy_uid": "0"}, (65534, 65534)),
        ({"proxy_uid": "0,65534"}, (1, 1)),
        ({"proxy_gid": "0"}, (0, 65534)),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS": "1337,2000,3000"}, (0, 2000)),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "0,65534,1"}, (0, 2)),
    ],
    ids=str,
)
def test_the_other_user_is_not_exempt(settings: dict[str, Any], other: tuple[int, int]):
    [probe] = [item for item in planned(**settings) if item.kind == "outbound"]
    assert seen_as(probe)[2:] == (other, "192.0.2.1 15002", 15001)


@pytest.mark.parametrize(
    ("settings", "dialled"),
    [
        ({"istio_service_cidr": "10.0.0.0/8"}, "10.0.0.1 15002"),
        ({"istio_service_cidr": "10.0.0.7"}, "10.0.0.7 15002"),
        ({"istio_service_cidr": "10.0.0.6/31"}, "10.0.0.6 15002"),
        (
            {"istio_service_cidr": "10.0.0.0/8", "istio_service_exclude_cidr": "10.0.0.0/9,10.128.0.0/10"},
            "10.192.0.0 15002",
        ),
        ({"istio_service_cidr": "10.88.0.2/31"}, "10.88.0.3 15002"),  # 10.88.0.2 is the pod itself
        ({"istio_service_exclude_cidr": "192.0.2.0/24,198.51.0.0/16"}, "203.0.113.1 15002"),
        ({"istio_service_exclude_cidr": "192.0.0.0/2"}, "10.88.0.1 15002"),
        ({"istio_service_exclude_cidr": "192.0.0.0/2,10.88.0.0/16"}, "10.0.0.1 15002"),
        ({"istio_local_outbound_ports_exclude": "15002"}, "192.0.2.1 15003"),
        ({"istio_local_outbound_ports_exclude": "15000-65535"}, "192.0.2.1 1"),
        ({"envoy_port": "15002"}, "192.0.2.1 15003"),
        ({"istio_service_cidr": "", "istio_outbound_ports": "80-90,443"}, "192.0.2.1 80"),
        ({"istio_service_cidr": "", "istio_outbound_ports": "80-90", "port": 85}, "192.0.2.1 80"),
        ({"istio_service_cidr": "127.1.0.0/16"}, "127.1.0.1 15002"),
        ({"port": 7}, "192.0.2.1 7"),
        ({"redirect_dns": True, "port": 53}, "192.0.2.1 15002"),
    ],
    ids=str,
)
def test_a_destination_that_the_settings_capture(settings: dict[str, Any], dialled: str):
    [probe] = [item for item in planned(**settings) if item.kind == "outbound"]
    assert isinstance(probe, Probe)
    assert probe.arrives
    assert f"{probe.address} {probe.port}" == dialled


def test_without_a_default_route_a_neighbour_is_dialled():
    assert [seen_as(item) for item in planned(route=on_link_only)] == [INBOUND, *outbound("10.88.0.1")]


def test_without_any_route_nothing_is_probed_outbound():
    found = planned(route=lambda family, address: None, dual_stack=True)
    assert [seen_as(item) for item in found] == [
        INBOUND,
        INBOUND6,
        ("outbound", "ipv4", False),
        ("outbound", "ipv6", False),
    ]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"istio_service_cidr": ""}, "no rule captures it"),
        ({"istio_exclude_interfaces": "eth0"}, "traffic to interface eth0 is excluded"),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS": ""}, "only the listed groups are captured"),
        ({"ISTIO_OUTBOUND_OWNER_GROUPS": "1337"}, "only the listed groups are captured"),
    ],
    ids=str,
)
def test_where_nothing_is_captured_nothing_may_arrive(settings: dict[str, Any], why: str):
    [probe] = [item for item in planned(**settings) if item.kind != "inbound"]
    assert seen_as(probe) == ("outbound", "ipv4", (0, 0), "192.0.2.1 15002", None)
    assert probe.why == why


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"istio_service_exclude_cidr": "0.0.0.0/0"}, "destination 0.0.0.0/0 is excluded"),
        ({"istio_service_exclude_cidr": "0.0.0.0/1,128.0.0.0/1"}, "destination 128.0.0.0/1 is excluded"),
        (
            {"istio_service_cidr": "10.0.0.0/8", "istio_service_exclude_cidr": "10.0.0.0/8"},
            "no rule captures it",
        ),
    ],
    ids=str,
)
def test_where_all_is_excluded_nothing_may_arrive(settings: dict[str, Any], why: str):
    [probe] = [item for item in planned(**settings) if item.kind != "inbound"]
    assert seen_as(probe) == ("outbound", "ipv4", (0, 0), "192.0.2.1 15002", None)
    assert probe.why == why
    [unrouted] = [item for item in planned(route=on_link_only, **settings) if item.kind != "inbound"]
    assert seen_as(unrouted) == ("outbound", "ipv4", (0, 0), "10.88.0.1 15002", None)


@pytest.mark.parametrize(
    ("settings", "networks"),
    [
        ({"dual_stack": True}, ["192.0.2.0/24", "2001:db8::/112"]),
        ({"istio_service_cidr": "10.0.0.0/8", "istio_service_exclude_cidr": "10.0.0.8/29"}, ["10.0.0.0/24"]),
        ({"istio_service_cidr": "192.0.2.8/29,192.0.2.16/29"}, ["192.0.2.8/29"]),
    ],
    ids=str,
)
def test_destinations_are_varied_within_what_is_captured(settings: dict[str, Any], networks: list[str]):
    config = config_of(**settings)
    numbers = itertools.count(3)
    picked = Situation(ROOT, True, ADDRESSES, to_the_world, lambda below: next(numbers) % below)
    found = [
        p for p in plan(config, build(config), picked, 15002) if isinstance(p, Probe) and p.kind != "inbound"
    ]
    addresses = [address for probe in found for address in (probe.address, *probe.others)]
    assert len(set(addresses)) > len(networks) * 2
    excluded = ipaddress.ip_network(settings.get("istio_service_exclude_cidr", "0.0.0.0/32"))
    for probe in found:
        assert probe.others
        for text in (probe.address, *probe.others):
            address = ipaddress.ip_address(text)
            assert any(address in ipaddress.ip_network(network) for network in networks)
            assert address not in excluded


def test_no_neighbour_is_dialled_for_the_sake_of_variety():
    config = config_of()
    picked = Situation(ROOT, True, ADDRESSES, on_link_only, lambda below: below - 1)
    found = [p for p in plan(config, build(config), picked, 15002) if isinstance(p, Probe)]
    assert {(p.address, p.others) for p in found if p.kind != "inbound"} == {("10.88.0.1", ())}


def test_in_a_family_without_captured_destinations_nothing_may_arrive():
    found = planned(dual_stack=True, istio_service_cidr="10.0.0.0/8")
    [probe] = [item for item in found if (item.kind, item.family) == ("outbound", "ipv6")]
    assert seen_as(probe) == ("outbound", "ipv6", (0, 0), "2001:db8::1 15002", None)


@pytest.mark.parametrize(
    ("settings", "dialled"),
    [
        ({"inbound_tunnel_port": "15002"}, "127.0.0.6 15003"),
        ({"istio_local_outbound_ports_exclude": "15002-15010"}, "127.0.0.6 15011"),
        ({"inbound_capture_port": "15002"}, "127.0.0.6 15003"),
        ({"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.0/8"}, "10.88.0.2 15002"),
        ({"istio_inbound_ports": ""}, "127.0.0.6 15002"),
    ],
    ids=str,
)
def test_the_inbound_probe_keeps_out_of_what_the_settings_leave_alone(settings: dict[str, Any], dialled: str):
    [probe] = [item for item in planned(**settings) if item.kind == "inbound"]
    assert isinstance(probe, Probe)
    assert f"{probe.address} {probe.port}" == dialled


def test_where_nothing_is_inbound_from_inside_nothing_is_owed():
    [found] = [item for item in planned(istio_exclude_interfaces="lo") if item.kind == "inbound"]
    assert isinstance(found, Skipped)
    assert not found.required
    assert "traffic to interface lo is excluded" in found.why


@given(
    strategies.settings(),
    strategies.environments(),
    st.sampled_from([ROOT, PROXY, APP]),
    st.booleans(),
    st.integers(1, 65535),
)
@example({"envoy-port": "15006", "istio-service-cidr": "127.0.0.0/8"}, (True, False, []), ROOT, False, 1)
@example({"envoy-port": "15006", "proxy-uid": "0"}, (True, True, []), ROOT, False, 1)
def test_every_plan_makes_sense(
    given_settings: dict[str, str],
    pod: tuple[bool, bool, list[str]],
    identity: Identity,
    may_become: bool,
    port: int,
):
    config = configure(given_settings, environment=Facts(pod[0], pod[1], tuple(pod[2])))
    ruleset = build(config)
    found = plan(config, ruleset, Situation(identity, may_become, ADDRESSES, to_the_world), port)
    for family in config.families:
        kinds = [item.kind for item in found if item.family == family]
        assert "inbound" in kinds
        assert "outbound" in kinds
    for item in found:
        if isinstance(item, Skipped):
            assert item.why
            assert not (item.required and may_become)
            continue
        assert 1 <= item.port <= 65535
        assert ipaddress.ip_address(item.address).version == int(item.family[3])
        assert may_become or item.identity == identity
        at_home = item.identity.uid in config.proxy_uids or item.identity.gid in config.proxy_gids
        assert (item.kind == "outbound" or at_home) is True
        assert not (item.arrives and item.kind == "outbound" and at_home)
        assert item.watched == (
            15053 if item.dns else config.inbound_port if item.kind == "inbound" else config.outbound_port
        )
        assert item.protocol == "tcp" or item.dns
        assert item.dns is False or (item.port == 53 and config.captures_dns(item.family))


# --- planning: DNS -----------------------------------------------------------------------------


def queries(server: str, family: str = "ipv4") -> list[tuple[object, ...]]:
    return [
        (protocol, *seen)
        for protocol in ("udp", "tcp")
        for seen in (
            ("outbound", family, (0, 0), f"{server} 53", 15053),
            ("exempt-uid", family, (1337, 0), f"{server} 53", None),
            ("exempt-gid", family, (0, 1337), f"{server} 53", None),
        )
    ]


def dns_of(found: Sequence[Probe | Skipped]) -> list[tuple[object, ...]]:
    return [(item.protocol, *seen_as(item)) for item in found if item.dns]


SERVERS = Facts(ipv4=True, ipv6=True, servers=("10.96.0.10", "fd00::a"))


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_captured_dns_is_queried_over_udp_and_tcp(mode: str):
    """SPEC section 3, nat 12: to 15053; the proxy's own queries, by UID and by GID, are left alone (10c)."""
    settings: dict[str, Any] = {
        "redirect_dns": True,
        "istio_inbound_interception_mode": mode,
        "facts": SERVERS,
    }
    assert dns_of(planned(**settings)) == queries("10.96.0.10")
    assert dns_of(planned(**settings, dual_stack=True)) == [
        *queries("10.96.0.10"),
        *queries("fd00::a", "ipv6"),
    ]
    assert dns_of(planned(facts=SERVERS)) == []


def test_with_all_dns_captured_any_address_is_a_server():
    settings: dict[str, Any] = {"redirect_dns": True, "capture_all_dns": True, "dual_stack": True}
    assert dns_of(planned(**settings)) == [*queries("192.0.2.1"), *queries("2001:db8::1", "ipv6")]


def test_only_the_family_that_has_servers_is_queried():
    facts = Facts(ipv4=True, ipv6=True, servers=("fd00::a",))
    assert dns_of(planned(redirect_dns=True, dual_stack=True, facts=facts)) == queries("fd00::a", "ipv6")


def test_a_server_on_the_loopback_interface_is_queried():
    """As with systemd-resolved: SPEC section 3, nat 10b leaves port 53 out with DNS capture."""
    facts = Facts(ipv4=True, ipv6=False, servers=("127.0.0.53",))
    assert dns_of(planned(redirect_dns=True, facts=facts)) == queries("127.0.0.53")


def test_dns_that_the_settings_leave_alone_is_not_queried():
    found = planned(redirect_dns=True, istio_local_outbound_ports_exclude="53", facts=SERVERS)
    assert dns_of(found) == [("udp", "outbound", "ipv4", False), ("tcp", "outbound", "ipv4", False)]
    assert "the settings leave it alone" in next(item.why for item in found if isinstance(item, Skipped))


def test_the_proxy_queries_as_itself():
    found = dns_of(planned(PROXY, may_become=False, redirect_dns=True, facts=SERVERS))
    exempt = ("exempt", "ipv4", (1337, 1337), "10.96.0.10 53", None)
    other = ("outbound", "ipv4", False)
    assert found == [("udp", *other), ("udp", *exempt), ("tcp", *other), ("tcp", *exempt)]


[IN, OUT, UID, GID] = [item for item in planned() if isinstance(item, Probe)]
IN6 = next(item for item in planned(dual_stack=True) if item.family == "ipv6")
OWN_P, OWN_Z = Listening(15001), Listening(15006)
TAKEN_P, TAKEN_Z = Listening(15001, taken=True, uid=1337), Listening(15006, taken=True, uid=1337)
STUCK_P = TAKEN_P.replace(stuck=True)
DIALLED = ("192.0.2.1", 15002)
THERE = Observation("connected", address_is_here=False)
GONE = Observation("unanswered", address_is_here=False)
QUERY, QUERY_OF_UID, *_ = [
    item for item in planned(redirect_dns=True, facts=SERVERS) if isinstance(item, Probe) and item.dns
]
AGENT = Listening(15053)


@pytest.mark.parametrize(
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


# --- verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
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


def results(*statuses: str) -> tuple[Result, ...]:
    return tuple(Result(OUT, status, "", "") for status in statuses)  # type: ignore[arg-type]


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


# --- the report -------------------------------------------------------------------------------


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
    seen = Observation("unanswered", sent_to=("127.0.0.1", port), asked=True)
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
