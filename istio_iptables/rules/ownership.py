"""ownership: which rules and chains in the kernel are owned by istio-iptables, and which are foreign."""

from __future__ import annotations

from .istio import CHAINS, TAG
from .model import BUILTIN_CHAINS, Chain, Comment, Jump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Rule, Table


def is_owned(chain: Chain) -> bool:
    """Tell whether a chain itself, and so all that is in it, belongs to this tool."""
    return chain.name in CHAINS


def is_tagged(rule: Rule) -> bool:
    """Tell whether a comment says that this tool wrote a rule."""
    return any(
        isinstance(match, Comment) and (match.text == TAG or match.text.startswith(f"{TAG}: "))
        for match in rule.matches
    )


def is_owned_rule(rule: Rule) -> bool:
    """Tell whether a rule that was found in a built-in chain belongs to this tool."""
    return is_tagged(rule) or (isinstance(rule.target, Jump) and rule.target.chain in CHAINS)


def owned(table: Table) -> Table:
    """Return only what belongs to this tool: its chains, and its rules in the built-in chains.

    A rule in a chain of another program is foreign, wherever it jumps.
    """
    from_builtin: Mapping[str, tuple[Rule, ...]] = {
        chain.name: tuple(rule for rule in chain.rules if is_owned_rule(rule))
        for chain in table.chains
        if chain.name in BUILTIN_CHAINS
    }
    kept = [
        chain if is_owned(chain) else Chain(chain.name, from_builtin[chain.name])
        for chain in table.chains
        if (is_owned(chain) and chain.rules) or from_builtin.get(chain.name)
    ]
    return table.replace(chains=tuple(kept))
