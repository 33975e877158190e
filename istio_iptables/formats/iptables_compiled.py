"""iptables_compiled: the tables of a dump as the interpreter runs them."""

from __future__ import annotations

from itertools import pairwise

from ..errors import DumpError
from ..interpreter import iptables
from ..rules.model import IPV4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..interpreter import program
    from ..interpreter.known import Known
    from ..rules.model import Family, Rule
    from .iptables_dump import Dump, DumpedTable

#: Where a table is whose variant is not known.
IPTABLES = "iptables"


def compiled(dump: Dump, known: Known, assume: Family = IPV4) -> tuple[program.Table, ...]:
    """Return the tables of a dump for the interpreter; `assume` is the family of those that do not tell it.

    Sets that rules change are left out of what is known. Raises DumpError if two tables cannot be of one
    network namespace.
    """
    if known.sets:
        changed = set(_changed_sets(dump))
        known = known.replace(sets={name: found for name, found in known.sets.items() if name not in changed})
    tables: dict[str, tuple[program.Table, DumpedTable]] = {}
    for each in dump.tables:
        found = _compiled(each, known, assume)
        if found.title in tables:
            found = _second(found, each, tables[found.title][1])
        tables[found.title] = found, each
    return tuple(found for found, _ in tables.values())


def _compiled(dumped: DumpedTable, known: Known, assume: Family) -> program.Table:
    texts = {id(line.rule): line.text.rstrip() for line in dumped.rules}

    def text_of(rule: Rule, chain: str) -> str:
        return texts[id(rule)]

    table = dumped.table(dumped.family or assume)
    return iptables.compiled(table, dumped.variant or IPTABLES, text_of, known, dumped.policies)


def _second(found: program.Table, dumped: DumpedTable, first: DumpedTable) -> program.Table:
    """Return a table that has the title of another: if no variant is known, it is that of the other one."""
    if dumped.variant:
        raise DumpError(
            f"lines {first.line} and {dumped.line}: both are the table {found.title}, and a namespace "
            "has one: give the dump of one namespace only"
        )
    return found.replace(title=f"{found.title}, line {dumped.line}")


def _changed_sets(dump: Dump) -> Iterator[str]:
    """Yield the names of sets that rules add to or remove from."""
    for table in dump.tables:
        for line in table.rules:
            args = getattr(line.rule.target, "args", ())
            if args[1:2] == ("SET",):
                yield from (name for option, name in pairwise(args) if option in ("--add-set", "--del-set"))
