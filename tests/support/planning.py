"""planning: the fake kernel with owned and foreign rules, and rules that are wanted instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.change.actions import EditTable
from istio_iptables.errors import KernelError
from istio_iptables.rules.edit import TableEdit
from istio_iptables.rules.model import (
    ACCEPT,
    BUILTIN_CHAINS,
    Chain,
    Comment,
    Counters,
    DestinationPort,
    ForeignMatch,
    ForeignTarget,
    InInterface,
    Jump,
    PortRange,
    Rule,
    Ruleset,
    Table,
    Transport,
)
from istio_iptables.rules.nftables.model import NativeChain, NativeTable
from istio_iptables.rules.ownership import is_owned
from istio_iptables.settings.facts import Facts
from istio_iptables.testing import FakeKernel
from tests.support import strategies

if TYPE_CHECKING:
    from istio_iptables.change.actions import Action, Location


LOCATIONS: tuple[Location, ...] = ("iptables-legacy", "iptables-nft")  # of iptables
NATIVE = tuple(
    NativeTable(name, (NativeChain("istio-output", None, (Rule((), ACCEPT, counters=Counters(1, 2)),)),))
    for name in ("istio-proxy-nat", "istio-proxy-raw")
)

NOTHING = Ruleset()


class Kernel(FakeKernel):
    """The fake kernel, entered; it also checks that an action says what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.__enter__()
        self.error = KernelError("the kernel said no", "ask it again")

    def do(self, action: Action) -> None:
        super().do(action)
        if isinstance(action, EditTable):
            key = (action.location, action.edit.family, action.edit.table)
            after = self.tables.get(key, Table(*key[1:]))
            assert rules_of(action.after) == rules_of(after)
            assert set(action.emptied) == without_rules(after, action.edit)

    def state(self) -> object:
        """All there is, counters included, in an order that does not matter."""
        tables = {key: rules_of(table) for key, table in self.tables.items() if rules_of(table)}
        native = {
            (table.name, chain.name): [(rule, rule.counters) for rule in chain.rules]
            for table in self.native
            for chain in table.chains
        }
        return tables, set(self.routing), set(self.native), native


def rules_of(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    return {
        chain.name: [(rule, rule.counters) for rule in chain.rules]
        for chain in table.chains
        if chain.rules or chain.name not in BUILTIN_CHAINS
    }


def reached(table: Table, name: str) -> set[str]:
    """The chains with rules that a packet may get to from one."""
    rules = table.chain(name).rules
    targets = [rule.target.chain for rule in rules if isinstance(rule.target, Jump)]
    found = {name} if rules else set()
    return found.union(*(reached(table, target) for target in targets))


def without_rules(table: Table, edit: TableEdit) -> set[str]:
    touched = {step.chain for step in edit.steps} & BUILTIN_CHAINS
    return {name for name in touched if not table.chain(name).rules}


def wanted_for(chosen: Mapping[str, str] | None = None) -> Ruleset:
    facts = Facts(True, True, ("10.0.0.1", "fd00::1"))
    return build(configure(chosen or {}, environment=facts))


TPROXY = {"istio-inbound-interception-mode": "TPROXY"}
EVERYTHING = {
    **TPROXY,
    "dual-stack": "true",
    "redirect-dns": "true",
    "istio-exclude-interfaces": "eth1",
    "kube-virt-interfaces": "net1",
    "drop-invalid": "true",
}

FOREIGN = (
    Rule((Transport("tcp"), DestinationPort(PortRange(22, 22))), ACCEPT, counters=Counters(3, 180)),
    Rule((ForeignMatch(("-m", "set", "--match-set", "x", "dst")),), ForeignTarget(("-j", "LOG"))),
    Rule((Comment("ISTIO_OUTPUT"), InInterface("eth9")), ACCEPT),
)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """A kernel with owned rules, foreign rules among them and, at times, native tables."""
    kernel = Kernel()
    if draw(st.integers(0, 3)):
        kernel.put(wanted_for(draw(strategies.settings())), draw(locations()))
    for key, table in list(kernel.tables.items()):
        if draw(st.booleans()):
            kernel.tables[key] = table.replace(chains=tuple(draw(disturbed(chain)) for chain in table.chains))
    if draw(st.integers(0, 3)) == 0:
        strange = Table("ipv4", "nat", (Chain("OUTPUT", FOREIGN), Chain("KUBE", FOREIGN[:1])))
        kernel.tables.setdefault(("iptables-nft", "ipv4", "nat"), strange)
    if draw(st.integers(0, 3)) == 0:
        kernel.native = NATIVE
    return kernel


@st.composite
def disturbed(draw: st.DrawFn, chain: Chain) -> Chain:
    """A chain with foreign rules, or, if it is owned, with one rule less."""
    rules = list(chain.rules)
    if is_owned(chain):
        del rules[: draw(st.integers(0, 1))]
    else:
        for rule in draw(st.lists(st.sampled_from(FOREIGN), max_size=2)):
            rules.insert(draw(st.integers(0, len(rules))), rule)
    return chain.replace(rules=tuple(rules))


def wanted_rulesets() -> st.SearchStrategy[Ruleset]:
    return strategies.settings().map(wanted_for) | st.just(NOTHING)


def locations() -> st.SearchStrategy[Location]:
    return st.sampled_from([*LOCATIONS, "nftables"])
