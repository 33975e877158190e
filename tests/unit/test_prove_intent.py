"""Rules do what the intent says, for every packet, in every form; and rules that do not are found."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from istio_iptables import configure
from istio_iptables.interpreter.condition import ALWAYS, AllOf
from istio_iptables.interpreter.explore import explore
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.packet import TCP, Packet
from istio_iptables.interpreter.verdict import DROPPED
from istio_iptables.prove import bound, intent
from istio_iptables.prove.open_ends import OPEN_END, OPEN_ENDS, OpenEnd
from istio_iptables.prove.proof import Property
from istio_iptables.prove.ways import assumed, judged, kinds
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import of_settings, proxy_of
from tests.support.judging import NETWORKS, configs, wrong
from tests.support.pages import ROOT
from tests.support.rulesets import BOTH

#: `make fuzz` has five hundred.
_MOST = settings().max_examples
_SOME = settings(max_examples=max(1, _MOST // (2 if _MOST > 100 else 4)))
FORMS = {"plain": (False, False), "compact": (True, False), "native": (False, True)}


def _of(chosen: dict[str, str]) -> Config:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return configure(chosen, environment=BOTH)


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_default_rules_do_what_they_promise(mode: str) -> None:
    config = _of({"istio-inbound-interception-mode": mode})
    assert not wrong(judged(config, of_settings(config, assumed(config), native=False)))


def test_a_property_is_said_with_the_settings_filled_in() -> None:
    config = _of(
        {
            "envoy-port": "4000",
            "istio-local-exclude-ports": "9090",
            "istio-service-exclude-cidr": "10.0.0.0/8",
        }
    )
    found = judged(config, of_settings(config, assumed(config), native=False))
    says = {each.name: " ".join(each.says) for each in found}
    assert "TCP to any address goes to 4000" in says["outbound-captured"]
    assert "10.0.0.0/8" in says["outbound-excluded"]
    assert "TCP that comes in to any port but 9090 goes to 15006" in says["inbound-captured"]
    assert "15008" in says["tunnel-port"]
    assert "UID 1337, GID 1337" in says["no-loop"]
    assert "4000" in says["no-loop"]
    assert "IPv6 is off" in says["family-off"]
    assert "dns" not in says


def test_every_packet_is_promised_something() -> None:
    config = _of({})
    network = assumed(config)
    for packets in kinds((of_settings(config, network, native=False),), config):
        assert intent.promised(config, network)(packets)[-1].when == AllOf((ALWAYS,))


def test_what_is_about_no_packet_is_not_said() -> None:
    names = {each.name for each in judged(_of({}), of_settings(_of({}), assumed(_of({})), native=False))}
    assert "rerouted" not in names
    assert not any("tproxy" in name for name in names)


@pytest.mark.slow
def test_a_mark_that_rules_take_away_may_be_that_of_a_route() -> None:
    config = _of({**TPROXY, "istio-inbound-ports": ""})
    network = NETWORKS["policy routing"](config)
    world = of_settings(config, network, native=False)
    [later] = [
        each
        for each in kinds((world,), config)
        if (each.space.family, each.direction, each.phase) == ("ipv4", "out", "later")
    ]
    dropped = [clause for clause in intent.promised(config, network)(later) if clause.verdict == DROPPED]
    assert {clause.name for clause in dropped} == {"open-end: carries-mark"}
    assert not wrong(judged(config, world))


def test_every_open_end_is_on_the_page() -> None:
    page = (ROOT / "docs/what-is-proved.md").read_text()
    headings = {line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")}
    assert headings == {bound.NAME, *(end.name for end in OPEN_ENDS)}


@pytest.mark.slow
def test_every_property_is_on_the_page() -> None:
    page = (ROOT / "docs/what-is-proved.md").read_text()
    everything = {"dual-stack": "true", "kube-virt-interfaces": "vm0", "redirect-dns": "true"}
    for chosen in ({}, everything, {**everything, "istio-inbound-interception-mode": "TPROXY"}):
        for each in judged(_of(chosen), of_settings(_of(chosen), assumed(_of(chosen)), native=False)):
            assert each.name.startswith(OPEN_END) or f"| `{each.name}` |" in page, each.name


TPROXY = {"istio-inbound-interception-mode": "TPROXY"}
#: Settings with which there are packets that an open end is about.
SOME = {
    "loopback-network": {**TPROXY, "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.9.0.0/16"},
    "own-pod-tproxy": TPROXY,
    "carries-mark": TPROXY,
    "other-proxy-users": {"proxy-uid": "1337,1338"},
    "same-port": {"inbound-capture-port": "15001"},
    "group-dns": {"redirect-dns": "true"},
    "dns-own-pod": {"redirect-dns": "true"},
    "no-socket": {},
    "no-address": {"dual-stack": "true"},
    "link-local": {**TPROXY, "dual-stack": "true"},
    "expected-tproxy": TPROXY,
    "rerouted-exclusions": {"kube-virt-interfaces": "vm0", "istio-service-exclude-cidr": "10.0.0.0/8"},
    "rerouted-tproxy": {**TPROXY, "kube-virt-interfaces": "vm0"},
    "tunnel-tproxy": TPROXY,
    "invalid-tproxy": TPROXY,
}


@pytest.mark.slow
@pytest.mark.parametrize("end", OPEN_ENDS, ids=lambda end: end.name)
def test_each_open_end_is_about_packets_that_trace_shows(end: OpenEnd) -> None:
    config = _of(SOME[end.name])
    world = of_settings(config, assumed(config), native=False)
    [found] = [each for each in judged(config, world) if each.name == OPEN_END + end.name]
    assert found.status == "PROVED"
    _instances_are_as_said(found, world, config)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_what_bound_sockets_send_is_redirected_and_lost(mode: str) -> None:
    config = _of({"istio-inbound-interception-mode": mode, "dual-stack": "true"})
    world = of_settings(config, assumed(config), native=False)
    [found] = [each for each in judged(config, world) if each.name == OPEN_END + bound.NAME]
    assert found.status == "PROVED"
    assert {each.packet.bound for each in found.instances} == {"eth0"}
    _instances_are_as_said(found, world, config)


def test_the_first_packet_of_an_expected_connection_is_captured_unless_by_tproxy() -> None:
    """REDIRECT asks nat, which it is the first packet for; TPROXY takes RELATED for what is there."""
    for mode, verdicts in (("REDIRECT", {"redirected 15006"}), ("TPROXY", {"direct"})):
        config = _of({"istio-inbound-interception-mode": mode})
        world = of_settings(config, assumed(config), native=False)
        packet = Packet("ipv4", TCP, 0xC6336401, 0xC6120002, 40000, 80, received_on="eth0", state="RELATED")
        found = explore(world, packet, "in", proxy_of(config))
        assert {str(way.verdict) for way in found.ways} == verdicts


def test_the_intent_is_short() -> None:
    assert len(Path(intent.__file__).read_text().splitlines()) < 150


@pytest.mark.slow
@_SOME
@given(config=configs(), network=st.sampled_from(sorted(NETWORKS)), form=st.sampled_from(sorted(FORMS)))
def test_rules_of_any_settings_do_what_they_promise(config: Config, network: str, form: str) -> None:
    compact, native = FORMS[form]
    world = of_settings(config.replace(compact=compact), NETWORKS[network](config), native=native)
    loops = config.inbound_port == config.outbound_port  # by themselves: it is no fault of the rules
    found = [each for each in judged(config, world) if not (loops and each.name == "no-loop")]
    assert not wrong(found)
    for each in found:
        _instances_are_as_said(each, world, config)


def _instances_are_as_said(found: Property, world: World, config: Config) -> None:
    """A packet for each sentence has its verdict also if it is followed by itself."""
    for one in found.instances:
        verdict = explore(world, one.packet, one.packets.direction, proxy_of(config)).verdict
        assert verdict == one.verdict, one
