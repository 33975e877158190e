"""iptables: tables of iptables as a program: what each match and target of rules/model.py means.

Sources: iptables-extensions(8); xt_owner.c, xt_mark.c, xt_connmark.c, xt_CT.c, xt_TPROXY.c. What this tool
never writes is kept as arguments; iptables_options.py says what these mean.
"""

from __future__ import annotations

from ..rules import model
from ..rules.model import FULL_MASK, PROTOCOL_NUMBERS
from . import action as actions
from . import conntrack
from .condition import ALWAYS, AllOf, Masked, Named, negated, number, numbers
from .iptables_options import foreign_match, foreign_target
from .known import ANYWHERE, Scope
from .program import IPTABLES_HOOKS, IPTABLES_NFT, IPTABLES_NFT_PRIORITIES, Base, Rule, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..rules.model import Family, Match, Target
    from .action import Action
    from .condition import Condition
    from .known import Known
    from .program import HookName


def title(name: str, location: str, family: Family) -> str:
    """Return what a table is called for people."""
    return f"{name} ({location}, {family})"


def compiled(
    table: model.Table,
    location: str,
    text_of: Callable[[model.Rule, str], str],
    known: Known,
    policies: Mapping[str, str] | None = None,
) -> Table:
    """Return a table as a program has it.

    `text_of` writes a rule as its tool does. `known` is what foreign matches may ask about. `policies` are
    those of built-in chains, ACCEPT by default.
    """
    scope = Scope(known, table.family, before_conntrack=table.name == "raw")
    chains = {
        chain.name: tuple(
            compiled_rule(at, rule, text_of(rule, chain.name), scope)
            for at, rule in enumerate(chain.in_order, 1)
        )
        for chain in table.chains
    }
    bases = tuple(_bases(table, location, policies or {}))
    called = title(table.name, location, table.family)
    return Table(location, called, table.name, frozenset((table.family,)), bases, chains)


def _bases(table: model.Table, location: str, policies: Mapping[str, str]) -> Iterable[Base]:
    for chain in table.chains:
        where = IPTABLES_HOOKS.get((table.name, chain.name))
        if where:
            hook: HookName = chain.name.lower()  # type: ignore[assignment]  # the keys are the built-in chains
            kind, priority = where
            if location == IPTABLES_NFT:
                priority = IPTABLES_NFT_PRIORITIES.get(table.name, priority)
            yield Base(chain.name, hook, priority, kind, policies.get(chain.name) == "DROP")


def compiled_rule(at: int, rule: model.Rule, text: str, scope: Scope) -> Rule:
    """Return a rule as a program has it, the `at`-th of its chain, that its tool writes as `text`."""
    conditions = [condition(match, scope) for match in rule.matches if not isinstance(match, model.Comment)]
    parts = [part for each in conditions for part in (each.parts if isinstance(each, AllOf) else (each,))]
    reason = rule.reason
    statements: tuple[Condition | Action, ...] = (*parts, *action(rule.target))
    return Rule(at, text, statements, reason, rule.counters)


def condition(match: Match, scope: Scope = ANYWHERE) -> Condition:
    """Return what a match of iptables means in a rule of some table."""
    if isinstance(match, model.ForeignMatch):
        return foreign_match(match.args, scope)
    if isinstance(match, model.ConntrackState):
        return negated(conntrack.states(match.states, before=scope.before_conntrack), match.negated)
    if isinstance(match, model.ConnectionMark):
        before = scope.before_conntrack
        return conntrack.mark(match.value, match.mask, negate=match.negated, before=before)
    meaning = _MEANING[type(match)](match)
    return negated(meaning, getattr(match, "negated", False))


def action(target: Target) -> tuple[Action, ...]:
    """Return what a target of iptables does."""
    if isinstance(target, model.ForeignTarget):
        return foreign_target(target.args)
    if isinstance(target, model.Verdict):
        return (_VERDICTS[target.name],)
    return (_ACTIONS[type(target)](target),)


def _cidr(field: str) -> Callable[[Any], Condition]:
    return lambda match: number(field, match.cidr.address, match.cidr.last)


_MEANING: Mapping[type[Match], Callable[[Any], Condition]] = {
    model.InInterface: lambda m: Named("received_on", m.name),
    model.OutInterface: lambda m: Named("sent_to", m.name),
    model.Source: _cidr("source"),
    model.Destination: _cidr("destination"),
    model.Transport: lambda m: number("protocol", PROTOCOL_NUMBERS[m.protocol]),
    model.SourcePort: lambda m: number("source_port", m.ports.first, m.ports.last),
    model.DestinationPort: lambda m: number("destination_port", m.ports.first, m.ports.last),
    model.DestinationPorts: lambda m: numbers("destination_port", [(p.first, p.last) for p in m.ports]),
    model.UidOwner: lambda m: number("uid", m.uid),
    model.GidOwner: lambda m: number("gid", m.gid),
    model.Mark: lambda m: Masked("mark", m.value, m.mask),
    model.Comment: lambda _: ALWAYS,
}

_VERDICTS: Mapping[str, Action] = {
    "ACCEPT": actions.End("accept"),
    "DROP": actions.End("drop"),
    "RETURN": actions.Return(),
}

_ACTIONS: Mapping[type[Target], Callable[[Any], Action]] = {
    model.Jump: lambda t: actions.Call(t.chain, t.goto),
    model.Redirect: lambda t: actions.Redirect(t.port),
    model.SetMark: lambda t: actions.Assign("mark", FULL_MASK & ~t.mask, t.value),
    model.SaveMark: lambda _: actions.Assign("connection_mark", 0, source="mark"),
    model.RestoreMark: lambda _: actions.Assign("mark", 0, source="connection_mark"),
    model.TProxy: lambda t: actions.TProxy(t.port, 0, t.mark),
    model.ConntrackZone: lambda t: actions.Zone(t.zone),
}
