"""watch: events of real packets (kernel/tracing.py) as the same steps that a trace has.

The kernel names rules that match, and no others. Those that were passed are told from the numbers of those
that matched. Events of legacy tables and of nf_tables come on two ways, so those of one packet are put in the
order of hooks and priorities.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY
from ..interpreter import action as actions
from ..interpreter.condition import Condition
from ..interpreter.packet import TCP, UDP, Packet
from ..interpreter.verdict import DROPPED, REJECTED, Verdict
from ..rules.model import IPV4, IPV6
from ..startup.record import Record
from .steps import ChainStep, PassedStep, RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping
    from typing import TypeAlias

    from ..interpreter.action import Action
    from ..interpreter.program import Base, Program, Rule, Table
    from ..kernel.netlink.packet_trace import TraceEvent
    from ..rules.model import Family
    from .steps import Step

    #: Whether a table is a legacy one, its family and name as the kernel has them.
    TableKey: TypeAlias = tuple[bool, str, str]


class Seen(Record):
    """What was seen of one packet: as it was where it was seen first, its steps, and how its way ended.

    `verdict` is what a rule that it met did with it: None if none did, as nat does nothing with the later
    packets of a connection.
    """

    packet: Packet
    steps: tuple[Step, ...]
    end: str
    verdict: Verdict | None = None


class Names:
    """Finds the tables and rules that events name. `handles` are the rules of each chain by their handles."""

    def __init__(
        self, program: Program, handles: Mapping[tuple[str, str, str], Mapping[int, int]] | None = None
    ) -> None:
        self._tables: dict[TableKey, Table] = {}
        for table in program.tables:
            for family in _kernel_families(table):
                self._tables[table.location == IPTABLES_LEGACY, family, table.name] = table
        self._handles = handles or {}

    def table(self, event: TraceEvent) -> Table | None:
        """Return the table of an event."""
        return self._tables.get((event.legacy, event.family, event.table))

    def base(self, event: TraceEvent) -> Base | None:
        """Return the base chain that an event's chain is, None if it is none."""
        table = self.table(event)
        return next((base for base in table.bases if base.chain == event.chain), None) if table else None

    def rule(self, event: TraceEvent) -> Rule | None:
        """Return the rule of an event."""
        table = self.table(event)
        rules = table.rules(event.chain) if table else ()
        number = event.number
        if not event.legacy:
            known = self._handles.get((event.family, event.table, event.chain), {})
            number = known.get(event.handle, 0)
            for rule in rules:
                if rule.handle and rule.handle == event.handle:
                    return rule
        return rules[number - 1] if 0 < number <= len(rules) else None


def _kernel_families(table: Table) -> tuple[str, ...]:
    """Return the families under which the kernel may report a table."""
    names = {IPV4: "ip", IPV6: "ip6"}
    single = tuple(names[family] for family in table.families)
    return ("inet", *single) if len(single) > 1 else single


class Gathering:
    """Gathers events by the packet that they are of.

    `own_table` is the table that switches tracing on, and tells which packets were meant: the kernel reports
    those that others trace, too. What it does itself is left out.
    """

    def __init__(self, names: Names, own_table: str) -> None:
        self._names = names
        self._own_table = own_table
        self._packets: dict[Hashable, _Gathered] = {}
        #: The packets by the number that events without headers have.
        self._numbered: dict[tuple[int, str], Hashable] = {}

    def take(self, events: Iterable[TraceEvent], now: float) -> None:
        """Take events that have come now, in seconds by any clock."""
        for event in events:
            number = (event.packet, event.family if event.legacy else "nf_tables")
            packet = packet_of(event)
            if packet:
                key = (packet.family, packet.protocol, packet.source_port, _told_apart_by(event.headers))
                self._numbered[number] = key
                found = self._packets.setdefault(key, _Gathered(packet))
            elif number in self._numbered:
                found = self._packets[self._numbered[number]]
            else:
                continue
            found.latest = now
            if event.table != self._own_table:
                found.events.append(event)
            elif event.kind == "rule":
                found.is_meant = True

    def complete(self, before: float) -> list[Seen]:
        """Return the packets of which nothing has come since, in the order of their coming."""
        done = {key: found for key, found in self._packets.items() if found.latest <= before}
        for key in done:
            del self._packets[key]
        self._numbered = {number: key for number, key in self._numbered.items() if key not in done}
        return [
            Seen(found.packet, *_steps(_ordered(found.events, self._names), self._names))
            for found in done.values()
            if found.is_meant
        ]

    def __bool__(self) -> bool:
        """True while there are packets that are not complete."""
        return bool(self._packets)


