"""document: the answer to a trace for programs: hops of typed steps."""

from __future__ import annotations

from ..interpreter.packet import address_text
from ..rules.model import NO_ID
from .steps import ChainStep, PassedStep, RouteStep, RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.packet import Packet
    from .answer import Answer, Path
    from .follow import Followed
    from .steps import Step
    from .watch import Seen

_KINDS = {RouteStep: "route", ChainStep: "chain", RuleStep: "rule", PassedStep: "passed"}


def document(answer: Answer) -> dict[str, Any]:
    """Return the answer to a trace of one hop as what json.dumps takes."""
    return {"hops": [hop(answer)]}


def followed(found: Followed) -> dict[str, Any]:
    """Return all hops, with their senders, and how the last one ends."""
    hops = [{"sender": each.sender, **hop(each.answer)} for each in found.hops]
    verdict = {"code": found.verdict.code, "to": found.verdict.to}
    return {"hops": hops, "ending": found.ending, "verdict": verdict, "conclusion": found.conclusion}


def seen(found: Seen) -> dict[str, Any]:
    """Return what was seen of a real packet; what the kernel does not tell of it is null."""
    verdict = {"code": found.verdict.code, "to": found.verdict.to} if found.verdict else None
    return {
        "packet": {**packet(found.packet), **dict.fromkeys(("connection_mark", "state", "zone"))},
        "steps": [_step(step) for step in found.steps],
        "verdict": verdict,
        "end": found.end,
    }


def hop(answer: Answer) -> dict[str, Any]:
    """Return an answer as what json.dumps takes."""
    return {
        "direction": answer.asked.direction,
        "packet": packet(answer.asked.packet),
        "filled": [filled.as_dict() for filled in answer.asked.filled],
        "verdict": {"code": answer.verdict.code, "to": answer.verdict.to},
        "conclusion": answer.conclusion,
        "complete": not answer.cut,
        "paths": [_path(path) for path in answer.paths],
    }


def _address(found: Packet, address: int | None) -> str | None:
    return None if address is None else address_text(found.family, address)


def packet(found: Packet) -> dict[str, Any]:
    """Return a packet as what json.dumps takes; what does not apply, or is not known, is null."""
    return {
        "family": found.family,
        "protocol": found.protocol,
        "source": _address(found, found.source),
        "source_port": found.source_port,
        "destination": _address(found, found.destination),
        "destination_port": found.destination_port,
        "received_on": found.received_on or None,
        "sent_to": found.sent_to or None,
        "bound_to": found.bound or None,
        "uid": None if found.uid in (None, NO_ID) else found.uid,
        "gid": None if found.gid in (None, NO_ID) else found.gid,
        "mark": found.mark,
        "connection_mark": found.connection_mark,
        "state": found.state,
        "zone": found.zone,
    }


def _path(path: Path) -> dict[str, Any]:
    return {
        "verdict": {"code": path.verdict.code, "to": path.verdict.to},
        "assumed": [{"about": about, "answer": how} for about, how in path.assumed],
        "steps": [_step(step) for step in path.steps],
        "end": path.end,
        "packet": packet(path.packet),
    }


def _step(step: Step) -> dict[str, Any]:
    return {"step": _KINDS[type(step)], **step.as_dict()}
