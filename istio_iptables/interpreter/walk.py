"""walk: the way of packets through chains and hooks, over any algebra.

Source: the kernel's nf_hook_slow and nf_nat_inet_fn (net/netfilter/core.c, nf_nat_core.c), ipt_do_table
(ip_tables.c), nft_do_chain (nf_tables_core.c). What actions do is in effects.py.
"""

from __future__ import annotations

from ..startup.record import Record
from . import action as actions
from .algebra import NO_QUESTION, Question
from .condition import AllOf, Condition, OneOf, Same, Unmodelled, number
from .conntrack import has_entry
from .effects import Effects
from .program import CONNTRACK_PRIORITY, NAT_PRIORITY, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Generic, Literal, TypeAlias, TypeVar

    from ..rules.model import Family
    from .action import Action
    from .algebra import Algebra, Side
    from .program import Base, HookName, Program, Rule, Table
    from .routing import Routed
    from .surroundings import Surroundings

    S = TypeVar("S")
    How: TypeAlias = Literal["dropped", "rejected", "delivered", "sent", "not known"]
    #: Base chains that are called at one place: one of iptables or nftables, or all of nat.
    Unit: TypeAlias = tuple[tuple[Table, Base], ...]
else:
    Generic = {None: object}
    S = None


class Ended(Record):
    """Packets whose way has ended, how, and at which rule if one did it."""

    packets: Any
    how: How
    place: Place | None = None
    note: str = ""


class Flow(Record):
    """Where packets go after a statement: on in the rule, to the next rule, back, or out of the table."""

    here: Any
    next: Any
    returned: Any
    accepted: Any


class Observer:
    """What a walk tells of its steps; this one listens to nothing."""

    def entered(self, hook: HookName, table: Table, base: Base) -> None:
        """Packets have come to a base chain."""

    def left(self, table: Table, base: Base, passed: bool) -> None:
        """The way through a base chain has ended; `passed` says whether packets go on to the next one."""

    def called(self, table: Table, rule: Rule, chain: str) -> None:
        """Packets have come to a chain from a rule."""

    def missed(self, table: Table, chain: str, rule: Rule, packets: Any) -> None:
        """Packets have passed by a rule, which did not match."""

    def met(self, table: Table, chain: str, rule: Rule, packets: Any, following: Any) -> None:
        """Packets have met a rule, and some of them go on to the next one of the chain."""

    def acted(self, table: Table, chain: str, rule: Rule, action: Action, packets: Any) -> None:
        """A rule has matched and done something; `packets` are as they are afterwards."""

    def routed(self, packets: Any, routed: Routed, why: str) -> None:
        """Packets have got a route."""


#: Most chains on the way to a rule (nf_tables: NFT_JUMP_STACK_SIZE is 16; iptables allows more).
_DEEPEST = 200
#: nf_tables_api.c, nft_chain_validate; ip_tables.c, mark_source_chains.
_REFUSED = "straight or through others: no kernel takes such rules, so this is not what one has in place"

#: What nat chains decide at a hook: where packets go, or where they come from (nf_nat_core.c, HOOK2MANIP).
_SIDES: Mapping[str, Side] = {
    "prerouting": "destination",
    "output": "destination",
    "input": "source",
    "postrouting": "source",
}
#: nat is asked for the first packet of a connection, and for none without connection.
_ASKED: Mapping[str, Condition] = {
    side: AllOf((number("first", 1), number(f"{side}_bound", 0), has_entry(before=True)))
    for side in ("destination", "source")
}