class _Gathered:
    """A packet as it was first seen, its events, and when the latest of them came."""

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.events: list[TraceEvent] = []
        self.latest = 0.0
        self.is_meant = False


def _told_apart_by(headers: bytes) -> bytes:
    """Return what tells a packet from others of its connection, and is never changed by nat.

    That is the identification of IPv4, which may be 0, and of TCP the sequence numbers and the flags, of UDP
    the length.
    """
    if headers[0] >> 4 == 4:
        start = (headers[0] & 15) * 4
        return headers[4:6] + _told_apart_by_transport(headers[9], headers[start:])
    return _told_apart_by_transport(headers[6], headers[40:])


def _told_apart_by_transport(protocol: int, headers: bytes) -> bytes:
    return headers[4:14] if protocol == TCP else headers[4:6]


#: For what is sent: by lo a packet comes back to prerouting and input after postrouting.
_SENT = ("output", "postrouting", "prerouting", "input", "forward")


def _ordered(events: list[TraceEvent], names: Names) -> list[TraceEvent]:
    """Order events by the hook and priority of the base chain that they are in, or below."""
    sent = any(base.hook == "output" for event in events if (base := names.base(event)))
    hooks = _SENT if sent else ("prerouting", "input", "forward", "postrouting", "output")
    visits: list[tuple[tuple[int, int], list[TraceEvent]]] = []
    latest: dict[bool, tuple[int, int]] = {}
    for event in events:
        base = names.base(event)
        if base:
            latest[event.legacy] = (hooks.index(base.hook), base.position)
        visits.append((latest.get(event.legacy, (0, 0)), [event]))
    visits.sort(key=lambda visit: visit[0])
    return [event for _, found in visits for event in found]


def _steps(events: list[TraceEvent], names: Names) -> tuple[tuple[Step, ...], str, Verdict | None]:
    way = _Way(names)
    for event in events:
        way.take(event)
        if event.verdict == "drop":
            break
    return tuple(way.steps), way.end, way.verdict


#: What a packet's way ends with, by the last verdict that was seen.
_ENDS = {"accept": "accepted by the last chain that was seen", "drop": "dropped"}
#: Actions that end the way through the table.
_TRANSLATING = (actions.Redirect, actions.Destination, actions.NetMap, actions.Source, actions.TProxy)


