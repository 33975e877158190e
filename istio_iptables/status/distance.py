"""distance: in how many rules two rule sets differ. Zero means that they are the same."""

from __future__ import annotations

from collections import Counter

from ..rules.model import FAMILIES, TABLES, Ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..rules.model import RoutingObject, Rule
    from ..rules.nftables.model import NativeTable


def distance(one: Ruleset, other: Ruleset) -> int:
    """Return the number of rules, and of routes and addresses, that only one of two rule sets has.

    Rules that both have in another order count as one. In which order chains were made does not matter, nor
    whether they are empty.
    """
    away = _routing(one.routing, other.routing)
    for family in FAMILIES:
        for name in TABLES:
            chains = [
                {chain.name: chain.in_order for chain in ruleset.table(family, name).chains}
                for ruleset in (one, other)
            ]
            names = dict.fromkeys((*chains[0], *chains[1]))
            away += sum(_rules(*(each.get(chain, ()) for each in chains)) for chain in names)
    return away


def native_distance(
    one: Sequence[NativeTable],
    other: Sequence[NativeTable],
    routing: tuple[Iterable[RoutingObject], Iterable[RoutingObject]],
) -> int:
    """Return the same for native tables; what no rule set of this tool has in a table counts, too."""
    away = _routing(*routing) + sum(len(table.extras) for table in (*one, *other))
    chains = [
        {(table.name, chain.name): chain for table in each for chain in table.chains} for each in (one, other)
    ]
    for name in dict.fromkeys((*chains[0], *chains[1])):
        pair = [each.get(name) for each in chains]
        away += _rules(*(chain.rules if chain else () for chain in pair))
        away += len({chain.hook if chain else None for chain in pair}) - 1
    return away


def _rules(one: Sequence[Rule], other: Sequence[Rule]) -> int:
    if tuple(one) == tuple(other):
        return 0
    counted, also = Counter(one), Counter(other)
    return max(1, (counted - also).total() + (also - counted).total())


def _routing(one: Iterable[RoutingObject], other: Iterable[RoutingObject]) -> int:
    return len(set(one) ^ set(other))
