"""steps: the way of one packet as data: the chains it came to, the rules that matched, those that did not."""

from __future__ import annotations

from ..interpreter import action as actions
from ..interpreter.algebra import value_of
from ..interpreter.condition import Condition, label
from ..interpreter.packet import endpoint_text
from ..interpreter.walk import Observer
from ..rules.model import FULL_MASK
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ..interpreter.action import Action
    from ..interpreter.packet import Packet
    from ..interpreter.program import Base, HookName, Rule, Table
    from ..interpreter.routing import Routed


class RouteStep(Record):
    """The packet got a route: by an interface, or to this machine itself; `why` it was looked up."""

    kind: str
    interface: str
    rule: str
    why: str


class ChainStep(Record):
    """The packet has come to a chain: a base chain of a hook, or one that a rule jumped to (`hook` empty)."""

    table: str
    chain: str
    hook: str = ""
    priority: int = 0


class RuleStep(Record):
    """A rule that decided or changed something: its number, its text, why it is there and what it did."""

    table: str
    chain: str
    number: int
    text: str
    reason: str
    effect: str


class PassedStep(Record):
    """Rules that did not match, one after the other, and of these the one that missed by one condition only.

    `first` and `last` are their numbers. `nearest` is 0 if there is none; `missed` is what it was.
    """

    table: str
    chain: str
    first: int
    last: int
    count: int
    nearest: int = 0
    text: str = ""
    reason: str = ""
    missed: str = ""


if TYPE_CHECKING:
    Step: TypeAlias = RouteStep | ChainStep | RuleStep | PassedStep


class Recorder(Observer):
    """Keeps the steps of one packet's way."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._matched = 0  #: conditions that the nearest miss had besides the one it missed

    def entered(self, hook: HookName, table: Table, base: Base) -> None:
        """Note a base chain, if it has rules or could drop."""
        if table.rules(base.chain) or base.drops:
            self.steps.append(ChainStep(table.title, base.chain, hook, base.priority))

    def called(self, table: Table, rule: Rule, chain: str) -> None:
        """Note a chain that a rule jumped to."""
        self.steps.append(ChainStep(table.title, chain))

    def missed(self, table: Table, chain: str, rule: Rule, packets: Any) -> None:
        """Note a rule that did not match."""
        missed, matched = _missed(rule, packets)
        step = self.steps[-1] if self.steps else None
        if not (isinstance(step, PassedStep) and (step.table, step.chain) == (table.title, chain)):
            step = PassedStep(table.title, chain, rule.number, rule.number, 0)
            self.steps.append(step)
            self._matched = -1
        changes: dict[str, object] = {"last": rule.number, "count": step.count + 1}
        if missed and matched > self._matched:
            self._matched = matched
            changes.update(nearest=rule.number, text=rule.text, reason=rule.reason, missed=missed)
        self.steps[-1] = step.replace(**changes)

    def acted(self, table: Table, chain: str, rule: Rule, action: Action, packets: Any) -> None:
        """Note what a rule did."""
        self.steps.append(
            RuleStep(table.title, chain, rule.number, rule.text, rule.reason, effect(action, packets))
        )

    def routed(self, packets: Any, routed: Routed, why: str) -> None:
        """Note a route."""
        self.steps.append(RouteStep(routed.kind, routed.interface, routed.rule, why))


def _missed(rule: Rule, packet: Packet) -> tuple[str, int]:
    """Return the one condition that a rule missed by, and how many it had; no text if it missed by more.

    Only the conditions before the first action count.
    """
    missed, matched = "", 0
    for statement in rule.statements:
        if not isinstance(statement, Condition):
            break
        if value_of(statement, packet) is False:
            if missed:
                return "", 0
            missed = label(statement)
        else:
            matched += 1
    return missed, matched


def effect(action: Action, packet: Packet | None) -> str:
    """Return in words what an action did; `packet` is as it was afterwards, None if that was its end."""
    if packet is None:
        return "dropped"
    if isinstance(action, actions.Call):
        return f"goes on in {action.chain}" if action.goto else f"goes to {action.chain}"
    if isinstance(action, actions.Return):
        return "goes back"
    if isinstance(action, actions.End):
        return {"accept": "leaves this table", "drop": "dropped", "reject": "rejected"}[action.how]
    if isinstance(action, actions.Assign):
        which = "mark" if action.field == "mark" else "connection mark"
        return f"{which} {getattr(packet, action.field):#x}"
    if isinstance(action, actions.Zone):
        if packet.zone != action.zone:
            return f"nothing: an earlier rule has chosen conntrack zone {packet.zone}"
        return f"conntrack zone {packet.zone}"
    if isinstance(action, actions.Untrack):
        return "not tracked"
    if isinstance(action, actions.TProxy):
        marked = f", mark {packet.mark:#x}" if action.flip or action.keep != FULL_MASK else ""
        return f"handed to the socket on port {packet.tproxied}{marked}"
    if isinstance(action, actions.Source):
        return f"new source address ({action.what})"
    if isinstance(action, (actions.Redirect, actions.Destination, actions.NetMap)):
        return f"to {endpoint_text(packet.family, packet.destination, packet.destination_port)}"
    return f"not modelled: {getattr(action, 'why', action)}"
