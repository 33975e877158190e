"""after: the rules of all programs that a namespace will have once a plan is carried out."""

from __future__ import annotations

from ..change.actions import AddObject, EditNative, EditTable, RemoveObject
from ..interpreter import iptables, nft_rules
from ..interpreter.iptables import compiled_rule
from ..interpreter.known import Known, Scope
from ..interpreter.program import Program, Rule, Table
from ..rules.edit import CreateChain, Insert, RemoveChain, ReplaceRules
from ..trace.world import native_text, text_of, with_objects, without_objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..change.actions import Action
    from ..interpreter.surroundings import World
    from ..rules import model


def after(world: World, actions: Iterable[Action]) -> World:
    """Return the namespace after the actions of a plan; `world` is as it was read, all tables of it."""
    for action in actions:
        tables, network = world.program.tables, world.network
        if isinstance(action, EditTable):
            tables = _edited(tables, action, Known(network))
        elif isinstance(action, EditNative):
            titles = {nft_rules.title("inet", table.name) for table in (*action.before, *action.after)}
            made = (nft_rules.compiled(table, native_text) for table in action.after)
            tables = (*(table for table in tables if table.title not in titles), *made)
        elif isinstance(action, AddObject):
            network = with_objects(network, (action.item,))
        elif isinstance(action, RemoveObject):
            network = without_objects(network, (action.item,))
        world = world.replace(program=Program(tables), network=network)
    return world


def _edited(tables: tuple[Table, ...], action: EditTable, known: Known) -> tuple[Table, ...]:
    """Return the tables with one edited: what it has of other programs stays as it was read."""
    made = iptables.compiled(action.after, action.location, text_of, known)
    key = (made.location, made.name, made.families)
    found = [table for table in tables if (table.location, table.name, table.families) == key]
    if not found:
        return (*tables, made)
    [before] = found
    known_bases = {base.chain for base in before.bases}
    bases = (*before.bases, *(base for base in made.bases if base.chain not in known_bases))
    scope = Scope(known, action.after.family, before_conntrack=made.name == "raw")
    edited = before.replace(chains=_edited_chains(before, action, scope), bases=bases)
    return tuple(edited if table is before else table for table in tables)


def _edited_chains(before: Table, action: EditTable, scope: Scope) -> dict[str, tuple[Rule, ...]]:
    """Do the steps of an edit, as rules/edit.py says what they mean."""
    chains = {name: list(rules) for name, rules in before.chains.items()}

    def compiled(rule: model.Rule, chain: str) -> Rule:
        return compiled_rule(0, rule, text_of(rule, chain), scope)

    for step in action.edit.steps:
        if isinstance(step, CreateChain):
            chains[step.chain] = []
        elif isinstance(step, RemoveChain):
            del chains[step.chain]
        elif isinstance(step, ReplaceRules):
            chains[step.chain] = [compiled(rule, step.chain) for rule in step.after]
        elif isinstance(step, Insert):
            chains.setdefault(step.chain, []).insert(step.position - 1, compiled(step.rule, step.chain))
        else:
            del chains[step.chain][step.position - 1]
    return {
        name: tuple(rule.replace(number=at) for at, rule in enumerate(rules, 1))
        for name, rules in chains.items()
    }
