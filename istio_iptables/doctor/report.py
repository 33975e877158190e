"""report: the results of all checks, as lines for people and as JSON for programs."""

from __future__ import annotations

from .model import FAIL, OK, WARN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from .model import Result

_COLOURS = {OK: 32, WARN: 33, FAIL: 31}
_GAP = "  "


def failed(results: Iterable[Result]) -> bool:
    """Tell whether a check failed."""
    return any(result.status == FAIL for result in results)


def text(results: Sequence[Result], *, colour: bool = False) -> str:
    """Return a line for each check, below it what more there is to say, and last how many there are."""
    status_width = max(len(status) for status in _COLOURS)
    name_width = max((len(result.name) for result in results), default=0)
    lines: list[str] = []
    told = _Told()
    for result in results:
        status = result.status.ljust(status_width)
        if colour:
            status = f"\033[{_COLOURS[result.status]}m{status}\033[0m"
        lines.append(f"{status}{_GAP}{result.name.ljust(name_width)}{_GAP}{result.finding}")
        lines += [f"{' ' * (status_width + len(_GAP))}{line}" for line in told.more(result)]
    return "".join(f"{line}\n" for line in (*lines, _count(results)))


class _Told:
    """What the report has said already, so that one cause that many checks meet is explained once."""

    def __init__(self) -> None:
        self._findings: set[str] = set()
        self._remedies: dict[str, str] = {}

    def more(self, result: Result) -> Iterator[str]:
        """Yield the lines below a check's own."""
        yield from result.details
        if result.finding in self._findings:
            return
        self._findings.add(result.finding)
        first = self._remedies.get(result.remedy)
        if first:
            yield f"what to do: as for {first}"
        elif result.remedy:
            self._remedies[result.remedy] = result.name
            yield f"what to do: {result.remedy}"
        if result.status != OK and not first:
            yield f"see {result.anchor}"


def _count(results: Sequence[Result]) -> str:
    counts = [(sum(result.status == status for result in results), status) for status in (FAIL, WARN, OK)]
    parts = ", ".join(f"{count} {status}" for count, status in counts)
    return f"{len(results)} checks: {parts}"


def document(results: Iterable[Result]) -> dict[str, Any]:
    """Return the results for programs."""
    results = tuple(results)
    return {"failed": failed(results), "checks": [_entry(result) for result in results]}


def _entry(result: Result) -> dict[str, Any]:
    return {**result.as_dict(), "details": list(result.details), "anchor": result.anchor}


def json_text(results: Iterable[Result]) -> str:
    """Return the results as JSON."""
    import json

    return json.dumps(document(results), indent=2) + "\n"
