"""What it costs to look: trace, status and doctor in a default pod, and trace with a long list in place."""

from __future__ import annotations

from typing import Any

from .figures import Check
from .lists import SCATTERED, Load, write
from .place import TOOL, Bench
from .runs import DEFAULT, WAYS, Way
from .timing import Case, Command, measure

#: What a look may take, in milliseconds by the clock: in a default pod, and with a long list in place.
WANTED, WANTED_OF_A_LIST = 150.0, 1500.0
ENTRIES = 20_000
PACKET = ("trace", "out", "--uid", "1000", "--to", "203.0.113.10:80", "--own", "10.99.0.2")
LIVE = (*PACKET[:-2], "--live")

_LEGACY, _NATIVE = WAYS[1], WAYS[3]
#: Each command, and whether the settings are given to it.
_LOOKS = (
    ("trace", PACKET, True),
    ("trace --live", LIVE, False),
    ("status", ("status",), False),
    ("doctor", ("doctor",), True),
)


def cases(bench: Bench, entries: int = ENTRIES) -> list[Case]:
    """Return what is measured; a case's name is the rules' way, the entries and the command."""
    return [case for way in (_LEGACY, _NATIVE) for case in _of_way(way, bench, entries)]


def _of_way(way: Way, bench: Bench, entries: int) -> list[Case]:
    default = Command((*DEFAULT, *way.options))
    found = []
    for name, words, with_settings in _LOOKS:
        start = default.words if with_settings else (TOOL,)
        found.append(Case(f"{way.name}/0/{name}", Command((*start, *words)), (default,)))
    listed = Command((*write(Load(SCATTERED, entries, ()), bench.folder), *way.options))
    return [*found, Case(f"{way.name}/{entries}/trace --live", Command((TOOL, *LIVE)), (listed,))]


def take(bench: Bench, entries: int = ENTRIES) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    rows = []
    for name, figures in measure(cases(bench, entries), bench).items():
        way, count, what = name.split("/")
        wanted = WANTED_OF_A_LIST if int(count) else WANTED
        rows.append({"way": way, "count": int(count), "what": what, **figures, "wanted": wanted})
    return {"rounds": bench.rounds, "rows": rows}


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted of these figures."""
    return [
        {
            "what": f"{row['way']}: {row['what']}" + (f", {row['count']:,} CIDRs" if row["count"] else ""),
            "wanted": row["wanted"],
            "reached": row["wall"]["median"] * 1e3,
            "unit": "ms",
        }
        for row in section["rows"]
    ]
