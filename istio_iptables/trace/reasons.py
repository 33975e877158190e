"""reasons: why rules are there that were read: those of the equal rules that settings mean."""

from __future__ import annotations

from ..interpreter.condition import Condition
from ..interpreter.known import Known
from ..rules.istio import NATIVE_TABLES
from ..rules.model import TABLES
from .world import of_ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..interpreter.program import Program, Rule, Table
    from ..interpreter.routing import Network
    from ..rules.model import Ruleset


def explained(program: Program, rulesets: Iterable[Ruleset], network: Network) -> Program:
    """Return a program whose rules have the reasons of the equal ones of some rule sets."""
    names = {table.name for table in program.tables}
    forms = [native for native, of in ((False, TABLES), (True, NATIVE_TABLES.values())) if names & {*of}]
    reasons = {
        meaning: rule.reason
        for ruleset in rulesets
        for native in forms
        for table in of_ruleset(ruleset, Known(network), native=native)
        if table.name in names
        for chain in table.chains
        for meaning, rule in _meanings(table, chain)
    }
    if not reasons:
        return program
    return program.replace(tables=tuple(_explained(table, reasons) for table in program.tables))


def _explained(table: Table, reasons: Mapping[object, str]) -> Table:
    chains = {
        chain: tuple(
            rule.replace(reason=rule.reason or reasons.get(meaning, ""))
            for meaning, rule in _meanings(table, chain)
        )
        for chain in table.chains
    }
    return table.replace(chains=chains)


def _meanings(table: Table, chain: str) -> Iterator[tuple[object, Rule]]:
    """Yield each rule of a chain with what equal ones have in common, and which of several in it it is.

    The order of the matches makes no difference.
    """
    seen: dict[object, int] = {}
    for rule in table.chains[chain]:
        conditions = frozenset(each for each in rule.statements if isinstance(each, Condition))
        doing = tuple(each for each in rule.statements if not isinstance(each, Condition))
        meaning = (table.name, table.families, chain, conditions, doing)
        seen[meaning] = seen.get(meaning, 0) + 1
        yield (meaning, seen[meaning]), rule
