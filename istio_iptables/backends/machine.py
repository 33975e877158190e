"""machine: all backends of this machine together: what is in place, which backend to use, doing it."""

from __future__ import annotations

from ..errors import KernelError
from ..plan import AddObject, EditNative, EditTable, Live
from ..policy.vocabulary import PASSTHROUGH_IPV6
from ..record import Record
from ..ruleset import FAMILIES, TABLES
from . import native, network
from .iptc_loader import installed
from .libiptc import Libiptc
from .lock import Locks
from .proc import capabilities, existing_legacy_tables, has_legacy
from .restore import Restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from ..plan import Action, Place
    from ..ruleset import Ruleset, Table
    from . import Backend

_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13


class Choice(Record):
    """The backend that is to hold the rules, and why it was chosen.

    `untried`: the legacy nat table, which trying would make, has not been tried.
    """

    place: Place
    backend: str
    why: str
    untried: bool = False


class Machine:
    """The kernel of this machine, in the network namespace the process is in.

    A context manager. It checks the capabilities, and with `writing` it takes the locks first, so that
    what is read is still so when it is changed.
    """

    def __init__(
        self,
        *,
        forced_variant: str = "",
        native_nftables: bool = False,
        cni_mode: bool = False,
        writing: bool = True,
    ) -> None:
        self._forced = forced_variant
        self._native = native_nftables
        self._locks = Locks(cni_mode=cni_mode) if writing else None
        self._entered = False
        self._nft = Restore("nft")
        self._legacy = self._legacy_backend()

    def __enter__(self) -> Machine:
        require_capabilities()
        if self._locks:
            self._locks.__enter__()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        self._legacy.close()
        self._nft.close()
        if self._locks:
            self._locks.release()

    def _legacy_backend(self) -> Backend:
        """Return what speaks to the legacy tables: libiptc, or the command if forced or all there is."""
        command = Restore("legacy")
        if self._forced == "legacy" or (not installed() and command.available()):
            return command
        return Libiptc()

    # --- reading ----------------------------------------------------------------------------

    def read(self, wanted: Ruleset) -> Live:
        """Return what is in place, strangers' rules included. Creates nothing.

        `wanted` tells which routing rules and routes would be ours. Raises KernelError.
        """
        if not self._entered:
            raise RuntimeError("use `with Machine() as machine:`, which checks and locks first")
        tables: dict[Place, tuple[Table, ...]] = {"legacy": self._tables(self._legacy)}
        tables["nft"] = self._tables(self._nft)
        live = Live(tables, native=native.read())
        items = network.read(PASSTHROUGH_IPV6, live.marks(), _lookups(wanted))
        return live.replace(network=items)

    @staticmethod
    def _tables(backend: Backend) -> tuple[Table, ...]:
        return tuple(table for family in FAMILIES for table in backend.read(family))

    # --- choosing ---------------------------------------------------------------------------

    def choose(self, live: Live) -> Choice:
        """Choose the backend for the rules, as SPEC section 5 has it; nothing is written to find out.

        Raises KernelError if there is none that works.
        """
        if self._native:
            native.require()
            return Choice("native", native.NAME, "native nftables rules were asked for")
        if self._forced in ("legacy", "nft"):
            return self._chosen("nft" if self._forced == "nft" else "legacy", "it was asked for")
        places: tuple[Place, ...] = ("legacy", "nft")
        for place in places:
            if live.holds_ours(place):
                return self._chosen(place, "our chains are there already")
        for place in places:
            if self._holds_others(live, place):
                return self._chosen(place, "other rules of this network namespace are there")
        no_rules = "no rules are in place"
        if live.native:
            no_rules = "only native nftables rules of ours are in place (see --native-nftables)"
        if has_legacy("ipv4"):
            why = f"the kernel has the legacy tables, and {no_rules}"
            return self._chosen("legacy", why).replace(untried=True)
        return self._chosen("nft", f"the kernel has no legacy tables, and {no_rules}")

    def settle(self, choice: Choice) -> Choice:
        """Return the choice when it is about to be written: not legacy, if there is no legacy nat table.

        Trying the table makes it, so only who will write into it may try.
        """
        if choice.untried and isinstance(self._legacy, Libiptc) and not self._legacy.opens("ipv4", "nat"):
            return self._chosen("nft", "the kernel has no legacy nat table")
        return choice.replace(untried=False)

    def nothing_to_choose(self) -> Choice:
        """Return a choice for a plan that makes no rules."""
        return Choice("legacy", self._legacy.name, "no rules are made")

    def _chosen(self, place: Place, why: str) -> Choice:
        backend = self._legacy if place == "legacy" else self._nft
        if isinstance(backend, Restore):
            backend.require()
        return Choice(place, backend.name, why)

    def _holds_others(self, live: Live, place: Place) -> bool:
        if any(chain.rules for table in live.tables[place] for chain in table.chains):
            return True
        if place == "nft":
            return any("-A " in self._nft.save(family) for family in FAMILIES if self._nft.exists(family))
        others = [name for family in FAMILIES for name in existing_legacy_tables(family) - set(TABLES)]
        command = Restore("legacy")
        return bool(others) and command.available() and any("-A " in command.save(f) for f in FAMILIES)

    # --- doing ------------------------------------------------------------------------------

    def refusal(self, action: Action) -> str:
        """Return why a backend could not do an action, or nothing; asked of all before any is done."""
        return self._backend(action).refusal(action.edit) if isinstance(action, EditTable) else ""

    def check(self, action: Action) -> None:
        """Have the kernel try an action, where it can without doing it. Raises KernelError if it refuses."""
        if isinstance(action, EditNative):
            native.check(action)

    def _backend(self, action: EditTable) -> Backend:
        return self._legacy if action.place == "legacy" else self._nft

    def do(self, action: Action) -> None:
        """Do one action completely, or raise KernelError and have done nothing."""
        if isinstance(action, EditTable):
            self._backend(action).apply(action.edit)
            if action.place == "nft":
                self._nft.prune(action.edit, action.emptied)
        elif isinstance(action, EditNative):
            native.apply(action)
        elif isinstance(action, AddObject):
            network.add(action.item)
        else:
            network.remove(action.item)


def _lookups(wanted: Ruleset) -> list[tuple[int, int]]:
    from ..ruleset import MarkLookup

    return [(item.mark, item.table) for item in wanted.network if isinstance(item, MarkLookup)]


def require_capabilities() -> None:
    """Raise KernelError unless this process may read and write the kernel's rules."""
    held = capabilities()
    missing = [
        name
        for name, bit in (("NET_ADMIN", _CAP_NET_ADMIN), ("NET_RAW", _CAP_NET_RAW))
        if not held >> bit & 1
    ]
    if missing:
        raise KernelError(
            f"the capability {missing[0]} is missing"
            if len(missing) == 1
            else f"the capabilities {' and '.join(missing)} are missing",
            "run as root, or give the container securityContext.capabilities.add: [NET_ADMIN, NET_RAW] "
            "and runAsUser: 0 (--dry-run needs neither)",
        )
