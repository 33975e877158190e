"""conflicts: what is foreign under Istio's names in the kernel. Nothing may be changed while there is any."""

from __future__ import annotations

from ..rules.forms import may_be_istios
from ..rules.istio import CHAINS, NATIVE_FAMILY
from ..rules.model import BUILTIN_CHAINS
from ..rules.ownership import foreign_rules, is_ambient
from ..startup.record import Record
from .actions import IPTABLES_NFT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rules.model import Chain, Rule, Ruleset, Table
    from .actions import Live, Location, UnreadableTable


class Conflict(Record):
    """Something foreign in the place of what is owned. `rule` is None for ambient mode and whole tables.

    `where` is the table, in the words of the tool that shows it; `part` what of a native table is foreign,
    which has a rule if it is one.
    """

    where: str
    chain: str = ""
    rule: Rule | None = None
    part: str = ""

    @property
    def is_ambient(self) -> bool:
        """True if it is Istio's ambient mode."""
        return not self.chain and not self.part


def conflicts(live: Live, wanted: Ruleset, location: Location) -> Iterator[Conflict]:
    """Yield the conflicts; chains that are as they are wanted need no look, and long lists are spared one."""
    for name in live.ambient:
        yield Conflict(name)
    for place, tables in live.tables.items():
        for table in tables:
            where = f"{table.family} {table.name} ({place})"
            if is_ambient(table):
                yield Conflict(where)
                continue
            expected = wanted.table(table.family, table.name) if place == location else None
            for chain, rule in foreign_rules(_differing(table, expected)):
                yield Conflict(where, chain.name, rule)
    for unreadable in live.unreadable:
        yield from _in_unreadable(unreadable)
    for native in live.native:
        from ..rules.nftables.forms import foreign_parts  # few runs need it

        for part, foreign in foreign_parts(native):
            yield Conflict(f"{NATIVE_FAMILY} {native.name}", rule=foreign, part=part)


def _in_unreadable(table: UnreadableTable) -> Iterator[Conflict]:
    """Yield the conflicts in a table that iptables can read only chain by chain."""
    part = table.part
    if part is None:
        return
    if is_ambient(part):
        yield Conflict(f"{table} ({IPTABLES_NFT})")
        return
    for chain, rule in foreign_rules(part):
        yield Conflict(f"{table} ({IPTABLES_NFT})", chain.name, rule)
    for name in table.hidden:
        if name in CHAINS:
            yield Conflict(str(table), name, part=f"chain {name} has a rule that only nft can show")


def _differing(table: Table, expected: Table | None) -> Table:
    """Return the chains of a table that are not as expected, each without the rules that it is to have."""
    if expected is None:
        return table
    return table.replace(
        chains=tuple(
            chain.replace(rules=_others(chain, expected.chain(chain.name)))
            for chain in table.chains
            if chain.name not in BUILTIN_CHAINS
        )
    )


def _others(chain: Chain, expected: Chain) -> tuple[Rule, ...]:
    if chain.rules == expected.in_order:
        return ()
    known = frozenset(expected.in_order)
    return tuple(rule for rule in chain.rules if rule not in known)


def unclaimed(live: Live) -> Iterator[tuple[Location, Table, str, Rule]]:
    """Yield the rules that Istio's tools may have left for -c or -k, or another program: they always stay."""
    for place, tables in live.tables.items():
        parts = [each.part for each in live.unreadable if each.part] if place == IPTABLES_NFT else []
        for table in (*tables, *parts):
            for chain, rule in may_be_istios(table):
                yield place, table, chain, rule
