"""edit: what turns native tables into others, as steps in their order; each list of steps is a transaction.

formats/nft writes the steps as a script for nft(8), kernel/netlink/nf_tables as messages for the kernel.
"""

from __future__ import annotations

from ...startup.record import Record
from .model import NativeTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Delete(Record):
    """Delete a table (`name` is empty), or an object from it; `kind` as in nft(8): table, chain, set, ..."""

    kind: str
    table: str
    name: str = ""


class Flush(Record):
    """Delete all rules of a table."""

    table: str


class Write(Record):
    """Make of a table what is not there yet: the named `sets`, then, unless `only_sets`, chains and rules."""

    table: NativeTable
    sets: tuple[str, ...]
    only_sets: bool = False


Step = Delete | Flush | Write


def transactions(
    before: Sequence[NativeTable], after: Sequence[NativeTable], *, sets_first: bool = True
) -> list[list[Step]]:
    """Return what turns some tables into others: a list of steps for each transaction, mostly one.

    Tables stay, and so do base chains, wherever that is possible: a packet then meets either the old rules
    of a chain or the new ones, whereas a new base chain runs alongside the old one for a moment. With
    `sets_first` the sets that new rules need are made by an earlier transaction, in an empty table if the
    table is new: see `set_name`.
    """
    there = {table.name: table for table in before}
    wanted = {table.name: table for table in after}
    # What nft has printed of a table has its sets in it.
    sets = {name: {} if table.text else table.named_sets() for name, table in wanted.items()}
    made_anew = {name for name in there.keys() & wanted.keys() if not _can_stay(there[name], wanted[name])}
    first: list[Step] = []
    for name, table in wanted.items():
        new = sorted(sets[name].keys() - _own_sets(there.get(name)))
        if sets_first and new and name not in made_anew:
            first.append(Write(table, tuple(new), only_sets=True))
    then: list[Step] = []
    for table in before:
        if table.name in made_anew or table.name not in wanted:
            then.append(Delete("table", table.name))
        else:
            then += _emptied(table, wanted[table.name], sets[table.name])
    with_sets = made_anew if sets_first else wanted.keys()
    then += [Write(t, tuple(sets[name]) if name in with_sets else ()) for name, t in wanted.items()]
    return [steps for steps in (first, then) if steps]


def _own_sets(table: NativeTable | None) -> set[str]:
    """Return the names of the owned sets that a table has, used or not."""
    return {*table.set_names(), *table.unused} if table else set()


def _emptied(table: NativeTable, wanted: NativeTable, sets: Iterable[str]) -> list[Step]:
    """Return the steps that leave only what the new rules use of a table: chains, and owned sets."""
    kept = {chain.name for chain in wanted.chains}
    gone = [extra.rpartition(" ")[::2] for extra in table.extras]  # first: a map may lead to chains
    gone += [("chain", chain.name) for chain in table.chains if chain.name not in kept]
    gone += [("set", name) for name in sorted(_own_sets(table) - {*sets})]
    return [Flush(table.name), *(Delete(kind, table.name, name) for kind, name in gone)]


#: Objects of other programs that can be removed from a table by their names (nft(8)).
_REMOVABLE = frozenset({"set", "map", "counter", "quota", "limit", "flowtable", "synproxy", "secmark"})


def _can_stay(before: NativeTable, wanted: NativeTable) -> bool:
    """Tell whether a table can be emptied and filled: all foreign objects in it can be removed."""
    hooks = {chain.name: chain.hook for chain in wanted.chains}
    same = all(chain.hook == hooks.get(chain.name, chain.hook) for chain in before.chains)
    return same and not wanted.text and all(e.rpartition(" ")[0] in _REMOVABLE for e in before.extras)
