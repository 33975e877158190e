"""trace_watch: what `trace --watch` does: it shows real packets and the rules that they meet."""

from __future__ import annotations

import time

from ..rules.model import NO_ID
from ..trace import document, text
from ..trace.packet import leaves_by
from ..trace.watch import Gathering, Names, conditions
from . import streams
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from ..interpreter.surroundings import World
    from ..kernel.tracing import Tracing
    from ..trace.packet import Asked, Question
    from ..trace.watch import Seen
    from .context import Context

    #: See Rules in trace/dumps.py.
    Handles: TypeAlias = Mapping[tuple[str, str, str], Mapping[int, int]]

#: The events of one packet come within this time after each other, in seconds.
_QUIET = 0.2


def watch(context: Context, asked: Asked, question: Question, world: World, handles: Handles) -> int:
    """Show packets until there were enough, or Ctrl-C."""
    from ..kernel.tracing import Tracing

    outbound = question.direction == "out"
    packet = asked.packet
    if outbound:
        packet = packet.replace(sent_to=leaves_by(world.network, packet))
    described = conditions(packet, outbound=outbound, given=_given(question))
    left = context.options["count"] or None
    with Tracing("output" if outbound else "prerouting", described) as tracing:
        if tracing.unseen:
            log.warn(tracing.unseen)
        log.info(f"watching packets: {described}")
        try:
            for found in _packets(tracing, Gathering(Names(world.program, handles), tracing.table)):
                _show(found, as_json=context.options["json"])
                left = None if left is None else left - 1
                if left == 0:
                    return 0
        except KeyboardInterrupt:
            return 0
    return 0


def _packets(tracing: Tracing, gathering: Gathering) -> Iterator[Seen]:
    """Yield packets, each when all of its events have come."""
    lost = 0
    while True:
        events = tracing.read(_QUIET if gathering else None)
        now = time.monotonic()
        gathering.take(events, now)
        if tracing.lost > lost:
            lost = tracing.lost
            log.warn("packets came faster than they were read: some, or some of their steps, are missing")
        yield from gathering.complete(now - _QUIET)


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
