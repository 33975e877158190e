"""The truth is the kernel: what the interpreter foretells of a packet is what the kernel does with it.

Hypothesis draws rules of this tool and of others around them, loaded by the real tools, and packets. The
interpreter reads the rules, addresses and routes back from the kernel and says what becomes of each packet;
then it is sent, and what is seen at the end of its way has to be that: where it went, by which interface, as
what, with which mark, connection mark and zone. So has the answer to it, and the packet after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, event, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables.interpreter.packet import TCP, UDP

from ..support.admin_iptables import SETS
from ..support.drawn_packets import packets, values_of
from ..support.neighbour_rules import KINDS, setups
from ..support.testbed import Setup, Testbed
from ..support.truth import Compared, compare

#: Packets of one rule set; each may have two more, the answer and a later one.
_PACKETS = 20
#: Pairs of a rule set and a packet for each rule set that is drawn, and the share of them that may depend on
#: something although all matches and targets are modelled.
_PAIRS_EACH, _MOST_DEPEND = 20, 0.02
#: From so many rule sets on, there has to be a packet of every kind, and a rule set of every kind.
_SOME, _MANY = 100, 500
_EVERY = (
    *("first", "answer", "later", "in", "out", "ipv4", "ipv6", f"protocol {TCP}", f"protocol {UDP}"),
    *("delivered", "sent", "dropped", "rejected"),
)


class Tally:
    """Counts what was compared."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def add(self, found: Compared, kinds: Iterable[str]) -> None:
        """Count a pair of a rule set of some kinds and a packet."""
        self.kinds.update(kinds)
        self.counts["pairs"] += 1
        self.counts[found.what] += 1
        self.counts[found.packet.family] += 1
        self.counts["in" if found.packet.received_on else "out"] += 1
        self.counts[f"protocol {found.packet.protocol}"] += 1
        self.counts[found.observed.how] += 1
        self.counts[f"verdict {found.foretold.verdict.code}"] += 1
        if found.is_unknown:
            self.counts["not modelled"] += 1
        elif found.depends:
            self.counts["depends"] += 1

    def check(self, rule_sets: int) -> None:
        """Fail if there were not as many pairs as there should be, or too many without an answer."""
        counts = self.counts
        assert counts["pairs"] >= _PAIRS_EACH * rule_sets, counts
        if rule_sets >= _SOME:
            assert not [what for what in _EVERY if not counts[what]], counts
        assert counts["depends"] <= _MOST_DEPEND * (counts["pairs"] - counts["not modelled"]), counts
        if rule_sets >= _MANY:
            assert not [kind for kind in KINDS if not self.kinds[kind]], self.kinds


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed(SETS) as made:
        yield made


def test_the_kernel_does_what_is_foretold(bed: Testbed) -> None:
    """At least 2,000 pairs of a rule set and a packet, with the profile `fuzz` 20,000; no disagreement."""
    tally = Tally()
    rule_sets = hypothesis_settings().max_examples

    @hypothesis_settings(
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(setups(), st.data())
    def agree(setup: Setup, data: st.DataObject) -> None:
        try:
            bed.load(setup)
            world = bed.world()
            values = values_of(world)
            for _ in range(_PACKETS):
                packet = data.draw(packets(values))
                talk = packet.state == "NEW" and packet.has_ports and data.draw(st.booleans())
                for found in compare(bed, world, packet, talk):
                    event(found.observed.how)
                    tally.add(found, setup.kinds)
                    if found.differences:
                        pytest.fail(f"{bed.saved()}\n{setup.sysctls}\n{found}", pytrace=False)
        finally:
            bed.unload()

    agree()
    print(dict(tally.counts), dict(tally.kinds))
    tally.check(rule_sets)
