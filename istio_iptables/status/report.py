"""report: what is in place in a network namespace, as data: settings, rules with counters and reasons.

`report` makes it from what Machine.read returns. What foreign rules keep from the proxy needs the kernel too
(Machine.neighbours), so the caller adds it.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_NFT, NFTABLES, Live
from ..change.conflicts import conflicts, unclaimed
from ..change.plan import make_plan
from ..formats import notices
from ..formats.iptables_args import rule_args
from ..formats.iptables_restore import joined
from ..rules.edit import same_rules
from ..rules.model import BUILTIN_CHAINS, FAMILIES, Ruleset
from ..rules.ownership import is_owned, owned_rules
from ..startup.record import Record
from .settings_of import settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..change.actions import Location
    from ..change.neighbours import Interference
    from ..change.plan import Plan
    from ..rules.model import Family, Listed, RoutingObject, Rule, Table
    from ..rules.nftables.model import NativeTable
    from .settings_of import ReadBack

    #: in-place: rules that settings mean, in one place. altered: owned rules that no settings mean. absent:
    #: none are owned. ambient: Istio's ambient mode has rules here, and so nothing is owned.
    State: TypeAlias = Literal["in-place", "altered", "absent", "ambient"]
    #: How the rules compare with those of settings that were given.
    Compared: TypeAlias = Literal["equal", "differs", "absent"]


class CountedRule(Record):
    """A rule that is in place: its number in the chain, from 1 as iptables counts, and why it is there.

    `words` is the rule as its program writes it. The reason is empty for a rule that the settings do not
    mean. `listed` is the list among the settings that it is a member of.
    """

    number: int
    rule: Rule
    words: str
    reason: str = ""
    listed: Listed | None = None


class CountedChain(Record):
    """The owned rules of a chain."""

    name: str
    rules: tuple[CountedRule, ...]


class CountedTable(Record):
    """The owned rules of a table. `counted` is False if it could be read only without counters."""

    family: Family | Literal["inet"]
    name: str
    chains: tuple[CountedChain, ...]
    counted: bool = True


class Place(Record):
    """The owned rules in one location, and the settings that they mean.

    `plan` leads from them to the rules of these settings, if those are not exactly the same.
    """

    location: Location
    settings: ReadBack
    tables: tuple[CountedTable, ...]
    plan: Plan | None

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that have rules here."""
        if self.location == NFTABLES:
            return self.settings.ruleset.families()
        return tuple(f for f in FAMILIES if any(table.family == f for table in self.tables))


class Status(Record):
    """What is in place. The texts are for people: each is a whole sentence.

    `refused` is why nothing may be changed here, nothing if it may.
    """

    places: tuple[Place, ...]
    routing: tuple[RoutingObject, ...]
    is_ambient: bool
    refused: str
    leftovers: tuple[str, ...]
    unclaimed: tuple[str, ...]
    unreadable: tuple[str, ...]
    before: tuple[Interference, ...] = ()
    compared: Compared | None = None
    #: The plan that leads to the rules of the settings that were given, None if none were.
    plan: Plan | None = None

    @property
    def state(self) -> State:
        """What there is, in a word."""
        if self.is_ambient:
            return "ambient"
        if not self.places:
            return "altered" if self.refused else "absent"
        whole = len(self.places) == 1 and self.places[0].settings.exact and not self.refused
        return "in-place" if whole else "altered"


class Memory:
    """The settings that were read before, by location: who looks again and again need not read them again."""

    def __init__(self) -> None:
        self._known: dict[Location, tuple[Ruleset, tuple[NativeTable, ...], ReadBack | None]] = {}

    def settings_of(
        self, location: Location, found: Ruleset, native: tuple[NativeTable, ...] = ()
    ) -> ReadBack | None:
        """Return what `settings_of` returns; counters make no difference."""
        known = self._known.get(location)
        if known and known[:2] == (found, native):
            return known[2]
        settings = settings_of(found, native)
        self._known[location] = (found, native, settings)
        return settings


