"""rulesets: settings that make rules of all sorts, and their rules."""

from __future__ import annotations

from collections.abc import Mapping

from istio_iptables.api import build, configure
from istio_iptables.rules.model import Ruleset
from istio_iptables.settings.facts import Facts

BOTH = Facts(True, True, ("10.0.0.1", "fd00::1"))


def ruleset_for(chosen: Mapping[str, str]) -> Ruleset:
    return build(configure(chosen, environment=BOTH))


EVERYTHING = {
    "dual-stack": "true",
    "redirect-dns": "true",
    "istio-inbound-interception-mode": "TPROXY",
    "istio-exclude-interfaces": 'eth1,a"b\\c,é',
    "kube-virt-interfaces": "net1,+",
    "istio-service-cidr": "10.0.0.0/8,fd00::/8",
    "drop-invalid": "true",
    "rule-comments": "true",
}
