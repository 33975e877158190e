"""status: rules in place on a machine in memory, as `status` reports them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from istio_iptables import Facts, Ruleset, build, configure
from istio_iptables.change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, Live
from istio_iptables.rules.model import (
    IPV4,
    Counters,
    Rule,
)
from istio_iptables.status.changes import Change
from istio_iptables.status.report import CountedRule, Status
from istio_iptables.testing import FakeKernel

Location = Any
LOCATIONS = (IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES)
every_location = pytest.mark.parametrize("location", LOCATIONS)


def rules_for(ipv6: bool = False, **values: Any) -> Ruleset:
    return build(configure(dual_stack=ipv6, **values, environment=Facts(ipv6=ipv6)))


def in_place(wanted: Ruleset, location: Location = IPTABLES_LEGACY) -> FakeKernel:
    machine = FakeKernel()
    machine.put(wanted, location)
    return machine


def counted(live: Live, count: dict[tuple[str, object], int]) -> Live:
    """Give the rules of a chain with a target a number of packets, and a hundred times as many bytes."""

    def with_counters(chain: Any) -> Any:
        return chain.replace(
            rules=tuple(
                r.replace(counters=Counters(n, 100 * n)) if (n := count.get((chain.name, r.target), 0)) else r
                for r in chain.rules
            )
        )

    def tables(found: Any) -> Any:
        return tuple(t.replace(chains=tuple(map(with_counters, t.chains))) for t in found)

    return live.replace(
        tables={where: tables(found) for where, found in live.tables.items()}, native=tables(live.native)
    )


def rows(status: Status) -> Iterator[CountedRule]:
    for place in status.places:
        for table in place.tables:
            for chain in table.chains:
                yield from chain.rules


def edited(machine: FakeKernel, chain_name: str, *rules: Rule) -> Live:
    """Replace the rules of a chain of nat."""
    key = (IPTABLES_LEGACY, IPV4, "nat")
    table = machine.tables[key]  # type: ignore[index]
    machine.tables[key] = table.replace(  # type: ignore[index]
        chains=tuple(c.replace(rules=rules) if c.name == chain_name else c for c in table.chains)
    )
    return machine.live()


def only(found: list[Change] | None) -> Change:
    assert found is not None
    [change] = found
    return change
