"""The generated parts of docs/benchmarks.md and docs/scale.md: what stands between two markers.

<!-- begin: NAME (written by `make bench`) -->
<!-- end: NAME -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from . import scale, tables
from .place import ROOT, hand_over
from .tables import Results

BENCHMARKS, SCALE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "scale.md"
#: The results that both documents show, for programs, and for writing the documents anew.
RESULTS = ROOT / "docs" / "benchmarks.json"

PARTS: dict[str, Callable[[Results], str]] = {
    "machine": tables.machine,
    "checks": tables.checks,
    **{name: partial(tables.section, name) for name in tables.SECTIONS},
    "inputs": scale.inputs,
    "outcome": scale.outcome,
}
_BLOCK = re.compile(r"(<!-- begin: (\S+)[^\n]* -->\n)(.*?)(<!-- end: (\S+) -->\n)", re.DOTALL)


class Broken(Exception):
    """A document's markers are not as they should be."""


def fill(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Return a document with everything between its markers replaced. Raises Broken."""

    def block(found: re.Match[str]) -> str:
        begin, name, _, end, closed = found.groups()
        if name != closed or name not in parts:
            raise Broken(f"the part {name!r} ends as {closed!r}, or there is no such part")
        return f"{begin}\n{parts[name]()}\n\n{end}"

    filled, count = _BLOCK.subn(block, text)
    if not count or count != text.count("<!-- begin:") or count != text.count("<!-- end:"):
        raise Broken("a marker has no partner, or there is none")
    return filled


def written(path: Path, results: Results) -> str:
    """Return what a document says with these results. Raises Broken."""
    parts = {name: partial(show, results) for name, show in PARTS.items()}
    return fill(path.read_text(), parts)


def as_json(results: Results) -> str:
    """Return results as JSON, numbers as exactly as anybody needs them."""
    return f"{json.dumps(_rounded(results), indent=1)}\n"


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return value


def write(results: Results) -> None:
    """Write the documents anew, and the results beside them. Raises Broken, having written nothing."""
    # What is shown is what the file says, not what was rounded away.
    exact = json.loads(as_json(results))
    texts = {path: written(path, exact) for path in (BENCHMARKS, SCALE)}
    for path, text in {**texts, RESULTS: as_json(exact)}.items():
        path.write_text(text)
        hand_over(path)
