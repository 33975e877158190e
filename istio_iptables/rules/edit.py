"""edit: what has to be done to one table so that the owned part of it becomes another.

An edit is a list of operations on chains and positions, in the order in which they are done,
all in one transaction. Foreign rules keep their positions, their order and their counters. Every
edit has an exact inverse, which is what a rollback applies.
"""

from __future__ import annotations

from ..startup.record import Record
from .model import BUILTIN_CHAINS, Chain, Comment, Jump, Rule, Table
from .ownership import is_owned, owned, owned_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from .model import Counters, Family, Match, TableName, Target


class CreateChain(Record):
    """Create an owned chain, empty."""

    chain: str


class RemoveChain(Record):
    """Remove an owned chain, which is empty by now."""

    chain: str


class ReplaceRules(Record):
    """Replace all rules of an owned chain."""

    chain: str
    before: tuple[Rule, ...]
    after: tuple[Rule, ...]


class Insert(Record):
    """Insert a rule into a built-in chain at `position` (from 1).

    `last`: that is the end of the chain. `first`: no equal rule is before it.
    """

    chain: str
    position: int
    rule: Rule
    last: bool
    first: bool = True


class Delete(Record):
    """Delete the rule at `position` (from 1) of a built-in chain; `last` and `first` as for Insert."""

    chain: str
    position: int
    rule: Rule
    last: bool
    first: bool = True


if TYPE_CHECKING:
    _Backwards: TypeAlias = tuple[int, int, "_Backwards | None"]
    Step: TypeAlias = CreateChain | RemoveChain | ReplaceRules | Insert | Delete


class TableEdit(Record):
    """Operations on one table of one family, done in order and all at once."""

    family: Family
    table: TableName
    steps: tuple[Step, ...]

    @property
    def detaches(self) -> bool:
        """True if something stops being captured, or passed on, by this edit."""
        return any(isinstance(step, (Delete, RemoveChain)) for step in self.steps)

    def inverse(self) -> TableEdit:
        """Return the edit that undoes this one."""
        return self.replace(steps=tuple(_inverse(step) for step in reversed(self.steps)))

    def rules_added(self) -> int:
        """Return how many rules this edit writes."""
        return sum(
            len(step.after) if isinstance(step, ReplaceRules) else isinstance(step, Insert)
            for step in self.steps
        )


def _inverse(step: Step) -> Step:
    if isinstance(step, CreateChain):
        return RemoveChain(step.chain)
    if isinstance(step, RemoveChain):
        return CreateChain(step.chain)
    if isinstance(step, ReplaceRules):
        return ReplaceRules(step.chain, step.after, step.before)
    if isinstance(step, Insert):
        return Delete(step.chain, step.position, step.rule, step.last, step.first)
    return Insert(step.chain, step.position, step.rule, step.last, step.first)


def edit_between(live: Table, wanted: Table, *, rewrite: bool = False) -> TableEdit:
    """Return what turns the owned part of `live` into `wanted`; no steps if they are equal.

    `live` is the whole table as it is, `wanted` only the owned part, with rules of built-in chains
    in head and rules. With `rewrite` owned chains are written again even if they are equal.
    """
    existing = {chain.name for chain in live.chains}
    steps: list[Step] = [
        CreateChain(chain.name) for chain in wanted.chains if is_owned(chain) and chain.name not in existing
    ]
    names = [
        *(c.name for c in wanted.chains),
        *(c.name for c in owned(live).chains if c.name in BUILTIN_CHAINS),
    ]
    for name in dict.fromkeys(names):
        if name in BUILTIN_CHAINS:
            chain = live.chain(name)
            steps += _builtin_steps(chain, wanted.chain(name), owned_rules(live, chain))
            continue
        before, after = live.chain(name).rules, wanted.chain(name).in_order
        if rewrite or before != after:
            steps.append(ReplaceRules(name, before, after if rewrite else with_counters(after, before)))
    steps += _removals(live, wanted)
    return TableEdit(live.family, live.name, tuple(steps))


