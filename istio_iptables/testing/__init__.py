"""testing: a kernel in memory that is as strict as the real one, for tests of programs that use the library.

>>> from istio_iptables import Facts, build, configure
>>> from istio_iptables.testing import FakeKernel
>>> with FakeKernel() as machine:
...     machine.plan(build(configure(environment=Facts()))).apply()
>>> machine.lines()[-1]
'iptables-legacy ipv4 nat: -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001'

It needs neither Linux nor privileges, and is a Machine: planning, choosing a backend and rolling back are
the code that runs against the real kernel. tests/kernel/test_fake_kernel.py shows that both accept the same
edits, and have the same rules afterwards.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, EditTable, Live
from ..change.plan import make_plan
from ..errors import KernelError, require_type
from ..kernel.choose import forced_location
from ..kernel.iptables_command import IptablesCommand
from ..kernel.machine import Machine
from ..kernel.read_back import rules_of
from ..kernel.xtables.libiptc import Libiptc
from ..rules import model
from ..rules.edit import CreateChain, Insert
from ..rules.istio import NATIVE_TABLES
from ..rules.model import BUILTIN_CHAINS, TABLES, Chain, Jump, Rule, Ruleset, Table
from .refusals import CHAINS_OF, as_kept, edited, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from ..change.actions import Action, EditNative, Location, UnreadableTable
    from ..rules.edit import Step, TableEdit
    from ..rules.model import Family, RoutingObject, TableName
    from ..rules.nftables.model import NativeTable

__all__ = ["FakeKernel"]


class FakeKernel(Machine):
    """A Machine whose kernel is in memory. What the real kernel, or iptables, refuses, this one refuses.

    All of it can be looked at and changed at any time: `tables` by location, family and name, with foreign
    rules and counters; `routing`, the addresses, routing rules and routes of istio-iptables; `native`, its
    nftables tables. `foreign_routes` holds family and number of each routing table in which another program
    has a default route. `legacy=False` is a kernel without legacy tables.

    `attempted` lists the actions that it was asked to do, those of a rollback included. Action number n of
    these fails, with `error` and without being done, if n (from 1) is in `fails_at`.

    Like `iptables`, and unlike libiptc, it refuses a target DROP in nat, and REDIRECT without a protocol. It
    is stricter than the kernel in two respects: it refuses an edit that was planned against other rules, and
    a bad rule also where a later step of the same edit takes it away again.
    """

    def __init__(
        self,
        *,
        forced_variant: str = "",
        native_nftables: bool = False,
        cni_mode: bool = False,
        writing: bool = True,
        on_wait: Callable[[str], object] | None = None,
        legacy: bool = True,
        fails_at: Iterable[int] = (),
    ) -> None:
        # Not Machine's own __init__: it looks at what is installed.
        require_type(cni_mode, bool, "cni_mode is True or False")
        require_type(writing, bool, "writing is True or False")
        self._forced = forced_location(forced_variant, native_nftables)
        self._locks = None
        self._entered = False
        self._with_unused = ()
        self._emptied = {}
        self.tables: dict[tuple[Location, Family, TableName], Table] = {}
        self.routing: list[RoutingObject] = []
        self.native: tuple[NativeTable, ...] = ()
        self.foreign_routes: set[tuple[Family, int]] = set()
        self.attempted: list[Action] = []
        self.fails_at = frozenset(fails_at)
        self.error: BaseException = KernelError("this action was made to fail", "nothing: it is a test")
        self._backends = {
            IPTABLES_LEGACY: _FakeIptables(self, IPTABLES_LEGACY, Libiptc.name, legacy),
            IPTABLES_NFT: _FakeIptables(self, IPTABLES_NFT, IptablesCommand(IPTABLES_NFT).name, True),
        }
        self._nftables = _FakeNftables(self)  # type: ignore[assignment]  # the same interface, another kernel
        self._routing = _FakeRouting(self)
        self._has_legacy = lambda family: legacy

    def __enter__(self) -> Self:
        """Enter it; there are neither capabilities to check nor locks to take."""
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False

    def do(self, action: Action) -> None:
        """Do one action completely, or raise KernelError and have done nothing."""
        self._require_entered()
        self.attempted.append(action)
        if len(self.attempted) in self.fails_at:
            raise self.error
        super().do(action)

    def let_packets_pass(self) -> None:
        """Do nothing: the fake has no packets."""

    def put(self, wanted: Ruleset, location: Location = IPTABLES_LEGACY) -> None:
        """Put rules in place, as a run that was there before; not counted as attempted."""
        entered, self._entered = self._entered, True
        try:
            for action in make_plan(self.live(), wanted, location).actions:
                super().do(action)
        finally:
            self._entered = entered

    def add_rules(
        self, location: Location, family: Family, table: TableName, chain: str, *rules: Rule
    ) -> None:
        """Append rules to a chain, as another program would; a chain that is not built in is made.

        Raises KernelError for a rule that the kernel would refuse.
        """
        before = self._table(location, family, table)
        steps: list[Step] = []
        if chain not in BUILTIN_CHAINS and not any(c.name == chain for c in before.chains):
            steps.append(CreateChain(chain))
        at = len(before.chain(chain).rules)
        steps += [Insert(chain, at + number, rule, True) for number, rule in enumerate(rules, 1)]
        self.tables[location, family, table] = edited(before, steps, location)

    def live(self) -> Live:
        """Return what is in place, entered or not."""
        tables = {where: self._tables(backend) for where, backend in self._backends.items()}
        return Live(tables, tuple(self.routing), self._nftables.read())

    def lines(self) -> list[str]:
        """Return what is in place of istio-iptables as lines, each with its location, family and table."""
        from ..formats.difference import state_lines

        return list(state_lines(self.live()))

    def _table(self, location: Location, family: Family, name: TableName) -> Table:
        """Return a table; a legacy one that is opened for the first time has its built-in chains."""
        chains = tuple(map(Chain, CHAINS_OF[name])) if location == IPTABLES_LEGACY else ()
        return self.tables.get((location, family, name), Table(family, name, chains))


# --- the parts of a Machine that touch the kernel -------------------------------------------


class _FakeIptables:
    """The Backend of one location."""

    def __init__(self, kernel: FakeKernel, location: Location, name: str, exists: bool) -> None:
        self._kernel = kernel
        self.location = location
        self.name = name
        self._exists = exists

    def require(self) -> None:
        """All is installed."""

    def read(self, family: Family) -> tuple[Table, ...]:
        found = ((self.location, family, name) for name in TABLES)
        return tuple(self._kernel.tables[key] for key in found if key in self._kernel.tables)

    def holds_other_rules(self) -> bool:
        return False

    def unreadable(self, family: Family) -> tuple[UnreadableTable, ...]:
        """Return nothing: the fake can read all that it holds."""
        return ()

    def lacks_nat(self) -> bool:
        return not self._exists

    def refusal(self, edit: TableEdit) -> str:
        return IptablesCommand(self.location).refusal(edit) if self.location == IPTABLES_NFT else ""

    def do(self, action: EditTable) -> None:
        if not self._exists:
            raise KernelError(f"{action}: the kernel has no such table", "use forced_variant='nft'")
        family, name = action.edit.family, action.edit.table
        key = (self.location, family, name)
        before = self._kernel._table(*key)
        if rules_of(action.before) != rules_of(before):
            raise refused(before, self.location, "the table is not as it was when the edit was planned")
        after = edited(before, action.edit.steps, self.location)
        if self.location == IPTABLES_NFT:  # a base chain without a rule goes, and a table without a chain
            after = after.replace(chains=tuple(c for c in after.chains if c.rules or not _is_builtin(c)))
        if after.chains:
            self._kernel.tables[key] = after
        else:
            self._kernel.tables.pop(key, None)

    def close(self) -> None:
        """Nothing is held."""


class _FakeNftables:
    """What NativeNftables is, without the kernel."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def foreign_nat(self, _known: object) -> tuple[()]:
        """Return nothing: the fake has no tables of other programs in nftables."""
        return ()

    def ambient_tables(self) -> tuple[str, ...]:
        """Return nothing: the fake has no tables of Istio's ambient mode."""
        return ()

    def read(self) -> tuple[NativeTable, ...]:
        order = list(NATIVE_TABLES.values())
        return tuple(sorted(self._kernel.native, key=lambda table: order.index(table.name)))

    def do(self, edit: EditNative) -> None:
        self._kernel.native = self._edited(edit)

    def _edited(self, edit: EditNative) -> tuple[NativeTable, ...]:
        from ..formats.nft import edit_scripts

        edit_scripts(edit.before, edit.after, sets_first=edit.replaces)  # fails for what nft has no words for
        native = self._kernel.native
        if any(table not in native for table in edit.before):
            raise KernelError(f"{edit}: the tables are not as they were when the edit was planned")
        kept = [table for table in native if table not in edit.before]
        for table in edit.after:
            chains = [chain.name for chain in table.chains]
            if table.name in {other.name for other in kept} or len(set(chains)) < len(chains):
                raise KernelError(f"{edit}: File exists")
            for chain in table.chains:
                for rule in chain.rules:
                    if isinstance(rule.target, Jump) and rule.target.chain not in chains:
                        raise KernelError(f"{edit}: chain {rule.target.chain}: No such file or directory")
        return (*kept, *(_native_as_kept(table) for table in edit.after))


