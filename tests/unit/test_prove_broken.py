"""Rules that were changed on purpose: prove names the property that does not hold, and a packet for which."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from istio_iptables import configure
from istio_iptables.interpreter.explore import explore
from istio_iptables.prove.open_ends import OPEN_END
from istio_iptables.prove.ways import assumed, judged
from istio_iptables.rules.model import IPV4, IPV6
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import proxy_of
from tests.support.judging import Edit, change, drop, nothing, swap, world_of_scripts
from tests.support.rulesets import BOTH

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from istio_iptables.rules.model import Family

PLAIN: dict[str, str] = {}
DUAL = {"dual-stack": "true"}
TPROXY = {"istio-inbound-interception-mode": "TPROXY"}
MANY = {
    "istio-local-exclude-ports": "15020,9090",
    "istio-service-exclude-cidr": "10.0.0.0/8",
    "istio-outbound-ports": "8443",
    "istio-local-outbound-ports-exclude": "22",
    "istio-exclude-interfaces": "eth1",
    "kube-virt-interfaces": "vm0",
    "redirect-dns": "true",
    "drop-invalid": "true",
}
LISTED = {"istio-inbound-ports": "80,443", "istio-service-cidr": "192.168.0.0/16"}
LOOP = {"no-loop", "proxy-left-alone"}
MACHINES = {**LISTED, "kube-virt-interfaces": "vm0"}

#: Settings, the change of a rule of IPv4, and the properties that do not hold any more.
BROKEN: list[tuple[dict[str, str], Edit, set[str]]] = [
    # A rule that is taken away
    (
        PLAIN,
        drop("-A ISTIO_OUTPUT -m owner --uid-owner 1337:1337 -j RETURN"),
        LOOP,
    ),
    (
        PLAIN,
        drop("-A ISTIO_OUTPUT -m owner --gid-owner 1337:1337 -j RETURN"),
        LOOP,
    ),
    (PLAIN, drop("-A ISTIO_OUTPUT -j ISTIO_REDIRECT"), {"outbound-captured"}),
    (PLAIN, drop("-A OUTPUT -j ISTIO_OUTPUT"), {"outbound-captured", "own-pod"}),
    (
        PLAIN,
        drop("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT"),
        {"inbound-captured"},
    ),
    (
        PLAIN,
        drop("-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN"),
        {"tunnel-port"},
    ),
    (PLAIN, drop("-o lo -s 127.0.0.6/32"), {"own-pod"}),
    (PLAIN, drop("-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337:1337"), {"open-end: other-proxy-users"}),
    (MANY, drop("-A ISTIO_INBOUND -p tcp -m tcp --dport 9090"), {"inbound-excluded"}),
    (MANY, drop("-A ISTIO_OUTPUT -d 10.0.0.0/8 -j RETURN"), {"outbound-excluded"}),
    (MANY, drop("-A ISTIO_OUTPUT -p tcp -m tcp --dport 22 -j RETURN"), {"outbound-excluded"}),
    (MACHINES, drop("-A PREROUTING -i vm0 -m comment"), {"rerouted"}),
    (MANY, drop("-A PREROUTING -i vm0 -j ISTIO_REDIRECT"), {"rerouted"}),
    (MANY, drop("-A OUTPUT -o eth1"), {"outbound-excluded"}),
    (MANY, drop("-A PREROUTING -i eth1"), {"inbound-excluded"}),
    (MANY, drop("-p udp -m udp --dport 53 -d 10.0.0.1/32 -j REDIRECT"), {"dns"}),
    (TPROXY, drop("--ctstate RELATED,ESTABLISHED"), {"later-packets"}),
    (TPROXY, drop("-p tcp -i lo -m mark ! --mark 0x53a"), {"own-pod", "invalid"}),
    (
        TPROXY,
        drop("-A OUTPUT -p tcp -o lo ! -d 127.0.0.1/32 -m owner --gid-owner"),
        {"open-end: own-pod-tproxy"},
    ),
    (TPROXY, drop("-A ISTIO_INBOUND -p tcp -m mark --mark 0x539"), {"open-end: carries-mark", "invalid"}),
    (LISTED, drop("-A ISTIO_INBOUND -p tcp -m tcp --dport 443"), {"inbound-captured"}),
    # Two rules that have changed places
    (MANY, swap("--dport 9090"), {"inbound-excluded"}),
    # A rule that is for more packets, or for fewer
    (PLAIN, change("--dport 15008 -j RETURN", "--dport 15000:15010 -j RETURN"), {"inbound-captured"}),
    (
        PLAIN,
        change("-j REDIRECT --to-ports 15001", "-m tcp --dport 2: -j REDIRECT --to-ports 15001"),
        {"outbound-captured"},
    ),
    (MANY, change("-d 10.0.0.0/8", "-d 10.0.0.0/9"), {"outbound-excluded"}),
    (MANY, change("-d 10.0.0.0/8", "-d 10.0.0.0/7"), {"outbound-captured"}),
    (LISTED, change("-d 192.168.0.0/16 -j ISTIO_REDIRECT", "-j ISTIO_REDIRECT"), {"outbound-excluded"}),
    # Another target
    (PLAIN, change("--to-ports 15001", "--to-ports 15002"), {"outbound-captured"}),
    (PLAIN, change("--to-ports 15006", "--to-ports 15001"), {"own-pod", "no-loop", "inbound-captured"}),
    (TPROXY, change("--on-port 15006", "--on-port 15007"), {"inbound-captured"}),
    (MANY, change("-A ISTIO_DROP -j DROP", "-A ISTIO_DROP -j ACCEPT"), {"invalid"}),
    (PLAIN, change("-d 127.0.0.1/32 -j RETURN", "-p udp -j DROP"), {"own-pod", "udp", "nothing-dropped"}),
    # What a socket sends to 127.0.0.1 that is bound to eth0 does not go over lo, where others have returned.
    (PLAIN, drop("-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"), {"own-pod"}),
    (PLAIN, swap("-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN"), {"own-pod"}),
]

#: Changes that alter no verdict.
SAME = [
    (MANY, drop("-A PREROUTING -i vm0 -m comment")),
    (MANY, drop("-A ISTIO_OUTPUT -p tcp -m tcp --dport 8443")),
    (MANY, swap("-A ISTIO_INBOUND -p tcp -m tcp --dport 15020")),
    (PLAIN, change("-A ISTIO_OUTPUT -j ISTIO_REDIRECT", "-A ISTIO_OUTPUT -p tcp -j ISTIO_REDIRECT")),
]


def _config(settings: dict[str, str]) -> Config:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return configure(settings, environment=BOTH)


def _refuted(config: Config, edit: Edit, family: Family = IPV4) -> set[str]:
    """Return the properties that do not hold; each has a packet that by itself is found to be treated so."""
    world = world_of_scripts(config, assumed(config), edit, family)
    found = [each for each in judged(config, world) if each.status != "PROVED"]
    for each in found:
        assert each.status == "REFUTED"
        for one in each.counterexamples:
            verdict = explore(world, one.packet, one.packets.direction, proxy_of(config)).verdict
            assert verdict == one.found != one.wanted
    return {each.name for each in found}


@pytest.mark.parametrize(("settings", "edit", "properties"), BROKEN)
def test_a_change_that_alters_a_verdict_is_refuted(
    settings: dict[str, str], edit: Edit, properties: set[str]
) -> None:
    found = _refuted(_config(settings), edit)
    assert properties | {"every-packet"} <= found
    # Some of the packets are those of an open end, too; no other property is broken.
    assert _named(found) <= properties


def _named(properties: Iterable[str]) -> set[str]:
    across = ("every-packet", "nothing-dropped")
    return {name for name in properties if name not in across and not name.startswith(OPEN_END)}


@pytest.mark.parametrize(("settings", "edit"), SAME)
def test_a_change_that_alters_no_verdict_is_not(settings: dict[str, str], edit: Edit) -> None:
    assert not _refuted(_config(settings), edit)


def test_settings_that_loop_by_themselves_are_said_to_loop() -> None:
    found = _refuted(_config({"inbound-capture-port": "15001"}), nothing)
    assert found == {"no-loop"}


def test_each_family_is_judged() -> None:
    edit = drop("-A ISTIO_OUTPUT -m owner --uid-owner 1337:1337 -j RETURN")
    assert _refuted(_config(DUAL), edit, IPV6) == {"no-loop", "proxy-left-alone", "every-packet"}
