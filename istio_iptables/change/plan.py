"""plan: what has to be done so that the machine has the wanted rules, and in which order.

What a rule relies on comes before it: addresses and routes first, conntrack zones (raw) before the
redirection of what is tracked in them (nat). Edits that only add come before edits that remove something, so
that traffic which moves from one table to another is captured twice for a moment rather than not at all.
Removal goes in the opposite order.
"""

from __future__ import annotations

from ..rules.edit import apply_to, edit_between, with_counters
from ..rules.model import (
    FAMILIES,
    TABLES,
    MarkLookup,
    Ruleset,
    Table,
)
from ..rules.ownership import is_owned
from ..startup.record import Record
from .actions import (
    IPTABLES_LOCATIONS,
    NFTABLES,
    AddObject,
    EditNative,
    EditTable,
    Live,
    RemoveByHandle,
    RemoveObject,
    inbound_captures,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..rules.model import RoutingObject, Target
    from ..rules.nftables.model import NativeTable
    from .actions import Action, Location, UndoableAction


class Plan(Record):
    """The actions, in order, that turn what is live into what is wanted; none if there is nothing to do.

    `undoable` come first: if one of them fails, those before it are undone. `final` comes last, since it is
    the one kind that cannot be undone.
    """

    undoable: tuple[UndoableAction, ...]
    #: Owned rules, or remains that are not wanted, are in place: this is a change, not a first run.
    replaces: bool
    live: Live
    wanted: Ruleset
    location: Location
    final: RemoveByHandle | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions, in order."""
        return (*self.undoable, self.final) if self.final else self.undoable

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Warnings of owned chains that stay, empty, since a rule of another program jumps to them."""
        return tuple(
            f"chain {chain.name} ({action.edit.family} {action.edit.table}, {action.location}) stays, empty: "
            f"a rule of another program jumps to it; remove that rule (`-j {chain.name}`) and clean up again"
            for action in self.undoable
            if isinstance(action, EditTable)
            for chain in action.after.chains
            if is_owned(chain) and not chain.rules
        )


def make_plan(live: Live, wanted: Ruleset, location: Location, *, rewrite: bool = False) -> Plan:
    """Return what turns `live` into `wanted`, with rules in `location` and no owned ones elsewhere.

    With `rewrite` chains are written again even if nothing differs.
    """
    edits = [
        action
        for where in IPTABLES_LOCATIONS
        for action in _table_actions(live, wanted if where == location else Ruleset(), where, rewrite)
    ]
    adding = [action for action in edits if not action.is_removal]
    removing = [action for action in edits if action.is_removal]
    removing.sort(
        # raw last, since nat relies on its zones; a table that releases inbound traffic after the others
        key=lambda action: (
            action.edit.table == "raw",
            action.releases_inbound,
            -TABLES.index(action.edit.table),
        )
    )
    # A routing rule is added after the route that it leads to, and removed before it: without the route it
    # might be foreign, so a run that is killed in between must not leave it behind.
    missing = sorted((i for i in wanted.routing if i not in live.routing), key=_is_lookup)
    obsolete = sorted((i for i in live.routing if i not in wanted.routing), key=_is_lookup)
    actions: list[UndoableAction] = [AddObject(item) for item in missing]
    in_native = any(not table.is_left_over for table in live.native)
    replaces = bool(obsolete or in_native) or any(live.holds_owned(where) for where in IPTABLES_LOCATIONS)
    native = [part.replace(replaces=replaces) for part in _native_actions(live, wanted, location, rewrite)]
    actions += [*native, *adding, *removing] if location == NFTABLES else [*adding, *removing, *native]
    gone: list[UndoableAction] = [RemoveObject(item) for item in reversed(obsolete)]
    # Live marks tell that routes are owned: if no new rules are made, routes go while the marks are there.
    actions = [*actions, *gone] if wanted.tables else [*gone, *actions]
    by_handle = tuple(table for table in live.unreadable if table.removal)
    # With rules to be made, the choice of a backend has refused.
    final = RemoveByHandle(by_handle) if by_handle and not wanted.tables else None
    return Plan(tuple(actions), replaces, live, wanted, location, final)


def _is_lookup(item: RoutingObject) -> bool:
    return isinstance(item, MarkLookup)


def _native_actions(live: Live, wanted: Ruleset, location: Location, rewrite: bool) -> list[EditNative]:
    """Return the actions on native tables, if any is needed: tables that are as they should be are left out.

    It is one transaction, with one exception. A packet that is between two hooks when a transaction takes
    effect has met the old rules of the first and meets the new ones of the second. If inbound capture
    moves from nat to mangle, which comes first, nothing would capture that packet; so nat follows in a
    transaction of its own, and for a moment both capture.
    """
    after = native_wanted(live, wanted) if location == NFTABLES else ()
    same = [] if rewrite else [table for table in live.native if table in after]
    before = tuple(table for table in live.native if table not in same)
    after = tuple(table for table in after if table not in same)
    late = _releasing_to_earlier(before, after) if before and after else frozenset()
    parts = [
        EditNative(
            tuple(table for table in before if (table.name in late) == is_late),
            tuple(table for table in after if (table.name in late) == is_late),
        )
        for is_late in (False, True)
    ]
    return [part for part in parts if part.before or part.after]


def _releasing_to_earlier(before: Iterable[NativeTable], after: Iterable[NativeTable]) -> frozenset[str]:
    """Return the names of the tables that release inbound traffic to a table that packets meet earlier."""
    from ..rules.istio import NATIVE_TABLES

    had, have = ({table.name: inbound_captures(table) for table in tables} for tables in (before, after))
    none: frozenset[Target] = frozenset()
    late = set()
    met_earlier_gains = False
    for name in NATIVE_TABLES.values():  # in a packet's order
        if met_earlier_gains and had.get(name, none) - have.get(name, none):
            late.add(name)
        met_earlier_gains = met_earlier_gains or bool(have.get(name, none) - had.get(name, none))
    return frozenset(late)


def native_wanted(live: Live, wanted: Ruleset) -> tuple[NativeTable, ...]:
    """Return the native tables for a rule set, with the counters of the rules that are there."""
    from ..rules.nftables.translate import translate

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


def _table_actions(live: Live, wanted: Ruleset, location: Location, rewrite: bool) -> Iterable[EditTable]:
    for family in FAMILIES:
        for name in TABLES:
            before = live.table(location, family, name) or Table(family, name)
            edit = edit_between(before, wanted.table(family, name), rewrite=rewrite)
            if edit.steps:
                yield EditTable(location, edit, before, apply_to(before, edit))
