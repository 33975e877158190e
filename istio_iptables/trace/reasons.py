"""reasons: why rules are there that were read: those of the equal rules that settings mean."""

from __future__ import annotations

from ..interpreter.condition import Condition
from .world import of_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..interpreter.program import Program, Rule, Table
    from ..interpreter.routing import Network
    from ..settings.config import Config


def explained(program: Program, config: Config, network: Network) -> Program:
    """Return a program whose rules have the reasons of the equal ones that settings mean."""
    reasons = {
        meaning: rule.reason
        for native in (False, True)
        for table in of_settings(config, network, native=native).program.tables
        for chain in table.chains
        for meaning, rule in _meanings(table, chain)
    }
    return program.replace(
        tables=tuple(
            table.replace(
                chains={
                    chain: tuple(
                        rule.replace(reason=rule.reason or reasons.get(meaning, ""))
                        for meaning, rule in _meanings(table, chain)
                    )
                    for chain in table.chains
                }
            )
            for table in program.tables
        )
    )


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
