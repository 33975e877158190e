"""walk: the way of packets through chains and hooks, over any algebra.

Source: the kernel's nf_hook_slow and nf_nat_inet_fn (net/netfilter/core.c, nf_nat_core.c), ipt_do_table
(ip_tables.c), nft_do_chain (nf_tables_core.c), xt_CT.c, xt_TPROXY.c, nft_tproxy.c, nf_nat_redirect.c.
"""

from __future__ import annotations

from ..rules.model import IPV4
from ..startup.record import Record
from . import action as actions
from .algebra import Question
from .condition import AllOf, Condition, Not, OneOf, Same, number
from .conntrack import has_entry
from .program import CONNTRACK_PRIORITY, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Generic, Literal, TypeAlias, TypeVar

    from ..rules.model import Family
    from .action import Action
    from .algebra import Algebra
    from .program import Base, HookName, Program, Rule, Table
    from .routing import Routed

    S = TypeVar("S")
    How: TypeAlias = Literal["dropped", "rejected", "delivered", "sent", "not known"]
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

    def acted(self, table: Table, chain: str, rule: Rule, action: Action, packets: Any) -> None:
        """A rule has matched and done something; `packets` are as they are afterwards."""

    def routed(self, packets: Any, routed: Routed, why: str) -> None:
        """Packets have got a route."""


#: Most chains on the way to a rule (nf_tables: NFT_JUMP_STACK_SIZE is 16; iptables allows more).
_DEEPEST = 200

_NOT_TRACKED = number("tracked", 0)
_ASKED: Mapping[str, Condition] = {
    "destination": AllOf((number("first", 1), number("destination_bound", 0))),
    "source": AllOf((number("first", 1), number("source_bound", 0))),
}
#: A packet that is not tracked, and has neither a zone nor a reason to be left alone, may get a zone.
_UNZONED = AllOf((_NOT_TRACKED, number("zone", 0), Not(OneOf("state", frozenset({"UNTRACKED"})))))
_HAS_ENTRY = has_entry(before=True)
_LISTENING = number("listening", 1)


