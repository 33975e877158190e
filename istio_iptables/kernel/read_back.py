"""read_back: what became of an action that failed.

A failure does not tell that nothing was done: the kernel may have replaced a table and then failed to set its
counters, and a process may have died between its work and its answer. Counters do not count here.
"""

from __future__ import annotations

from ..errors import KernelError
from ..rules.model import BUILTIN_CHAINS, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..change.actions import EditNative, EditTable
    from ..rules.model import Rule
    from ..rules.nftables.model import NativeTable


def rules_are_those(action: EditTable, now: Table | None) -> bool:
    """Tell whether a table, None if it does not exist, is as after an edit, not as before it.

    Raises KernelError if it is neither.
    """
    rules = rules_of(now) if now else {}
    return _is_after(action, rules, rules_of(action.before), rules_of(action.after))


def native_tables_are_those(action: EditNative, now: tuple[NativeTable, ...]) -> bool:
    """Tell whether native tables are as after an edit, not as before it. Raises KernelError if neither."""
    names = {table.name for table in (*action.before, *action.after)}
    found, before, after = (
        {table.name: table for table in tables if table.name in names and not table.is_left_over}
        for tables in (now, action.before, action.after)
    )
    return _is_after(action, found, before, after)


def rules_of(table: Table) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of each chain; a built-in chain without a rule may as well not be there."""
    return {
        chain.name: chain.rules for chain in table.chains if chain.rules or chain.name not in BUILTIN_CHAINS
    }


def require_before(action: EditNative, now: tuple[NativeTable, ...], unlike: tuple[str, ...]) -> None:
    """Raise KernelError unless native tables are as before an edit; `unlike`: those with foreign parts."""
    names = {table.name for table in (*action.before, *action.after)}
    found, before = (
        {table.name: table for table in tables if table.name in names and not table.is_left_over}
        for tables in (now, action.before)
    )
    if found != before or names.intersection(unlike):
        raise _changed(action)


def _is_after(action: object, now: object, before: object, after: object) -> bool:
    if now not in (before, after):
        raise _changed(action)
    return now != before


def _changed(action: object) -> KernelError:
    return KernelError(
        f"{action}: another program has changed the rules meanwhile",
        "end what else writes rules, then run again",
    )
