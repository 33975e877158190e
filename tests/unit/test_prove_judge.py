"""The prover and an independent judge, Z3, say the same of pairs of rule sets.

Z3 has a reading of its own of what rules do (tests/support/z3_judge.py). For every pair and every kind of
packets both have to say that the rule sets are equal, or that they are not, and agree on each other's packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import Phase, given, reject
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables import build
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.prove.space import DIRECTIONS, PHASES
from istio_iptables.rules import model
from istio_iptables.rules.model import (
    DROP,
    FAMILIES,
    Chain,
    ConnectionMark,
    Mark,
    RestoreMark,
    Rule,
    Ruleset,
    SetMark,
    Table,
)
from istio_iptables.settings.config import Config
from istio_iptables.trace.world import proxy_of
from tests.support.asking_both import Judged, judged
from tests.support.judging import configs
from tests.support.mutations import change, has_native_form
from tests.support.random_rules import random_ruleset
from tests.support.z3_packets import Kind

pytestmark = pytest.mark.slow

_SEEDS = st.integers(0, 1 << 62)
_MOST_RULES = 60
_GENERATE = [Phase.explicit, Phase.generate]  # a seed has no smaller form


def _pairs(part: float) -> hypothesis_settings:
    """Return settings for a part of all pairs: of 50, and with the profile fuzz of 1,100."""
    most = hypothesis_settings().max_examples
    every = most * 5 // 10 if most < 1000 else most * 11 // 10
    return hypothesis_settings(max_examples=max(1, round(every * part)), phases=_GENERATE)


class Tally:
    """Counts pairs of rule sets and what is said of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def random(self, seed: int) -> Random:
        """Return where choices come from; Hypothesis draws some seeds again and again."""
        return Random(f"{seed} {self.counts['pairs']}")

    def add(self, about: str, found: list[Judged]) -> None:
        """Count a pair, of which something was said for each kind of packets."""
        self.counts["pairs"] += 1
        self.counts[f"{about}: pairs"] += 1
        self.counts[f"{about}: different"] += any(each.differs for each in found)
        self.counts[f"{about}: caught"] += any(each.differs and each.caught for each in found)
        for_nothing = any(each.caught and not each.differs for each in found)
        self.counts[f"{about}: reported for nothing"] += for_nothing


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    print(dict(made.counts))


def _kinds(family: model.Family) -> list[Kind]:
    return [Kind(family, direction, phase) for direction in DIRECTIONS for phase in PHASES]


def _ask(
    tally: Tally, about: str, rules: tuple[Ruleset, Ruleset], proxy: Proxy, family: model.Family, native: bool
) -> None:
    found = [judged(*rules, proxy, kind, native=native) for kind in _kinds(family)]
    for kind, each in zip(_kinds(family), found, strict=True):
        assert not each.disagreements, (kind, about, each.disagreements)
    tally.add(about, found)


@_pairs(0.4)
@given(seed=_SEEDS)
def test_of_any_rules_both_say_the_same(tally: Tally, seed: int) -> None:
    random = tally.random(seed)
    family = random.choice(FAMILIES)
    one = random_ruleset(random, family)
    other: Ruleset = one
    if random.randrange(4) == 0:
        other = random_ruleset(random, family)
    else:
        for _ in range(random.randint(1, 3)):
            changed = change(random, other)
            other = changed.ruleset if changed else other
    _ask(tally, "any rules", (one, other), Proxy(), family, native=False)


#: Rules of raw and of mangle for what is sent, with what becomes of a later packet whose connection has the
#: mark 1: before conntrack it has none (tests/kernel/test_assumptions.py shows it).
_BEFORE_CONNTRACK: dict[str, tuple[list[Rule], list[Rule], str]] = {
    "no mark is known": ([Rule((ConnectionMark(1),), DROP)], [], "direct"),
    "none is known to be another one": ([Rule((ConnectionMark(7, negated=True),), DROP)], [], "direct"),
    "afterwards it is known": ([], [Rule((ConnectionMark(1),), DROP)], "dropped"),
    "there is nothing to restore": (
        [Rule((), SetMark(9)), Rule((), RestoreMark())],
        [Rule((Mark(9),), DROP)],
        "dropped",
    ),
}


@pytest.mark.parametrize("about", _BEFORE_CONNTRACK)
def test_before_conntrack_has_seen_a_packet(about: str) -> None:
    raw, mangle, expected = _BEFORE_CONNTRACK[about]
    tables = (
        Table("ipv4", "raw", (Chain("OUTPUT", tuple(raw)),)),
        Table("ipv4", "mangle", (Chain("OUTPUT", tuple(mangle)),)),
    )
    found = judged(Ruleset(), Ruleset(tables), Proxy(), Kind("ipv4", "out", "later"))
    assert not found.disagreements
    assert found.differs == (expected == "dropped")


@_pairs(0.6)
@given(config=configs(), seed=_SEEDS)
def test_of_changed_rules_of_the_policy_both_say_the_same(tally: Tally, config: Config, seed: int) -> None:
    random = tally.random(seed)
    wanted = build(config)
    family = random.choice(wanted.families())
    tables = tuple(table for table in wanted.tables if table.family == family)
    one = wanted.replace(tables=tables)
    if sum(1 for _ in one.rules()) > _MOST_RULES:
        reject()
    changed = change(random, one)
    if changed is None:
        reject()
    native = random.randrange(3) == 0 and has_native_form(changed.ruleset)
    _ask(
        tally,
        f"{changed.kind}{' (native)' if native else ''}",
        (one, changed.ruleset),
        proxy_of(config),
        family,
        native,
    )
