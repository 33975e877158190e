"""Rules do what the intent says, for every packet, in every form; and rules that do not are found."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from istio_iptables import configure
from istio_iptables.interpreter.condition import ALWAYS, AllOf
from istio_iptables.prove import intent
from istio_iptables.prove.open_ends import OPEN_END, OPEN_ENDS
from istio_iptables.prove.ways import assumed, judged, kinds
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import of_settings
from tests.support.judging import NETWORKS, configs, wrong
from tests.support.pages import ROOT
from tests.support.rulesets import BOTH

#: Of one configuration in all forms: `make fuzz` has five hundred.
_SOME = settings(max_examples=max(1, settings().max_examples // 2))
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
    assert "any but 9090 goes to 15006" in says["inbound-captured"]
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


def test_every_property_and_every_open_end_is_on_the_page() -> None:
    page = (ROOT / "docs/what-is-proved.md").read_text()
    headings = {line.removeprefix("### ") for line in page.splitlines() if line.startswith("### ")}
    assert headings == {end.name for end in OPEN_ENDS}
    everything = {"dual-stack": "true", "kube-virt-interfaces": "vm0", "redirect-dns": "true"}
    for chosen in ({}, everything, {**everything, "istio-inbound-interception-mode": "TPROXY"}):
        for each in judged(_of(chosen), of_settings(_of(chosen), assumed(_of(chosen)), native=False)):
            assert each.name.startswith(OPEN_END) or f"| `{each.name}` |" in page, each.name


def test_the_intent_is_short() -> None:
    assert len(Path(intent.__file__).read_text().splitlines()) < 150


@pytest.mark.slow
@_SOME
@given(config=configs(), network=st.sampled_from(sorted(NETWORKS)), form=st.sampled_from(sorted(FORMS)))
def test_rules_of_any_settings_do_what_they_promise(config: Config, network: str, form: str) -> None:
    compact, native = FORMS[form]
    world = of_settings(config.replace(compact=compact), NETWORKS[network](config), native=native)
    loops = (
        config.inbound_port == config.outbound_port
    )  # that settings loop by themselves is no fault of rules
    found = [each for each in judged(config, world) if not (loops and each.name == "no-loop")]
    assert not wrong(found)
