"""The verdict that the rules have about a probe's packet."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from istio_iptables import build
from istio_iptables.rules.model import Chain, ForeignMatch, ForeignTarget, Rule, Ruleset, SetMark, Table
from istio_iptables.validation.model import Identity
from istio_iptables.validation.trace import Outcome, Packet, Tracer
from tests.support.cases import all_cases
from tests.support.probes import APP, PROXY, config_of


def packet(
    address: str, identity: Identity, *, port: int = 80, interface: str = "eth0", source: str = ""
) -> Packet:
    parsed = ipaddress.ip_address(address)
    origin = int(ipaddress.ip_address(source)) if source else 0
    return Packet(f"ipv{parsed.version}", origin, int(parsed), port, interface, identity)  # type: ignore[arg-type]


@all_cases(
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
