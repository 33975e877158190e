"""Plan: what has to be done so that the machine has the wanted rules, and doing it safely.

`make_plan` compares what is there with what is wanted and orders the steps; `execute` does them
and, if one fails, puts back what was done. Neither knows how the kernel is spoken to: `execute`
is given something that can do one action.

Order. What a rule relies on comes before it: addresses and routes first, conntrack zones (raw) before
the redirection of what is tracked in them (nat). Edits that only add come before edits that take
something away, so that traffic which changes hands is captured twice for a moment rather than not
at all. Taking away goes the other way round.
"""

from __future__ import annotations

from .edit import apply_to, edit_between, with_counters
from .errors import KernelError
from .formats.commands import ip_command
from .formats.words import rule_words
from .record import Record
from .ruleset import (
    BUILTIN_CHAINS,
    FAMILIES,
    TABLES,
    Comment,
    Destination,
    InInterface,
    Jump,
    MarkLookup,
    OutInterface,
    Redirect,
    Ruleset,
    Source,
    Table,
    TProxy,
    Transport,
    ours,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Literal, Protocol, TypeAlias

    from .edit import TableEdit
    from .native import NativeChain, NativeTable
    from .ruleset import Chain, Family, Match, NetworkObject, Rule, TableName, Target

    #: Where rules are: iptables' legacy tables, its tables in nf_tables, or the native tables there.
    Place: TypeAlias = Literal["legacy", "nft", "native"]

    class Kernel(Protocol):
        """Whoever does actions."""

        def do(self, action: Action) -> None:
            """Do one action completely, or raise KernelError and have done nothing."""


class EditTable(Record):
    """Edit a table in one transaction.

    `before` and `after` are the whole table, strangers' rules included.
    """

    place: Place
    edit: TableEdit
    before: Table
    after: Table

    def inverse(self) -> Action:
        """Return the action that undoes this one."""
        return EditTable(self.place, self.edit.inverse(), self.after, self.before)

    @property
    def emptied(self) -> tuple[str, ...]:
        """The built-in chains that it touches and that have no rule afterwards."""
        touched = dict.fromkeys(step.chain for step in self.edit.steps if step.chain in BUILTIN_CHAINS)
        return tuple(name for name in touched if not self.after.chain(name).rules)

    @property
    def takes_away(self) -> bool:
        """True if it takes something away, and does not take inbound traffic over from another table."""
        gained = _captors(self.after) - _captors(self.before)
        return self.edit.detaches and not gained

    @property
    def gives_up(self) -> bool:
        """True if inbound traffic that it captured before is for another table to capture."""
        return bool(_captors(self.before) - _captors(self.after))

    def script(self) -> str:
        """Return the action as a script for the tool that could do it, named in a comment."""
        from .formats.restore import edit_script

        tool = f"{'iptables' if self.edit.family == 'ipv4' else 'ip6tables'}-{self.place}-restore --noflush"
        return f"# {self}: for {tool}\n{edit_script(self.edit)}"

    def __str__(self) -> str:
        rules = self.edit.rules_added()
        what = f"write {rules} rules" if rules else "remove rules"
        return f"{self.edit.family} {self.edit.table} ({self.place}): {what}"


class AddObject(Record):
    """Make an address, routing rule or route."""

    item: NetworkObject

    def inverse(self) -> Action:
        """Return the action that undoes this one."""
        return RemoveObject(self.item)

    def script(self) -> str:
        """Return the command as a comment."""
        return f"# {self}\n"

    def __str__(self) -> str:
        return ip_command(self.item)


class RemoveObject(Record):
    """Remove an address, routing rule or route."""

    item: NetworkObject

    def inverse(self) -> Action:
        """Return the action that undoes this one."""
        return AddObject(self.item)

    def script(self) -> str:
        """Return the command as a comment."""
        return f"# {self}\n"

    def __str__(self) -> str:
        return ip_command(self.item).replace(" add ", " del ").removesuffix(" nodad")


class EditNative(Record):
    """Turn native tables into others, in one transaction: all that differ or go away.

    `replaces`: other rules of ours are in force meanwhile, here or elsewhere, so sets come first.
    """

    before: tuple[NativeTable, ...]
    after: tuple[NativeTable, ...]
    replaces: bool = True

    def inverse(self) -> Action:
        """Return the action that undoes this one."""
        return EditNative(self.after, self.before, self.replaces)

    def script(self) -> str:
        """Return the action as a script for nft(8)."""
        from .formats.nft import edit_scripts

        return f"# {self}: for nft -f -\n" + "".join(
            edit_scripts(self.before, self.after, sets_first=self.replaces)
        )

    def __str__(self) -> str:
        rules = sum(len(chain.rules) for table in self.after for chain in table.chains)
        names = ", ".join(dict.fromkeys(table.name for table in (*self.before, *self.after)))
        return f"nftables {names}: " + (f"write {rules} rules" if rules else "remove")


if TYPE_CHECKING:
    Action: TypeAlias = EditTable | EditNative | AddObject | RemoveObject


class Live(Record):
    """What is in place: whole tables by place, what is ours of the network, native tables of ours."""

    tables: Mapping[Place, tuple[Table, ...]]
    network: tuple[NetworkObject, ...] = ()
    native: tuple[NativeTable, ...] = ()

    def table(self, place: Place, family: str, name: str) -> Table | None:
        """Return a table, None if it does not exist."""
        for table in self.tables.get(place, ()):
            if table.family == family and table.name == name:
                return table
        return None

    def holds_ours(self, place: Place) -> bool:
        """Tell whether chains or rules of ours are in that place."""
        return any(not ours(table).is_empty for table in self.tables.get(place, ()))

    def marks(self) -> frozenset[int]:
        """Return the marks of live TPROXY rules of ours: they tell which routes are ours."""
        return frozenset(target.mark for target in self._targets() if isinstance(target, TProxy))

    def redirects_to(self) -> tuple[int, ...]:
        """Return the local ports that live rules of ours redirect to."""
        return tuple(sorted({target.port for target in self._targets() if isinstance(target, Redirect)}))

    def _targets(self) -> Iterator[Target]:
        chains: list[Chain | NativeChain] = [chain for table in self.native for chain in table.chains]
        for tables in self.tables.values():
            chains += [chain for table in tables for chain in table.chains if chain.is_ours]
        return (rule.target for chain in chains for rule in chain.rules)


class Difference(Record):
    """How one table of ours, or the network beside it, is and how it should be: lines of rules."""

    title: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Plan(Record):
    """The actions, in order, that turn what is live into what is wanted. Nothing to do: no actions."""

    actions: tuple[Action, ...]
    #: Rules of ours, or remains that are not wanted, are in place: this is a change, not a first time.
    replaces: bool
    live: Live
    wanted: Ruleset
    place: Place

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What the actions change, for people: the tables, and the network beside them, that differ."""
        edited = {(a.place, a.edit.family, a.edit.table) for a in self.actions if isinstance(a, EditTable)}
        return _differences(self.live, self.wanted, self.place, edited)

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Say which chains of ours stay without a rule, since somebody else's rule needs them."""
        return tuple(
            f"chain {chain.name} ({action.edit.family} {action.edit.table}, {action.place}) stays, empty: "
            f"somebody else's rule jumps to it; remove the rule (it has `-j {chain.name}`) and clean up again"
            for action in self.actions
            if isinstance(action, EditTable)
            for chain in action.after.chains
            if chain.is_ours and not chain.rules
        )


def make_plan(live: Live, wanted: Ruleset, place: Place, *, rewrite: bool = False) -> Plan:
    """Return what turns `live` into `wanted`, with rules in `place` and none of ours elsewhere.

    With `rewrite` chains are written again even if nothing differs.
    """
    edits = [
        action
        for where in _IPTABLES_PLACES
        for action in _table_actions(live, wanted if where == place else Ruleset(), where, rewrite)
    ]
    adding = [action for action in edits if not action.takes_away]
    removing = [action for action in edits if action.takes_away]
    removing.sort(
        # raw last, since nat relies on its zones; a table that gives inbound traffic up after the others
        key=lambda action: (action.edit.table == "raw", action.gives_up, -TABLES.index(action.edit.table))
    )
    # A routing rule comes after the route that it leads to, and goes before it: without the route it might be
    # a stranger's, so a run that is killed in between must not leave it behind.
    missing = sorted((i for i in wanted.network if i not in live.network), key=_is_lookup)
    obsolete = sorted((i for i in live.network if i not in wanted.network), key=_is_lookup)
    actions: list[Action] = [AddObject(item) for item in missing]
    in_native = any(not table.is_left_over for table in live.native)
    replaces = bool(obsolete or in_native) or any(live.holds_ours(where) for where in _IPTABLES_PLACES)
    native = [part.replace(replaces=replaces) for part in _native_actions(live, wanted, place, rewrite)]
    actions += [*native, *adding, *removing] if place == "native" else [*adding, *removing, *native]
    gone: list[Action] = [RemoveObject(item) for item in reversed(obsolete)]
    # Live marks are what tells routes are ours: without new rules, routes go while the marks are there.
    actions = [*actions, *gone] if wanted.tables else [*gone, *actions]
    return Plan(tuple(actions), replaces, live, wanted, place)


def _is_lookup(item: NetworkObject) -> bool:
    return isinstance(item, MarkLookup)


_IPTABLES_PLACES: tuple[Place, ...] = ("legacy", "nft")


def _native_actions(live: Live, wanted: Ruleset, place: Place, rewrite: bool) -> list[EditNative]:
    """Return the action on native tables, if any is needed: those that are as they should be stay out.

    It is one transaction, with one exception. A packet that is between two hooks when a transaction comes
    into force has met the old rules of the first and meets the new ones of the second. If inbound capture
    moves from nat to mangle, which comes first, nothing would capture that packet; so nat follows in a
    transaction of its own, and for a moment both capture.
    """
    after = _native_wanted(live, wanted) if place == "native" else ()
    same = [] if rewrite else [table for table in live.native if table in after]
    before = tuple(table for table in live.native if table not in same)
    after = tuple(table for table in after if table not in same)
    late = _giving_up_to_earlier(before, after) if before and after else frozenset()
    parts = [
        EditNative(
            tuple(table for table in before if (table.name in late) == is_late),
            tuple(table for table in after if (table.name in late) == is_late),
        )
        for is_late in (False, True)
    ]
    return [part for part in parts if part.before or part.after]


def _giving_up_to_earlier(before: Iterable[NativeTable], after: Iterable[NativeTable]) -> frozenset[str]:
    """Return the names of the tables that give inbound traffic up to one that packets meet before them."""
    from .native import NATIVE_TABLES

    had, have = ({table.name: _captors(table) for table in tables} for tables in (before, after))
    none: frozenset[Target] = frozenset()
    late = set()
    met_earlier_gains = False
    for name in NATIVE_TABLES.values():  # in a packet's order
        if met_earlier_gains and had.get(name, none) - have.get(name, none):
            late.add(name)
        met_earlier_gains = met_earlier_gains or bool(have.get(name, none) - had.get(name, none))
    return frozenset(late)


def _native_wanted(live: Live, wanted: Ruleset) -> tuple[NativeTable, ...]:
    """Return the native tables that a rule set means, with the counters of the rules that are there."""
    from .native import translate  # few runs need it

    in_place = {(table.name, chain.name): chain.rules for table in live.native for chain in table.chains}
    return tuple(
        table.replace(
            chains=tuple(
                chain.replace(rules=with_counters(chain.rules, in_place.get((table.name, chain.name), ())))
                for chain in table.chains
            )
        )
        for table in translate(wanted)
    )


def _table_actions(live: Live, wanted: Ruleset, place: Place, rewrite: bool) -> Iterable[EditTable]:
    for family in FAMILIES:
        for name in TABLES:
            before = live.table(place, family, name) or Table(family, name)
            edit = edit_between(before, wanted.table(family, name), rewrite=rewrite)
            if edit.steps:
                yield EditTable(place, edit, before, apply_to(before, edit))


def _captors(table: Table | NativeTable) -> frozenset[Target]:
    """Return the targets by which a table of ours sends inbound traffic to the proxy."""
    if isinstance(table, Table):
        start, ours_only = "PREROUTING", [c for c in table.chains if c.is_ours or c.name == "PREROUTING"]
        rules_of = {chain.name: chain.rules for chain in ours_only}
    else:
        start, rules_of = "prerouting", {chain.name: chain.rules for chain in table.chains}
    found: set[Target] = set()
    seen: set[str] = set()
    names = [start]
    while names:
        name = names.pop()
        seen.add(name)
        for rule in rules_of.get(name, ()):
            if isinstance(rule.target, Jump) and rule.target.chain in rules_of.keys() - seen:
                names.append(rule.target.chain)
            elif isinstance(rule.target, (Redirect, TProxy)) and name != start:
                found.add(rule.target)
    return frozenset(found)


# --- what changes, for people ---------------------------------------------------------------


def _differences(
    live: Live, wanted: Ruleset, place: Place, edited: set[tuple[Place, Family, TableName]]
) -> tuple[Difference, ...]:
    found = []
    for where in _IPTABLES_PLACES:
        for family in FAMILIES:
            for name in TABLES:
                if (where, family, name) not in edited:
                    continue  # to write out a long list takes longer than it took to compare it
                before = _lines(ours(live.table(where, family, name) or Table(family, name)))
                after = _lines(wanted.table(family, name)) if where == place else ()
                found.append(Difference(f"{family} {name} ({where})", before, after))
    found += _native_differences(live.native, _native_wanted(live, wanted) if place == "native" else ())
    network = tuple(ip_command(item) for item in sorted(live.network, key=ip_command))
    wanted_network = tuple(ip_command(item) for item in sorted(wanted.network, key=ip_command))
    found.append(Difference("addresses and routes", network, wanted_network))
    return tuple(difference for difference in found if difference.before != difference.after)


def _native_differences(
    before: tuple[NativeTable, ...], after: tuple[NativeTable, ...]
) -> Iterable[Difference]:
    if not before and not after:
        return
    from .formats.nft import table_lines

    for name in dict.fromkeys(table.name for table in (*before, *after)):
        lines = [
            tuple(line for table in tables if table.name == name for line in table_lines(table))
            for tables in (before, after)
        ]
        yield Difference(f"inet {name} (native nftables)", *lines)


def _lines(table: Table) -> tuple[str, ...]:
    """Return the rules of a table, chains by name, in words that do not depend on who printed them."""
    return tuple(
        f"-A {chain.name} {' '.join(_sorted_words(rule))}"
        for chain in sorted(table.chains, key=lambda chain: chain.name)
        for rule in chain.in_order
    )


#: The order in which iptables-save prints what every packet has; extensions follow.
_BASIC_MATCHES: tuple[type[Match], ...] = (Source, Destination, InInterface, OutInterface, Transport)


def _sorted_words(rule: Rule) -> list[str]:
    def place(match: Match) -> tuple[int, str]:
        kind, others = type(match), len(_BASIC_MATCHES)
        if kind in _BASIC_MATCHES:
            return _BASIC_MATCHES.index(kind), repr(match)
        return others + (kind is Comment), repr(match)  # we write the comment last

    return rule_words(rule.replace(matches=tuple(sorted(rule.matches, key=place))))


# --- doing it -------------------------------------------------------------------------------


def execute(plan: Plan, kernel: Kernel, *, interrupted: Callable[[], bool] = bool) -> None:
    """Do the actions in order. If one fails, undo those before it and raise KernelError.

    `interrupted` is asked before each: when it says so, that counts as a failure. A signal must not
    cut an action short, since nobody would know whether it was done: see backends/signals.py.
    """
    done: list[Action] = []
    try:
        for action in plan.actions:
            if interrupted():
                raise KernelError("interrupted by a signal", "everything is as before: run again")
            kernel.do(action)
            done.append(action)
    except BaseException as error:
        left = _roll_back(done, kernel)
        if not isinstance(error, KernelError):
            raise
        if left:
            raise KernelError(
                f"{error.cause}; and this could not be put back: {'; '.join(left)}",
                error.remedy,
            ) from error
        raise


def _roll_back(done: list[Action], kernel: Kernel) -> list[str]:
    """Undo actions, last first; return what could not be undone and why."""
    left = []
    for action in reversed(done):
        try:
            kernel.do(action.inverse())
        except KernelError as error:
            left.append(f"{action}: {error.cause}")
    return left
