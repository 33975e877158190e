"""document: what proving has found, for programs, as what json.dumps takes."""

from __future__ import annotations

from ..trace.document import packet
from .text import command
from .traced import is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.program import Place
    from ..interpreter.verdict import Verdict
    from .found import Comparison, DeadRules, Judgement, Refutation, Shown
    from .subject import Subject


def judgement(found: Judgement) -> dict[str, Any]:
    """Return the properties and the packets that refute them."""
    return {
        **_of_subject(found.subject),
        "proved": found.is_proved,
        "properties": [
            {"name": each.name, "says": list(each.says), "status": each.status} for each in found.properties
        ],
        "refutations": [_refutation(found.subject, each) for each in found.refutations],
        "notes": list(found.subject.notes),
    }


def comparison(found: Comparison) -> dict[str, Any]:
    """Return the packets that two rule sets treat differently."""
    return {
        "one": _of_subject(found.one),
        "other": _of_subject(found.other),
        "same": found.is_same,
        "packets": [shown(found, each) for each in found.packets],
        "notes": list(found.one.notes),
    }


def dead_rules(found: DeadRules) -> dict[str, Any]:
    """Return the rules that no packet reaches, and which take their packets."""
    return {
        **_of_subject(found.subject),
        "count": found.count,
        "dead": [
            {**_place(each.place), "why": each.why, "taken_by": [_place(taker) for taker in each.takers]}
            for each in found.rules
        ],
    }


def _of_subject(subject: Subject) -> dict[str, Any]:
    rules = subject.rules
    read = {"read": rules.read, "unread": rules.unread, "assumed": rules.assumed} if rules else {}
    return {"rules": subject.title, **{name: list(texts) for name, texts in read.items()}}


def _refutation(subject: Subject, found: Refutation) -> dict[str, Any]:
    traced = found.traced
    causes = traced.causes if traced else ()
    return {
        "refutes": list(found.refutes),
        "direction": found.direction,
        "packet": packet(found.packet),
        "promised": _verdict(found.wanted),
        "found": _verdict(found.found),
        "depends_on": list(found.depends_on),
        "because_of": [{**step.as_dict(), "foreign": is_foreign(step)} for step in causes],
        "ends": list(traced.ends) if traced else [],
        "trace": command(subject, traced) if traced and traced.by_command else None,
    }


def shown(of: Comparison, found: Shown) -> dict[str, Any]:
    """Return a packet that two rule sets treat differently."""
    subjects = (of.one, of.other)
    traces = [
        command(subject, traced) if traced.by_command else None
        for subject, traced in zip(subjects, found.traced, strict=False)
    ] or [None, None]
    return {
        "direction": found.direction,
        "packet": packet(found.packet),
        "verdicts": [_verdict(found.one), _verdict(found.other)],
        "depends_on": list(found.depends_on),
        "traces": traces,
    }


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {"code": verdict.code, "to": verdict.to}


def _place(place: Place) -> dict[str, Any]:
    return {"table": place.table, "chain": place.chain, "number": place.number, "text": place.text}
