"""owned: the tables of dumps as the model has them, from which settings can be read back."""

from __future__ import annotations

from ..formats.iptables_compiled import IPTABLES
from ..formats.nft_json import table_of
from ..rules.istio import NATIVE_FAMILY, NATIVE_TABLES
from ..rules.model import IPV4, TABLES, Ruleset
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rules.model import Table
    from ..rules.nftables.model import NativeTable
    from .dumps import Rules


class Place(Record):
    """The tables of iptables in one location, without routing, or the native ones."""

    location: str
    tables: tuple[Table, ...]
    native: tuple[NativeTable, ...] = ()

    @property
    def ruleset(self) -> Ruleset:
        """The tables of iptables."""
        return Ruleset(self.tables)


def places(rules: Rules) -> Iterator[Place]:
    """Yield each location in which there may be rules of istio-iptables."""
    found: dict[str, dict[tuple[str, str], Table]] = {}
    for source, dump in rules.dumps:
        for dumped in dump.tables:
            if dumped.name in TABLES:
                family = dumped.family or source.family or IPV4
                tables = found.setdefault(dumped.variant or IPTABLES, {})
                tables.setdefault((family, dumped.name), dumped.table(family))
    for location, each in found.items():
        yield Place(location, tuple(each.values()))
    native = tuple(_native_tables(rules))
    if native:
        yield Place("", (), native)


def _native_tables(rules: Rules) -> Iterator[NativeTable]:
    """Yield the native tables that can be read."""
    for name in NATIVE_TABLES.values():
        of = [
            each
            for each in rules.objects
            for kind, value in each.items()
            if kind != "metainfo"
            and isinstance(value, dict)
            and value.get("family") == NATIVE_FAMILY
            and name == (value.get("name") if kind == "table" else value.get("table"))
        ]
        if of:
            try:
                yield table_of(of)
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # its rules get no reasons
