"""From what was measured for up to 50 pods at once to what cannot be measured on one small machine.

Every figure is a formula over named figures of the results. The formula that docs/scale.md shows is the one
that is computed, so a reader can redo it with other figures.
"""

from __future__ import annotations

from typing import NamedTuple

from . import cni, many, runs
from .tables import Results, table

#: How many runs at once the formulas are about: the most that were measured.
MOST = many.COUNTS[-1]
OWN, SHARED, NATIVE = (f"{MOST} at once, {manner}" for manner in (many.OWN, many.SHARED, many.NATIVE))
APPLY, DRY_RUN = f"libiptc: {runs.APPLY}", "libiptc: --dry-run"
IMAGE = "the image's layers"
ADDS = cni.MANY.format(count=cni.AT_ONCE)


class Measured(NamedTuple):
    """A figure of the results: its name in formulas, and the row that it is from."""

    symbol: str
    what: str
    source: str
    unit: str


class Formula(NamedTuple):
    """A figure that follows from those before it."""

    symbol: str
    what: str
    formula: str
    unit: str


MEASURED = (
    Measured("c", "processor time of a run", f"{OWN}: cpu of a run", "s"),
    Measured("cn", "the same with native nftables", f"{NATIVE}: cpu of a run", "s"),
    Measured("cs", "of that, starting and working out the rules", f"{DRY_RUN}: cpu", "s"),
    Measured("w", "a run alone, by the clock", f"{APPLY}: wall", "s"),
    Measured("ws", "of that, starting and working out the rules", f"{DRY_RUN}: wall", "s"),
    Measured("m", "memory of all processes of a run alone", f"{APPLY}: all processes", "B"),
    Measured("M", f"memory of {MOST} at once", f"{OWN}: memory of all", "B"),
    Measured("t", f"{MOST} runs, until all are done", f"{OWN}: all done after", "s"),
    Measured("ts", "the same with one lock file", f"{SHARED}: all done after", "s"),
    Measured("a", "processor time of an ADD of the CNI plugin", f"{ADDS}: cpu of one", "s"),
    Measured("ta", f"{cni.AT_ONCE} such calls, until all are done", f"{ADDS}: wall", "s"),
    Measured("ab", "processor time of an ADD of Debian's bridge", f"{cni.BRIDGE}: cpu of one", "s"),
    Measured("k", "cores of the machine that was measured", "measured on", ""),
    Measured("b", "the image as a node fetches it (compressed)", f"{IMAGE}, all", "B"),
    Measured("bo", "of that, what lies on top of the base image", f"{IMAGE}, without the lowest", "B"),
    Measured("d", "the image on a node's disk (unpacked)", f"{IMAGE}, all", "B"),
)

FORMULAS = (
    Formula("C", "processor time of 500 pods", "500 * c", "s"),
    Formula("Cn", "the same with native nftables", "500 * cn", "s"),
    Formula("Ca", "the same if one lasting process did them all", "500 * (c - cs)", "s"),
    Formula("e", f"share of the cores that {MOST} at once put to use", f"{MOST} * c / (k * t)", "share"),
    Formula("T2", "500 pods at once, until all are done: on 2 cores", "C / (2 * e)", "s"),
    Formula("T8", "the same on 8 cores", "C / (8 * e)", "s"),
    Formula("T32", "the same on 32 cores", "C / (32 * e)", "s"),
    Formula("q", "one run in a container that may use a tenth of a core", "c / 0.1", "s"),
    Formula("M5", "memory of 500 at once, as they share it here", f"500 * M / {MOST}", "B"),
    Formula("Mm", "the same if they share nothing and peak together", "500 * m", "B"),
    Formula("l", "the longest that a run alone holds its locks", "w - ws", "s"),
    Formula("L", "500 that hold one lock file after one another", "500 * l", "s"),
    Formula("Lt", "the same at the pace that was measured, cores being short", f"500 * ts / {MOST}", "s"),
    Formula("P", "most at once with one lock file before one waits for 10 s", "10 / l", ""),
    Formula("Pt", "the same at the pace that was measured", f"10 * {MOST} / ts", ""),
    Formula("A", "what the CNI plugin adds to 500 pods: processor time", "500 * a", "s"),
    Formula("Ab", "what bridge takes for the same pods", "500 * ab", "s"),
    Formula("A5", "500 calls of ADD at once, until all are done", f"500 * ta / {cni.AT_ONCE}", "s"),
    Formula("F", "processor time of 5,000 nodes with 500 pods each", "5000 * C", "s"),
    Formula("B", "bytes that 5,000 nodes fetch", "5000 * b", "B"),
    Formula("Bo", "the same where the base image is there already", "5000 * bo", "B"),
    Formula("R", "sending B at ten gigabits a second (1.25 GB/s)", "B / 1.25e9", "s"),
    Formula("Ro", "sending Bo", "Bo / 1.25e9", "s"),
)


