"""machine: all backends of this machine together: what is in place, which backend to use, doing actions."""

from __future__ import annotations

from ..change.actions import IPTABLES_NFT, AddObject, EditNative, EditTable, Live, RemoveByHandle
from ..change.conflicts import conflicts
from ..change.plan import make_plan
from ..errors import require_type
from ..formats import NFT_FAMILIES
from ..rules.istio import NATIVE_FAMILY, PASSTHROUGH_IPV6
from ..rules.model import BUILTIN_CHAINS, FAMILIES, TABLES, Ruleset
from ..rules.ownership import is_owned_rule
from ..startup.c_modules import socket
from . import routing
from .choose import backends, choose, confirm, forced_location, nothing_to_choose
from .lock import Locks
from .native import NativeNftables
from .netlink import nftables
from .nft_by_handle import remove
from .prepared import Prepared
from .proc import has_legacy, missing_capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import NoReturn, Self

    from ..change.actions import Action, Location
    from ..change.foreign import Neighbour
    from ..change.neighbours import Interference
    from ..rules.model import Table
    from ..rules.nftables.model import NativeTable
    from .backend import Backend
    from .choose import Choice


class Machine:
    """The kernel of this machine, in the network namespace the process is in.

    A context manager. It checks the capabilities, and with `writing` it takes the locks first, so that
    what was read is still true when it is changed. `on_wait` is called with a text for people if a lock is
    waited for longer than a second.
    """

    def __init__(
        self,
        *,
        forced_variant: str = "",
        native_nftables: bool = False,
        cni_mode: bool = False,
        writing: bool = True,
        on_wait: Callable[[str], object] | None = None,
    ) -> None:
        require_type(cni_mode, bool, "cni_mode is True or False")
        require_type(writing, bool, "writing is True or False")
        self._forced = forced_location(forced_variant, native_nftables)
        self._locks = Locks(cni_mode=cni_mode, on_wait=on_wait) if writing else None
        self._entered = False
        self._with_unused: tuple[NativeTable, ...] = ()
        #: Base chains that edits have left without a rule, by nft's family and the table.
        self._emptied: dict[tuple[str, str], set[str]] = {}
        # The parts that touch the kernel: testing.FakeKernel has its own.
        self._backends = backends(self._forced)
        self._nftables = NativeNftables()
        self._routing: routing.Routing = routing
        self._has_legacy = has_legacy

    def __enter__(self) -> Self:
        require_capabilities()
        if self._locks:
            self._locks.__enter__()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        for backend in self._backends.values():
            backend.close()
        if self._locks:
            try:
                if kind is None or self._emptied:
                    self._remove_remains()
            finally:
                self._locks.release()

    def _remove_remains(self) -> None:
        """Remove what does nothing in nf_tables: what edits of iptables-nft, and runs that were killed, left.

        A chain with another policy than ACCEPT stays. That this fails is no error: the next run tries again.
        """
        for _ in range(2):  # a second time, since what fails once need not fail again
            try:
                return self._remove_what_does_nothing()
            except OSError:
                continue

    def _remove_what_does_nothing(self) -> None:
        of_iptables = [t for t in nftables.tables() if t.family in _NFT_FAMILIES and t.name in TABLES]
        if not of_iptables and not self._with_unused:  # most runs: nothing more is imported
            return
        from .netlink.nftables_remains import remove_empty, remove_sets

        for table in self._with_unused:
            remove_sets(NATIVE_FAMILY, table.name, table.unused, with_table=table.is_left_over)
        self._with_unused = ()
        remove_empty(self._emptied)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: its locks, and the network namespace that it is in, stay in its process."""
        raise TypeError("a Machine cannot be sent to another process: make one there")

    def _require_entered(self) -> None:
        if not self._entered:
            raise RuntimeError(
                f"use `with {type(self).__name__}() as machine:`, which checks and locks first"
            )

    # --- reading ----------------------------------------------------------------------------

    def read(self, wanted: Ruleset) -> Live:
        """Return what is in place, foreign rules included. Creates nothing.

        `wanted` tells which routing rules and routes would be owned. Raises KernelError.
        """
        self._require_entered()
        tables = {location: self._tables(backend) for location, backend in self._backends.items()}
        unreadable = tuple(
            table
            for backend in self._backends.values()
            for family in FAMILIES
            for table in backend.unreadable(family)
        )
        ambient = (*self._nftables.ambient_tables(), *self._routing.ambient_rules())
        native = self._nftables.read()
        self._with_unused = tuple(table for table in native if table.unused)
        live = Live(tables, (), native, ambient, unreadable)
        items = self._routing.read(PASSTHROUGH_IPV6, live.marks(), _wanted_lookups(wanted))
        return live.replace(routing=items)

    @staticmethod
    def _tables(backend: Backend) -> tuple[Table, ...]:
        return tuple(table for family in FAMILIES for table in backend.read(family))

    def plan(self, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
        """Read what is in place and plan how to make it `wanted`; an empty Ruleset means cleaning up.

        With `rewrite` rules are written again even if nothing differs. Raises KernelError.
        """
        require_type(wanted, Ruleset, "plan() takes a Ruleset (see build)")
        return self.plan_from(self.read(wanted), wanted, rewrite=rewrite)

    def plan_from(self, live: Live, wanted: Ruleset, *, rewrite: bool = False) -> Prepared:
        """Plan how to make what was read (see `read`) into what is `wanted`. Raises KernelError."""
        choice = nothing_to_choose()
        if wanted.tables:
            choice = choose(live, self._backends, self._forced, self._has_legacy)
        found = tuple(conflicts(live, wanted, choice.location))
        # In ambient mode nothing is owned, whatever it is called.
        seen = Live({}) if any(conflict.is_ambient for conflict in found) else live
        plan = make_plan(seen, wanted, choice.location, rewrite=rewrite)
        return Prepared(self, live, wanted, choice, plan, found)

    def confirm(self, choice: Choice, live: Live) -> Choice:
        """Return the final choice, just before writing: see choose.confirm."""
        return confirm(choice, self._backends, live)

    def neighbours(self, live: Live, wanted: Ruleset, location: Location) -> tuple[Interference, ...]:
        """Return what foreign rules keep from the proxy, once `wanted` is in place in a location.

        Raises KernelError.
        """
        foreign = self.foreign(live, location)
        if not foreign:
            return ()
        from ..change.neighbours import interferences

        return interferences(
            foreign,
            wanted,
            self._routing.own_addresses(),
            forwards=self._routing.forwards(),
        )

    def foreign(self, live: Live, location: Location) -> tuple[Neighbour, ...]:
        """Return the tables of other programs with nat chains, and those of iptables with foreign rules.

        `location` is where the wanted rules are. Raises KernelError.
        """
        known = {(NFT_FAMILIES[t.family], t.name) for t in live.tables.get(IPTABLES_NFT, ())}
        native = self._nftables.foreign_nat(known)
        if not native and not _has_foreign(live):
            return ()
        from ..change.foreign import of_iptables

        return (*of_iptables(live, location), *native)

    # --- doing ------------------------------------------------------------------------------

    def refusal(self, action: Action) -> str:
        """Return why a backend could not do an action, or an empty text; called for all of them first."""
        return self._backends[action.location].refusal(action.edit) if isinstance(action, EditTable) else ""

    def do(self, action: Action) -> None:
        """Do one action completely, or raise an error; `was_done` tells what became of it then."""
        self._require_entered()  # its `with` block over, the locks are gone: the plan may be out of date
        if isinstance(action, EditTable):
            if action.location == IPTABLES_NFT and action.emptied:
                of = (NFT_FAMILIES[action.edit.family], action.edit.table)
                self._emptied.setdefault(of, set()).update(action.emptied)
            self._backends[action.location].do(action)
        elif isinstance(action, EditNative):
            self._with_unused = ()  # an edit removes them
            self._nftables.do(action)
        elif isinstance(action, RemoveByHandle):
            remove(action.script)
        elif isinstance(action, AddObject):
            self._routing.add(action.item)
        else:
            self._routing.remove(action.item)

    def was_done(self, action: Action) -> bool:
        """Read back whether an action that failed was done all the same. Raises KernelError, OSError."""
        from .read_back import native_tables_are_those, rules_are_those

        if isinstance(action, EditTable):
            family, name = action.edit.family, action.edit.table
            tables = self._backends[action.location].read(family)
            now = next((table for table in tables if table.name == name), None)
            return rules_are_those(action, now)
        if isinstance(action, EditNative):
            return native_tables_are_those(action, self._nftables.read())
        if isinstance(action, RemoveByHandle):
            backend = self._backends[action.location]
            for family in FAMILIES:
                backend.read(family)
            return not any(table.removal for family in FAMILIES for table in backend.unreadable(family))
        return self._routing.exists(action.item) == isinstance(action, AddObject)

    def let_packets_pass(self) -> None:
        """Wait until every packet that is between two hooks now has left them.

        Hooks are run within one RCU read side, and closing a packet socket waits for all of these to end
        (packet_release() in af_packet.c calls synchronize_net()).
        """
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()


_NFT_FAMILIES = frozenset(NFT_FAMILIES.values())


def _has_foreign(live: Live) -> bool:
    """Tell whether a built-in chain may have a foreign rule. Many runs find none and are spared the rest."""
    return any(
        chain.name in BUILTIN_CHAINS and any(not is_owned_rule(rule) for rule in chain.rules)
        for tables in live.tables.values()
        for table in tables
        for chain in table.chains
    )


def _wanted_lookups(wanted: Ruleset) -> list[tuple[int, int]]:
    from ..rules.model import MarkLookup

    return [(item.mark, item.table) for item in wanted.routing if isinstance(item, MarkLookup)]


def require_capabilities() -> None:
    """Raise KernelError unless this process may read and write the kernel's rules."""
    missing = missing_capabilities("NET_ADMIN", "NET_RAW")
    if missing:
        from ..remedies import capabilities_missing

        raise capabilities_missing(missing)