class _Way:
    """The steps of a packet, and how its way ends, told from its events in their order."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.steps: list[Step] = []
        self.end = "no rule that it met was seen"
        self.verdict: Verdict | None = None
        #: The number of the last rule that matched, for each chain that the packet has come to.
        self._at: dict[tuple[object, ...], int] = {}
        #: The chains that a rule has ended: a packet does not meet the rest of them.
        self._ended: set[tuple[object, ...]] = set()

    def take(self, event: TraceEvent) -> None:
        """Add what an event tells."""
        table = self._names.table(event)
        title = table.title if table else f"{event.family} {event.table}"
        where = (event.legacy, event.family, event.table, event.chain)
        if where not in self._at:
            base = self._names.base(event)
            self.steps.append(
                ChainStep(title, event.chain, base.hook if base else "", base.priority if base else 0)
            )
            self._at[where] = 0
        rule = self._names.rule(event) if event.kind == "rule" else None
        if event.kind == "rule":
            self._rule(event, rule, title, where)
        elif table and where not in self._ended:
            self._passed(title, where, len(table.rules(event.chain)))
        decided = self._verdict(event, rule)
        self.end = _ENDS.get(decided, "its way was not seen to the end")
        for action in rule.statements if rule else ():
            self.verdict = _done_by(action) or self.verdict
        if decided == "drop" and self.verdict != REJECTED:
            self.verdict = DROPPED

    def _verdict(self, event: TraceEvent, rule: Rule | None) -> str:
        """Return what a chain has decided: accept or drop, else nothing. Legacy events do not tell it."""
        if event.kind == "policy" and event.legacy:
            base = self._names.base(event)
            return "drop" if base and base.drops else "accept"
        for action in rule.statements if rule and event.legacy else ():
            if isinstance(action, actions.End):
                return "accept" if action.how == "accept" else "drop"
            if isinstance(action, _TRANSLATING):
                return "accept"
        return event.verdict

    def _rule(self, event: TraceEvent, rule: Rule | None, title: str, where: tuple[object, ...]) -> None:
        number = rule.number if rule else event.number
        self._passed(title, where, number - 1)
        self._at[where] = number
        self.steps.append(_rule_step(title, event, rule))
        to_chain = event.to_chain
        for action in rule.statements if rule else ():
            if isinstance(action, actions.Call):
                to_chain = to_chain or action.chain
            elif isinstance(action, (actions.Return, actions.End)):
                self._ended.add(where)
        if to_chain:  # it comes to that chain anew
            self._at.pop((*where[:3], to_chain), None)
            self._ended.discard((*where[:3], to_chain))

    def _passed(self, title: str, where: tuple[object, ...], last: int) -> None:
        """Add the rules up to the last one that did not match."""
        first = self._at[where] + 1
        if last >= first:
            self.steps.append(PassedStep(title, str(where[3]), first, last, last - first + 1))
            self._at[where] = last


def _rule_step(title: str, event: TraceEvent, rule: Rule | None) -> RuleStep:
    if rule is None:
        text = f"handle {event.handle}" if event.handle else ""
        return RuleStep(title, event.chain, event.number, text, "", event.verdict)
    effects = [_effect(part) for part in rule.statements if not isinstance(part, Condition)]
    said = {"jump": f"goes to {event.to_chain}", "goto": f"goes on in {event.to_chain}"}.get(
        event.verdict, ""
    )
    effect = said or ", ".join(filter(None, effects)) or event.verdict
    return RuleStep(title, event.chain, rule.number, rule.text, rule.reason, effect)


def _done_by(action: Action | Condition) -> Verdict | None:
    """Return the verdict that an action of a rule gives, as far as the action itself tells."""
    if isinstance(action, actions.Redirect) and action.port:
        return Verdict("redirected", str(action.port))
    if isinstance(action, actions.TProxy) and action.port:
        return Verdict("tproxied", str(action.port))
    if isinstance(action, actions.End) and action.how == "reject":
        return REJECTED
    return None


def _effect(action: Action) -> str:
    if isinstance(action, actions.Call):
        return f"goes on in {action.chain}" if action.goto else f"goes to {action.chain}"
    if isinstance(action, actions.Return):
        return "goes back"
    if isinstance(action, actions.End):
        return {"accept": "leaves this table", "drop": "dropped", "reject": "rejected"}[action.how]
    if isinstance(action, actions.Redirect):
        return f"to the local port {action.port}" if action.port else "to this machine"
    if isinstance(action, actions.TProxy):
        return f"handed to the socket on port {action.port}"
    return ""


# --- packets ------------------------------------------------------------------------------------


def packet_of(event: TraceEvent) -> Packet | None:
    """Return the packet of an event that has its headers (RFC 791, RFC 8200), None if it has none."""
    data = event.headers
    if len(data) < 20:
        return None
    family: Family
    if data[0] >> 4 == 4:
        family, protocol, start = IPV4, data[9], (data[0] & 15) * 4
        source, destination = data[12:16], data[16:20]
    elif data[0] >> 4 == 6 and len(data) >= 40:
        family, protocol, start = IPV6, data[6], 40
        source, destination = data[8:24], data[24:40]
    else:
        return None
    ports = data[start : start + 4] if protocol in (TCP, UDP) else b""
    return Packet(
        family,
        protocol,
        int.from_bytes(source, "big"),
        int.from_bytes(destination, "big"),
        int.from_bytes(ports[:2], "big"),
        int.from_bytes(ports[2:], "big"),
        received_on=event.received_on,
        sent_to=event.sent_to,
        uid=None,  # type: ignore[arg-type]  # events do not tell
        gid=None,  # type: ignore[arg-type]
        mark=event.mark,
    )


def conditions(packet: Packet, *, outbound: bool, given: frozenset[str]) -> str:
    """Return nft(8) conditions for what was given of a packet; `given` are names of its fields.

    The interface of an outbound packet is the one that it is sent to. Raises SettingsError for an interface
    whose name nft cannot write.
    """
    from ..formats.nft import interface_name
    from ..interpreter.packet import address_text

    ip = "ip" if packet.family == IPV4 else "ip6"
    transport = {TCP: "tcp", UDP: "udp"}.get(packet.protocol, str(packet.protocol))
    interface = packet.sent_to if outbound else packet.received_on
    parts = {
        "family": f"meta nfproto {'ipv4' if packet.family == IPV4 else 'ipv6'}",
        "protocol": f"meta l4proto {transport}",
        "source": f"{ip} saddr {address_text(packet.family, packet.source)}",
        "destination": f"{ip} daddr {address_text(packet.family, packet.destination)}",
        "source_port": f"th sport {packet.source_port}",
        "destination_port": f"th dport {packet.destination_port}",
        "uid": f"meta skuid {packet.uid}",
        "gid": f"meta skgid {packet.gid}",
        "mark": f"meta mark {packet.mark:#x}",
        "interface": f"{'oifname' if outbound else 'iifname'} {interface_name(interface)}",
    }
    return " ".join(text for name, text in parts.items() if name in given)
