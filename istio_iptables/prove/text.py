"""text: what proving has found, for people: a short table first, the packets below, and a conclusion."""

from __future__ import annotations

import shlex

from ..rules.istio import PROGRAM
from ..trace.text import packet_text, read
from .traced import is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .dead import Dead
    from .found import Comparison, DeadRules, Judgement, Refutation, Shown
    from .subject import Subject
    from .traced import Traced


def command(subject: Subject, traced: Traced) -> str:
    """Return the command line of `trace` for a packet in the rules of a subject."""
    return shlex.join([PROGRAM, *subject.settings, "trace", *traced.arguments, *subject.arguments])


# --- properties -----------------------------------------------------------------------------


def judgement(found: Judgement) -> str:
    """Return the properties, the packets that refute them, and a conclusion."""
    lines = [f"rules      {found.subject.title}", ""]
    width = max((len(each.name) for each in found.properties), default=0)
    for each in found.properties:
        for at, sentence in enumerate(each.says):
            status, name = (each.status, each.name) if at == 0 else ("", "")
            lines.append(f"{status:<8}  {name:<{width}}  {sentence}")
    for refutation in found.refutations:
        lines += ["", *_refutation(found.subject, refutation)]
    lines += _notes(found.subject)
    text = "".join(f"{line}\n" for line in (*lines, "", conclusion(found)))
    return _read(found.subject) + text


def _notes(subject: Subject) -> list[str]:
    """Return lines about what a proof leaves out."""
    return ["", *(f"note       {each}" for each in subject.notes)] if subject.notes else []


def _read(*subjects: Subject) -> str:
    return "".join(read(each.rules) for each in subjects if each.rules)


def _refutation(subject: Subject, found: Refutation) -> Iterator[str]:
    yield f"{'DEPENDS' if found.depends_on else 'REFUTED'}    {', '.join(found.refutes)}"
    yield f"packet     {packet_text(found.packet)}"
    yield f"promised   {found.wanted}"
    yield f"found      {found.found}"
    yield from (f"depends on {each}" for each in found.depends_on)
    if not found.traced:
        yield f"to see it  {CANNOT_BE_TRACED}"
        return
    for step in found.traced.causes:
        whose = " (a rule of another program)" if is_foreign(step) else ""
        yield f"because of rule {step.number} of {step.chain} in {step.table}{whose}: {step.text}"
        yield f"           -> {step.effect}"
    for end in found.traced.ends:
        if end.startswith(("dropped", "rejected")) and ": rule " not in end:
            yield f"end        {end}"
    if found.traced.by_command:
        yield f"to see it  {command(subject, found.traced)}"


CANNOT_BE_TRACED = "the options of trace cannot describe this packet"


def conclusion(found: Judgement) -> str:
    """Return one line that says whether everything is proved."""
    names = {
        status: [each.name for each in found.properties if each.status == status]
        for status in ("PROVED", "REFUTED", "DEPENDS")
    }
    proved, total = len(names["PROVED"]), len(found.properties)
    if proved == total:
        return f"All {total} properties are proved, for every packet."
    parts = [f"{proved} of {total} properties are proved"]
    if names["REFUTED"]:
        parts.append(f"refuted: {', '.join(names['REFUTED'])}")
    if names["DEPENDS"]:
        on = "what is not modelled" if found.subject.is_whole else "what could not be read"
        parts.append(f"dependent on {on}: {', '.join(names['DEPENDS'])}")
    return f"{'; '.join(parts)}."


# --- two rule sets --------------------------------------------------------------------------


def comparison(found: Comparison) -> str:
    """Return the packets that two rule sets treat differently, and a conclusion."""
    lines = [f"one        {found.one.title}", f"other      {found.other.title}", ""]
    for each in found.packets:
        lines += [*packet_lines(found, each), ""]
    notes = _notes(found.one)[1:]
    text = "".join(f"{line}\n" for line in (*lines, *notes, same_or_not(found)))
    return _read(found.one, found.other) + text


def changed(found: Comparison) -> str:
    """Return the packets that a plan makes a difference for, or that it makes none."""
    notes = "".join(f"{line}\n" for line in _notes(found.one)[1:])
    if found.is_same:
        same = "The rules differ, no packet does: every packet gets the same verdict before and after.\n"
        return notes + same
    if not found.packets:
        return f"{notes}{same_or_not(found)}\n"
    lines = ["Packets that get another verdict:", ""]
    for each in found.packets:
        lines += [*packet_lines(found, each), ""]
    return notes + "".join(f"{line}\n" for line in lines[:-1])


def packet_lines(found: Comparison, shown: Shown) -> Iterator[str]:
    """Yield the lines about a packet that two rule sets treat differently."""
    yield f"packet     {packet_text(shown.packet)}"
    yield from (f"depends on {each}" for each in shown.depends_on)
    verdicts = (shown.one, shown.other)
    names = ("one", "other") if found.other.can_be_traced else ("now", "then")
    for at, (name, subject) in enumerate(zip(names, (found.one, found.other), strict=True)):
        yield f"{name:<11}{verdicts[at]}"
        if shown.traced and shown.traced[at].by_command:
            yield f"{'':11}{command(subject, shown.traced[at])}"
    if not shown.traced:
        yield f"{'':11}{CANNOT_BE_TRACED}"


def same_or_not(found: Comparison) -> str:
    """Return one line that says whether two rule sets are the same for every packet."""
    if found.is_same:
        return "The rules are the same for every packet."
    sure = [each for each in found.packets if not each.depends_on]
    if not found.is_whole:
        return "Whether the rules are the same for every packet depends on what could not be read."
    if not sure:
        return "Whether the rules are the same for every packet depends on what is not modelled."
    count = "one packet shows" if len(sure) == 1 else f"{len(sure)} packets show"
    return f"The rules are not the same: {count} every pair of verdicts."


# --- rules that no packet reaches -----------------------------------------------------------


def dead_rules(found: DeadRules) -> str:
    """Return the rules that no packet reaches, what takes their packets, and a conclusion."""
    lines: list[str] = [f"rules      {found.subject.title}", ""]
    for each in found.rules:
        lines += [*_dead(each), ""]
    dead = len(found.rules)
    if not dead:
        lines.append(f"Every one of {found.count} rules is reached by some packet.")
    else:
        lines.append(f"{dead} of {found.count} rules {'is' if dead == 1 else 'are'} reached by no packet.")
    text = "".join(f"{line}\n" for line in lines)
    return _read(found.subject) + text


_WHY = {
    "does not fit": "no packet that comes to its chain has what it wants",
    "not led to": "no packet comes to its chain",
}


def _dead(found: Dead) -> Iterator[str]:
    yield f"no packet  {found.place}"
    if found.why == "taken":
        yield from _takers(found.takers)
    else:
        yield f"since      {_WHY[found.why]}"


def _takers(takers: Sequence[object]) -> Iterator[str]:
    for at, place in enumerate(takers):
        yield f"{'taken by' if at == 0 else '':<11}{place}"
