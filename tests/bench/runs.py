"""Whole runs with the settings that most pods have, over every backend."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from .figures import Check, ratio
from .place import TOOL, Bench, check, make_pod
from .timing import Case, Command, Figures, clearing_up, measure

DEFAULT = (TOOL, "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*")
#: Another setting, which is in place before it is reconciled with the one above.
CHANGED = (*DEFAULT, "-d", "15090,15021,15020")
BARE = "bare interpreter"

APPLY, SECOND, RECONCILE, CLEANUP = "default apply", "second apply (nothing to do)", "reconcile", "cleanup"
#: What a run may cost, in times (bare interpreter + restore): of every way, and of the default one.
WANTED = {APPLY: 3.0, SECOND: 3.0, RECONCILE: 3.0, CLEANUP: 3.0}
WANTED_OF_DEFAULT = {**WANTED, APPLY: 2.2, SECOND: 1.6, "--dry-run": 1.25, "--version": 1.3, "--help": 3.0}
#: What it may hold in memory, in megabytes.
WANTED_MEMORY = 40.0


class Way(NamedTuple):
    """A way to write rules, and the program of iptables or nftables that would load the same ones."""

    name: str
    options: tuple[str, ...]
    loader: tuple[str, ...]
    script: tuple[str, ...] = ("render",)  #: the command that prints what the loader reads


WAYS = (
    Way("libiptc", (), ("iptables-legacy-restore", "--noflush")),
    Way("legacy", ("--force-iptables-binary", "legacy"), ("iptables-legacy-restore", "--noflush")),
    Way("nft variant", ("--force-iptables-binary", "nft"), ("iptables-nft-restore", "--noflush")),
    Way("native", ("--native-nftables",), ("nft", "-f", "-"), ("render", "--format", "nft")),
)


def script_for(way: Way, settings: tuple[str, ...], bench: Bench) -> str:
    """Return what the way's loader reads to make the rules that `settings` demand."""
    with clearing_up() as until, make_pod(until).inside():
        return check((*settings, *way.options, *way.script), environment=bench.environment)


def cases(bench: Bench) -> list[Case]:
    """Return what is measured; a case's name is the way's and what is done, with a slash in between."""
    loaders = {way.loader: Command(way.loader, script_for(way, DEFAULT, bench)) for way in WAYS}
    found = [Case(BARE, Command((sys.executable, "-c", "pass")))]
    found += [Case(" ".join(loader[:2]), command) for loader, command in loaders.items()]
    for way in WAYS:
        default, changed = Command((*DEFAULT, *way.options)), Command((*CHANGED, *way.options))
        reconcile = Command((*default.words, "--reconcile"))
        cleanup = Command((TOOL, "cleanup", *way.options))
        found += [
            Case(f"{way.name}/{APPLY}", default),
            Case(f"{way.name}/{SECOND}", default, (default,)),
            Case(f"{way.name}/{RECONCILE}", reconcile, (changed,)),
            Case(f"{way.name}/{CLEANUP}", cleanup, (default,)),
        ]
    default = Command(DEFAULT)
    return [
        *found,
        Case("libiptc/--dry-run", Command((*DEFAULT, "--dry-run"))),
        Case("libiptc/render", Command((*DEFAULT, "render"))),
        Case("libiptc/diff", Command((*DEFAULT, "diff")), (default,)),
        Case("libiptc/--help", Command((TOOL, "--help"))),
        Case("libiptc/--version", Command((TOOL, "--version"))),
    ]


def take(bench: Bench) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    return {"rounds": bench.rounds, "rows": rows_of(measure(cases(bench), bench))}


def rows_of(found: dict[str, Figures]) -> list[dict[str, Any]]:
    """Return the rows: what was measured, and how many times (bare + restore) that is."""
    loaders = {way.name: " ".join(way.loader[:2]) for way in WAYS}
    rows = []
    for name, figures in found.items():
        way, _, what = name.rpartition("/")
        row: dict[str, Any] = {"way": way, "what": what, **figures, "times": None, "cpu_times": None}
        if way:
            base = found[BARE], found[loaders[way]]
            row["times"] = ratio(figures["wall"]["median"], *(part["wall"]["median"] for part in base))
            row["cpu_times"] = ratio(figures["cpu"]["median"], *(part["cpu"]["median"] for part in base))
        row["wanted"] = (WANTED_OF_DEFAULT if way == WAYS[0].name else WANTED).get(what)
        rows.append(row)
    return rows


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted of these figures."""
    rows = [row for row in section["rows"] if row["way"]]
    found: list[Check] = [
        {
            "what": f"{row['way']}: {row['what']}",
            "wanted": row["wanted"],
            "reached": row["times"],
            "unit": "times (bare + restore)",
        }
        for row in rows
        if row["wanted"]
    ]
    hungriest = max(rows, key=lambda row: row["peak"])
    what = f"peak memory of a run, the largest being {hungriest['way']}: {hungriest['what']}"
    return [*found, {"what": what, "wanted": WANTED_MEMORY, "reached": hungriest["peak"] / 1e6, "unit": "MB"}]
