"""choose: the backends of this machine, and which of them is to write the rules.

The choice reads and never writes: a test that made a table would change the choice of the next start.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_LOCATIONS, IPTABLES_NFT, IPTABLES_VARIANTS, NFTABLES
from ..errors import require_type
from ..rules.model import IPV4
from ..startup.record import Record
from .iptables_command import IptablesCommand
from .xtables.libiptc import Libiptc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..change.actions import Live, Location, UnreadableTable
    from ..rules.model import Family
    from .backend import Backend

#: The locations by the values of --force-iptables-binary.
_BY_OPTION: Mapping[str, Location] = {
    variant.option: location for location, variant in IPTABLES_VARIANTS.items()
}


def forced_location(variant: str, native_nftables: bool) -> Location | None:
    """Return the location that the settings ask for, None if they leave it open.

    Raises ValueError for a variant that does not exist, TypeError if `native_nftables` is not a boolean.
    """
    require_type(native_nftables, bool, "native_nftables is True or False")
    if variant not in ("", *_BY_OPTION):
        known = ", ".join(_BY_OPTION)
        raise ValueError(f"forced_variant is {variant!r}: it has to be one of {known}, or empty")
    return NFTABLES if native_nftables else _BY_OPTION.get(variant)


def backends(forced: Location | None) -> Mapping[Location, Backend]:
    """Return the backend for each location that has rules of iptables."""
    return {IPTABLES_LEGACY: _legacy(forced), IPTABLES_NFT: IptablesCommand(IPTABLES_NFT)}


def _legacy(forced: Location | None) -> Backend:
    """Return the backend for the legacy tables: libiptc, or the command if it is forced or the only one.

    The command mostly needs the same library: only one that was linked statically runs where it is missing.
    """
    command = IptablesCommand(IPTABLES_LEGACY)
    if forced == IPTABLES_LEGACY:
        return command
    libiptc = Libiptc()
    return command if libiptc.missing() and command.runs() else libiptc


class Choice(Record):
    """The backend that is to write the rules, and why it was chosen.

    `untried`: the legacy nat table has not been tried, since that would make it.
    """

    location: Location
    backend: str
    why: str
    untried: bool = False


def choose(
    live: Live,
    backends: Mapping[Location, Backend],
    forced: Location | None,
    has_legacy: Callable[[Family], bool],
) -> Choice:
    """Choose the backend for the rules: the first that applies; nothing is written to find out.

    What was requested; where rules of istio-iptables are; where any other rules are; the legacy tables if
    the kernel has them; otherwise nf_tables.

    Raises KernelError if there is none that works.
    """
    if forced == NFTABLES:
        return Choice(NFTABLES, NFTABLES, "native nftables rules were requested")
    usable = [location for location in IPTABLES_LOCATIONS if location != IPTABLES_NFT or not live.unreadable]
    if forced == IPTABLES_NFT or any(table.removal for table in live.unreadable):
        _require_readable(live.unreadable)
    if forced:
        return _chosen(backends[forced], "it was requested", forced)
    for location in usable:
        if live.holds_owned(location):
            return _chosen(backends[location], "it has rules of istio-iptables already")
    for location in usable:
        if _holds_others(live, backends[location]):
            return _chosen(backends[location], "it has other rules of this network namespace")
    no_rules = "no rules are in place"
    if live.native:
        no_rules = "only native nftables rules of istio-iptables are in place (see --native-nftables)"
    if has_legacy(IPV4):
        why = f"the kernel has the legacy tables, and {no_rules}"
        return _chosen(backends[IPTABLES_LEGACY], why).replace(untried=True)
    _require_readable(live.unreadable)
    return _chosen(backends[IPTABLES_NFT], f"the kernel has no legacy tables, and {no_rules}")


def _require_readable(unreadable: tuple[UnreadableTable, ...]) -> None:
    """Raise KernelError if iptables could not read back what it writes into the tables in nf_tables."""
    if not unreadable:
        return
    from ..remedies import tables_unreadable

    raise tables_unreadable(unreadable, owned=any(table.removal for table in unreadable))


def confirm(choice: Choice, backends: Mapping[Location, Backend], live: Live) -> Choice:
    """Return the final choice, just before writing: not legacy if there is no legacy nat table.

    Trying the table makes it, so only a run that is going to write into it may try.
    """
    if choice.untried and backends[choice.location].lacks_nat():
        _require_readable(live.unreadable)
        return _chosen(backends[IPTABLES_NFT], "the kernel has no legacy nat table")
    return choice.replace(untried=False)


def nothing_to_choose() -> Choice:
    """Return a choice for a plan that makes no rules."""
    return Choice(IPTABLES_LEGACY, "", "no rules are made")


def _chosen(backend: Backend, why: str, forced: Location | None = None) -> Choice:
    backend.require()
    is_command = isinstance(backend, IptablesCommand) and backend.location == IPTABLES_LEGACY
    if is_command and not forced:
        why += f"; libiptc is left out: {Libiptc().missing()}"
    return Choice(backend.location, backend.name, why)


def _holds_others(live: Live, backend: Backend) -> bool:
    if any(chain.rules for table in live.tables[backend.location] for chain in table.chains):
        return True
    return backend.holds_other_rules()
