"""Policy: Config -> Ruleset. The only package that decides which rules there are, in which order, and why.

A module for each table, a function for each chain. Within a function the rules are in the order in
which a packet meets them, each with its reason: to read the function is to read the chain.
"""

from __future__ import annotations

from ..rules.istio import TAG
from ..rules.model import TABLES, Chain, Comment, Ruleset, Table
from ..rules.ownership import is_owned, is_owned_rule
from . import mangle, nat, raw, routing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..rules.model import Family, Rule, TableName
    from ..settings.config import Config


def build(config: Config) -> Ruleset:
    """Return the rules that `config` means, for every family that is on, and what they rely on.

    A chain is there only if it has a rule, a table only if it has a chain. The rules are those
    of Istio's istio-iptables for the same settings; a rule in a built-in chain that does not
    jump to an owned chain carries a comment, so that cleanup can tell it from a foreign one.
    """
    tables = [
        Table(family, name, _finished(_CHAINS[name](config, family), config))
        for family in config.families
        for name in TABLES
    ]
    return Ruleset(tuple(t for t in tables if t.chains), routing.objects(config))


_CHAINS: Mapping[TableName, Callable[[Config, Family], tuple[Chain, ...]]] = {
    "raw": raw.chains,
    "mangle": mangle.chains,
    "nat": nat.chains,
}


def _finished(chains: tuple[Chain, ...], config: Config) -> tuple[Chain, ...]:
    """Drop chains without rules, join lists if that is wanted, and give rules the comments they need."""
    present = [chain for chain in chains if chain.in_order]
    if config.compact:
        from .compact import compacted

        present = [compacted(chain) for chain in present]
    return tuple(_with_comments(chain, config.rule_comments) for chain in present)


def _with_comments(chain: Chain, rule_comments: bool) -> Chain:
    if is_owned(chain) and not rule_comments:
        return chain  # a list may have twenty thousand rules
    return chain.replace(
        head=tuple(_commented(rule, chain, rule_comments) for rule in chain.head),
        rules=tuple(_commented(rule, chain, rule_comments) for rule in chain.rules),
    )


def _commented(rule: Rule, chain: Chain, rule_comments: bool) -> Rule:
    needs_tag = not is_owned(chain) and not is_owned_rule(rule)
    if rule_comments:
        text = f"{TAG}: {rule.reason}" if needs_tag else rule.reason
    elif needs_tag:
        text = TAG
    else:
        return rule
    return rule.replace(matches=(*rule.matches, Comment(text)))
