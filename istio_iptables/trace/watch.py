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
from ..rules.model import IPV4, IPV6
from ..startup.record import Record
from .steps import ChainStep, PassedStep, RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

    from ..interpreter.action import Action
    from ..interpreter.program import Base, Program, Rule, Table
    from ..kernel.netlink.packet_trace import TraceEvent
    from ..rules.model import Family
    from .steps import Step

    #: Whether a table is a legacy one, its family and name as the kernel has them.
    TableKey: TypeAlias = tuple[bool, str, str]


class Seen(Record):
    """What was seen of one packet: as it was where it was seen first, its steps, and how its way ended."""

    packet: Packet
    steps: tuple[Step, ...]
    end: str


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


def seen(events: Iterable[TraceEvent], names: Names, own_table: str) -> list[Seen]:
    """Return what events, which came close to each other, tell of each packet, in the order of their coming.

    `own_table` is the table that switched tracing on, which is left out.
    """
    flows: dict[tuple[object, ...], list[TraceEvent]] = {}
    first: dict[tuple[object, ...], Packet] = {}
    of_packet: dict[tuple[int, str], tuple[object, ...]] = {}
    for event in events:
        packet = packet_of(event)
        key: tuple[object, ...] | None = None
        if packet:
            key = (packet.family, packet.protocol, packet.source_port, event.headers[4:6])
            of_packet[event.packet, event.family if event.legacy else "nf_tables"] = key
            first.setdefault(key, packet)
        else:
            key = of_packet.get((event.packet, event.family if event.legacy else "nf_tables"))
        if key is not None and event.table != own_table:
            flows.setdefault(key, []).append(event)
    return [Seen(first[key], *_steps(_ordered(found, names), names)) for key, found in flows.items()]


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


def _steps(events: list[TraceEvent], names: Names) -> tuple[tuple[Step, ...], str]:
    steps: list[Step] = []
    end = "its way was not seen to the end"
    where: tuple[object, ...] = ()
    at = 0
    for event in events:
        table = names.table(event)
        title = table.title if table else f"{event.family} {event.table}"
        if (event.legacy, event.family, event.table, event.chain) != where:
            where = (event.legacy, event.family, event.table, event.chain)
            base = names.base(event)
            steps.append(
                ChainStep(title, event.chain, base.hook if base else "", base.priority if base else 0)
            )
            at = 0
        if event.kind == "rule":
            rule = names.rule(event)
            number = rule.number if rule else event.number
            if number > at + 1:
                steps.append(PassedStep(title, event.chain, at + 1, number - 1, number - 1 - at))
            at = number
            steps.append(_rule_step(title, event, rule))
        if event.kind in ("rule", "policy") and event.verdict in ("drop", "accept"):
            end = "dropped" if event.verdict == "drop" else "accepted by the last chain that was seen"
        if event.verdict == "drop":
            break
    return tuple(steps), end


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
    """Return nft(8) conditions for what was given of a packet; `given` are names of its fields."""
    from ..interpreter.packet import address_text

    ip = "ip" if packet.family == IPV4 else "ip6"
    transport = "udp" if packet.protocol == UDP else "tcp"
    parts = {
        "family": f"meta nfproto {'ipv4' if packet.family == IPV4 else 'ipv6'}",
        "protocol": f"meta l4proto {transport}",
        "source": f"{ip} saddr {address_text(packet.family, packet.source)}",
        "destination": f"{ip} daddr {address_text(packet.family, packet.destination)}",
        "source_port": f"{transport} sport {packet.source_port}",
        "destination_port": f"{transport} dport {packet.destination_port}",
        "uid": f"meta skuid {packet.uid}",
        "gid": f"meta skgid {packet.gid}",
        "mark": f"meta mark {packet.mark:#x}",
        "interface": f'oifname "{packet.sent_to}"' if outbound else f'iifname "{packet.received_on}"',
    }
    return " ".join(text for name, text in parts.items() if name in given)
