"""dead: rules that no packet reaches, and the earlier rules that take theirs.

A rule is reached if there is a packet, of any kind, that has all its conditions when it comes to it. Why one
is not reached is told by the packets that come to the beginning of its chain, or of the chains that lead to
it: those that have its conditions there, and the rules before it that let them go no further.
"""

from __future__ import annotations

from ..interpreter import action as actions
from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import AllOf, Condition
from ..interpreter.many import Many
from ..interpreter.merged import runs
from ..interpreter.program import Place
from ..interpreter.regions import Region
from ..interpreter.walk import Observer
from ..startup.record import Record
from .outcomes import ways
from .runs import dead_members, members_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Literal, TypeAlias

    from ..interpreter.action import Action
    from ..interpreter.merged import Run
    from ..interpreter.program import Base, HookName, Program, Rule, Table
    from ..interpreter.surroundings import World
    from .space import Packets

    Why: TypeAlias = Literal["taken", "does not fit", "not led to"]
    #: Title of a table, name of a chain.
    ChainKey: TypeAlias = tuple[str, str]


class Dead(Record):
    """A rule that no packet reaches.

    `why`: `taken`, since the rules `takers` come before it; `does not fit`, since no packet that comes to its
    chain has what it wants; `not led to`, since no packet comes to its chain at all.
    """

    place: Place
    why: Why
    takers: tuple[Place, ...] = ()


class _Ended(Record):
    """Packets whose way, or whose way through nat, was ended by a rule, before `chains` more were entered."""

    place: Place
    packets: Any
    in_nat: bool
    chains: int


class _Seen(Observer):
    """Notes which packets come to which rule, and which rules have matched, for one kind of packets."""

    def __init__(self, space: Any) -> None:
        self.algebra = Many(space)
        self.reached: set[tuple[str, str, int]] = set()
        self.came: dict[ChainKey, dict[int, Any]] = {}
        self.passed: dict[ChainKey, dict[int, Any]] = {}
        self.bases: list[ChainKey] = []
        self.ended: list[_Ended] = []
        self._missed: set[tuple[str, str, int]] = set()

    def entered(self, hook: HookName, table: Table, base: Base) -> None:
        """Note the order of base chains."""
        self.bases.append((table.title, base.chain))

    def missed(self, table: Table, chain: str, rule: Rule, packets: Any) -> None:
        """Note a rule that no packet has matched this time."""
        self._missed.add((table.title, chain, rule.number))

    def met(self, table: Table, chain: str, rule: Rule, packets: Any, following: Any) -> None:
        """Note the packets that come to a rule, and those that go on."""
        key = (table.title, chain, rule.number)
        if key not in self._missed:
            self.reached.add(key)
        self._missed.discard(key)
        for kept, what in ((self.came, packets), (self.passed, following)):
            of_chain = kept.setdefault((table.title, chain), {})
            of_chain[rule.number] = self.algebra.join(of_chain.get(rule.number, {}), what)

    def acted(self, table: Table, chain: str, rule: Rule, action: Action, packets: Any) -> None:
        """Note a rule that has done something; dropping and nat end ways that later chains would see."""
        self.reached.add((table.title, chain, rule.number))
        ends = isinstance(action, actions.End) and action.how != "accept"
        in_nat = isinstance(action, _NAT)
        if ends or in_nat:
            place = Place(table.title, chain, rule.number, rule.text)
            self.ended.append(_Ended(place, packets, in_nat, len(self.bases)))


_NAT = (actions.Redirect, actions.Destination, actions.NetMap, actions.Source)


def dead_rules(world: World, kinds: Iterable[Packets]) -> tuple[Dead, ...]:
    """Return the rules that no packet of any kind reaches, in the order of tables, chains and rules."""
    tables = {
        table.title: {name: tuple(runs(rules)) for name, rules in table.chains.items()}
        for table in world.program.tables
    }
    program = world.program.replace(
        tables=tuple(
            table.replace(
                chains={name: tuple(run.rule for run in found) for name, found in tables[table.title].items()}
            )
            for table in world.program.tables
        )
    )
    seen: list[_Seen] = []
    for packets in kinds:

        def observer(space: Any = packets.space) -> _Seen:
            seen.append(_Seen(space))
            return seen[-1]

        for _ in ways(world.replace(program=program), packets, observer):
            pass
    return tuple(_dead(program, tables, seen))


def _dead(
    program: Program, tables: Mapping[str, Mapping[str, Sequence[Run]]], seen: Sequence[_Seen]
) -> Iterator[Dead]:
    reached = {key for each in seen for key in each.reached}
    for table in program.tables:
        for chain, found in tables[table.title].items():
            for at, run in enumerate(found):
                if (table.title, chain, run.rule.number) not in reached:
                    why = _Search(table, tables[table.title], seen).why(chain, at)
                    for member in run.members:
                        yield Dead(Place(table.title, chain, member.number, member.text), *why)
                elif run.differ is not None:
                    yield from _dead_of_run(table.title, chain, run, seen)


