"""What becomes of all packets at once: the same as of each one, and the same in every form of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from istio_iptables import Facts, configure
from istio_iptables.interpreter.explore import explore
from istio_iptables.prove.compare import differences, together
from istio_iptables.prove.example import example
from istio_iptables.prove.outcomes import outcomes, simplified
from istio_iptables.prove.space import DIRECTIONS, PHASES, packets
from istio_iptables.rules.model import FAMILIES
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import of_settings, proxy_of
from tests.support.judging import NETWORKS, configs

pytestmark = pytest.mark.slow

NETWORK = NETWORKS["one address"](configure(environment=Facts()))
KINDS = [(family, direction, phase) for family in FAMILIES for direction in DIRECTIONS for phase in PHASES]


@settings(max_examples=max(1, settings().max_examples // 4))
@given(config=configs())
def test_plain_compact_and_native_rules_are_the_same_for_every_packet(config: Config) -> None:
    plain = of_settings(config, NETWORK, native=False)
    others = (
        of_settings(config.replace(compact=True), NETWORK, native=False),
        of_settings(config, NETWORK, native=True),
    )
    proxy = proxy_of(config)
    for kind in KINDS:
        every = packets((plain, *others), *kind)
        expected = outcomes(simplified(plain), every, proxy)
        for other in others:
            found = list(differences(expected, outcomes(simplified(other), every, proxy)))
            assert not found, (kind, found[0].one.verdict, found[0].other.verdict)


@settings(max_examples=max(1, settings().max_examples // 4))
@given(config=configs())
def test_one_packet_of_each_verdict_has_that_verdict_by_itself(config: Config) -> None:
    world, proxy = of_settings(config, NETWORK, native=False), proxy_of(config)
    for family, direction, phase in KINDS:
        every = packets((world,), family, direction, phase)
        for verdict, region in together(outcomes(simplified(world), every, proxy)).items():
            packet = example(region, every)
            assert str(explore(world, packet, direction, proxy).verdict) == str(verdict), packet


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_rule_that_is_dropped_is_found_with_a_packet(direction: str) -> None:
    config = configure(environment=Facts())
    world, proxy = of_settings(config, NETWORK, native=False), proxy_of(config)
    chain = "ISTIO_OUTPUT" if direction == "out" else "ISTIO_INBOUND"
    [table] = [each for each in world.program.tables if chain in each.chains]
    shorter = table.replace(chains={**table.chains, chain: table.chains[chain][:-1]})
    broken = world.replace(program=world.program.replace(tables=(shorter,)))
    every = packets((world, broken), "ipv4", direction, "first")  # type: ignore[arg-type]
    found = list(
        differences(outcomes(simplified(world), every, proxy), outcomes(simplified(broken), every, proxy))
    )
    assert found
    packet = example(found[0].region, every)
    verdicts = {explore(each, packet, direction, proxy).verdict for each in (world, broken)}  # type: ignore[arg-type]
    assert verdicts == {found[0].one.verdict, found[0].other.verdict}
