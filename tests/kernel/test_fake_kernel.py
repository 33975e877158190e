"""The fake kernel of istio_iptables.testing is as strict as the real one.

Random edits, good and bad, are done by the fake and, in a network namespace, by iptables-legacy-restore,
iptables-nft-restore and libiptc. Both accept an edit or both refuse it, and then they have the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables import (
    Facts,
    KernelError,
    LocalAddress,
    LocalDefaultRoute,
    Machine,
    MarkLookup,
    Ruleset,
    build,
    configure,
)
from istio_iptables.change.actions import AddObject, EditTable, RemoveObject
from istio_iptables.formats import NFT_FAMILIES
from istio_iptables.kernel.iptables_command import IptablesCommand
from istio_iptables.kernel.netlink.nftables_remains import remove_empty
from istio_iptables.kernel.xtables.libiptc import Libiptc
from istio_iptables.rules import model
from istio_iptables.rules.edit import CreateChain, Delete, Insert, RemoveChain, ReplaceRules, TableEdit
from istio_iptables.rules.istio import CHAINS, PASSTHROUGH_IPV6
from istio_iptables.rules.model import BUILTIN_CHAINS, FAMILIES, TABLES, Rule, Table
from istio_iptables.testing import FakeKernel
from tests.support.refusals import CASES, LONGEST, TOO_LONG
from tests.support.strategies import settings

from ..support.scratch import KERNEL, Scratch

if TYPE_CHECKING:
    from istio_iptables.change.actions import Location
    from istio_iptables.rules.edit import Step
    from istio_iptables.rules.model import Family, RoutingObject, TableName

pytestmark = KERNEL


def properties(share: float) -> hypothesis_settings:
    """Settings for a test that tries `share` times as many examples as the profile has (100, fuzz: 1000)."""
    return hypothesis_settings(
        max_examples=max(1, round(share * hypothesis_settings().max_examples)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


# --- rules and edits, good and bad ------------------------------------------------------------

OWNED_CHAINS = sorted(CHAINS)[:4]


def cidrs(family: Family) -> st.SearchStrategy[model.Cidr]:
    version, bits = (4, 32) if family == "ipv4" else (6, 128)
    return st.integers(1, bits).map(lambda prefix: model.Cidr(version, 1 << (bits - 1), prefix))


def ports() -> st.SearchStrategy[model.PortRange]:
    numbers = st.sampled_from([0, 1, 80, 65535])
    return st.builds(model.PortRange, numbers, numbers)


NEGATED = st.booleans()
NAMES = st.sampled_from(["lo", "eth+", "n" * 15, "n" * 16])
IDS = st.sampled_from([0, 1337, 0xFFFFFFFE, 0xFFFFFFFF])
STATES = st.frozensets(st.sampled_from(["NEW", "INVALID", "RELATED", "SNAT"]), max_size=2)


def matches(family: Family) -> st.SearchStrategy[tuple[model.Match, ...]]:
    other: Family = "ipv6" if family == "ipv4" else "ipv4"
    addresses = st.one_of(*[cidrs(family)] * 5, cidrs(other))
    transport = st.builds(
        model.Transport, st.sampled_from(["tcp", "udp"]), st.sampled_from([False] * 5 + [True])
    )
    some = st.one_of(
        transport,
        transport,
        st.builds(model.InInterface, NAMES, NEGATED),
        st.builds(model.OutInterface, NAMES, NEGATED),
        st.builds(model.Source, addresses, NEGATED),
        st.builds(model.Destination, addresses, NEGATED),
        st.builds(model.SourcePort, ports(), NEGATED),
        st.builds(model.DestinationPort, ports(), NEGATED),
        st.builds(model.DestinationPorts, st.lists(ports(), min_size=1, max_size=16).map(tuple), NEGATED),
        st.builds(model.UidOwner, IDS, NEGATED),
        st.builds(model.GidOwner, IDS, NEGATED),
        st.builds(model.Mark, st.just(5), st.sampled_from([0xFF, 0xFFFFFFFF]), NEGATED),
        st.builds(model.ConnectionMark, st.just(5), st.sampled_from([0xFF, 0xFFFFFFFF]), NEGATED),
        st.builds(model.ConntrackState, STATES, NEGATED),
        st.builds(model.Comment, st.sampled_from(["c", "c" * 255, "c" * 256, 'a "b" \\ c'])),
    )
    return st.lists(some, max_size=4).map(tuple)


def targets() -> st.SearchStrategy[model.Target]:
    jumps = [*OWNED_CHAINS, *OWNED_CHAINS, *OWNED_CHAINS, LONGEST, "OUTPUT", "NONE"]
    return st.one_of(
        st.builds(model.Jump, st.sampled_from(jumps), st.booleans()),
        st.sampled_from([model.RETURN, model.ACCEPT, model.RETURN, model.ACCEPT, model.DROP]),
        st.builds(model.Redirect, st.sampled_from([15001, 65535, 65536])),
        st.builds(model.TProxy, st.just(15006), st.just(1337)),
        st.builds(model.ConntrackZone, st.sampled_from([1, 65535, 65536])),
        st.just(model.SetMark(1, 0xFF)),
        st.sampled_from([model.SaveMark(), model.RestoreMark()]),
    )


@st.composite
def rules(draw: st.DrawFn, family: Family) -> Rule:
    """A rule, good or bad; a bad one often in one respect only."""
    found, target = draw(matches(family)), draw(targets())
    if draw(st.integers(0, 3)) and isinstance(target, (model.Redirect, model.TProxy)):
        found = (model.Transport("tcp"), *(m for m in found if not isinstance(m, model.Transport)))
    return Rule(found, target, counters=draw(st.sampled_from([model.NO_COUNTERS, model.Counters(3, 180)])))


@st.composite
def edits(draw: st.DrawFn, table: Table) -> TableEdit:
    """An edit of a table as it is: at each step what is there is known, unless the step before is bad.

    No step takes away what an earlier one has added: of that the fake is stricter.
    """
    chains = {chain.name: list(chain.rules) for chain in table.chains}
    for name in BUILTIN_CHAINS:
        chains.setdefault(name, [])
    steps: list[Step] = []
    added: set[str] = set()
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["create", "create", "replace", "replace", "insert", "delete", "remove"]))
        if kind == "create":
            name = draw(st.sampled_from([*OWNED_CHAINS, *OWNED_CHAINS, LONGEST, TOO_LONG, "ACCEPT"]))
            if name in chains:  # iptables-restore takes a chain that is there as one to be emptied
                continue
            steps.append(CreateChain(name))
            chains[name] = []
            continue
        own = [name for name in chains if name not in BUILTIN_CHAINS | added] * 3
        if kind == "remove":
            steps.append(RemoveChain(name := draw(st.sampled_from([*own, "NONE"]))))
            chains.pop(name, None)
        elif kind == "replace":
            name = draw(st.sampled_from([*own, "NONE"]))
            after = tuple(draw(st.lists(rules(table.family), max_size=3)))
            # Without rules before nothing is flushed, and without rules after nothing is said of the chain.
            if name not in chains and not after:
                continue
            steps.append(ReplaceRules(name, tuple(chains.get(name, ())), after))
            chains[name] = list(after)
            added.add(name)
        else:
            possible = BUILTIN_CHAINS if kind == "insert" else BUILTIN_CHAINS - added
            if not possible:
                continue
            name = draw(st.sampled_from(sorted(possible)))
            there = chains[name]
            end = len(there) + (kind == "insert")
            at = draw(st.integers(1, end)) if end and draw(st.integers(0, 9)) else end + 1
            if kind == "insert":
                rule = draw(rules(table.family))
                steps.append(Insert(name, at, rule, at == end, True))
                there.insert(at - 1, rule)
                added.add(name)
            else:
                rule = there[at - 1] if at <= len(there) else Rule((), model.ACCEPT)
                steps.append(Delete(name, at, rule, at == len(there), rule not in there[: at - 1]))
                del there[at - 1 : at]
    return TableEdit(table.family, table.name, tuple(steps))


# --- both kernels -----------------------------------------------------------------------------


@dataclass
class Place:
    """A backend in a network namespace of its own."""

    backend: IptablesCommand | Libiptc
    scratch: Scratch

    @property
    def location(self) -> Location:
        return self.backend.location

    def read(self, family: Family, name: TableName) -> Table:
        found = {table.name: table for table in self.backend.read(family)}
        return found.get(name, Table(family, name))

    def empty(self) -> None:
        """Flush everything; called inside."""
        for family in FAMILIES:
            for table in self.backend.read(family):
                own = [chain for chain in table.chains if chain.name not in BUILTIN_CHAINS]
                flushed = [ReplaceRules(chain.name, chain.rules, ()) for chain in table.chains if chain.rules]
                steps: list[Step] = [*flushed, *(RemoveChain(chain.name) for chain in own)]
                self.backend.apply(TableEdit(family, table.name, tuple(steps)))


@pytest.fixture(scope="module")
def places() -> Iterator[list[Place]]:
    with Scratch() as one, Scratch() as two, Scratch() as three:
        found = [
            Place(IptablesCommand("iptables-legacy"), one),
            Place(IptablesCommand("iptables-nft"), two),
            Place(Libiptc(), three),
        ]
        yield found
        for place in found:
            place.backend.close()


def content(table: Table) -> dict[str, tuple[Rule, ...]]:
    """Chains with rules, and user-defined chains: base chains come and go with what is in them."""
    return {c.name: c.rules for c in table.chains if c.rules or c.name not in BUILTIN_CHAINS}


def counters(table: Table) -> dict[str, list[model.Counters]]:
    return {name: [rule.counters for rule in rules] for name, rules in content(table).items()}


def one_sided(step: Step, place: Place) -> bool:
    """Tell whether a step has a rule that one of the real ways alone refuses: see FakeKernel."""
    added = step.after if isinstance(step, ReplaceRules) else (step.rule,) if isinstance(step, Insert) else ()
    for rule in added:
        transports = [m for m in rule.matches if isinstance(m, model.Transport)]
        if place.location == "iptables-nft" and any(m.negated for m in transports):
            return True  # iptables-nft 1.8.9 takes ports with a protocol that is negated
    return False


def refusal(do: Callable[[], None]) -> str:
    """Return why an edit is refused, or nothing after it was done."""
    try:
        do()
    except KernelError as error:
        return error.cause
    return ""


def done_by_both(place: Place, kernel: FakeKernel, edit: TableEdit) -> bool:
    """Do an edit in both kernels; return whether they accept it, and fail if they do not agree."""
    family, name = edit.family, edit.table
    key = (place.location, family, name)
    before = kernel._table(*key)
    action = EditTable(place.location, edit, before, before)
    why, real_why = refusal(lambda: kernel.do(action)), refusal(lambda: place.backend.apply(edit))
    assert bool(why) == bool(real_why), f"{place.location}, fake: {why}, real: {real_why}: {edit}"
    if not why and place.location == "iptables-nft":
        after = kernel._table(*key)
        emptied = [chain for chain in BUILTIN_CHAINS if not after.chain(chain).rules]
        remove_empty({(NFT_FAMILIES[family], name): emptied})
    real, fake = place.read(family, name), kernel._table(*key)
    assert content(real) == content(fake), f"{place.location}: {edit}"
    if (place.location, family) != ("iptables-nft", "ipv6"):  # ip6tables-nft-restore takes no counters
        assert counters(real) == counters(fake)
    return not why


@properties(0.15)
@given(data=st.data(), family=st.sampled_from(FAMILIES), name=st.sampled_from(TABLES))
def test_the_fake_kernel_accepts_what_the_real_one_accepts(
    places: list[Place], data: st.DataObject, family: Family, name: TableName
) -> None:
    for place in places[:2]:
        with place.scratch.inside(), FakeKernel() as kernel:
            try:
                for _ in range(3):
                    edit = data.draw(edits(kernel._table(place.location, family, name)))
                    if any(one_sided(step, place) for step in edit.steps):
                        continue
                    note(f"{place.location}: {edit}")
                    done_by_both(place, kernel, edit)
            finally:
                place.empty()


# --- each refusal, one at a time --------------------------------------------------------------


def test_each_refusal_is_that_of_the_real_kernel(places: list[Place]) -> None:
    for place in places[:2]:
        with place.scratch.inside():
            for table, steps, accepted in CASES:
                edit = TableEdit("ipv4", table, tuple(steps))
                with FakeKernel() as kernel:
                    try:
                        if not one_sided_case(edit, place):
                            assert done_by_both(place, kernel, edit) == (place.location in accepted), edit
                    finally:
                        place.empty()


def one_sided_case(edit: TableEdit, place: Place) -> bool:
    """iptables-nft 1.8.9 alone takes ports with a negated protocol."""
    return any(one_sided(step, place) for step in edit.steps)


# --- what this tool writes --------------------------------------------------------------------


@properties(0.2)
@given(values=st.lists(settings(), min_size=2, max_size=2))
def test_the_fake_kernel_has_what_libiptc_has_after_real_plans(
    places: list[Place], values: list[dict[str, str]]
) -> None:
    """A Machine and a fake one go from nothing to one rule set, to another, and back to nothing."""
    wanted = [build(configure(value, environment=Facts(ipv4=True, ipv6=True))) for value in values]
    with places[2].scratch.inside(), Machine() as real, FakeKernel() as fake:
        try:
            for rules in (*wanted, Ruleset()):
                same_plan(real, fake, rules)
        finally:
            real.plan(Ruleset()).apply()  # else what failed would be the beginning of the next example


def same_plan(real: Machine, fake: FakeKernel, rules: Ruleset) -> None:
    """Apply rules to both, by the same plan, and with the same result."""
    prepared, in_memory = real.plan(rules), fake.plan(rules)
    assert list(map(str, prepared.plan.actions)) == list(map(str, in_memory.plan.actions))
    prepared.apply()
    in_memory.apply()
    live, lived = real.read(rules), fake.read(rules)
    assert {(t.family, t.name): content(t) for t in live.tables["iptables-legacy"] if content(t)} == {
        (t.family, t.name): content(t) for t in lived.tables["iptables-legacy"] if content(t)
    }
    assert set(live.routing) == set(lived.routing)


def test_addresses_and_routes_that_are_there_already(places: list[Place]) -> None:
    items: list[RoutingObject] = [
        LocalAddress(PASSTHROUGH_IPV6),
        LocalDefaultRoute("ipv4", 133),
        LocalDefaultRoute("ipv6", 134),
        MarkLookup("ipv4", 1337, 133),
        MarkLookup("ipv6", 7, 134),
    ]
    with places[0].scratch.inside():
        for machine in (Machine(), FakeKernel()):
            with machine:
                for item in items:
                    machine.do(AddObject(item))
                    if isinstance(item, MarkLookup):
                        machine.do(AddObject(item))  # a second one, which reading does not tell apart
                    else:
                        with pytest.raises(KernelError):
                            machine.do(AddObject(item))
                wanted = Ruleset(routing=tuple(items))
                assert set(machine.read(wanted).routing) == set(items)
                for item in reversed(items):
                    machine.do(RemoveObject(item))
                    machine.do(RemoveObject(item))  # what is gone is as it should be
                assert machine.read(wanted).routing == ()
