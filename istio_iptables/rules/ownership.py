"""ownership: which rules and chains in the kernel are owned by istio-iptables, and which are foreign.

In chains that have one of Istio's names, every rule has to be of a form that one of Istio's tools writes (see
forms.py); another one makes a conflict, as do the rules of Istio's ambient mode: nothing is changed then. In
built-in chains a rule is owned if it jumps to such a chain, has the tag, or is one that Istio's tools leave.
"""

from __future__ import annotations

from .istio import AMBIENT_CHAIN, CHAINS, TAG
from .model import BUILTIN_CHAINS, Chain, Comment, Jump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import Rule, Table


def is_owned(chain: Chain) -> bool:
    """Tell whether a chain has one of Istio's names; `foreign_rules` says whether it deserves it."""
    return chain.name in CHAINS


def is_tagged(rule: Rule) -> bool:
    """Tell whether a comment says that this tool wrote a rule."""
    return any(
        isinstance(match, Comment) and (match.text == TAG or match.text.startswith(f"{TAG}: "))
        for match in rule.matches
    )


def owned_rules(table: Table, chain: Chain) -> tuple[int, ...]:
    """Return the positions, from 0, of the rules of a built-in chain that belong to this tool or Istio's."""
    from . import forms  # a dry run needs it not

    left = forms.left_by_istio(table.name, chain.name, chain.rules)
    return tuple(i for i, rule in enumerate(chain.rules) if is_owned_rule(rule) or rule in left)


def is_owned_rule(rule: Rule) -> bool:
    """Tell whether a rule of a built-in chain jumps to a chain of Istio's or has our comment."""
    return is_tagged(rule) or (isinstance(rule.target, Jump) and rule.target.chain in CHAINS)


def owned(table: Table) -> Table:
    """Return only what belongs to this tool: its chains, and its rules in the built-in chains.

    A rule in a chain of another program is foreign, wherever it jumps.
    """
    if is_ambient(table):
        return table.replace(chains=())
    kept = []
    for chain in table.chains:
        if chain.name in BUILTIN_CHAINS:
            rules = tuple(chain.rules[position] for position in owned_rules(table, chain))
        else:
            rules = chain.rules if is_owned(chain) else ()
        if rules:
            kept.append(Chain(chain.name, rules))
    return table.replace(chains=tuple(kept))


def is_ambient(table: Table) -> bool:
    """Tell whether Istio's ambient mode has written a table, which has an ISTIO_OUTPUT of its own."""
    return any(chain.name == AMBIENT_CHAIN for chain in table.chains)


def foreign_rules(table: Table) -> Iterator[tuple[Chain, Rule]]:
    """Yield the rules that do not belong into a chain of Istio's name, with the chain."""
    from . import forms

    for chain in table.chains:
        if is_owned(chain):
            for rule in chain.rules:
                if not forms.is_own_form(table.name, chain.name, rule):
                    yield chain, rule
