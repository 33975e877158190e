"""rules: what is in place, read as every command reads it, and what a run would do."""

from __future__ import annotations

from ...change.actions import IPTABLES_LEGACY, IPTABLES_NFT
from ...change.conflicts import conflicts
from ...errors import KernelError
from ...formats import NFT_FAMILIES
from ...kernel.choose import forced_location
from ...kernel.iptables_command import IptablesCommand
from ...kernel.machine import Machine
from ...kernel.native import NativeNftables
from ...kernel.netlink import nftables
from ...kernel.proc import existing_legacy_tables
from ...kernel.xtables import read_tables
from ...rules.istio import NATIVE_FAMILY, NATIVE_TABLES
from ...rules.model import FAMILIES, TABLES
from ...startup.record import Record
from ..checks.rules import Difference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...change.actions import Live, Location
    from ...change.conflicts import Conflict
    from ...change.foreign import Neighbour
    from ...change.neighbours import Interference
    from ...kernel.choose import Choice
    from ...rules.model import Family, Ruleset
    from ...settings.resolve import Operation


class InPlace(Record):
    """What is in place, the backend that was chosen for it or why none was, and what would be changed.

    `others`: tables with rules that a run does not read. `unplanned`: why a run could make no plan.
    """

    live: Live
    others: Mapping[Location, tuple[str, ...]]
    conflicts: tuple[Conflict, ...] = ()
    foreign: tuple[Neighbour, ...] = ()
    neighbours: tuple[Interference, ...] = ()
    choice: Choice | None = None
    difference: Difference | None = None
    unplanned: KernelError | None = None


def read(wanted: Ruleset, operation: Operation, *, with_nftables: bool) -> InPlace:
    """Read what is in place. `with_nftables` False: nf_tables is not asked, since that would load it.

    Raises KernelError or OSError.
    """
    forced = forced_location(operation.forced_variant, operation.native_nftables)
    kind = Machine if with_nftables else _WithoutNftables
    with kind(
        forced_variant=operation.forced_variant,
        native_nftables=operation.native_nftables,
        cni_mode=operation.cni_mode,
        writing=False,
    ) as machine:
        live = machine.read(wanted)
        found = InPlace(live, _others(with_nftables=with_nftables))
        try:
            prepared = machine.plan_from(live, wanted)
        except KernelError as error:
            location = forced or IPTABLES_LEGACY
            return found.replace(conflicts=tuple(conflicts(live, wanted, location)), unplanned=error)
        replaces = prepared.plan.replaces and bool(prepared.plan.actions)  # as apply decides it
        parts = tuple(part.title for part in prepared.differences) if replaces else ()
        return found.replace(
            conflicts=prepared.conflicts,
            foreign=machine.foreign(live, prepared.choice.location),
            neighbours=prepared.neighbours,
            choice=prepared.choice,
            difference=Difference(bool(live.locations) or replaces, parts),
        )


def _others(*, with_nftables: bool) -> dict[Location, tuple[str, ...]]:
    """Return the tables with rules that this tool does not read. Raises OSError."""
    legacy = [
        f"{family} {name}"
        for family in FAMILIES
        for name in sorted(existing_legacy_tables(family) - set(TABLES))
        if any(rules for _, rules in read_tables.read(family, name))  # type: ignore[arg-type]  # any table
    ]
    own = {(NATIVE_FAMILY, name) for name in NATIVE_TABLES.values()}
    own |= {(family, table) for family in NFT_FAMILIES.values() for table in TABLES}
    others = [table for table in nftables.tables_with_rules() if table not in own] if with_nftables else []
    return {IPTABLES_LEGACY: tuple(legacy), IPTABLES_NFT: tuple(" ".join(table) for table in others)}


class _WithoutNftables(Machine):
    """A Machine in a kernel whose nf_tables are a module that is not loaded, so that they have no tables."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # those of Machine
        self._backends = {**self._backends, IPTABLES_NFT: _EmptyCommand(IPTABLES_NFT)}
        self._nftables = _EmptyNft()


class _EmptyCommand(IptablesCommand):
    def exists(self, family: Family) -> bool:
        return False


class _EmptyNft(NativeNftables):
    def read(self) -> tuple[()]:
        return ()

    def ambient_tables(self) -> tuple[()]:
        return ()

    def foreign_nat(self, known: object) -> tuple[()]:
        return ()