def _removals(live: Table, wanted: Table) -> list[Step]:
    """Empty and remove the owned chains that are no longer wanted.

    A chain that a foreign rule jumps to stays, empty: the kernel refuses to remove it, and this tool
    removes no foreign rules. All are emptied first since they may jump to each other.
    """
    obsolete = [
        chain
        for chain in live.chains
        if is_owned(chain) and not any(chain.name == kept.name for kept in wanted.chains)
    ]
    referenced = _referenced_by_foreign(live)
    emptied: list[Step] = [ReplaceRules(chain.name, chain.rules, ()) for chain in obsolete if chain.rules]
    return [*emptied, *(RemoveChain(chain.name) for chain in obsolete if chain.name not in referenced)]


def _referenced_by_foreign(live: Table) -> set[str]:
    return {
        rule.target.chain
        for chain in live.chains
        if not is_owned(chain) and chain.name not in BUILTIN_CHAINS
        for rule in chain.rules
        if isinstance(rule.target, Jump)
    }


def with_counters(rules: Iterable[Rule], counted: Sequence[Rule]) -> tuple[Rule, ...]:
    """Give rules the counters of the equal rules that they replace, in order."""
    if not any(rule.counters.packets for rule in counted):
        return tuple(rules)
    counters: dict[Rule, list[Counters]] = {}
    for rule in reversed(counted):
        counters.setdefault(rule, []).append(rule.counters)
    return tuple(
        rule.replace(counters=left.pop()) if (left := counters.get(rule)) else rule for rule in rules
    )


# --- built-in chains, which other programs use too --------------------------------------------


def _builtin_steps(live: Chain, wanted: Chain, owned_at: Sequence[int]) -> list[Step]:
    """Return what changes the owned rules of a built-in chain, one delete or insert at a time.

    `owned_at` are the positions of the owned rules. Rules that stay are not moved. A new rule goes next to
    its neighbours in the wanted order; without any, head rules go to the top and others to where the last
    owned rule was, else to the end.
    """
    pairs = common_subsequence([live.rules[index] for index in owned_at], wanted.in_order)
    stays = {owned_at[i]: j for i, j in pairs}
    obsolete = [index for index in owned_at if index not in stays]
    rules = list(live.rules)
    first_at = {rule: index for index, rule in reversed([*enumerate(rules)])} if obsolete else {}
    steps: list[Step] = []
    for index in reversed(obsolete):
        rule, last = rules[index], index == len(rules) - 1
        steps.append(Delete(live.name, index + 1, rule, last, first_at[rule] == index))
        del rules[index]
    if len(stays) == len(wanted.in_order):
        return steps
    gone = frozenset(obsolete)
    left = [index for index in range(len(live.rules)) if index not in gone]
    kept_at = {stays[index]: kept for kept, index in enumerate(left) if index in stays}
    # New rules without neighbours go to where the last owned rule that is deleted was.
    end = obsolete[-1] + 1 - len(obsolete) if obsolete else len(rules)
    return [*steps, *_insertions(live.name, rules, wanted, kept_at, end)]


def _insertions(
    chain: str, rules: list[Rule], wanted: Chain, kept_at: Mapping[int, int], end: int
) -> Iterator[Insert]:
    """Yield the inserts of the wanted rules that are not among `rules`, in the wanted order.

    `kept_at` has the indexes in `rules` of those that are there, by their number in the wanted order; `end`
    is the index for a rule without neighbours. A rule is inserted above every kept rule that comes later.
    """
    heads = len(wanted.head)
    present = set(rules)
    first_kept = {is_head: _first_kept(kept_at, heads, is_head) for is_head in (True, False)}
    before: dict[bool, int] = {}  # of the heads, and of the others: the index of the last one so far
    inserted = 0
    for number, rule in enumerate(wanted.in_order):
        is_head = number < heads
        if number in kept_at:
            before[is_head] = kept_at[number] + inserted
            continue
        index = _index_of_next(is_head, before, first_kept[is_head], inserted, end)
        first = rule not in present or rule not in rules[:index]
        yield Insert(chain, index + 1, rule, index == len(rules), first)
        rules.insert(index, rule)
        present.add(rule)
        end += index <= end
        inserted += 1
        before[is_head] = index


