"""trace: where the nat rules send a connection that a local process makes."""

from __future__ import annotations

from ..interpreter import iptables
from ..interpreter import packet as packets
from ..interpreter.action import Call
from ..interpreter.algebra import One
from ..interpreter.known import NOTHING_KNOWN
from ..interpreter.program import Program
from ..interpreter.surroundings import Surroundings
from ..interpreter.walk import Observer, Walk
from ..rules import istio
from ..rules.model import PROTOCOL_NUMBERS
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.action import Action
    from ..interpreter.program import Rule, Table
    from ..rules.model import Family, Ruleset
    from .model import Identity, Protocol


class Packet(Record):
    """The first packet of a connection or UDP query from a local process. Addresses are integers."""

    family: Family
    source: int
    destination: int
    port: int
    interface: str
    identity: Identity
    protocol: Protocol = "tcp"


class Outcome(Record):
    """The local port that a packet is redirected to, None if it keeps its destination, and the reason."""

    port: int | None
    reason: str


#: Chains that contain only a REDIRECT.
_REDIRECT_CHAINS = (istio.REDIRECT, istio.IN_REDIRECT)
_NOT_CAPTURED = "no rule captures it"


class _Reasons(Observer):
    """Keeps the reason of the rule that decided last. A jump's says more than that of a lone REDIRECT."""

    def __init__(self) -> None:
        self.reason = _NOT_CAPTURED
        self._jump = ""

    def acted(self, table: Table, chain: str, rule: Rule, action: Action, packets: Any) -> None:
        if isinstance(action, Call):
            self._jump = rule.reason
        else:
            self.reason = self._jump if chain in _REDIRECT_CHAINS and self._jump else rule.reason


class Tracer:
    """Follows packets through the chain OUTPUT of nat of one rule set."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._programs = {
            table.family: Program((iptables.compiled(table, "iptables", _no_text, NOTHING_KNOWN),))
            for table in ruleset.tables
            if table.name == "nat"
        }

    def trace(self, packet: Packet) -> Outcome:
        """Return what the rules decide about a packet.

        Raises ValueError for a match or target that is not modelled.
        """
        algebra, reasons = One(), _Reasons()
        program = self._programs.get(packet.family, Program())
        walk = Walk(program, packet.family, algebra, Surroundings(), reasons)
        passed = walk.hook("output", _sent(packet))
        if algebra.questions:
            raise ValueError(f"not modelled, in nat: {algebra.questions[0].about}")
        port = passed.redirected if passed else 0
        return Outcome(port or None, reasons.reason)


def _sent(packet: Packet) -> packets.Packet:
    return packets.Packet(
        packet.family,
        PROTOCOL_NUMBERS[packet.protocol],
        packet.source,
        packet.destination,
        destination_port=packet.port,
        sent_to=packet.interface,
        uid=packet.identity.uid,
        gid=packet.identity.gid,
    )


def _no_text(rule: object, chain: str) -> str:
    return ""
