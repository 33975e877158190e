"""nft_rules: the native tables that this tool makes as a program: what each match and target of them means.

Sources: nft(8); nft_meta.c, nft_payload.c, nft_tproxy.c. What another program wrote into such a table cannot
be told from here; nft_expressions.py reads any table as `nft -j` prints it.
"""

from __future__ import annotations

from ..rules import model
from ..rules.model import FAMILIES, PROTOCOL_NUMBERS
from ..rules.nftables import model as nftables
from . import action as actions
from . import iptables
from .condition import ALWAYS, HAS_SOCKET, AllOf, In, OneOf, Unmodelled, negated, number
from .program import Base, Rule, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ..rules.model import Match, Target
    from .action import Action
    from .condition import Condition

LOCATION = "nftables"


def title(family: str, name: str) -> str:
    """Return what a table is called for people."""
    return f"nftables table {family} {name}"


def compiled(table: nftables.NativeTable, text_of: Callable[[model.Rule], str] = str) -> Table:
    """Return a native table, of family inet, as a program has it. `text_of` writes a rule as nft does."""
    return Table(
        LOCATION,
        title("inet", table.name),
        table.name,
        frozenset(FAMILIES),
        tuple(_bases(table)),
        {
            chain.name: tuple(_rule(at, rule, text_of) for at, rule in enumerate(chain.rules, 1))
            for chain in table.chains
        },
        ours=True,
    )


def _bases(table: nftables.NativeTable) -> Iterable[Base]:
    for chain in table.chains:
        if chain.hook:
            kind, hook = chain.hook.kind, chain.hook.hook
            drops = chain.hook.policy == "drop"
            yield Base(chain.name, hook, chain.hook.priority, kind, drops)  # type: ignore[arg-type]  # as nft has it


def _rule(at: int, rule: model.Rule, text_of: Callable[[model.Rule], str]) -> Rule:
    conditions = [condition(match) for match in rule.matches]
    parts = [part for each in conditions for part in (each.parts if isinstance(each, AllOf) else (each,))]
    return Rule(at, text_of(rule), (*parts, *action(rule.target)), rule.reason, rule.counters)


def condition(match: Match) -> Condition:
    """Return what a match of a native table means."""
    meaning = _MEANING.get(type(match))
    return meaning(match) if meaning else iptables.condition(match)


def action(target: Target) -> tuple[Condition | Action, ...]:
    """Return what a target of a native table does, with what it needs first."""
    if isinstance(target, nftables.FamilyTProxy):
        return (
            of_family(target.family),
            number("protocol", PROTOCOL_NUMBERS["tcp"]),
            actions.TProxy(target.port, accepts=False),
            actions.Assign("mark", 0, target.mark),
            actions.End("accept"),
        )
    if isinstance(target, model.ForeignTarget):
        why = " ".join(target.args)
        return (Unmodelled(why), actions.Unknown(why))  # there may be matches among these
    return iptables.action(target)


def of_family(family: model.Family) -> Condition:
    """Return the condition that a packet is of a family."""
    return OneOf("family", frozenset({family}))


def _addresses(match: nftables.Addresses) -> Condition:
    return AllOf((of_family(match.family), negated(In(match.direction, match.ranges), match.negated)))


def _ports(match: nftables.Ports) -> Condition:
    port = In(f"{match.direction}_port", match.ranges)
    return AllOf((number("protocol", PROTOCOL_NUMBERS[match.protocol]), negated(port, match.negated)))


def _owners(match: nftables.Owners) -> Condition:
    ids = In("uid" if match.kind == "user" else "gid", match.ids)
    return AllOf((HAS_SOCKET, negated(ids, match.negated)))


_MEANING: Mapping[type[Match], Callable[[Any], Condition]] = {
    nftables.NfProto: lambda match: of_family(match.family),
    nftables.Addresses: _addresses,
    nftables.Ports: _ports,
    nftables.Owners: _owners,
    model.ForeignMatch: lambda match: Unmodelled(" ".join(match.args)),
    model.Comment: lambda _: ALWAYS,
}
