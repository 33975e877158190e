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

from .change.actions import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, EditTable, Live
from .change.plan import make_plan
from .errors import KernelError
from .kernel.choose import forced_location
from .kernel.iptables_command import IptablesCommand
from .kernel.machine import Machine
from .rules import model
from .rules.edit import CreateChain, Delete, Insert, RemoveChain, ReplaceRules, TableEdit, apply_to
from .rules.istio import NATIVE_TABLES
from .rules.model import BUILTIN_CHAINS, TABLES, Chain, Jump, Rule, Ruleset, Table
from .startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from .change.actions import Action, EditNative, Location, UnreadableTable
    from .rules.edit import Step
    from .rules.model import Family, Match, RoutingObject, TableName, Target, Transport
    from .rules.nftables.model import NativeTable

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
    is stricter than the kernel in one respect: it refuses an edit that was planned against other rules.
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
        self._forced = forced_location(forced_variant, native_nftables)
        self._locks = None
        self._entered = False
        self.tables: dict[tuple[Location, Family, TableName], Table] = {}
        self.routing: list[RoutingObject] = []
        self.native: tuple[NativeTable, ...] = ()
        self.foreign_routes: set[tuple[Family, int]] = set()
        self.attempted: list[Action] = []
        self.fails_at = frozenset(fails_at)
        self.error: BaseException = KernelError("this action was made to fail", "nothing: it is a test")
        self._backends = {
            IPTABLES_LEGACY: _FakeIptables(self, IPTABLES_LEGACY, "libiptc", legacy),
            IPTABLES_NFT: _FakeIptables(self, IPTABLES_NFT, f"{IPTABLES_NFT}-restore", True),
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
        from .formats.difference import state_lines

        return list(state_lines(self.live()))

    def _table(self, location: Location, family: Family, name: TableName) -> Table:
        """Return a table; a legacy one that is opened for the first time has its built-in chains."""
        chains = tuple(map(Chain, _BUILTIN_CHAINS[name])) if location == IPTABLES_LEGACY else ()
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
        if _rules_of(action.before) != _rules_of(before):
            raise _refused(before, self.location, "the table is not as it was when the edit was planned")
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
    """What NftCommand is, without the command."""

    name = NFTABLES
    location = NFTABLES

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel

    def require(self) -> None:
        """It is installed."""

    def foreign_nat(self, _known: object) -> tuple[()]:
        return ()

    def ambient_tables(self) -> tuple[str, ...]:
        """Return nothing: the fake has no tables of Istio's ambient mode."""
        return ()

    def read(self) -> tuple[NativeTable, ...]:
        order = list(NATIVE_TABLES.values())
        return tuple(sorted(self._kernel.native, key=lambda table: order.index(table.name)))

    def check(self, edit: EditNative) -> None:
        self._edited(edit)

    def do(self, edit: EditNative) -> None:
        self._kernel.native = self._edited(edit)

    def _edited(self, edit: EditNative) -> tuple[NativeTable, ...]:
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

    def remove(self, item: RoutingObject) -> None:
        """Remove an address, a route or every such routing rule; what is gone is as it should be."""
        self._kernel.routing[:] = [other for other in self._kernel.routing if other != item]


def _native_as_kept(table: NativeTable) -> NativeTable:
    return table.replace(
        chains=tuple(c.replace(rules=tuple(map(_as_kept, c.rules))) for c in table.chains), unused=()
    )


def _as_kept(rule: Rule) -> Rule:
    """Return a rule as the kernel has it: no reason, no list that it came from, and a comment cut off."""
    if any(isinstance(m, model.Comment) and len(m.text) > _LONGEST_COMMENT // 4 for m in rule.matches):
        rule = rule.replace(matches=tuple(map(_cut_off, rule.matches)))
    return rule.replace(reason="", listed=None) if rule.reason or rule.listed else rule


def _cut_off(match: Match) -> Match:
    if isinstance(match, model.Comment):
        return model.Comment(match.text.encode()[:_LONGEST_COMMENT].decode(errors="ignore"))
    return match


def _rules_of(table: Table) -> dict[str, tuple[Rule, ...]]:
    return {chain.name: chain.rules for chain in table.chains if chain.rules or not _is_builtin(chain)}


def _is_builtin(chain: Chain) -> bool:
    return chain.name in BUILTIN_CHAINS


def _refused(table: Table, location: Location, why: str) -> KernelError:
    return KernelError(
        f"{table.family} {table.name} ({location}): {why}", "see the rule or chain that is named"
    )


# --- what the kernel refuses ----------------------------------------------------------------
#
# Each with its source: iptables is what iptables(8) refuses before the kernel sees it, and a file name is
# that of the kernel's module.

#: The built-in chains of each table (iptables(8), TABLES).
_BUILTIN_CHAINS: Mapping[TableName, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
#: XT_EXTENSION_MAXNAMELEN less the closing NUL: a jump has no more space for a name.
_LONGEST_CHAIN_NAME = 28
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ
_LONGEST_COMMENT = 255  # XT_MAX_COMMENT_LEN less the closing NUL: iptables drops what is beyond
_MOST_PORTS = 15  # XT_MULTI_PORTS
#: Chains that a packet may be in at once: NFT_JUMP_STACK_SIZE. Legacy tables have no such limit.
_DEEPEST = 16
_TARGET_NAMES = frozenset({"ACCEPT", "DROP", "QUEUE", "RETURN"})
_STATES = frozenset({"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"})
_NO_IN, _NO_OUT = frozenset({"OUTPUT", "POSTROUTING"}), frozenset({"PREROUTING", "INPUT"})
#: The only table that a target works in (xt_REDIRECT.c, xt_TPROXY.c, xt_CT.c).
_TABLE_OF: Mapping[type[Target], TableName] = {
    model.Redirect: "nat",
    model.TProxy: "mangle",
    model.ConntrackZone: "raw",
}
#: The built-in chains that a packet may come from (`hooks` in xt_owner.c, xt_REDIRECT.c, xt_TPROXY.c).
_HOOKS_OF: Mapping[type[Record], frozenset[str]] = {
    model.UidOwner: frozenset({"OUTPUT", "POSTROUTING"}),
    model.GidOwner: frozenset({"OUTPUT", "POSTROUTING"}),
    model.Redirect: frozenset({"PREROUTING", "OUTPUT"}),
    model.TProxy: frozenset({"PREROUTING"}),
}
#: The options that a rule has once (iptables).
_ONCE: tuple[type[Match], ...] = (
    model.InInterface,
    model.OutInterface,
    model.Source,
    model.Destination,
    model.Transport,
    model.SourcePort,
    model.DestinationPort,
)


def edited(table: Table, steps: Iterable[Step], location: Location) -> Table:
    """Return a table after steps, done in order and all at once. Raises KernelError if one is refused."""
    for step in steps:
        why = next(_why_not_step(table, step), "")
        if why:
            raise _refused(table, location, why)
        try:
            table = _done(table, step)
        except ValueError as error:
            raise _refused(table, location, str(error)) from error
    why = next(_why_not_table(table, location), "")
    if why:
        raise _refused(table, location, why)
    return table


def _done(table: Table, step: Step) -> Table:
    """Return a table after one step. Raises ValueError if a chain is in use, or not as expected."""
    if isinstance(step, ReplaceRules):
        step = step.replace(after=tuple(map(_as_kept, step.after)))
        if all(chain.name != step.chain for chain in table.chains):  # a base chain that is made when needed
            table = table.replace(chains=(*table.chains, Chain(step.chain)))
    elif isinstance(step, Insert):
        step = step.replace(rule=_as_kept(step.rule))
    return apply_to(table, TableEdit(table.family, table.name, (step,)))


def _why_not_step(table: Table, step: Step) -> Iterator[str]:
    """Say why a step cannot be done; that a chain is in use, or not as expected, says apply_to."""
    name = step.chain
    there = {chain.name for chain in table.chains} | set(_BUILTIN_CHAINS[table.name])
    if isinstance(step, CreateChain):
        if not 0 < len(name.encode()) <= _LONGEST_CHAIN_NAME:
            yield f"chain {name}: a name has 1 to {_LONGEST_CHAIN_NAME} bytes"
        if (
            name in BUILTIN_CHAINS | _TARGET_NAMES
            or name[:1] in "-!"
            or not name.isprintable()
            or " " in name
        ):
            yield f"chain {name}: a chain cannot have this name"
        return
    if name not in there:
        yield f"chain {name}: No chain/target/match by that name"
    if isinstance(step, RemoveChain) and name in BUILTIN_CHAINS:
        yield f"chain {name} is built in"
    if isinstance(step, (Insert, Delete)):
        length = len(table.chain(name).rules)
        last = step.position == length + isinstance(step, Insert)
        if not 1 <= step.position <= length + isinstance(step, Insert):
            yield f"chain {name}: Index of {type(step).__name__.lower()} too big"
        if step.last != last:
            yield f"rule {step.position} of chain {name} is not as expected"
    added: tuple[Rule, ...] = ()
    if isinstance(step, ReplaceRules):
        added = step.after
    elif isinstance(step, Insert):
        added = (step.rule,)
    for rule in added:
        for why in _why_not_rule(rule, table, name, there - BUILTIN_CHAINS):
            yield f"{why} (in chain {name})"


def _why_not_table(table: Table, location: Location) -> Iterator[str]:
    """Say what of a table the kernel refuses to have."""
    edges = {chain.name: _jumps(chain, location) for chain in table.chains}
    hooks: dict[str, set[str]] = {}
    for start in BUILTIN_CHAINS & edges.keys():
        depth, reached = _walk(start, edges)
        if depth is None:
            yield f"chain {start}: Too many levels of symbolic links: chains jump in a circle"
        elif depth > _DEEPEST and location == IPTABLES_NFT:
            yield f"chain {start}: Too many links: a packet can be in {_DEEPEST} chains at once"
        for name in reached:
            hooks.setdefault(name, set()).add(start)
    for chain in table.chains:
        for rule in chain.rules:
            for part in (*rule.matches, rule.target):
                allowed = _HOOKS_OF.get(type(part))
                if allowed and not hooks.get(chain.name, set()) <= allowed:
                    yield f"{part} works in {' and '.join(sorted(allowed))} only (in chain {chain.name})"


def _jumps(chain: Chain, location: Location) -> list[str]:
    """Return where a chain leads. In legacy tables what follows a rule for every packet is not looked at."""
    found = []
    for rule in chain.rules:
        if isinstance(rule.target, Jump):
            found.append(rule.target.chain)
        if location == IPTABLES_LEGACY and isinstance(rule.target, model.Verdict) and not rule.matches:
            break
    return found


def _walk(start: str, edges: Mapping[str, list[str]]) -> tuple[int | None, set[str]]:
    """Return how many chains deep a packet may get, None if in a circle, and the chains that it may reach."""
    depths: dict[str, int] = {}
    on_the_way = {start}
    stack = [(start, iter(edges[start]))]
    while stack:
        name, following = stack[-1]
        for jump in following:
            if jump in on_the_way:
                return None, set()
            if jump in edges and jump not in depths:
                on_the_way.add(jump)
                stack.append((jump, iter(edges[jump])))
                break
        else:
            stack.pop()
            on_the_way.discard(name)
            depths[name] = 1 + max((depths.get(jump, 0) for jump in edges[name]), default=0)
    return depths[start], set(depths)


def _why_not_rule(rule: Rule, table: Table, chain: str, chains: Container[str]) -> Iterator[str]:
    """Say why a rule cannot be added to a chain; `chains` are those that it may jump to."""
    target = rule.target
    if isinstance(target, Jump) and target.chain not in chains:
        yield f"{target.chain}: No chain/target/match by that name"
    only = _TABLE_OF.get(type(target))
    if only and table.name != only:
        yield f"{target} works in the table {only} only"
    if isinstance(target, model.Verdict) and target.name == "DROP" and table.name == "nat":
        yield "the table nat is not intended for filtering: DROP cannot be used"
    transports = [match for match in rule.matches if isinstance(match, model.Transport)]
    if isinstance(target, model.Redirect) and not transports:
        yield f"{target} needs a protocol with ports"
    if isinstance(target, model.TProxy) and not (transports and not transports[0].negated):
        yield f"{target} needs a protocol, which is not negated"
    if isinstance(target, (model.Redirect, model.TProxy)) and not 0 <= target.port <= 65535:
        yield f"{target.port} is no port"
    if isinstance(target, model.ConntrackZone) and not 0 <= target.zone <= 65535:
        yield f"{target.zone} is no conntrack zone"
    for kind in _ONCE:
        if sum(isinstance(match, kind) for match in rule.matches) > 1:
            yield f"{kind.__name__} may be there once"
    for match in rule.matches:
        yield from _why_not_match(match, table.family, chain, transports)


def _why_not_match(match: Match, family: Family, chain: str, transports: list[Transport]) -> Iterator[str]:
    if isinstance(match, (model.InInterface, model.OutInterface)):
        if not 0 < len(match.name.encode()) <= _LONGEST_INTERFACE_NAME:
            yield f"interface {match.name}: a name has 1 to {_LONGEST_INTERFACE_NAME} bytes"
        if chain in (_NO_IN if isinstance(match, model.InInterface) else _NO_OUT):
            yield f"{match} cannot be used in {chain}"
    elif isinstance(match, (model.Source, model.Destination)):
        if match.cidr.family != family:
            yield f"{match.cidr} is not of {family}"
    elif isinstance(match, (model.SourcePort, model.DestinationPort, model.DestinationPorts)):
        ranges = match.ports if isinstance(match, model.DestinationPorts) else (match.ports,)
        if not transports or transports[0].negated:
            yield f"{match} needs a protocol, which is not negated"
        if any(not 0 <= ports.first <= ports.last <= 65535 for ports in ranges):
            yield f"{match} has a port range that is none"
        if not 1 <= sum(1 + (ports.first != ports.last) for ports in ranges) <= _MOST_PORTS:
            yield f"{match} has no port, or too many"
    elif isinstance(match, model.ConntrackState):
        if not match.states or not match.states <= _STATES:
            yield f"{match}: no such state"
    elif isinstance(match, model.UidOwner):
        if not 0 <= match.uid < 0xFFFFFFFF:
            yield f"{match.uid} is no UID"
    elif isinstance(match, model.GidOwner) and not 0 <= match.gid < 0xFFFFFFFF:
        yield f"{match.gid} is no GID"
