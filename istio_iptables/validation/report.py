"""report: the results of validation, as a table for people and as JSON for programs."""

from __future__ import annotations

from .model import FAMILIES, Probe, endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .model import Result, Skipped

_STATUSES = {"pass": "PASS", "fail": "FAIL", "unproven": "UNPROVEN", "not-probed": "NOT TRIED"}
_COLOURS = {"pass": 32, "fail": 31, "unproven": 31, "not-probed": 33}
_TRAFFIC = {
    "inbound": "inbound",
    "outbound": "outbound",
    "exempt": "outbound of the proxy",
    "exempt-uid": "outbound of the proxy's UID",
    "exempt-gid": "outbound of the proxy's GID",
}
_FROM = {
    "inbound": "proxy",
    "outbound": "other",
    "exempt": "proxy",
    "exempt-uid": "proxy UID",
    "exempt-gid": "proxy GID",
}
_HEADINGS = ("RESULT", "DIRECTION", "FAMILY", "FROM (UID:GID)", "TO", "MEANT FOR", "ARRIVED")
#: Characters in a line of the table, at most, and the columns that are shortened to keep to it, in order.
_WIDTH, _SHORTENED = 99, (4, 6, 3)
#: A shortened column is not narrower than this.
_NARROWEST = 12


def text(results: Sequence[Result], notes: Sequence[str], *, colour: bool = False) -> str:
    """Return a table with a line for each result, below it more about those that did not pass, and notes."""
    headings, *lines = _fitted([_HEADINGS, *(_row(result) for result in results)])
    if colour:
        lines = [_coloured(line, result) for line, result in zip(lines, results, strict=True)]
    shown = [headings, *lines]
    for result in results:
        if result.status != "pass":
            shown += ["", *_details(result)]
    if notes:
        shown += ["", *(f"note: {note}" for note in notes)]
    return "".join(f"{line}\n" for line in shown)


def _row(result: Result) -> tuple[str, ...]:
    subject = result.subject
    start = (_STATUSES[result.status], _direction(subject), FAMILIES[subject.family])
    if not isinstance(subject, Probe):
        return (*start, _FROM[subject.kind], "-", "-", "-")
    who = f"{_FROM[subject.kind]} {subject.identity.uid}:{subject.identity.gid}"
    meant_for = subject.watched if subject.arrives else subject.elsewhere or "direct"
    return (*start, who, endpoint(subject.address, subject.port), str(meant_for), _arrived(result, subject))


def _direction(subject: Probe | Skipped) -> str:
    if subject.dns:
        return f"DNS, {subject.protocol.upper()}"
    return "inbound" if subject.kind == "inbound" else "outbound"


def _arrived(result: Result, probe: Probe) -> str:
    """Return where a connection arrived, in a word or two: a port of this network namespace, or what else."""
    seen = result.observation
    if seen is None:
        return "-"
    sent = seen.sent_to if seen.sent_to != (probe.address, probe.port) else None
    port = seen.arrived if seen.arrived is not None else sent[1] if sent else None
    if seen.listener_uid is not None:
        return f"{port} (UID {seen.listener_uid})"
    if port is not None:
        lost = {"unanswered": "lost", "refused": "refused"}.get(seen.state)
        return f"{port}, {lost}" if lost and probe.protocol == "tcp" else str(port)
    if seen.state == "unanswered":
        return "direct" if seen.sent_to or (seen.certain and not probe.arrives) else "no answer"
    return {"connected": "direct", "refused": "refused", "reset": "reset", "late": "too late"}.get(
        seen.state, "-"
    )


def _fitted(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines of equal columns; long cells are shortened if the lines would be too long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for column in _SHORTENED:
        excess = sum(widths) + 2 * (len(widths) - 1) - _WIDTH
        if excess > 0:
            widths[column] = max(widths[column] - excess, min(_NARROWEST, widths[column]))
    return ["  ".join(map(_cell, row, widths)).rstrip() for row in rows]


def _cell(value: str, width: int) -> str:
    """Return a value in a column; of a long one the middle is left out."""
    if len(value) <= width:
        return value.ljust(width)
    start = (width - 1) // 2
    return f"{value[:start]}…{value[start + 1 - width :]}"


def _coloured(line: str, result: Result) -> str:
    status = _STATUSES[result.status]
    return f"\033[{_COLOURS[result.status]}m{status}\033[0m{line[len(status) :]}"


def _details(result: Result) -> list[str]:
    """Return what is to be said of a result: what happened, what that means, and what to do."""
    subject = result.subject
    dns = f"DNS over {subject.protocol.upper()}, " if subject.dns else ""
    dialled = f"{subject.dialled}: " if subject.dialled else ""
    meaning = f": {result.meaning}" if result.meaning else ""
    title = f"{_STATUSES[result.status]}  {dns}{_TRAFFIC[subject.kind]}, {FAMILIES[subject.family]}"
    lines = [f"{title}: {dialled}{result.where}{meaning}"]
    return [*lines, f"    what to do: {result.remedy}"] if result.remedy else lines


def document(results: Iterable[Result], notes: Sequence[str], *, succeeded: bool) -> dict[str, Any]:
    """Return the report for programs."""
    return {"succeeded": succeeded, "probes": [_entry(result) for result in results], "notes": list(notes)}


def _entry(result: Result) -> dict[str, Any]:
    subject = result.subject.as_dict()
    identity = subject.pop("identity", None)
    subject.pop("others", None)  # none of them was dialled
    return {
        "status": result.status,
        "direction": "inbound" if result.subject.kind == "inbound" else "outbound",
        **subject,
        **(identity.as_dict() if identity else {}),
        "where": result.where,
        "meaning": result.meaning,
        "remedy": result.remedy,
        "observed": result.observation.as_dict() if result.observation else None,
    }


def json_text(results: Iterable[Result], notes: Sequence[str], *, succeeded: bool) -> str:
    """Return the report as JSON."""
    import json

    return json.dumps(document(results, notes, succeeded=succeeded), indent=2) + "\n"