def values(results: Results) -> dict[str, float | None]:
    """Return all figures by their symbols. None is what was not measured, or follows from that."""
    found = _measured(results)
    for formula in FORMULAS:
        try:
            found[formula.symbol] = eval(formula.formula, {"__builtins__": {}}, found)
        except TypeError:  # a part of it is None
            found[formula.symbol] = None
    return found


def _measured(results: Results) -> dict[str, float | None]:
    at_once = {row["manner"]: row for row in results["many"]["rows"] if row["at_once"] == MOST}
    run = {row["what"]: row for row in results["runs"]["rows"] if row["way"] == "libiptc"}
    own, alone = at_once[many.OWN], run[runs.APPLY]
    calls = {row["what"]: row for row in (results.get("cni") or {}).get("rows", [])}
    adds, bridge = calls.get(ADDS), calls.get(cni.BRIDGE)
    layers = (results.get("image") or {}).get("layers", [])
    packed = [layer["compressed"] for layer in layers]
    return {
        "c": own["cpu"],
        "cn": at_once[many.NATIVE]["cpu"],
        "cs": run["--dry-run"]["cpu"]["median"],
        "w": alone["wall"]["median"],
        "ws": run["--dry-run"]["wall"]["median"],
        "m": alone["tree"],
        "M": own["memory"],
        "t": own["total"]["median"],
        "ts": at_once[many.SHARED]["total"]["median"],
        "a": adds["cpu"]["median"] if adds else None,
        "ta": adds["wall"]["median"] if adds else None,
        "ab": bridge["cpu"]["median"] if bridge else None,
        "k": results["many"]["cores"],
        "b": sum(packed) or None,
        "bo": sum(packed[1:]) or None,
        "d": sum(layer["unpacked"] for layer in layers) or None,
    }


def inputs(results: Results) -> str:
    """Return the table of the figures that the formulas are made of."""
    found = values(results)
    rows = [(m.symbol, m.what, m.source, shown(found[m.symbol], m.unit)) for m in MEASURED]
    return table(["", "what", "row and column", "value"], rows, texts=3)


def outcome(results: Results) -> str:
    """Return the table of what follows."""
    found = values(results)
    rows = [(f.symbol, f.what, f.formula.replace("*", "x"), shown(found[f.symbol], f.unit)) for f in FORMULAS]
    return table(["", "what", "formula", "value"], rows, texts=3)


def shown(value: float | None, unit: str) -> str:
    """Return a figure with a unit that suits its size.

    >>> shown(0.0305, "s"), shown(15.25, "s"), shown(2.3e9, "B"), shown(0.97, "share"), shown(304.2, "")
    ('30.5 ms', '15.2 s', '2.3 GB', '97 %', '304')
    """
    if value is None:
        return "not measured"
    if unit == "share":
        return f"{value * 100:.0f} %"
    if unit == "s":
        return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:,.1f} s"
    if unit == "B":
        size, name = next((part, name) for part, name in _SIZES if value >= part or part == 1)
        return f"{value / size:,.1f} {name}"
    return f"{value:,.0f}"


_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))
