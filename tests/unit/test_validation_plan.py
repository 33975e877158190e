"""Planning of probes: which connections prove the rules."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from istio_iptables import Facts, build, configure
from istio_iptables.rules.model import Cidr
from istio_iptables.validation.model import Identity, Probe, Skipped
from istio_iptables.validation.plan import Situation, plan
from tests.support import strategies
from tests.support.cases import all_cases
from tests.support.probes import (
    ADDRESSES,
    APP,
    PROXY,
    ROOT,
    SERVERS,
    config_of,
    on_link_only,
    outbound,
    planned,
    to_the_world,
)


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


# --- planning ---------------------------------------------------------------------------------


INBOUND = ("inbound", "ipv4", (1337, 1337), "127.0.0.6 15002", 15006)
INBOUND6 = ("inbound", "ipv6", (1337, 1337), "::6 15002", 15006)


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


@all_cases(
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


# --- planning: DNS ----------------------------------------------------------------------------


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


def test_with_all_dns_captured_a_server_of_this_process_is_queried_first():
    """Another program may have a rule for that server alone: docker has one for its own."""
    servers = (Cidr(4, 0x7F00000B, 32), Cidr(6, 0xFD << 120 | 0xA, 128))
    found = planned(redirect_dns=True, capture_all_dns=True, dual_stack=True, servers=servers)
    assert dns_of(found) == [*queries("127.0.0.11"), *queries("fd00::a", "ipv6")]
    only_6 = planned(redirect_dns=True, capture_all_dns=True, servers=servers[1:])
    assert dns_of(only_6) == queries("192.0.2.1")


def test_a_server_is_not_varied():
    picked = planned(
        redirect_dns=True, capture_all_dns=True, servers=(Cidr(4, 0x08080808, 32),), pick=lambda _: 7
    )
    assert {item.others for item in picked if isinstance(item, Probe) and item.dns} == {()}
    assert dns_of(picked) == queries("8.8.8.8")


def test_the_servers_of_this_process_do_not_replace_those_of_the_settings():
    found = planned(redirect_dns=True, facts=SERVERS, servers=(Cidr(4, 0x7F00000B, 32),))
    assert dns_of(found) == queries("10.96.0.10")
