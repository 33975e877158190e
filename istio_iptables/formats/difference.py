"""difference: what a plan changes, as a coloured diff for people and as JSON for programs."""

from __future__ import annotations

from ..change.actions import (
    IPTABLES_LOCATIONS,
    IPTABLES_VARIANTS,
    NFTABLES,
    EditNative,
    EditTable,
    RemoveByHandle,
)
from ..change.plan import native_wanted
from ..rules.model import (
    FAMILIES,
    TABLES,
    Comment,
    Destination,
    InInterface,
    OutInterface,
    Source,
    Table,
    Transport,
)
from ..rules.ownership import owned
from ..startup.record import Record
from . import json as as_json
from .iptables_args import rule_args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from ..change.actions import Action, Live
    from ..change.plan import Plan
    from ..rules.model import Match, Rule
    from ..rules.nftables.model import NativeTable

_CONTEXT_LINES = 2
_COLOURS = {"-": "\x1b[31m", "+": "\x1b[32m", "@": "\x1b[36m"}
_PLAIN = "\x1b[0m"


class Difference(Record):
    """How one table, or the routing besides the rules, is and how it should be: lines of rules."""

    title: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def differences(plan: Plan) -> tuple[Difference, ...]:
    """Return what the actions of a plan change: the tables, and the routing besides them, that differ."""
    live, wanted, location = plan.live, plan.wanted, plan.location
    edited = {(a.location, a.edit.family, a.edit.table) for a in plan.actions if isinstance(a, EditTable)}
    found = []
    for where in IPTABLES_LOCATIONS:
        for family in FAMILIES:
            for name in TABLES:
                if (where, family, name) not in edited:
                    continue  # writing a long list out takes longer than comparing it did
                before = _lines(owned(live.table(where, family, name) or Table(family, name)))
                after = _lines(wanted.table(family, name)) if where == location else ()
                found.append(Difference(f"{family} {name} ({where})", before, after))
    found += _native_differences(live.native, native_wanted(live, wanted) if location == NFTABLES else ())
    routing = tuple(str(item) for item in sorted(live.routing, key=str))
    wanted_routing = tuple(str(item) for item in sorted(wanted.routing, key=str))
    found.append(Difference("addresses and routes", routing, wanted_routing))
    return tuple(difference for difference in found if difference.before != difference.after)


def _native_differences(
    before: tuple[NativeTable, ...], after: tuple[NativeTable, ...]
) -> Iterable[Difference]:
    if not before and not after:
        return
    from .nft import table_lines

    for name in dict.fromkeys(table.name for table in (*before, *after)):
        lines = [
            tuple(line for table in tables if table.name == name for line in table_lines(table))
            for tables in (before, after)
        ]
        yield Difference(f"inet {name} ({NFTABLES})", *lines)


def _lines(table: Table) -> tuple[str, ...]:
    """Return the rules of a table, chains by name, the same whichever program printed them."""
    return tuple(
        f"-A {chain.name} {' '.join(_sorted_args(rule))}"
        for chain in sorted(table.chains, key=lambda chain: chain.name)
        for rule in chain.in_order
    )


#: The matches that need no extension, in the order in which iptables-save prints them; extensions follow.
_BASIC_MATCHES: tuple[type[Match], ...] = (Source, Destination, InInterface, OutInterface, Transport)


def _sorted_args(rule: Rule) -> list[str]:
    def order(match: Match) -> tuple[int, str]:
        kind, others = type(match), len(_BASIC_MATCHES)
        if kind in _BASIC_MATCHES:
            return _BASIC_MATCHES.index(kind), repr(match)
        return others + (kind is Comment), repr(match)  # this tool writes the comment last

    return rule_args(rule.replace(matches=tuple(sorted(rule.matches, key=order))))


def text(plan: Plan, *, colour: bool = False) -> str:
    """Return a unified diff, one part a table: `-` is in place and not wanted, `+` wanted and missing."""
    lines = [line for part in differences(plan) for line in _part(part)]
    if colour:
        lines = [f"{_COLOURS[line[0]]}{line}{_PLAIN}" if line[0] in _COLOURS else line for line in lines]
    return "".join(f"{line}\n" for line in lines)


def _part(part: Difference) -> Iterator[str]:
    yield f"@ {part.title}"
    for line in _changes(part):
        if not line.startswith("@@"):
            yield line
        elif not line.startswith(("@@ -0,0 ", "@@ -1 ", "@@ -1,")):  # lines before it were left out
            yield "  ..."


def _changes(part: Difference) -> list[str]:
    """Return the lines that differ, with some around them; a rule that moved appears twice."""
    import difflib

    changes = difflib.unified_diff(part.before, part.after, lineterm="", n=_CONTEXT_LINES)
    return list(changes)[2:]  # the first two lines are file names


def json_text(plan: Plan, refused: str = "", verdicts: Mapping[str, Any] | None = None) -> str:
    """Return the difference as JSON: whether there is one, and the lines of each part.

    `refused` is why it could not be applied, nothing if it could. `verdicts` are the packets that it changes,
    if they were looked for.
    """
    parts = json_parts(plan)
    more = {**({"refused": refused} if refused else {}), **({"verdicts": verdicts} if verdicts else {})}
    return as_json.text({"differs": bool(parts), **more, "parts": parts})


def json_parts(plan: Plan) -> list[dict[str, Any]]:
    """Return the lines of each part that differs as JSON values."""
    return [
        {
            "part": part.title,
            "in_place": list(part.before),
            "wanted": list(part.after),
            "removed": [line[1:] for line in _changes(part) if line[0] == "-"],
            "added": [line[1:] for line in _changes(part) if line[0] == "+"],
        }
        for part in differences(plan)
    ]


def state_lines(live: Live) -> Iterator[str]:
    """Yield what is in place, foreign rules included, one line for each rule."""
    for location, tables in live.tables.items():
        for table in tables:
            for chain in table.chains:
                for rule in chain.rules:
                    where = f"{location} {table.family} {table.name}"
                    yield f"{where}: -A {chain.name} {' '.join(rule_args(rule))}"
    for native in live.native:
        from .nft import table_lines

        yield from (f"{NFTABLES} inet {native.name}: {line}" for line in table_lines(native))
    for item in live.routing:
        yield str(item)


def script(action: Action) -> str:
    """Return an action as a script for the command that could do it, which a comment names."""
    if isinstance(action, EditTable):
        from .iptables_restore import edit_script

        command = IPTABLES_VARIANTS[action.location].restore(action.edit.family)
        return f"# {action}: for {command} --noflush\n{edit_script(action.edit)}"
    if isinstance(action, EditNative):
        from .nft import edit_scripts

        scripts = edit_scripts(action.before, action.after, sets_first=action.replaces)
        return f"# {action}: for nft -f -\n" + "".join(scripts)
    if isinstance(action, RemoveByHandle):
        return f"# {action}: for nft -f -\n{action.script}"
    return f"# {action}\n"
