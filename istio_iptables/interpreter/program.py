"""program: the rules of all backends in one form, each chain at its hook and priority.

Hooks are those of linux/netfilter.h; priorities those of linux/netfilter_ipv4.h and nft(8).
"""

from __future__ import annotations

from ..rules.model import NO_COUNTERS
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeAlias

    from ..rules.model import Counters, Family
    from .action import Action
    from .condition import Condition

    HookName: TypeAlias = Literal["prerouting", "input", "forward", "output", "postrouting"]
    Kind: TypeAlias = Literal["filter", "nat", "route"]


#: Where the tables of iptables are: table and chain, kind and priority (linux/netfilter_ipv4.h).
IPTABLES_HOOKS: Mapping[tuple[str, str], tuple[Kind, int]] = {
    **{("raw", chain): ("filter", -300) for chain in ("PREROUTING", "OUTPUT")},
    **{("mangle", chain): ("filter", -150) for chain in ("PREROUTING", "INPUT", "FORWARD", "POSTROUTING")},
    ("mangle", "OUTPUT"): ("route", -150),
    **{("nat", chain): ("nat", -100) for chain in ("PREROUTING", "OUTPUT")},
    **{("filter", chain): ("filter", 0) for chain in ("INPUT", "FORWARD", "OUTPUT")},
    **{("security", chain): ("filter", 50) for chain in ("INPUT", "FORWARD", "OUTPUT")},
    **{("nat", chain): ("nat", 100) for chain in ("INPUT", "POSTROUTING")},
}
#: Where a table of iptables is whose rules are those of nf_tables, and the priorities that differ there: they
#: are the command's (nft.c in iptables), not those of the kernel's own tables.
IPTABLES_NFT = "iptables-nft"
IPTABLES_NFT_PRIORITIES: Mapping[str, int] = {"security": 150}
CONNTRACK_PRIORITY = -200
#: All nat chains are asked here, whatever their own priority, in the order of that (nf_nat_core.c).
NAT_PRIORITY: Mapping[str, int] = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}


class Rule(Record):
    """A rule: what its tool prints, and its statements in order, each a condition or an action.

    `number` counts from 1. A statement that is a condition ends the rule for packets that do not have it.
    """

    number: int
    text: str
    statements: tuple[Condition | Action, ...]
    reason: str = ""
    counters: Counters = NO_COUNTERS
    handle: int = 0


class Base(Record):
    """A base chain: a chain that a hook calls."""

    chain: str
    hook: HookName
    priority: int
    kind: Kind = "filter"
    drops: bool = False  #: its policy is DROP

    @property
    def position(self) -> int:
        """Where it is in its hook: nat chains are all asked at one place."""
        return NAT_PRIORITY[self.hook] if self.kind == "nat" else self.priority


class Table(Record):
    """A table. `location` is that of change/actions, or `nftables`; `title` is its name for people."""

    location: str
    title: str
    name: str
    families: frozenset[Family]
    bases: tuple[Base, ...]
    chains: Mapping[str, tuple[Rule, ...]]
    ours: bool = False  #: made by this tool from settings, or recognised

    def rules(self, chain: str) -> tuple[Rule, ...]:
        """Return the rules of a chain, none if it does not exist."""
        return self.chains.get(chain, ())


class Place(Record):
    """Where a rule is."""

    table: str
    chain: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"rule {self.number} of {self.chain} in {self.table}: {self.text}"


class Program(Record):
    """All tables that a packet may meet."""

    tables: tuple[Table, ...] = ()

    def bases(self, hook: HookName, family: Family) -> list[tuple[Table, Base]]:
        """Return the base chains of a hook in the order of their priorities."""
        found = [
            (table, base)
            for table in self.tables
            if family in table.families
            for base in table.bases
            if base.hook == hook
        ]
        return sorted(found, key=lambda each: (each[1].position, each[1].priority))
