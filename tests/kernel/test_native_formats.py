"""What is written is what nft understands, and what nft prints is read back as what was written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings

from istio_iptables import Facts, build, configure
from istio_iptables.change.actions import EditNative
from istio_iptables.kernel.native import NativeNftables
from istio_iptables.rules import model
from istio_iptables.rules.lists import union
from istio_iptables.rules.model import ACCEPT, Counters, Rule
from istio_iptables.rules.nftables import model as nftables
from istio_iptables.rules.nftables.model import Addresses, NativeChain, NativeTable, Ports
from istio_iptables.rules.nftables.translate import translate
from tests.support import strategies

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

Settings = dict[str, str]
Pod = tuple[bool, bool, list[str]]


def properties(share: float) -> Any:
    return hypothesis_settings(
        max_examples=max(1, round(share * hypothesis_settings().max_examples)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    with Scratch() as made:
        yield made


def tables_for(values: Settings, pod: Pod) -> tuple[NativeTable, ...]:
    ipv4, ipv6, servers = pod
    return translate(
        build(configure(values, environment=Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))))
    )


def counted(tables: tuple[NativeTable, ...]) -> dict[tuple[str, str], list[tuple[Rule, Counters]]]:
    return {
        (table.name, chain.name): [(rule, rule.counters) for rule in chain.rules]
        for table in tables
        for chain in table.chains
    }


def read() -> tuple[NativeTable, ...]:
    found = NativeNftables().read()
    assert not any(table.text for table in found), "nothing of it is strange"
    return found


@properties(0.3)
@given(one=strategies.settings(), other=strategies.settings(), pod=strategies.environments())
def test_rules_for_any_settings_are_read_back_equal(
    scratch: Scratch, one: Settings, other: Settings, pod: Pod
) -> None:
    """From nothing to one, to another, and to nothing."""
    live: tuple[NativeTable, ...] = ()
    with scratch.inside():
        try:
            for wanted in (tables_for({**one, "rule-comments": "true"}, pod), tables_for(other, pod), ()):
                NativeNftables().do(EditNative(live, wanted))
                live = read()
                assert set(live) == set(wanted)
        finally:
            scratch.nft("flush", "ruleset")


def table_of(*written: Rule) -> NativeTable:
    return NativeTable("istio-proxy-raw", (NativeChain("istio-output", None, written),))


@properties(0.25)
@given(strategies.native_tables(), strategies.native_tables())
@example(
    table_of(Rule((Addresses("destination", "ipv4", ((0, 2**32 - 1),)),), ACCEPT)),
    table_of(Rule((Addresses("destination", "ipv6", ((0, 2**128 - 1),)),), ACCEPT)),
)
@example(
    table_of(Rule((Ports("source", "udp", ((0, 65535),), negated=True),), ACCEPT)),
    table_of(Rule((nftables.Owners("user", ((0, 2**32 - 2),)),), ACCEPT)),
)
@example(
    table_of(Rule((Addresses("source", "ipv4", ((1, 7), (9, 9), (2**32 - 2, 2**32 - 1))),), ACCEPT)),
    table_of(Rule((Addresses("source", "ipv6", ((0, 0), (2**128 - 7, 2**128 - 1))),), ACCEPT)),
)
@example(
    table_of(Rule((model.ConntrackState(frozenset({"INVALID", "UNTRACKED", "NEW"})),), model.RestoreMark())),
    table_of(Rule((), model.ConntrackZone(65535), counters=Counters(1, 2))),
)
def test_rules_of_any_kind_are_read_back_equal_with_their_counters(
    scratch: Scratch, one: NativeTable, other: NativeTable
) -> None:
    with scratch.inside():
        try:
            live: tuple[NativeTable, ...] = ()
            for wanted in ((one,), (other,), ()):
                NativeNftables().do(EditNative(live, wanted))
                live = read()
                assert counted(live) == counted(wanted)
                assert live == wanted
        finally:
            scratch.nft("flush", "ruleset")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_twenty_thousand_networks_and_some_ranges(scratch: Scratch, family: model.Family) -> None:
    """Sets this long are written and printed in many lines."""
    start = 10 << 24 if family == "ipv4" else 0xFD << 120
    networks = [(start + number * 512, start + number * 512 + 200 + number % 100) for number in range(20_000)]
    wanted = (table_of(Rule((Addresses("destination", family, union(networks)),), ACCEPT)),)
    with scratch.inside():
        NativeNftables().do(EditNative((), wanted))
        assert read() == wanted
        NativeNftables().do(EditNative(wanted, ()))
        assert read() == ()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_nothing_depends_on_the_names_of_this_machine() -> None:
    """A small image has no /etc/protocols; an admin may have given a mark a name (/etc/iproute2/rt_marks)."""
    arguments = ["--native-nftables", "--dual-stack", "-m", "TPROXY", "--redirect-dns", "--capture-all-dns"]
    with Scratch(addresses=True) as scratch:
        marks = scratch.directory / "rt_marks"
        marks.write_text("1337 istio\n1338 envoy\n")
        etc = scratch.directory / "etc"
        shutil.copytree(
            "/etc", etc, symlinks=True, ignore=lambda _, names: {"shadow", "gshadow", "ssl"} & {*names}
        )
        (etc / "iproute2").mkdir(exist_ok=True)
        shutil.copy(marks, etc / "iproute2")
        script = 'mount --bind "$0" /etc && exec "$@"'
        other = ["unshare", "--mount", "sh", "-c", script, str(etc)]
        plain: list[str] = []
        assert "istio" in scratch.run(*other, "cat", "/etc/iproute2/rt_marks").stdout
        for writes, reads in ((plain, other), (other, plain)):
            assert scratch.tool(*arguments, prefix=writes).returncode == 0
            again = scratch.tool(*arguments, prefix=reads)
            assert again.returncode == 0, again.stdout
            assert "nothing to do" in again.stderr
            scratch.apply("cleanup")
