"""trace_watch: what `trace --watch` does: it shows real packets and the rules that they meet."""

from __future__ import annotations

from ..rules.model import NO_ID
from ..trace import document, text
from ..trace.watch import Names, conditions, seen
from . import streams
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from ..interpreter.surroundings import World
    from ..kernel.netlink.packet_trace import TraceEvent
    from ..kernel.tracing import Tracing
    from ..trace.packet import Asked, Question
    from ..trace.watch import Seen
    from .context import Context

    #: See Rules in trace/dumps.py.
    Handles: TypeAlias = Mapping[tuple[str, str, str], Mapping[int, int]]

#: The events of one packet follow each other within this time, in seconds.
_QUIET = 0.2


def watch(context: Context, asked: Asked, question: Question, world: World, handles: Handles) -> int:
    """Show packets until there were enough, or Ctrl-C."""
    from ..kernel.tracing import TABLE, Tracing

    outbound = question.direction == "out"
    described = conditions(asked.packet, outbound=outbound, given=_given(question))
    names = Names(world.program, handles)
    left = context.options["count"] or None
    with Tracing("output" if outbound else "prerouting", described) as tracing:
        if tracing.unseen:
            log.warn(tracing.unseen)
        log.info(f"watching packets: {described}")
        try:
            for events in _bursts(tracing):
                for packet in seen(events, names, TABLE):
                    _show(packet, as_json=context.options["json"])
                    left = None if left is None else left - 1
                    if left == 0:
                        return 0
        except KeyboardInterrupt:
            return 0
    return 0


def _bursts(tracing: Tracing) -> Iterator[list[TraceEvent]]:
    """Yield the events that come close after each other."""
    while True:
        first = next(tracing.events(), None)
        if first is None:
            return
        yield [first, *tracing.events(_QUIET)]


def _given(question: Question) -> frozenset[str]:
    """Return the fields of a packet that were given, as `conditions` names them."""
    given = {
        "source": question.source.address,
        "source_port": question.source.port,
        "destination": question.to.address,
        "destination_port": question.to.port,
        "interface": question.interface,
        "mark": question.mark,
        "uid": question.uid not in (None, NO_ID),
        "gid": question.gid not in (None, NO_ID),
    }
    return frozenset({"protocol", "family", *(name for name, value in given.items() if value)})


def _show(packet: Seen, *, as_json: bool) -> None:
    if as_json:
        import json

        streams.write(json.dumps(document.seen(packet)) + "\n")
    else:
        streams.write(text.seen(packet))