def report(live: Live, memory: Memory | None = None) -> Status:
    """Return what is in place, but for what foreign rules keep from the proxy."""
    tables = _with_unreadable(live)
    places = tuple(_places(live, tables, memory or Memory()))
    first = places[0] if places else None
    found = tuple(
        conflicts(
            live, first.settings.ruleset if first else Ruleset(), first.location if first else IPTABLES_NFT
        )
    )
    is_ambient = any(conflict.is_ambient for conflict in found)
    return Status(
        () if is_ambient else places,
        live.routing,
        is_ambient,
        notices.conflict(found)[0] if found else "",
        ()
        if is_ambient or any(place.settings.untagged for place in places)
        else tuple(notices.leftovers(live)),
        tuple(notices.unclaimed(*each) for each in unclaimed(live)),
        tuple(map(str, live.unreadable)),
    )


def _with_unreadable(live: Live) -> dict[Location, tuple[Table, ...]]:
    """Return the tables by location, with what iptables could read of those that it cannot read whole."""
    tables = dict(live.tables)
    parts = tuple(each.part for each in live.unreadable if each.part)
    if parts:
        tables[IPTABLES_NFT] = (*tables.get(IPTABLES_NFT, ()), *parts)
    return tables


def _places(live: Live, tables: dict[Location, tuple[Table, ...]], memory: Memory) -> Iterator[Place]:
    uncounted = {(each.part.family, each.part.name) for each in live.unreadable if each.part}
    for location, found in tables.items():
        settings = memory.settings_of(location, Ruleset(found, live.routing))
        if settings:
            counted = tuple(
                _counted(table, settings).replace(counted=(table.family, table.name) not in uncounted)
                for table in found
            )
            plan = _plan(live.replace(tables={location: found}, native=()), settings, location)
            yield Place(location, settings, tuple(table for table in counted if table.chains), plan)
    if live.native:
        settings = memory.settings_of(NFTABLES, Ruleset(routing=live.routing), live.native)
        if settings:
            plan = _plan(live.replace(tables={}), settings, NFTABLES)
            yield Place(NFTABLES, settings, tuple(_counted_natives(live.native, settings)), plan)


def _plan(live: Live, settings: ReadBack, location: Location) -> Plan | None:
    """Return what leads from the rules in a location to those of the settings, None if they are the same."""
    return None if settings.exact else make_plan(live, settings.ruleset, location)


# --- rules, with reasons ----------------------------------------------------------------------


def _counted(table: Table, settings: ReadBack) -> CountedTable:
    wanted = settings.ruleset.table(table.family, table.name)
    chains = []
    for chain in table.chains:
        positions: Sequence[int] = range(len(chain.rules) if is_owned(chain) else 0)
        if chain.name in BUILTIN_CHAINS:
            positions = owned_rules(table, chain)
        rules = [chain.rules[position] for position in positions]
        meant = _meant(rules, wanted.chain(chain.name).in_order)
        counted = tuple(
            CountedRule(position + 1, rule, joined(rule_args(rule)), *why)
            for position, rule, why in zip(positions, rules, meant, strict=True)
        )
        if counted:
            chains.append(CountedChain(chain.name, counted))
    order = [chain.name for chain in wanted.chains]
    return CountedTable(table.family, table.name, tuple(_in_order(chains, order)))


def _in_order(chains: Iterable[CountedChain], order: Sequence[str]) -> list[CountedChain]:
    """Return chains in the order of the policy, which is that of a packet's way; others last."""
    return sorted(chains, key=lambda c: order.index(c.name) if c.name in order else len(order))


def _counted_natives(native: Sequence[NativeTable], settings: ReadBack) -> Iterator[CountedTable]:
    from ..formats.nft import rule_lines
    from ..rules.nftables.translate import translate

    wanted = {(t.name, chain.name): chain.rules for t in translate(settings.ruleset) for chain in t.chains}
    for table in native:
        chains = []
        for chain in table.chains:
            meant = _meant(chain.rules, wanted.get((table.name, chain.name), ()))
            counted = tuple(
                CountedRule(number, rule, _one_line(rule_lines(rule, counted=False)), *why)
                for number, (rule, why) in enumerate(zip(chain.rules, meant, strict=True), 1)
            )
            if counted:
                chains.append(CountedChain(chain.name, counted))
        if chains:
            order = [name for of, name in wanted if of == table.name]
            yield CountedTable("inet", table.name, tuple(_in_order(chains, order)))


def _one_line(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines)


def _meant(found: Sequence[Rule], wanted: Sequence[Rule]) -> Iterator[tuple[str, Listed | None]]:
    """Yield for each rule why it is there, and its list: those of the same rule among the wanted ones."""
    for same in same_rules(found, wanted):
        yield (same.reason, same.listed) if same else ("", None)
