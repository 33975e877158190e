"""What is written by netlink is what nft writes for the same script, and is read back as nft prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables import Facts, build, configure
from istio_iptables.formats import nft_json
from istio_iptables.formats.nft import edit_scripts
from istio_iptables.kernel.netlink import transaction
from istio_iptables.kernel.netlink.nf_tables import edit, read
from istio_iptables.rules import model
from istio_iptables.rules.istio import NATIVE_TABLES
from istio_iptables.rules.model import ACCEPT, Counters, Rule
from istio_iptables.rules.nftables.model import Addresses, NativeChain, NativeTable, Owners, Ports
from istio_iptables.rules.nftables.translate import translate
from tests.support import strategies

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

Tables = tuple[NativeTable, ...]
NAMES = tuple(NATIVE_TABLES.values())


def properties(share: float) -> Any:
    return hypothesis_settings(
        max_examples=max(round(share * hypothesis_settings().max_examples), 4),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Scratch, Scratch]]:
    with Scratch() as one, Scratch() as other:
        yield one, other


def write(before: Tables, after: Tables, *, sets_first: bool = True) -> None:
    for messages in edit.messages(before, after, sets_first=sets_first):
        transaction.commit("write", messages, transaction.generation())


def listed(scratch: Scratch) -> tuple[str, str, str]:
    """Return all rules as nft prints them, handles and counters included."""
    options = ("--handle", "list", "ruleset")
    return scratch.nft(*options), scratch.nft("--numeric", *options), scratch.nft("--json", *options)


def of_nft(scratch: Scratch) -> Tables:
    """Return the tables as the JSON of nft has them."""
    names = [line.split()[-1] for line in scratch.nft("list", "tables").splitlines()]
    printed = {name: scratch.nft("--json", "--numeric", "list", "table", "inet", name) for name in names}
    return tuple(nft_json.parse(printed[name]) for name in NAMES if name in printed)


def counted(tables: Tables) -> list[Any]:
    return [
        (table.name, chain.name, rule.counters)
        for table in tables
        for chain in table.chains
        for rule in chain.rules
    ]


def agree(two: tuple[Scratch, Scratch], *states: Tables, sets_first: bool = True) -> None:
    """From one state to the next, nft reads scripts, the kernel our messages, and nft sees no difference."""
    ours, theirs = two
    before: Tables = ()
    try:
        for after in (*states, ()):
            for script in edit_scripts(before, after, sets_first=sets_first):
                theirs.nft(script=script)
            with ours.inside():
                write(before, after, sets_first=sets_first)
                found = read.read(NAMES)
            assert listed(ours) == listed(theirs)
            assert not found.unlike
            printed = of_nft(theirs)
            assert found.tables == printed == after
            assert [table.unused for table in found.tables] == [table.unused for table in printed]
            assert counted(found.tables) == counted(printed)
            with theirs.inside():
                assert read.read(NAMES).tables == printed
            before = after
    finally:
        for scratch in two:
            scratch.nft("flush", "ruleset")


@properties(0.06)
@given(
    one=strategies.settings(), other=strategies.settings(), pod=strategies.environments(), first=st.booleans()
)
def test_rules_for_any_settings_are_those_of_nft(
    two: tuple[Scratch, Scratch],
    one: dict[str, str],
    other: dict[str, str],
    pod: tuple[bool, bool, list[str]],
    first: bool,
) -> None:
    ipv4, ipv6, servers = pod
    facts = Facts(ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    states = [
        translate(build(configure(values, environment=facts)))
        for values in ({**one, "rule-comments": "true"}, other)
    ]
    agree(two, *states, sets_first=first)


def table_of(*written: Rule) -> NativeTable:
    return NativeTable("istio-proxy-raw", (NativeChain("istio-output", None, written),))


@properties(0.06)
@given(strategies.native_tables(), strategies.native_tables())
@example(
    table_of(Rule((Addresses("destination", "ipv4", ((0, 2**32 - 1),)),), ACCEPT)),
    table_of(Rule((Addresses("destination", "ipv6", ((0, 2**128 - 1),)),), ACCEPT)),
)
@example(
    table_of(Rule((Ports("source", "udp", ((0, 65535),), negated=True),), ACCEPT)),
    table_of(
        Rule((Owners("user", ((0, 2**32 - 2),)),), ACCEPT),
        Rule((Owners("group", ((7, 9), (11, 11))),), ACCEPT),
    ),
)
@example(
    table_of(Rule((Addresses("source", "ipv4", ((1, 7), (9, 9), (2**32 - 2, 2**32 - 1))),), ACCEPT)),
    table_of(Rule((Addresses("source", "ipv6", ((0, 0), (2**128 - 7, 2**128 - 1))),), ACCEPT)),
)
@example(
    table_of(Rule((model.ConntrackState(frozenset({"INVALID", "UNTRACKED", "NEW"})),), model.RestoreMark())),
    table_of(Rule((), model.ConntrackZone(65535), counters=Counters(1, 2))),
)
def test_rules_of_any_kind_are_those_of_nft(
    two: tuple[Scratch, Scratch], one: NativeTable, other: NativeTable
) -> None:
    agree(two, (one,), (other,))
