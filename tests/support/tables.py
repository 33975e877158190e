"""tables: live and wanted tables of few kinds of rules, so that they meet each other; ways to look at one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.rules.edit import apply_to, edit_between
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
    BUILTIN_CHAINS,
    RETURN,
    Chain,
    Cidr,
    Comment,
    Counters,
    Destination,
    DestinationPort,
    ForeignMatch,
    ForeignTarget,
    InInterface,
    Jump,
    PortRange,
    Redirect,
    Rule,
    Table,
    Transport,
)
from istio_iptables.rules.ownership import is_owned, is_owned_rule
from istio_iptables.settings.facts import Facts
from tests.support import strategies

# --- rules, as few as will do: so that they meet each other -----------------------------------


TCP = Transport("tcp")


def tagged(name: str, reason: str = "") -> Rule:
    return Rule((InInterface(name), Comment(TAG)), RETURN, reason)


def jump(chain: str, *matches: Transport | Destination, goto: bool = False) -> Rule:
    return Rule(matches, Jump(chain, goto))


def foreign(name: str) -> Rule:
    return Rule((InInterface(name),), ACCEPT)


A, B, C, N = tagged("a"), tagged("b"), tagged("c"), tagged("new")
F, G, H = foreign("f"), foreign("g"), foreign("h")


TAGGED = [tagged("a"), tagged("b"), tagged("c"), Rule((Comment(f"{TAG}: so that"),), RETURN)]
FOREIGN = [
    foreign("a"),
    foreign("b"),
    Rule((TCP, DestinationPort(PortRange(22, 22))), ACCEPT),
    Rule((Comment("ISTIO_OUTPUT"),), RETURN),
    Rule((Comment(f"{TAG}-like"),), RETURN),
    Rule((ForeignMatch(("-m", "set", "--match-set", "x", "dst")),), ForeignTarget(("-j", "LOG"))),
    Rule((), ForeignTarget(())),
    Rule((TCP,), Redirect(15001)),
    jump("ISTIOLIKE"),
]

WITHIN = [
    Rule((TCP,), Redirect(15001)),
    Rule((TCP,), Redirect(15006)),
    Rule((Destination(Cidr(4, 0x0A000000, 8)),), RETURN),
    Rule((), RETURN),
]

OUR_NAMES = ("ISTIO_INBOUND", "ISTIO_OUTPUT", "ISTIO_REDIRECT", "ISTIO_DROP")


def jumps(chains: Sequence[str]) -> list[Rule]:
    return [jump(chain, *matches) for chain in chains for matches in ((), (TCP,))]


@st.composite
def counted(draw: st.DrawFn, rules: Sequence[Rule], max_size: int = 5) -> tuple[Rule, ...]:
    """Some of the rules, in any order, with counters; the same one at times twice."""
    if not rules:
        return ()
    chosen = draw(st.lists(st.sampled_from(rules), max_size=max_size))
    numbers = st.sampled_from([0, 0, 1, 7, 2**40])
    return tuple(rule.replace(counters=Counters(draw(numbers), draw(numbers))) for rule in chosen)


@st.composite
def live_tables(draw: st.DrawFn) -> Table:
    """A table as it might be found: owned and foreign chains and rules, with jumps everywhere."""
    names = draw(st.lists(st.sampled_from(OUR_NAMES), unique=True))
    others = draw(st.lists(st.sampled_from(["ISTIOLIKE", "DOCKER"]), unique=True))
    known = [rule for rule in FOREIGN if not isinstance(rule.target, Jump) or rule.target.chain in others]
    chains = [
        Chain(name, draw(counted([*known, *TAGGED, *jumps(names)], 8)))
        for name in ("PREROUTING", "OUTPUT", "INPUT")
    ]
    chains += [Chain(name, draw(counted([*WITHIN, *TAGGED, *jumps(names)]))) for name in names]
    to_owned = [*jumps(names), *(jump(name, goto=True) for name in names)]
    chains += [Chain(name, draw(counted([*known, *to_owned]))) for name in others]
    return Table("ipv4", "nat", tuple(chains))


@st.composite
def wanted_tables(draw: st.DrawFn) -> Table:
    """A table as the policy might want it: every chain has rules, every jump a chain."""
    names = draw(st.lists(st.sampled_from(OUR_NAMES), unique=True))
    reasons = st.sampled_from(["", "because"])

    def some(rules: Sequence[Rule], min_size: int, max_size: int = 4) -> tuple[Rule, ...]:
        chosen = draw(st.lists(st.sampled_from(rules), min_size=min_size, max_size=max_size))
        return tuple(rule.replace(reason=draw(reasons)) for rule in chosen)

    builtin = [*TAGGED, *jumps(names)]
    chains = [Chain("PREROUTING", some(builtin, 0), some(builtin, 0, 3)), Chain("OUTPUT", some(builtin, 0))]
    chains += [Chain(name, some([*WITHIN, *TAGGED, *jumps(names)], 1)) for name in names]
    return Table("ipv4", "nat", tuple(chain for chain in draw(st.permutations(chains)) if chain.in_order))


@st.composite
def policy_tables(draw: st.DrawFn) -> Table:
    """A table as the policy does want it."""
    wanted = build(configure(draw(strategies.settings()), environment=Facts(True, True, ("10.0.0.1",))))
    return wanted.table("ipv4", "nat")


@st.composite
def live_policy_tables(draw: st.DrawFn) -> Table:
    """What the policy wanted yesterday, with foreign rules in between."""
    chains = []
    for chain in draw(policy_tables()).chains:
        rules = list(chain.in_order)
        if not is_owned(chain):
            for rule in draw(counted(FOREIGN[:8], 3)):
                rules.insert(draw(st.integers(0, len(rules))), rule)
        chains.append(Chain(chain.name, tuple(rules)))
    return Table("ipv4", "nat", tuple(chains))


def tables() -> st.SearchStrategy[tuple[Table, Table]]:
    return st.tuples(live_tables(), wanted_tables()) | st.tuples(live_policy_tables(), policy_tables())


EMPTY = Table("ipv4", "nat")

#: -b '' -c a,b becomes -b '' -c a -k b.
MOVED_TO_THE_HEAD = (
    Table("ipv4", "nat", (Chain("PREROUTING", (tagged("a"), tagged("b"))),)),
    Table("ipv4", "nat", (Chain("PREROUTING", (tagged("a"),), (tagged("b"),)),)),
)


# --- ways to look at a table ------------------------------------------------------------------


def names(rules: Sequence[Rule]) -> str:
    letters = []
    for rule in rules:
        match = rule.matches[0]
        assert isinstance(match, InInterface)
        letters.append("N" if match.name == "new" else match.name.upper())
    return "".join(letters)


def table_of(**chains: Sequence[Rule]) -> Table:
    return Table("ipv4", "nat", tuple(Chain(name, tuple(rules)) for name, rules in chains.items()))


def exactly(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    """Every rule with its counters, which do not count in comparisons; no empty chains of the kernel."""
    return {
        chain.name: [(rule, rule.counters) for rule in chain.rules]
        for chain in table.chains
        if chain.rules or chain.name not in BUILTIN_CHAINS
    }


def foreign_rules(table: Table) -> dict[str, list[tuple[Rule, Counters]]]:
    return {
        chain.name: [
            (rule, rule.counters)
            for rule in chain.rules
            if chain.name not in BUILTIN_CHAINS or not is_owned_rule(rule)
        ]
        for chain in table.chains
        if not is_owned(chain)
    }


def in_order(table: Table) -> dict[str, tuple[Rule, ...]]:
    return {chain.name: chain.in_order for chain in table.chains}


def after(live: Table, wanted: Table, *, rewrite: bool = False) -> Table:
    return apply_to(live, edit_between(live, wanted, rewrite=rewrite))


def flattened(table: Table) -> Table:
    """A table as it is live: head and rules are one."""
    return table.replace(chains=tuple(Chain(chain.name, chain.in_order) for chain in table.chains))
