"""difference: what a plan changes, as a coloured diff for people and as JSON for programs."""

from __future__ import annotations

from . import as_json
from .commands import ip_command
from .words import rule_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..plan import Difference, Live, Plan

_CONTEXT_LINES = 2
_COLOURS = {"-": "\x1b[31m", "+": "\x1b[32m", "@": "\x1b[36m"}
_PLAIN = "\x1b[0m"


def text(plan: Plan, *, colour: bool = False) -> str:
    """Return a unified diff, one part a table: `-` is in place and not wanted, `+` wanted and missing."""
    lines = [line for part in plan.differences for line in _part(part)]
    if colour:
        lines = [f"{_COLOURS[line[0]]}{line}{_PLAIN}" if line[0] in _COLOURS else line for line in lines]
    return "".join(f"{line}\n" for line in lines)


def _part(part: Difference) -> Iterator[str]:
    yield f"@ {part.title}"
    for line in _changes(part):
        if not line.startswith("@@"):
            yield line
        elif not line.startswith(("@@ -0,0 ", "@@ -1 ", "@@ -1,")):  # something has been left out before it
            yield "  ..."


def _changes(part: Difference) -> list[str]:
    """Return the lines that differ, a rule that moved twice, with some around them."""
    import difflib

    changes = difflib.unified_diff(part.before, part.after, lineterm="", n=_CONTEXT_LINES)
    return list(changes)[2:]  # the first two lines are file names


def json_text(plan: Plan) -> str:
    """Return the difference as JSON: whether there is one, and the lines of each part."""
    parts = [
        {
            "part": part.title,
            "in_place": list(part.before),
            "wanted": list(part.after),
            "removed": [line[1:] for line in _changes(part) if line[0] == "-"],
            "added": [line[1:] for line in _changes(part) if line[0] == "+"],
        }
        for part in plan.differences
    ]
    return as_json.text({"differs": bool(parts), "parts": parts})


def state_lines(live: Live) -> Iterator[str]:
    """Return what is in place, strangers' rules included, a line a rule."""
    for place, tables in live.tables.items():
        for table in tables:
            for chain in table.chains:
                for rule in chain.rules:
                    yield f"{place} {table.family} {table.name}: -A {chain.name} {' '.join(rule_words(rule))}"
    for native in live.native:
        from .nft import table_lines

        yield from (f"native inet {native.name}: {line}" for line in table_lines(native))
    for item in live.network:
        yield ip_command(item)