class _FakeRouting:
    """Addresses, routing rules and routes: all that are in memory are of istio-iptables."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def read(self, *_: object) -> tuple[RoutingObject, ...]:
        return tuple(dict.fromkeys(self._kernel.routing))

    def ambient_rules(self) -> tuple[str, ...]:
        """Return nothing: the fake has no routing rules of Istio's ambient mode."""
        return ()

    def own_addresses(self) -> None:
        return None

    def forwards(self) -> bool:
        return True

    def add(self, item: RoutingObject) -> None:
        there, foreign = self._kernel.routing, self._kernel.foreign_routes
        # A second routing rule that is equal but for its priority can be there.
        exists = item in there and not isinstance(item, model.MarkLookup)
        if exists or (isinstance(item, model.LocalDefaultRoute) and (item.family, item.table) in foreign):
            raise KernelError(f"{item}: File exists", "remove the address or route, then run again")
        there.append(item)

    def exists(self, item: RoutingObject) -> bool:
        return item in self._kernel.routing

    def remove(self, item: RoutingObject) -> None:
        """Remove an address, a route or every such routing rule; what is gone is as it should be."""
        self._kernel.routing[:] = [other for other in self._kernel.routing if other != item]


def _native_as_kept(table: NativeTable) -> NativeTable:
    return table.replace(
        chains=tuple(
            c.replace(rules=tuple(as_kept(rule, NFTABLES) for rule in c.rules)) for c in table.chains
        ),
        unused=(),
    )


def _is_builtin(chain: Chain) -> bool:
    return chain.name in BUILTIN_CHAINS
