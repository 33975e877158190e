"""reasons: why rules are there that were read: those of the same rules among those that settings mean."""

from __future__ import annotations

from ..interpreter import iptables, nft_rules
from ..rules.edit import same_rules
from ..rules.istio import NATIVE_FAMILY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ..interpreter.program import Program, Table
    from ..rules.model import Rule, Ruleset
    from .owned import Place


def explained(program: Program, meant: Iterable[tuple[Place, Ruleset]]) -> Program:
    """Return a program whose rules have reasons: in each place those of the rules that settings mean."""
    found = (each for place, wanted in meant for each in _reasons(place, wanted))
    reasons = {(title, chain): why for title, chain, why in found}
    return program.replace(tables=tuple(_explained(table, reasons) for table in program.tables))


def _reasons(place: Place, wanted: Ruleset) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the titles of tables, as programs have them, and the reasons of the rules of each chain."""
    for table in place.tables:
        title = iptables.title(table.name, place.location, table.family)
        chains = wanted.table(table.family, table.name)
        for chain in table.chains:
            yield title, chain.name, _of_chain(chain.rules, chains.chain(chain.name).in_order)
    if place.native:
        from ..rules.nftables.translate import translate

        made = {
            (table.name, chain.name): chain.rules for table in translate(wanted) for chain in table.chains
        }
        for found in place.native:
            for each in found.chains:
                why = _of_chain(each.rules, made.get((found.name, each.name), ()))
                yield nft_rules.title(NATIVE_FAMILY, found.name), each.name, why


def _of_chain(found: Sequence[Rule], wanted: Sequence[Rule]) -> list[str]:
    return [same.reason if same else "" for same in same_rules(found, wanted)]


def _explained(table: Table, reasons: Mapping[tuple[str, str], list[str]]) -> Table:
    chains = {}
    for name, rules in table.chains.items():
        why = reasons.get((table.title, name), ())
        if any(why) and len(why) == len(rules):
            rules = tuple(
                rule.replace(reason=reason) if reason else rule
                for rule, reason in zip(rules, why, strict=True)
            )
        chains[name] = rules
    return table.replace(chains=chains)