def _first_kept(kept_at: Mapping[int, int], heads: int, is_head: bool) -> int | None:
    """Return the index of the first kept rule of the heads, or of the others."""
    return min((index for number, index in kept_at.items() if (number < heads) == is_head), default=None)


def _index_of_next(
    is_head: bool, before: Mapping[bool, int], first_kept: int | None, inserted: int, end: int
) -> int:
    """Return the index at which the next wanted rule goes."""
    if is_head in before:
        return before[is_head] + 1
    if first_kept is not None:
        return first_kept + inserted
    return 0 if is_head else max(before.get(True, -1) + 1, end)


def common_subsequence(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return the index pairs of a longest common subsequence.

    By the algorithm of Hunt and Szymanski: n log n as long as few rules appear twice.
    """
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    pairs = [(i, i) for i in range(start)]
    if start in (len(old), len(new)):
        return pairs
    from bisect import bisect_left

    indexes: dict[Hashable, list[int]] = {}
    for j in range(len(new) - 1, start - 1, -1):
        indexes.setdefault(new[j], []).append(j)
    # By length: the index in `new` at which the common subsequence that ends first ends, and that one,
    # backwards.
    ends: list[int] = []
    chains: list[_Backwards] = []
    for i in range(start, len(old)):
        for j in indexes.get(old[i], ()):  # last first, so that no rule is used twice
            length = bisect_left(ends, j)
            chain = (i, j, chains[length - 1] if length else None)
            ends[length : length + 1] = [j]
            chains[length : length + 1] = [chain]
    return pairs + _forwards(chains[-1] if chains else None)


def _forwards(chain: _Backwards | None) -> list[tuple[int, int]]:
    pairs = []
    while chain is not None:
        i, j, chain = chain
        pairs.append((i, j))
    return pairs[::-1]


def same_rules(found: Sequence[Rule], wanted: Sequence[Rule]) -> Iterator[Rule | None]:
    """Yield for each rule of a chain the same one among the wanted ones, None if there is none.

    A rule of another tool may lack the comment, or be in another place: it is there for the same reason.
    """
    pairs = dict(common_subsequence(found, wanted))
    others = {_without_comments(rule): rule for rule in wanted} if len(pairs) < len(found) else {}
    for number, rule in enumerate(found):
        yield wanted[pairs[number]] if number in pairs else others.get(_without_comments(rule))


def _without_comments(rule: Rule) -> tuple[frozenset[Match], Target]:
    return frozenset(match for match in rule.matches if not isinstance(match, Comment)), rule.target


def apply_to(table: Table, edit: TableEdit) -> Table:
    """Return the table as it is after the edit: what the kernel would do, without a kernel.

    Raises ValueError for an operation that a kernel would refuse.
    """
    chains = {chain.name: list(chain.rules) for chain in table.chains}
    for step in edit.steps:
        if isinstance(step, CreateChain):
            if step.chain in chains:
                raise ValueError(f"chain {step.chain} exists already")
            chains[step.chain] = []
        elif isinstance(step, RemoveChain):
            used = any(
                isinstance(r.target, Jump) and r.target.chain == step.chain
                for rs in chains.values()
                for r in rs
            )
            if chains[step.chain] or used:
                raise ValueError(f"chain {step.chain} is in use")
            del chains[step.chain]
        elif isinstance(step, ReplaceRules):
            if tuple(chains[step.chain]) != step.before:
                raise ValueError(f"chain {step.chain} is not as expected")
            chains[step.chain] = list(step.after)
        elif isinstance(step, Insert):
            chains.setdefault(step.chain, []).insert(step.position - 1, step.rule)
        else:
            if chains[step.chain][step.position - 1] != step.rule:
                raise ValueError(f"rule {step.position} of chain {step.chain} is not as expected")
            del chains[step.chain][step.position - 1]
    return table.replace(chains=tuple(Chain(name, tuple(rules)) for name, rules in chains.items()))
