"""--compact against the kernel: every backend writes what was asked for, and it is a change like any other.

That they have the verdicts of the plain rules is shown by tests/unit/test_lists.py and test_one_verdict.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given

from istio_iptables import Facts, Ruleset, build, configure
from istio_iptables.kernel.iptables_command import IptablesCommand
from istio_iptables.kernel.xtables.libiptc import Libiptc
from tests.support.agreeing import Location, Pod, Settings, properties
from tests.support.applying import BACKENDS, every_backend, rules_of
from tests.support.saved import normalise_save
from tests.support.strategies import environments, listed, ports, settings

from ..support.scratch import FAMILIES, KERNEL, Scratch, owned

pytestmark = KERNEL

LISTS = ["-d", "22,23,80-90,15090", "-x", "10.0.0.0/9,10.128.0.0/9,fd00::/9,fd80::/9", "-o", "1,3,5,7"]


@pytest.fixture(scope="module")
def locations() -> Iterator[list[Location]]:
    backends: list[Libiptc | IptablesCommand] = [
        Libiptc(),
        IptablesCommand("iptables-legacy"),
        IptablesCommand("iptables-nft"),
    ]
    with Scratch() as one, Scratch() as two, Scratch() as three:
        scratches = (one, two, three)
        made = [Location(b.name, b, s) for b, s in zip(backends, scratches, strict=True)]
        yield made
        for location in made:
            location.backend.close()


def rules(values: Settings, pod: Pod) -> Ruleset:
    ipv4, ipv6, servers = pod
    facts = Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    return build(configure(values, environment=facts))


@properties(0.4)
@given(settings(), listed(ports(), max_size=40), environments())
def test_every_backend_writes_the_same_and_reads_it_back(
    locations: list[Location], values: Settings, long: str, pod: Pod
) -> None:
    """Compact from nothing, then plain, then compact again, then nothing."""
    values = {**values, "istio-inbound-ports": long, "istio-outbound-ports": long}
    compact, plain = rules({**values, "compact": "true"}, pod), rules(values, pod)
    seen: list[list[dict[str, list[str]]]] = []
    for location in locations:
        found = []
        with location.scratch.inside():
            try:
                live = {family: location.read(family, "") for family in FAMILIES}
                for wanted in (compact, plain, compact, Ruleset()):
                    for family in FAMILIES:
                        location.edit(live[family], wanted, family)
                        saved = location.save(family)
                        live[family] = location.read(family, saved)
                        assert location.nothing_to_do(live[family], wanted, family), location.name
                        found.append(normalise_save(saved))
            except BaseException:
                location.empty()
                raise
        seen.append(found)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][:2] == seen[0][4:6]
    assert seen[0][6:] == [{}, {}]


@every_backend
def test_compact_or_not_is_a_difference_both_ways(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        states = {}
        for this, other in (([], ["--compact"]), (["--compact"], [])):
            arguments = [*options, *LISTS, "--dual-stack"]
            scratch.apply(*arguments, *this)
            state = rules_of(scratch)
            assert "nothing to do" in scratch.apply(*arguments, *this).stderr
            shown = scratch.tool(*arguments, *other)
            assert shown.returncode == 3
            for family in FAMILIES:
                assert f"@ {family} nat (iptables-{variant})" in shown.stdout
            multiport = "-A ISTIO_OUTPUT -p tcp -m multiport --dports 1,3,5,7 -j RETURN"
            assert f"{'-' if this else '+'}{multiport}" in shown.stdout.splitlines()
            assert rules_of(scratch) == state
            scratch.apply(*arguments, *other, "--reconcile")
            assert "nothing to do" in scratch.apply(*arguments, *other).stderr
            states[bool(this)] = state
            states[bool(other)] = rules_of(scratch)
            scratch.apply("cleanup")
            assert rules_of(scratch) == {}
        assert states[True] != states[False]


@every_backend
@pytest.mark.parametrize("flag", ["-x", "-i"])
def test_networks_that_are_merged_into_everything_are_no_difference(backend: str, flag: str) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        everything = [flag, "0.0.0.0/1,128.0.0.0/1,::/1,8000::/1", "-k", "vm0", "--dual-stack", "--compact"]
        scratch.apply(*options, *everything)
        assert "nothing to do" in scratch.apply(*options, *everything).stderr


@every_backend
def test_what_is_rendered_is_what_is_applied(backend: str) -> None:
    options, variant = BACKENDS[backend]
    with Scratch(addresses=True) as applied, Scratch(addresses=True) as loaded:
        applied.apply(*options, *LISTS, "--compact", "--dual-stack")
        for family in FAMILIES:
            script = loaded.apply(*LISTS, "--compact", "--dual-stack", "render", "--family", family).stdout
            loaded.restore(variant, family, script)
            assert sorted(owned(loaded.save(variant, family))) == sorted(owned(applied.save(variant, family)))
            assert len(re.findall("--dports", script)) >= 3
