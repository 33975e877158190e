"""Results as Markdown tables. Nothing here measures or touches the machine: results go in, text comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from . import cni, datapath, lists, prove, runs, see
from .figures import Check, Spread, met

Results = dict[str, Any]
#: A column of a table: its heading, and what it shows of a row of the results.
Column = tuple[str, Callable[[dict[str, Any]], str]]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table; the first `texts` columns are aligned to the left, the others, being numbers, right.

    >>> print(table(["what", "ms"], [["a|b", "1"]]))
    | what | ms |
    | --- | ---: |
    | a\\|b | 1 |
    """
    ruler = ["---"] * texts + ["---:"] * (len(header) - texts)
    lines = [header, ruler, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def ms(seconds: Spread) -> str:
    """Return times in milliseconds: the median, and how far it went.

    >>> ms({"median": 0.0123, "low": 0.012, "high": 0.5})
    '12.3 (12.0-500)'
    """
    return _spread(seconds, 1e3)


def us(seconds: Spread) -> str:
    """Return times in microseconds, as `ms` does."""
    return _spread(seconds, 1e6)


def mb(size: float | None) -> str:
    """Return bytes in megabytes (of a million bytes)."""
    return "?" if size is None else f"{size / 1e6:.0f}" if size >= 99.5e6 else f"{size / 1e6:.1f}"


def times(value: float | None) -> str:
    """Return a ratio."""
    return "" if value is None else f"{value:.2f}"


def _spread(seconds: Spread, factor: float) -> str:
    median, low, high = (_number(seconds[name] * factor) for name in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _number(value: float) -> str:
    """Return a number with a digit after the point, unless it is so large that this says nothing."""
    return f"{value:.1f}" if abs(value) < 99.95 else f"{value:,.0f}"


# --- the tables of what was measured --------------------------------------------------------

WHOLE_RUNS: tuple[Column, ...] = (
    ("way", lambda row: row["way"]),
    ("command", lambda row: row["what"]),
    ("wall, ms", lambda row: ms(row["wall"])),
    ("times (bare + restore)", lambda row: times(row["times"])),
    ("wanted", lambda row: f"{row['wanted']:g}" if row["wanted"] else ""),
    ("cpu, ms", lambda row: ms(row["cpu"])),
    ("times that of (bare + restore)", lambda row: times(row["cpu_times"])),
    ("peak, MB", lambda row: mb(row["peak"])),
    ("all processes, MB", lambda row: mb(row["tree"])),
    ("processes", lambda row: str(row["processes"])),
)

LONG_LISTS: tuple[Column, ...] = (
    ("list", lambda row: row["list"]),
    ("way", lambda row: row["way"]),
    ("entries", lambda row: f"{row['count']:,}"),
    ("apply, ms", lambda row: ms(row["wall"])),
    ("bare restore, ms", lambda row: ms(row["restore"]["wall"])),
    ("times", lambda row: times(row["times"])),
    ("cpu, ms", lambda row: ms(row["cpu"])),
    ("cpu of restore, ms", lambda row: ms(row["restore"]["cpu"])),
    ("peak, MB", lambda row: mb(row["peak"])),
    ("peak of restore, MB", lambda row: mb(row["restore"]["peak"])),
    ("all processes, MB", lambda row: mb(row["tree"])),
)

DATA_PATH: tuple[Column, ...] = (
    ("rules", lambda row: row["way"]),
    ("excluded CIDRs", lambda row: f"{row['count']:,}" if row["count"] else ""),
    ("connections a second", lambda row: f"{1 / row['cost']['median']:,.0f}"),
    ("a connection, µs", lambda row: us(row["cost"])),
    ("more than without rules, µs", lambda row: us(row["over"]) if row["count"] else ""),
    ("times no rules", lambda row: times(row["times"])),
)

MANY: tuple[Column, ...] = (
    ("at once", lambda row: str(row["at_once"])),
    ("how", lambda row: row["manner"]),
    ("all done after, ms", lambda row: ms(row["total"])),
    ("one run, ms", lambda row: ms(row["wall"])),
    ("cpu of a run, ms", lambda row: f"{row['cpu'] * 1e3:.1f}"),
    ("waiting for locks, ms", lambda row: waiting(row["waiting"])),
    ("memory of all, MB", lambda row: mb(row["memory"])),
    ("failed", lambda row: f"{row['failed']} of {row['runs']}"),
)

LOOKS: tuple[Column, ...] = (
    ("rules", lambda row: row["way"]),
    ("command", lambda row: row["what"]),
    ("excluded CIDRs", lambda row: f"{row['count']:,}" if row["count"] else ""),
    ("wall, ms", lambda row: ms(row["wall"])),
    ("wanted", lambda row: f"{row['wanted']:g}"),
    ("cpu, ms", lambda row: ms(row["cpu"])),
    ("peak, MB", lambda row: mb(row["peak"])),
    ("processes", lambda row: str(row["processes"])),
)

PROOFS: tuple[Column, ...] = (
    ("what is proved", lambda row: row["what"]),
    ("excluded CIDRs", lambda row: f"{row['count']:,}" if row["count"] else ""),
    ("wall, ms", lambda row: ms(row["wall"])),
    ("wanted", lambda row: f"{row['wanted']:g}"),
    ("cpu, ms", lambda row: ms(row["cpu"])),
    ("peak, MB", lambda row: mb(row["peak"])),
)

PLUGIN: tuple[Column, ...] = (
    ("call", lambda row: row["what"]),
    ("wall, ms", lambda row: ms(row["wall"])),
    ("times (bare + restore)", lambda row: times(row["times"])),
    ("cpu of one, ms", lambda row: ms(row["cpu"])),
)

CHECKS: tuple[Column, ...] = (
    ("what", lambda row: row["what"]),
    ("in", lambda row: row["unit"]),
    ("at most", lambda row: f"{row['wanted']:g}"),
    ("reached", lambda row: times(row["reached"])),
    ("as wanted", lambda row: "yes" if row["met"] else "**missed**"),
)


def waiting(seconds: dict[str, float] | None) -> str:
    """Return a waiting time; there is none to tell where nothing is there to compare with."""
    if seconds is None:
        return ""
    return f"{_number(seconds['median'] * 1e3)} (to {_number(seconds['high'] * 1e3)})"


class Section(NamedTuple):
    """A part of the results that is measured."""

    heading: str
    columns: tuple[Column, ...]
    texts: int  #: columns that hold words
    checks: Callable[[dict[str, Any]], list[Check]] | None = None


SECTIONS = {
    "runs": Section("Whole runs", WHOLE_RUNS, 2, runs.checks),
    "lists": Section("Long lists", LONG_LISTS, 2, lists.checks),
    "see": Section("To look", LOOKS, 2, see.checks),
    "prove": Section("To prove", PROOFS, 1, prove.checks),
    "datapath": Section("The data path", DATA_PATH, 1, datapath.checks),
    "many": Section("Many pods at once", MANY, 2),
    "cni": Section("The CNI plugin", PLUGIN, 1, cni.checks),
}


def section(name: str, results: Results) -> str:
    """Return the table of a section."""
    _, columns, texts, _ = SECTIONS[name]
    return _of_columns(columns, results[name]["rows"], texts)


def machine(results: Results) -> str:
    """Return what was measured on, and how often."""
    rounds = [f"{results[name]['rounds']} ({name})" for name in SECTIONS if name in results]
    return table(["", ""], [*results["machine"].items(), ("rounds", ", ".join(rounds))], texts=2)


def checks(results: Results) -> str:
    """Return wanted and reached side by side, and before that how many were missed."""
    found = all_checks(results)
    missed = sum(not check["met"] for check in found)
    verdict = (
        f"{missed} of {len(found)} figures are not as wanted." if missed else "All figures are as wanted."
    )
    return f"{verdict}\n\n{_of_columns(CHECKS, found, texts=2)}"


def all_checks(results: Results) -> list[dict[str, Any]]:
    """Return every figure that was wanted, beside the one that was reached, and whether that will do."""
    found: list[Check] = []
    for name, part in SECTIONS.items():
        if part.checks and name in results:
            found += part.checks(results[name])
    return [{**check, "met": met(check)} for check in found]


def report(results: Results) -> str:
    """Return all that was measured, for reading."""
    parts = [("Measured on", machine(results))]
    parts += [(part.heading, section(name, results)) for name, part in SECTIONS.items() if name in results]
    if all_checks(results):
        parts.append(("Wanted and reached", checks(results)))
    return "\n\n".join(f"## {heading}\n\n{text}" for heading, text in parts) + "\n"


def _of_columns(columns: Sequence[Column], rows: Sequence[dict[str, Any]], texts: int) -> str:
    cells = [[show(row) for _, show in columns] for row in rows]
    return table([heading for heading, _ in columns], cells, texts)
