"""text: the answer to a trace for people, chain by chain."""

from __future__ import annotations

from ..interpreter.packet import ICMP, ICMPV6, TCP, UDP, address_text, endpoint_text
from ..interpreter.route import ERRORS
from ..interpreter.routing import LOCAL_KINDS
from ..rules.model import NO_ID
from .steps import ChainStep, PassedStep, RouteStep, RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..interpreter.packet import Packet
    from .answer import Answer
    from .dumps import Rules
    from .follow import Followed
    from .steps import Step
    from .watch import Seen

_PROTOCOLS = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}


def text(answer: Answer) -> str:
    """Return the answer as lines."""
    return "".join(f"{line}\n" for line in lines(answer))


def seen(found: Seen) -> str:
    """Return what was seen of a real packet as lines."""
    end = f"{found.verdict}: {found.end}" if found.verdict else found.end
    shown = [f"packet     {packet_text(found.packet)}", *_steps(found.steps), end, ""]
    return "".join(f"{line}\n" for line in shown)


#: As many things that were not read are shown; a text may have thousands of such lines.
_MOST_UNREAD = 20


def read(rules: Rules) -> str:
    """Return as lines what was read of dumps or the kernel, what was not, and what the rules were read by."""
    unread = rules.unread[:_MOST_UNREAD]
    if more := len(rules.unread) - len(unread):
        unread = (*unread, f"{more} more (--json names all)")
    parts = (
        ("read", rules.read),
        ("not read", unread),
        ("assumed", rules.assumed),
        ("settings", rules.settings),
    )
    return "".join(
        f"{label if at == 0 else '':9}  {each}\n" for label, texts in parts for at, each in enumerate(texts)
    )


def followed(found: Followed) -> str:
    """Return all hops as lines, and how the last one ends."""
    shown: list[str] = []
    for number, hop in enumerate(found.hops, 1):
        shown += [f"hop {number}: {hop.sender}", *lines(hop.answer), ""]
    last = (f"verdict    {found.verdict}", found.conclusion)
    return "".join(f"{line}\n" for line in (*shown, "all hops", *last))


def lines(answer: Answer) -> Iterator[str]:
    """Yield the lines of an answer."""
    yield f"packet     {packet_text(answer.asked.packet)}"
    for at, filled in enumerate(answer.asked.filled):
        yield f"{'filled in' if at == 0 else '':9}  {filled.what} {filled.value}: {filled.why}"
    for number, path in enumerate(answer.paths, 1):
        yield ""
        if len(answer.paths) > 1:
            yield f"outcome {number}: {path.verdict}, if"
            yield from (f"  {what}: {how}" for what, how in path.assumed)
        yield from _steps(path.steps)
        yield f"{'end':<11}{path.end}"
    yield ""
    yield f"verdict    {answer.verdict}"
    yield answer.conclusion


def packet_text(packet: Packet) -> str:
    """Return a packet in one line."""
    name = _PROTOCOLS.get(packet.protocol, f"protocol {packet.protocol}")
    source = address_text(packet.family, packet.source)
    destination = address_text(packet.family, packet.destination)
    if packet.has_ports:
        source = endpoint_text(packet.family, packet.source, packet.source_port)
        destination = endpoint_text(packet.family, packet.destination, packet.destination_port)
    parts = [f"{name} {source} > {destination}"]
    if packet.received_on:
        parts.append(f"in by {packet.received_on}")
    elif packet.uid is not None:
        parts.append("no socket" if packet.uid == NO_ID else f"UID {packet.uid}")
        parts += [f"GID {packet.gid}"] if packet.gid != NO_ID else []
    if not packet.received_on:
        parts += [f"bound to {packet.bound}"] if packet.bound else []
    parts += [f"mark {packet.mark:#x}"] if packet.mark else []
    parts += [f"state {packet.state}"] if packet.state != "NEW" else []
    parts += [f"zone {packet.zone}"] if packet.zone else []
    return ", ".join(parts)


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    where = ("", "")
    for step in steps:
        if isinstance(step, RouteStep):
            yield _route(step)
            where = ("", "")
        elif isinstance(step, ChainStep):
            if step.hook:
                yield f"{step.hook:<10} {step.table}, {step.chain}, priority {step.priority}"
            else:
                yield f"{'':11}{step.chain}"
            where = (step.table, step.chain)
        else:
            if (step.table, step.chain) != where:
                yield f"{'':11}{step.chain}, again"
                where = (step.table, step.chain)
            yield from _rule(step) if isinstance(step, RuleStep) else _passed(step)


def _route(step: RouteStep) -> str:
    again = step.why.startswith("again")
    if step.kind in (*ERRORS, "none", "unknown"):
        where = f"none ({step.kind})"
    elif step.kind in LOCAL_KINDS:
        where = "to this machine"
    else:
        where = f"leaves by {step.interface}"
    changed = ", since a rule has changed the packet" if again else ""
    rule = f" (ip rule: {step.rule})" if step.rule else ""
    return f"{'new route' if again else 'route':<11}{where}{changed}{rule}"


def _rule(step: RuleStep) -> Iterator[str]:
    yield f"{'':11}{step.number:>5}  {step.text}"
    yield f"{'':11}{'':>5}  -> {step.effect}{f': {step.reason}' if step.reason else ''}"


def _passed(step: PassedStep) -> Iterator[str]:
    numbers = f"{step.first}" if step.first == step.last else f"{step.first}-{step.last}"
    what = "1 rule does" if step.count == 1 else f"{step.count} rules do"
    yield f"{'':11}{numbers:>5}  {what} not match"
    if step.nearest:
        yield f"{'':11}{'':>5}  nearest: {step.nearest}, {step.text}: matches all but: {step.missed}"