def _dead_of_run(title: str, chain: str, run: Run, seen: Sequence[_Seen]) -> Iterator[Dead]:
    came = [(each.algebra, each.came.get((title, chain), {}).get(run.rule.number, {})) for each in seen]
    passed = [each.passed.get((title, chain), {}).get(run.rule.number, {}) for each in seen]
    for member, takers in dead_members(run, came, passed):
        places = tuple(Place(title, chain, taker.number, taker.text) for taker in takers)
        why: Why = "taken" if places else "does not fit"
        yield Dead(Place(title, chain, member.number, member.text), why, places)


class _Search:
    """Looks for the rules that take the packets of a rule, in its chain and in those that lead to it."""

    def __init__(self, table: Table, all_runs: Mapping[str, Sequence[Run]], seen: Sequence[_Seen]) -> None:
        self._table = table
        self._runs = all_runs
        self._seen = seen
        self._takers: dict[Place, None] = {}

    def why(self, chain: str, at: int) -> tuple[Why, tuple[Place, ...]]:
        """Return why no packet reaches the rule that is the `at`-th of a chain."""
        wanted = _conditions(self._table.rules(chain)[at])
        self._before(chain, at, wanted, frozenset())
        if self._takers:
            return "taken", tuple(self._takers)
        led_to = any((self._table.title, chain) in each.came for each in self._seen)
        return ("does not fit" if led_to else "not led to"), ()

    def _before(self, chain: str, at: int, wanted: tuple[Condition, ...], known: frozenset[str]) -> None:
        """Find the rules before the `at`-th that take packets which have what is wanted."""
        come = [each for each in self._seen if self._in_chain(each, chain, at, wanted)]
        if come:
            return
        callers = [
            (name, number, rule)
            for name, rules in self._table.chains.items()
            for number, rule in enumerate(rules)
            if name not in known and chain in _called(rule)
        ]
        for name, number, rule in callers:
            self._before(name, number, (*_conditions(rule), *wanted), known | {chain})
        if not callers:
            for each in self._seen:
                self._before_chain(each, chain, wanted)

    def _in_chain(self, seen: _Seen, chain: str, at: int, wanted: tuple[Condition, ...]) -> bool:
        """Note the rules of a chain before the `at`-th; tell whether wanted packets come to the chain."""
        rules = self._table.rules(chain)
        came = seen.came.get((self._table.title, chain), {})
        left = _having(seen.algebra, came.get(rules[0].number, {}), wanted) if rules else None
        if not left:
            return False
        for run, following in zip(self._runs[chain][:at], rules[1 : at + 1], strict=True):
            still = _having(seen.algebra, came.get(following.number, {}), wanted)
            taken = left - still if still else left
            if taken:
                for rule in members_for(run, taken):
                    self._takers[Place(self._table.title, chain, rule.number, rule.text)] = None
            if not still:
                return True
            left = still
        return True

    def _before_chain(self, seen: _Seen, chain: str, wanted: tuple[Condition, ...]) -> None:
        """Note the rules that end the way of wanted packets before they come to a base chain."""
        base = (self._table.title, chain)
        before = seen.bases.index(base) if base in seen.bases else len(seen.bases)
        kinds = [each.kind for each in self._table.bases if each.chain == chain]
        for each in seen.ended:
            if each.chains > before or (each.in_nat and kinds != ["nat"]):
                continue
            if _having(seen.algebra, each.packets, wanted):
                self._takers[each.place] = None


def _conditions(rule: Rule) -> tuple[Condition, ...]:
    """Return what packets have to have when they come to a rule, not what it asks after doing something."""
    found = []
    for statement in rule.statements:
        if isinstance(statement, Condition):
            found.append(statement)
        elif not isinstance(statement, actions.Pass):
            break
    return tuple(found)


def _called(rule: Rule) -> Iterator[str]:
    for statement in rule.statements:
        if isinstance(statement, actions.Call):
            yield statement.chain
        elif isinstance(statement, actions.Choose):
            yield from (branch.chain for _, branch in statement.branches if isinstance(branch, actions.Call))


def _having(algebra: Many, packets: Any, wanted: tuple[Condition, ...]) -> Region | None:
    """Return the packets that have all conditions, as they were when they set out; None for none."""
    hit, _ = algebra.split(packets, AllOf(wanted), NO_QUESTION)
    found: Region | None = None
    for region in hit.values():
        found = region if found is None else found | region
    return found
