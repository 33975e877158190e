"""owned: the tables of dumps as the model has them, from which settings can be read back."""

from __future__ import annotations

from ..formats.nft_json import table_of
from ..rules.istio import NATIVE_FAMILY, NATIVE_TABLES
from ..rules.model import IPV4, TABLES, Ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..rules.model import Table
    from ..rules.nftables.model import NativeTable
    from .dumps import Rules


def rulesets(rules: Rules) -> Iterator[tuple[Ruleset, tuple[NativeTable, ...]]]:
    """Yield the tables of each place that may have rules of istio-iptables, of iptables or native ones.

    Routing is left out.
    """
    places: dict[str, dict[tuple[str, str], Table]] = {}
    for source, dump in rules.dumps:
        for dumped in dump.tables:
            family = dumped.family or source.family or IPV4
            if dumped.name in TABLES:
                tables = places.setdefault(dumped.variant or "", {})
                tables.setdefault((family, dumped.name), dumped.table(family))
    for found in places.values():
        yield Ruleset(tuple(found.values())), ()
    native = tuple(_native_tables(rules))
    if native:
        yield Ruleset(), native


def _native_tables(rules: Rules) -> Iterator[NativeTable]:
    """Yield the native tables, without what nft prints that is not known of such tables."""
    for name in NATIVE_TABLES.values():
        of = [
            each
            for each in rules.objects
            for kind, value in each.items()
            if kind != "metainfo"
            and value.get("family") == NATIVE_FAMILY
            and name == (value.get("name") if kind == "table" else value.get("table"))
        ]
        if of:
            try:
                yield table_of(of)
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # its rules get no reasons