class Walk(Generic[S]):
    """The way of packets of one family through the hooks of a program.

    Packets whose way ends are in `ended`.
    """

    def __init__(
        self,
        program: Program,
        family: Family,
        algebra: Algebra[S],
        surroundings: Surroundings[S],
        observer: Observer | None = None,
    ) -> None:
        self.program = program
        self.family = family
        self.algebra = algebra
        self.ended: list[Ended] = []
        self._surroundings = surroundings
        self._observer = observer or Observer()
        self._hook: HookName = "output"
        self._translates = False  #: it is in a chain of nat
        self._calling: list[tuple[str, str]] = []  #: tables and chains, each called by the one before it
        self._effects = Effects(family, algebra, surroundings)

    def end(self, packets: S, how: How, place: Place | None = None, note: str = "") -> None:
        """Note that the way of packets has ended."""
        if not self.algebra.is_empty(packets):
            self.ended.append(Ended(packets, how, place, note))

    # --- hooks ---------------------------------------------------------------------------------

    def hook(self, hook: HookName, packets: S) -> S:
        """Return the packets that a hook lets pass."""
        self._hook = hook
        self._effects.hook = hook
        tracks = hook in ("prerouting", "output")
        for priority, units in self._places(hook):
            if tracks and priority > CONNTRACK_PRIORITY:
                packets, tracks = self._track(packets), False
            if self.algebra.is_empty(packets):
                return packets
            for unit in self._in_order(units, packets):
                packets = self._unit(unit, packets)
        if tracks:
            packets = self._track(packets)
        if hook in ("input", "postrouting"):  # nf_confirm (nf_conntrack_proto.c)
            packets = self.algebra.update(packets, confirmed=True)
        return packets

    def _track(self, packets: S) -> S:
        """Let conntrack see the packets that it has not seen yet, such as before lo brought them back."""
        unseen, seen = self.algebra.split(packets, number("tracked", 0), NO_QUESTION)
        return self.algebra.join(seen, self.algebra.update(self.algebra.find(unseen), tracked=True))

    def _places(self, hook: HookName) -> list[tuple[int, list[Unit]]]:
        """Return what is called in a hook, by priority.

        nat chains are all called by nat's own hook. That is there even if no chain is: it translates the
        later packets of connections.
        """
        bases = self.program.bases(hook, self.family)
        places: dict[int, list[Unit]] = {}
        if hook in NAT_PRIORITY:
            places[NAT_PRIORITY[hook]] = [tuple(pair for pair in bases if pair[1].kind == "nat")]
        for pair in bases:
            if pair[1].kind != "nat":
                places.setdefault(pair[1].priority, []).append((pair,))
        return sorted(places.items())

    def _unit(self, unit: Unit, packets: S) -> S:
        """Return the packets that base chains let pass which are called at one place."""
        if unit and unit[0][1].kind != "nat":
            [(table, base)] = unit
            return self._base(table, base, packets)
        algebra = self.algebra
        side = _SIDES[self._hook]
        asked, passing = algebra.split(packets, _ASKED[side], NO_QUESTION)
        for priority in sorted({base.priority for _, base in unit}):
            same: list[Unit] = [(pair,) for pair in unit if pair[1].priority == priority]
            for [(table, base)] in self._in_order(same, asked):
                # Once a chain has translated a connection, nat asks no other one.
                asked, bound = algebra.split(asked, number(f"{side}_bound", 0), NO_QUESTION)
                passing = algebra.join(passing, bound)
                if not algebra.is_empty(asked):
                    asked = self._base(table, base, asked)
        # Also what no chain translates has been decided about (nf_nat_alloc_null_binding).
        passing = algebra.join(passing, algebra.update(asked, **{f"{side}_bound": True}))
        passing = self._effects.keep(passing, side)
        if self._hook != "output":
            return passing
        # What goes to another address is routed again (nf_nat_ipv4_local_fn in nf_nat_proto.c).
        moved, passing = algebra.split(passing, OneOf("route", frozenset({""})), NO_QUESTION)
        return algebra.join(passing, self._surroundings.reroute(self, moved))

    def _in_order(self, units: Sequence[Unit], packets: S) -> Sequence[Unit]:
        """Return what is called at one priority in the order in which it is.

        That depends on registration, which nothing shows: the kernel calls what was registered last first
        (nf_hook_entries_grow in net/netfilter/core.c). It is a question only for those that do something with
        the packets.
        """
        if len(units) < 2:
            return units
        acting = [unit for unit in units if self._acts(unit, packets)]
        for unit in acting:
            packets, _ = self._probe(unit, packets)
        # One that does nothing with these packets may do something with what others have made of them.
        acting += [unit for unit in units if acting and unit not in acting and self._acts(unit, packets)]
        quiet = [unit for unit in units if unit not in acting]
        if len(acting) < 2:
            return quiet + acting
        orders = list(_permutations(acting))
        names = tuple(" and ".join(f"{table.title} {base.chain}" for table, base in unit) for unit in acting)
        asked = Question(("order", self._hook, *names), names, len(orders))
        return quiet + orders[self.algebra.answer(asked)]

    def _acts(self, unit: Unit, packets: S) -> bool:
        """Tell whether base chains do anything with packets that they get as they are now."""
        after, ends = self._probe(unit, packets)
        before, after = (self.algebra.update(each, **_OF_THE_WALK) for each in (packets, after))
        return ends or not self.algebra.same(after, before)

    def _probe(self, unit: Unit, packets: S) -> tuple[S, bool]:
        """Return packets as base chains let them pass, and whether the way of any of them ends there."""
        probe = Walk(self.program, self.family, self.algebra, self._surroundings)
        probe._hook = probe._effects.hook = self._hook
        return probe._unit(unit, packets), bool(probe.ended)

    def _base(self, table: Table, base: Base, packets: S) -> S:
        algebra = self.algebra
        if base.kind == "route":
            packets = algebra.assign(packets, _REMEMBER_MARK)
        self._observer.entered(base.hook, table, base)
        self._translates = base.kind == "nat"
        ongoing, accepted = self._chain(table, base.chain, packets, 0)
        if base.drops:
            place = Place(table.title, base.chain, 0, "policy DROP")
            self.end(ongoing, "dropped", place)
            ongoing = algebra.empty
        after = algebra.join(accepted, ongoing)
        self._observer.left(table, base, not algebra.is_empty(after))
        if base.kind == "route":  # ipt_mangle_out (iptable_mangle.c), nf_route_table_inet (nft_chain_route.c)
            same, changed = algebra.split(after, _MARK_UNCHANGED, NO_QUESTION)
            after = algebra.join(same, self._surroundings.reroute(self, changed))
        return after

    # --- chains and rules ----------------------------------------------------------------------

    def _chain(self, table: Table, name: str, packets: S, depth: int) -> tuple[S, S]:
        """Return the packets that come to the end of a chain or return from it, and those it accepts."""
        algebra = self.algebra
        here, returned, accepted = packets, algebra.empty, algebra.empty
        if (table.title, name) in self._calling:
            self.end(here, "not known", note=f"the chain {name} of {table.title} calls itself, {_REFUSED}")
            return algebra.empty, algebra.empty
        if depth > _DEEPEST:
            self.end(here, "not known", note=f"more than {_DEEPEST} chains call each other")
            return algebra.empty, algebra.empty
        if name not in table.chains:
            self.end(here, "not known", note=f"the chain {name} of {table.title} is not in what was read")
            return algebra.empty, algebra.empty
        self._calling.append((table.title, name))
        for rule in table.rules(name):
            if algebra.is_empty(here):
                break
            flow = self._rule(table, name, rule, here, depth)
            self._observer.met(table, name, rule, here, flow.next)
            here = flow.next
            returned = algebra.join(returned, flow.returned)
            accepted = algebra.join(accepted, flow.accepted)
        self._calling.pop()
        return algebra.join(here, returned), accepted

    def _rule(self, table: Table, chain: str, rule: Rule, packets: S, depth: int) -> Flow:
        algebra = self.algebra
        here, following, returned, accepted = packets, algebra.empty, algebra.empty, algebra.empty
        for statement in _grouped(rule):
            if algebra.is_empty(here):
                break
            if isinstance(statement, Condition):
                key = ("rule", table.title, chain, rule.number)
                asked = Question(key, Place(table.title, chain, rule.number, rule.text))
                before = here
                here, missed = algebra.split(here, statement, asked)
                if algebra.is_empty(here):
                    self._observer.missed(table, chain, rule, before)
                following = algebra.join(following, missed)
            else:
                flow = self._act(table, chain, rule, statement, here, depth)
                here = flow.here
                following = algebra.join(following, flow.next)
                returned = algebra.join(returned, flow.returned)
                accepted = algebra.join(accepted, flow.accepted)
        return Flow(algebra.empty, algebra.join(following, here), returned, accepted)

    # --- actions -------------------------------------------------------------------------------

    def _act(self, table: Table, chain: str, rule: Rule, action: Action, packets: S, depth: int) -> Flow:
        none = self.algebra.empty
        place = Place(table.title, chain, rule.number, rule.text)
        if isinstance(action, actions.Pass):
            return Flow(packets, none, none, none)
        if isinstance(action, actions.Call):
            self._observer.acted(table, chain, rule, action, packets)
            self._observer.called(table, rule, action.chain)
            ongoing, accepted = self._chain(table, action.chain, packets, depth + 1)
            return Flow(none, none, ongoing, accepted) if action.goto else Flow(none, ongoing, none, accepted)
        if isinstance(action, actions.Choose):
            return self._choose(table, chain, rule, action, packets, depth)
        if isinstance(action, actions.Unknown):
            return self._unknown(table, chain, rule, action, packets)
        if isinstance(action, actions.Return):
            self._observer.acted(table, chain, rule, action, packets)
            return Flow(none, none, packets, none)
        if isinstance(action, actions.End):
            self._observer.acted(table, chain, rule, action, packets)
            if action.how == "accept":
                return Flow(none, none, none, packets)
            self.end(packets, "dropped" if action.how == "drop" else "rejected", place)
            return Flow(none, none, none, none)
        here, skipped, accepted = self._effects.of(self, action, packets, place)
        self._observer.acted(table, chain, rule, action, self.algebra.join(here, accepted))
        return Flow(here, skipped, none, accepted)

    def _choose(
        self, table: Table, chain: str, rule: Rule, action: actions.Choose, packets: S, depth: int
    ) -> Flow:
        algebra = self.algebra
        flow = Flow(algebra.empty, algebra.empty, algebra.empty, algebra.empty)
        place = Place(table.title, chain, rule.number, rule.text)
        for number_of, (condition, branch) in enumerate(action.branches):
            key = ("choice", table.title, chain, rule.number, number_of, condition)
            asked = Question(key, _by_chance(place, condition))
            hit, packets = algebra.split(packets, condition, asked)
            if not algebra.is_empty(hit):
                one = self._act(table, chain, rule, branch, hit, depth)
                flow = Flow(*(algebra.join(a, b) for a, b in zip(flow._key(), one._key(), strict=True)))
        return flow.replace(next=algebra.join(flow.next, packets))

    def _unknown(self, table: Table, chain: str, rule: Rule, action: actions.Unknown, packets: S) -> Flow:
        """It may let packets go on, accept or drop them, and in nat send them where nobody knows."""
        algebra = self.algebra
        none = algebra.empty
        place = Place(table.title, chain, rule.number, rule.text)
        asked = Question(("action", table.title, chain, rule.number), place, 4 if self._translates else 3)
        how = algebra.answer(asked)
        self._observer.acted(table, chain, rule, action, packets)
        if how == 0:
            return Flow(packets, none, none, none)
        if how == 1:
            return Flow(none, none, none, packets)
        self.end(packets, "dropped" if how == 2 else "not known", place)
        return Flow(none, none, none, none)


