"""actions: the steps of a plan, each whole, and what the kernel has now.

An action tells what is to be done and, unless it can only be the last of its plan, how it is undone. The
package kernel does it; formats/difference.py writes it as a script.
"""

from __future__ import annotations

from ..rules.model import BUILTIN_CHAINS, Jump, Redirect, Table, TProxy
from ..rules.ownership import is_owned, owned
from ..settings.declared import LEGACY, NFT
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal, TypeAlias

    from ..rules.edit import TableEdit
    from ..rules.model import Chain, Family, RoutingObject, TableName, Target
    from ..rules.nftables.model import NativeChain, NativeTable

    #: Where rules are: the legacy tables of iptables, its tables in nf_tables, or native nftables tables.
    Location: TypeAlias = Literal["iptables-legacy", "iptables-nft", "nftables"]

IPTABLES_LEGACY: Location = "iptables-legacy"
IPTABLES_NFT: Location = "iptables-nft"
NFTABLES: Location = "nftables"


class IptablesVariant(Record):
    """The variant of iptables that has its rules at a location, and what its commands are called.

    `option` is its value of --force-iptables-binary. `commands` are the commands iptables(8) by family;
    iptables-save and iptables-restore have the same prefix. `multi` is the program that all of them are links
    to, and `marker` is what `iptables --version` prints.
    """

    option: str
    commands: Mapping[Family, str]
    multi: str
    marker: str

    def restore(self, family: Family) -> str:
        """Return the name of iptables-restore."""
        return f"{self.commands[family]}-restore"


#: The locations that have rules of iptables, and the variants of iptables that have them there.
IPTABLES_VARIANTS: Mapping[Location, IptablesVariant] = {
    IPTABLES_LEGACY: IptablesVariant(
        LEGACY, {"ipv4": "iptables-legacy", "ipv6": "ip6tables-legacy"}, "xtables-legacy-multi", "(legacy)"
    ),
    IPTABLES_NFT: IptablesVariant(
        NFT, {"ipv4": "iptables-nft", "ipv6": "ip6tables-nft"}, "xtables-nft-multi", "(nf_tables)"
    ),
}
IPTABLES_LOCATIONS = tuple(IPTABLES_VARIANTS)
LOCATIONS = (*IPTABLES_LOCATIONS, NFTABLES)


class EditTable(Record):
    """Edit a table in one transaction.

    `before` and `after` are the whole table, foreign rules included.
    """

    location: Location
    edit: TableEdit
    before: Table
    after: Table

    def inverse(self) -> UndoableAction:
        """Return the action that undoes this one."""
        return EditTable(self.location, self.edit.inverse(), self.after, self.before)

    @property
    def emptied(self) -> tuple[str, ...]:
        """The built-in chains that it changes and that have no rule afterwards."""
        touched = dict.fromkeys(step.chain for step in self.edit.steps if step.chain in BUILTIN_CHAINS)
        return tuple(name for name in touched if not self.after.chain(name).rules)

    @property
    def is_removal(self) -> bool:
        """True if it stops capturing something, unless it takes inbound traffic over from another table."""
        gained = inbound_captures(self.after) - inbound_captures(self.before)
        return self.edit.detaches and not gained

    @property
    def releases_inbound(self) -> bool:
        """True if the table stops capturing inbound traffic, which another table then captures."""
        return bool(inbound_captures(self.before) - inbound_captures(self.after))

    @property
    def gains_inbound(self) -> bool:
        """True if the table captures inbound traffic that it did not capture before."""
        return bool(inbound_captures(self.after) - inbound_captures(self.before))

    def __str__(self) -> str:
        rules = self.edit.rules_added()
        what = f"write {rules} rules" if rules else "remove rules"
        return f"{self.edit.family} {self.edit.table} ({self.location}): {what}"


class AddObject(Record):
    """Make an address, routing rule or route."""

    item: RoutingObject

    def inverse(self) -> UndoableAction:
        """Return the action that undoes this one."""
        return RemoveObject(self.item)

    def __str__(self) -> str:
        return str(self.item)


class RemoveObject(Record):
    """Remove an address, routing rule or route."""

    item: RoutingObject

    def inverse(self) -> UndoableAction:
        """Return the action that undoes this one."""
        return AddObject(self.item)

    def __str__(self) -> str:
        return str(self.item).replace(" add ", " del ").removesuffix(" nodad")


