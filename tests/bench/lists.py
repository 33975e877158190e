"""Long lists of CIDRs and ports: time and memory of one apply, beside a bare restore of the same rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from .figures import Check, ratio
from .place import TOOL, Bench
from .runs import WAYS, Way, script_for
from .timing import Case, Command, measure

COUNTS = (10, 100, 1_000, 10_000, 20_000)
SCATTERED, ADJACENT, YAML, PORTS = "CIDRs", "CIDRs that merge", "CIDRs, from YAML", "ports"
WANTED_GROWTH = 2.2

LIBIPTC, LEGACY, NFT, NATIVE = WAYS
COMPACT = LIBIPTC._replace(name="libiptc --compact", options=("--compact",))
#: What the longest list may cost, in times its bare restore.
WANTED_TIMES = {LIBIPTC.name: 3.0, LEGACY.name: 3.0, NFT.name: 3.0, NATIVE.name: 4.0, COMPACT.name: 4.0}


class Load(NamedTuple):
    """A list, and the ways in which it is applied."""

    kind: str
    entries: int
    ways: tuple[Way, ...]


def loads(counts: Sequence[int]) -> list[Load]:
    """Return what is applied."""
    every = (*WAYS, COMPACT)
    return [
        *(Load(SCATTERED, count, every) for count in counts),
        *(Load(ADJACENT, count, (COMPACT,)) for count in counts[-2:]),
        Load(YAML, 1_000, (LIBIPTC,)),
        Load(PORTS, 1_000, every),
    ]


def scattered(count: int) -> list[str]:
    """Return CIDRs that do not merge: every second /28.

    >>> scattered(3)
    ['10.0.0.0/28', '10.0.0.32/28', '10.0.0.64/28']
    """
    return _every(32, count)


def adjacent(count: int) -> list[str]:
    """Return CIDRs that merge: each the next of the one before.

    >>> adjacent(3)
    ['10.0.0.0/28', '10.0.0.16/28', '10.0.0.32/28']
    """
    return _every(16, count)


def _every(step: int, count: int) -> list[str]:
    first = int(IPv4Address("10.0.0.0"))
    return [f"{IPv4Address(first + step * number)}/28" for number in range(count)]


def settings(load: Load) -> dict[str, str]:
    """Return the settings of a list, long flag names to values."""
    if load.kind == PORTS:  # every second: no two make a range
        return {"istio-local-exclude-ports": ",".join(str(20_000 + 2 * n) for n in range(load.entries))}
    cidrs = adjacent(load.entries) if load.kind == ADJACENT else scattered(load.entries)
    return {"istio-service-exclude-cidr": ",".join(cidrs)}


def write(load: Load, folder: Path) -> tuple[str, ...]:
    """Write the file for --config, and return the command that reads it, without the way's options."""
    as_yaml = load.kind == YAML
    path = folder / f"{load.kind}-{load.entries}.{'yaml' if as_yaml else 'json'}"
    chosen = settings(load)
    lines = "".join(f'{name}: "{value}"\n' for name, value in chosen.items())
    path.write_text(lines if as_yaml else json.dumps(chosen))
    return (TOOL, "--config", str(path))


def cases(load: Load, bench: Bench) -> list[Case]:
    """Return the cases of a list: each way's apply, and a restore of each different script."""
    command = write(load, bench.folder)
    found = []
    for way in load.ways:
        applied = Command((*command, *way.options))
        loader = Command(way.loader, script_for(way, command, bench))
        found.append(Case(f"{load.kind}/{load.entries}/{way.name}", applied))
        found.append(Case(f"{load.kind}/{load.entries}/{way.name}/restore", loader))
    return found


def take(bench: Bench, counts: Sequence[int] = COUNTS) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    chosen = loads(counts)
    found = measure([case for load in chosen for case in cases(load, bench)], bench)
    rows: list[dict[str, Any]] = []
    for load in chosen:
        for way in load.ways:
            name = f"{load.kind}/{load.entries}/{way.name}"
            figures, bare = found[name], found[f"{name}/restore"]
            row = {"list": load.kind, "count": load.entries, "way": way.name, **figures, "restore": bare}
            rows.append({**row, "times": ratio(figures["wall"]["median"], bare["wall"]["median"])})
    return {"rounds": bench.rounds, "rows": rows}


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted: growth from the second largest list to the largest, and its cost."""
    rows = {(row["way"], row["count"]): row for row in section["rows"] if row["list"] == SCATTERED}
    smaller, largest = sorted({count for _, count in rows})[-2:]
    found: list[Check] = []
    for way in dict.fromkeys(way for way, _ in rows):
        before, after = rows[way, smaller], rows[way, largest]
        growth = ratio(after["wall"]["median"], before["wall"]["median"])
        found.append(
            {
                "what": f"{way}: growth from {smaller:,} CIDRs to {largest:,}",
                "wanted": WANTED_GROWTH,
                "reached": growth,
                "unit": "times",
            }
        )
        found.append(
            {
                "what": f"{way}: apply of {largest:,} CIDRs",
                "wanted": WANTED_TIMES[way],
                "reached": after["times"],
                "unit": "times bare restore",
            }
        )
    return found