class Walk(Generic[S]):
    """The way of packets of one family through the hooks of a program.

    `own_address` gives the address that REDIRECT takes, for the interface that a packet came in by.
    Packets whose way ends are in `ended`.
    """

    def __init__(
        self,
        program: Program,
        family: Family,
        algebra: Algebra[S],
        own_address: Callable[[S], int | None],
        observer: Observer | None = None,
    ) -> None:
        self.program = program
        self.family = family
        self.algebra = algebra
        self.ended: list[Ended] = []
        self._own_address = own_address
        self._observer = observer or Observer()
        self._hook: HookName = "output"
        self._base_kind = "filter"

    def end(self, packets: S, how: How, place: Place | None = None, note: str = "") -> None:
        """Note that the way of packets has ended."""
        if not self.algebra.is_empty(packets):
            self.ended.append(Ended(packets, how, place, note))

    def hook(self, hook: HookName, packets: S) -> S:
        """Return the packets that a hook lets pass."""
        self._hook = hook
        tracks = hook in ("prerouting", "output")
        for position, group in _by_position(self.program.bases(hook, self.family)):
            if tracks and position > CONNTRACK_PRIORITY:
                packets, tracks = self._track(packets), False
            if self.algebra.is_empty(packets):
                return packets
            packets = self._group(group, packets)
        if tracks:
            packets = self._track(packets)
        return self._bound(hook, packets)

    def _track(self, packets: S) -> S:
        return self.algebra.update(packets, tracked=True)

    def _bound(self, hook: HookName, packets: S) -> S:
        """Note that nat has decided, also if it translates nothing (nf_nat_alloc_null_binding)."""
        part = "destination_bound" if hook in ("prerouting", "output") else "source_bound"
        return self.algebra.update(packets, **{part: True}) if hook != "forward" else packets

    # --- base chains ---------------------------------------------------------------------------

    def _group(self, group: Sequence[tuple[Table, Base]], packets: S) -> S:
        """Go through the base chains of one position in a hook."""
        for table, base in self._in_order(group, packets):
            packets = self._base(table, base, packets)
        return packets

    def _in_order(self, group: Sequence[tuple[Table, Base]], packets: S) -> Sequence[tuple[Table, Base]]:
        """Return base chains in the order of their priorities.

        The order of equal ones depends on their registration, which nothing shows. It is a question only for
        those that do something with the packets.
        """
        if len({base.priority for _, base in group}) == len(group):
            return group
        acting = [pair for pair in group if self._acts(*pair, packets)]
        ordered: list[tuple[Table, Base]] = []
        for _, same in _by_priority(acting):
            if len(same) > 1:
                orders = _permutations(same)
                key = ("order", self._hook, *(f"{table.title} {base.chain}" for table, base in same))
                same = orders[self.algebra.answer(Question(key, tuple(key[2:]), len(orders)))]
            ordered += same
        quiet = [pair for pair in group if pair not in acting]
        return sorted((*ordered, *quiet), key=lambda each: each[1].priority)

    def _acts(self, table: Table, base: Base, packets: S) -> bool:
        """Tell whether a base chain does anything with packets that it gets as they are now."""
        probe = Walk(self.program, self.family, self.algebra, self._own_address)
        probe._hook = self._hook
        after = probe._base(table, base, packets)
        return bool(probe.ended) or not self.algebra.same(after, packets)

    def _base(self, table: Table, base: Base, packets: S) -> S:
        algebra = self.algebra
        passing = algebra.empty
        if base.kind == "nat":
            side = "destination" if base.hook in ("prerouting", "output") else "source"
            packets, passing = algebra.split(packets, _ASKED[side], _NO_QUESTION)
            if algebra.is_empty(packets):
                return passing
        if base.kind == "route":
            packets = algebra.assign(packets, _REMEMBER_MARK)
        self._observer.entered(base.hook, table, base)
        self._base_kind = base.kind
        ongoing, accepted = self._chain(table, base.chain, packets, 0)
        if base.drops:
            place = Place(table.title, base.chain, 0, "policy DROP")
            self.end(ongoing, "dropped", place)
            ongoing = algebra.empty
        after = algebra.join(accepted, ongoing)
        self._observer.left(table, base, not algebra.is_empty(after))
        if base.kind == "route":
            same, changed = algebra.split(after, _MARK_UNCHANGED, _NO_QUESTION)
            after = algebra.join(same, algebra.update(changed, route_due=True))
        return algebra.join(passing, after)

    # --- chains and rules ----------------------------------------------------------------------

    def _chain(self, table: Table, name: str, packets: S, depth: int) -> tuple[S, S]:
        """Return the packets that come to the end of a chain or return from it, and those it accepts."""
        algebra = self.algebra
        here, returned, accepted = packets, algebra.empty, algebra.empty
        if depth > _DEEPEST:
            self.end(here, "not known", note=f"more than {_DEEPEST} chains call each other")
            return algebra.empty, algebra.empty
        for rule in table.rules(name):
            if algebra.is_empty(here):
                break
            flow = self._rule(table, name, rule, here, depth)
            here = flow.next
            returned = algebra.join(returned, flow.returned)
            accepted = algebra.join(accepted, flow.accepted)
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
        if isinstance(action, actions.TProxy):
            return self._tproxy(table, chain, rule, action, packets)
        changed, goes_on = self._change(action, packets)
        self._observer.acted(table, chain, rule, action, changed)
        return Flow(changed, none, none, none) if goes_on else Flow(none, none, none, changed)

    def _change(self, action: Action, packets: S) -> tuple[S, bool]:
        """Return packets as an action changes them, and whether the next statement follows."""
        algebra = self.algebra
        if isinstance(action, actions.Assign):
            return self._assign(action, packets), True
        if isinstance(action, actions.Zone):
            free, kept = algebra.split(packets, _UNZONED, _NO_QUESTION)
            return algebra.join(algebra.update(free, zone=action.zone), kept), True
        if isinstance(action, actions.Untrack):
            free, kept = algebra.split(packets, _NOT_TRACKED, _NO_QUESTION)
            free = algebra.update(free, state="UNTRACKED", first=False)
            return algebra.join(free, kept), True
        if isinstance(action, actions.Source):
            return algebra.update(packets, source_translated=True, source_bound=True), False
        if isinstance(action, actions.Redirect):
            port = action.port or _own_port(packets)
            fields: dict[str, Any] = {"destination": self._redirect_address(packets), "redirected": port}
            if action.port:
                fields["destination_port"] = port
        elif isinstance(action, actions.Destination):
            fields = {} if action.address is None else {"destination": action.address}
            if action.port is not None:
                fields["destination_port"] = action.port
        elif isinstance(action, actions.NetMap):
            if self._hook not in ("prerouting", "output"):
                return algebra.update(packets, source_translated=True, source_bound=True), False
            packets = algebra.assign(packets, actions.Assign("destination", action.keep, action.address))
            fields = {}
        else:
            raise TypeError(f"no such action: {action}")
        fields.update(translated=True, destination_bound=True, route_due=True)
        return algebra.update(packets, **fields), False

    def _assign(self, action: actions.Assign, packets: S) -> S:
        """Change a mark; a packet without an entry in conntrack keeps it (connmark_tg in xt_connmark.c)."""
        if "connection_mark" not in (action.field, action.source):
            return self.algebra.assign(packets, action)
        packets, kept = self.algebra.split(packets, _HAS_ENTRY, _NO_QUESTION)
        if self.algebra.is_empty(packets):
            return kept
        return self.algebra.join(self.algebra.assign(packets, action), kept)

    def _redirect_address(self, packets: S) -> int | None:
        """REDIRECT: the loopback address for what this machine sends, else the incoming interface's own."""
        if self._hook == "output":
            return 0x7F000001 if self.family == IPV4 else 1
        return self._own_address(packets)

    def _choose(
        self, table: Table, chain: str, rule: Rule, action: actions.Choose, packets: S, depth: int
    ) -> Flow:
        algebra = self.algebra
        flow = Flow(algebra.empty, algebra.empty, algebra.empty, algebra.empty)
        place = Place(table.title, chain, rule.number, rule.text)
        for number_of, (condition, branch) in enumerate(action.branches):
            asked = Question(("choice", table.title, chain, rule.number, number_of), place)
            hit, packets = algebra.split(packets, condition, asked)
            if not algebra.is_empty(hit):
                one = self._act(table, chain, rule, branch, hit, depth)
                flow = Flow(*(algebra.join(a, b) for a, b in zip(flow._key(), one._key(), strict=True)))
        return flow.replace(next=algebra.join(flow.next, packets))

    def _tproxy(self, table: Table, chain: str, rule: Rule, action: actions.TProxy, packets: S) -> Flow:
        """TPROXY takes a packet that a socket listens for; see there for what becomes of others."""
        algebra = self.algebra
        none = algebra.empty
        taken, left = algebra.split(packets, _LISTENING, _NO_QUESTION)
        taken = algebra.update(taken, tproxied=action.port or _own_port(taken))
        taken = algebra.assign(taken, actions.Assign("mark", action.keep, action.flip))
        self._observer.acted(table, chain, rule, action, algebra.join(taken, left))
        if not action.accepts:
            return Flow(taken, left, none, none)
        place = Place(table.title, chain, rule.number, rule.text)
        self.end(left, "dropped", place, "no socket listens there")
        return Flow(none, none, none, taken)

    def _unknown(self, table: Table, chain: str, rule: Rule, action: actions.Unknown, packets: S) -> Flow:
        algebra = self.algebra
        none = algebra.empty
        place = Place(table.title, chain, rule.number, rule.text)
        asked = Question(("action", table.title, chain, rule.number), place, 3)
        how = algebra.answer(asked)
        self._observer.acted(table, chain, rule, action, packets)
        if how == 0:
            return Flow(packets, none, none, none)
        if how == 1:
            return Flow(none, none, none, packets)
        self.end(packets, "dropped", place)
        return Flow(none, none, none, none)


def _own_port(packets: object) -> int:
    """Return the destination port of one packet; 0 for a set of packets, which may have many."""
    port: int = getattr(packets, "destination_port", 0)
    return port


_NO_QUESTION = Question(None, None)
_REMEMBER_MARK = actions.Assign("mark_before", 0, source="mark")
_MARK_UNCHANGED = Same("mark", "mark_before")


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


def _by_position(pairs: Sequence[tuple[Table, Base]]) -> Iterator[tuple[int, list[tuple[Table, Base]]]]:
    from itertools import groupby

    for position, group in groupby(pairs, key=lambda each: each[1].position):
        yield position, list(group)


def _by_priority(pairs: Sequence[tuple[Table, Base]]) -> Iterator[tuple[int, list[tuple[Table, Base]]]]:
    from itertools import groupby

    for priority, group in groupby(pairs, key=lambda each: each[1].priority):
        yield priority, list(group)


def _permutations(pairs: list[tuple[Table, Base]]) -> list[list[tuple[Table, Base]]]:
    from itertools import permutations

    return [list(each) for each in permutations(pairs)]