class EditNative(Record):
    """Turn native tables into others, in one transaction: all that differ or go away.

    `replaces`: other owned rules are in force meanwhile, here or in another location, so sets come first.
    """

    before: tuple[NativeTable, ...]
    after: tuple[NativeTable, ...]
    replaces: bool = True

    location = NFTABLES

    def inverse(self) -> UndoableAction:
        """Return the action that undoes this one."""
        return EditNative(self.after, self.before, self.replaces)

    @property
    def releases_inbound(self) -> bool:
        """True if these tables stop capturing inbound traffic, which another table then captures."""
        return bool(_captures_of(self.before) - _captures_of(self.after))

    @property
    def gains_inbound(self) -> bool:
        """True if these tables capture inbound traffic that they did not capture before."""
        return bool(_captures_of(self.after) - _captures_of(self.before))

    def __str__(self) -> str:
        rules = sum(len(chain.rules) for table in self.after for chain in table.chains)
        names = ", ".join(dict.fromkeys(table.name for table in (*self.before, *self.after)))
        return f"nftables {names}: " + (f"write {rules} rules" if rules else "remove")


class UnreadableTable(Record):
    """A table of iptables in nf_tables that iptables itself cannot read.

    `removal` is the script for nft(8) that takes away, by their handles, the rules and chains in it that are
    owned; nothing if there are none. `part` is what iptables can read of it, chain by chain, without
    counters; `hidden` are the chains that it cannot.
    """

    family: Family
    table: TableName
    removal: str = ""
    part: Table | None = None
    hidden: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'ip' if self.family == 'ipv4' else 'ip6'} {self.table}"


class RemoveByHandle(Record):
    """Remove what is owned from tables that iptables cannot read, in one transaction of nft.

    It cannot be undone: nft does not accept what it prints of a rule of iptables. So it has no inverse, and
    a plan has one place for it, after all others.
    """

    tables: tuple[UnreadableTable, ...]

    location = IPTABLES_NFT

    @property
    def script(self) -> str:
        """The script for nft(8)."""
        return "".join(table.removal for table in self.tables)

    def __str__(self) -> str:
        return (
            f"{', '.join(map(str, self.tables))} ({self.location}): remove rules by their handles, with nft"
        )


UndoableAction = EditTable | EditNative | AddObject | RemoveObject
Action = UndoableAction | RemoveByHandle


class Live(Record):
    """What is in place: whole tables by location, owned addresses and routes, owned native tables."""

    tables: Mapping[Location, tuple[Table, ...]]
    routing: tuple[RoutingObject, ...] = ()
    native: tuple[NativeTable, ...] = ()
    #: What Istio's ambient mode has beside tables of iptables: its nftables tables, as `family name`, and its
    #: routing rules, as ip(8) has them.
    ambient: tuple[str, ...] = ()
    #: Tables at iptables-nft that iptables cannot read, since another program put a rule into them with nft.
    unreadable: tuple[UnreadableTable, ...] = ()

    def table(self, location: Location, family: str, name: str) -> Table | None:
        """Return a table, None if it does not exist."""
        for table in self.tables.get(location, ()):
            if table.family == family and table.name == name:
                return table
        return None

    def holds_owned(self, location: Location) -> bool:
        """Tell whether owned chains or rules are in a location."""
        return any(not owned(table).is_empty for table in self.tables.get(location, ()))

    @property
    def locations(self) -> tuple[Location, ...]:
        """The locations that have owned rules."""
        found = [location for location in IPTABLES_LOCATIONS if self.holds_owned(location)]
        return (*found, NFTABLES) if self.native else tuple(found)

    def marks(self) -> frozenset[int]:
        """Return the marks of live owned TPROXY rules: they tell which routes are owned."""
        return frozenset(target.mark for target in self._targets() if isinstance(target, TProxy))

    def redirects_to(self) -> tuple[int, ...]:
        """Return the local ports that live owned rules redirect to."""
        return tuple(sorted({target.port for target in self._targets() if isinstance(target, Redirect)}))

    def _targets(self) -> Iterator[Target]:
        chains: list[Chain | NativeChain] = [chain for table in self.native for chain in table.chains]
        read = [table for tables in self.tables.values() for table in tables]
        read += [table.part for table in self.unreadable if table.part]
        chains += [chain for table in read for chain in table.chains if is_owned(chain)]
        return (rule.target for chain in chains for rule in chain.rules)


def inbound_captures(table: Table | NativeTable) -> frozenset[Target]:
    """Return the targets by which the owned rules of a table send inbound traffic to the proxy."""
    if isinstance(table, Table):
        start, chains = "PREROUTING", [c for c in table.chains if is_owned(c) or c.name == "PREROUTING"]
        rules_of = {chain.name: chain.rules for chain in chains}
    else:
        start, rules_of = "prerouting", {chain.name: chain.rules for chain in table.chains}
    found: set[Target] = set()
    seen: set[str] = set()
    names = [start]
    while names:
        name = names.pop()
        seen.add(name)
        for rule in rules_of.get(name, ()):
            if isinstance(rule.target, Jump) and rule.target.chain in rules_of.keys() - seen:
                names.append(rule.target.chain)
            elif isinstance(rule.target, (Redirect, TProxy)) and name != start:
                found.add(rule.target)
    return frozenset(found)


def _captures_of(tables: tuple[NativeTable, ...]) -> frozenset[Target]:
    return frozenset(target for table in tables for target in inbound_captures(table))
