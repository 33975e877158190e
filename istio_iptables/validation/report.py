"""report: the results of validation, for people and for programs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .model import Result

_STATUSES = {"pass": "PASS", "fail": "FAIL", "unproven": "UNPROVEN", "not-probed": "NOT PROBED"}
_COLOURS = {"pass": 32, "fail": 31, "unproven": 31, "not-probed": 33}
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}
_TRAFFIC = {
    "inbound": "inbound",
    "outbound": "outbound",
    "exempt": "outbound of the proxy",
    "exempt-uid": "outbound of the proxy's UID",
    "exempt-gid": "outbound of the proxy's GID",
}


def text(results: Iterable[Result], notes: Sequence[str], *, colour: bool = False) -> str:
    """Return a line for each result, a second line if there is something to do, and notes at the end."""
    lines: list[str] = []
    for result in results:
        status = f"{_STATUSES[result.status]:<10}"
        if colour:
            status = f"\033[{_COLOURS[result.status]}m{status}\033[0m"
        meaning = f": {result.meaning}" if result.meaning else ""
        lines.append(f"{status}  {_subject(result)}{result.where}{meaning}")
        if result.remedy:
            lines.append(f"{'':<10}  what to do: {result.remedy}")
    lines += [f"note: {note}" for note in notes]
    return "".join(f"{line}\n" for line in lines)


def _subject(result: Result) -> str:
    """Return the direction, the family, and who dialled what."""
    subject = result.subject
    title = f"{_TRAFFIC[subject.kind]}, {_FAMILIES[subject.family]}: "
    return f"{title}{subject.dialled}: " if subject.dialled else title


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