def _by_chance(place: Place, condition: Condition) -> Place:
    """Return a place that names what is chosen by chance there."""
    if not isinstance(condition, Unmodelled) or condition.why in place.text:
        return place
    return place.replace(text=f"{place.text} ({condition.why})")


_REMEMBER_MARK = actions.Assign("mark_before", 0, source="mark")
_MARK_UNCHANGED = Same("mark", "mark_before")
#: What a base chain changes of a packet even if no rule does anything.
_OF_THE_WALK = {"mark_before": 0, "destination_bound": True, "source_bound": True}


def _grouped(rule: Rule) -> Iterator[Condition | Action]:
    """Yield the statements of a rule, conditions that follow each other as one.

    A rule without an effect is left out: whether it matches makes no difference.
    """
    if all(isinstance(each, (Condition, actions.Pass)) for each in rule.statements):
        return
    conditions: list[Condition] = []
    for statement in rule.statements:
        if isinstance(statement, Condition):
            conditions.append(statement)
            continue
        if isinstance(statement, actions.Pass):
            continue
        if conditions:
            yield AllOf(tuple(conditions))
            conditions = []
        yield statement


def _permutations(units: list[Unit]) -> Iterator[list[Unit]]:
    from itertools import permutations

    return (list(each) for each in permutations(units))
