"""What it costs to prove: all properties, and that long lists mean the same in every form of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .figures import Check, ratio
from .lists import SCATTERED, Load, write
from .place import TOOL, Bench
from .runs import DEFAULT
from .timing import Case, Command, measure

COUNTS = (10_000, 20_000)
#: Settings of every kind, all on.
EVERYTHING = (
    *(TOOL, "--dual-stack", "-m", "TPROXY", "-c", "eth1,net+", "-k", "vm0", "-b", "80,8000-8100"),
    *("-i", "10.0.0.0/8,fd00::/8", "-x", "10.1.0.0/16", "-o", "123", "-q", "443"),
    *("--redirect-dns", "--capture-all-dns", "--drop-invalid"),
)
OWN = ("--own", "10.99.0.2,2001:db8::2")
PROPERTIES, EVERY_SETTING = "all properties, default settings", "all properties, everything on"
SAME = {"the same as --compact": "--compact", "the same as native": "--native-nftables"}
#: What each may take, in milliseconds by the clock, the most memory, in MB, and growth from list to list.
WANTED = {PROPERTIES: 500.0, EVERY_SETTING: 2000.0, **dict.fromkeys(SAME, 5000.0)}
WANTED_MEMORY, WANTED_GROWTH = 200.0, 2.2


def cases(bench: Bench, counts: Sequence[int] = COUNTS) -> list[Case]:
    """Return what is measured; a case's name is what is proved and the entries of the list."""
    found = [
        Case(f"{PROPERTIES}/0", Command((*DEFAULT, "prove", *OWN))),
        Case(f"{EVERY_SETTING}/0", Command((*EVERYTHING, "prove", *OWN))),
    ]
    for count in counts:
        command = write(Load(SCATTERED, count, ()), bench.folder)
        file = command[-1]
        for what, option in SAME.items():
            words = (*command, option, "prove", "--same-as", file, *OWN)
            found.append(Case(f"{what}/{count}", Command(words)))
    return found


def take(bench: Bench, counts: Sequence[int] = COUNTS) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    rows = []
    for name, figures in measure(cases(bench, counts), bench).items():
        what, _, count = name.rpartition("/")
        rows.append({"what": what, "count": int(count), **figures, "wanted": WANTED[what]})
    return {"rounds": bench.rounds, "rows": rows}


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted of these figures, of the longest list alone where there are several."""
    rows = {(row["what"], row["count"]): row for row in section["rows"]}
    smaller, largest = sorted({count for _, count in rows if count})[-2:]
    found: list[Check] = []
    for (what, count), row in rows.items():
        if count not in (0, largest):
            continue
        named = f"prove: {what}" + (f", {count:,} CIDRs" if count else "")
        reached = row["wall"]["median"]
        found.append({"what": named, "wanted": row["wanted"], "reached": reached * 1e3, "unit": "ms"})
        if count:
            growth = ratio(reached, rows[what, smaller]["wall"]["median"])
            grown = f"prove: {what}, growth from {smaller:,} CIDRs to {largest:,}"
            found.append({"what": grown, "wanted": WANTED_GROWTH, "reached": growth, "unit": "times"})
    hungriest = max(rows.values(), key=lambda row: float(row["peak"]))
    peak = hungriest["peak"] / 1e6
    what = f"prove: peak memory, the largest being {hungriest['what']}"
    return [*found, {"what": what, "wanted": WANTED_MEMORY, "reached": peak, "unit": "MB"}]
