"""status_watch: `status --watch`: look again and again, until Ctrl-C.

On a terminal rich shows the rules that have counted something, with their rates; where rich is not installed,
or the terminal is a simple one, each change is a line. In a pipe, and with --json, a line is a JSON object.
"""

from __future__ import annotations

import gc
import sys
import time

from ..errors import KernelError
from ..startup.c_modules import signal
from ..status.changes import changes
from ..visible import visible
from . import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any

    from ..status.changes import Change
    from ..status.report import CountedRule, Status

    #: A look: what was found, what has counted since the look before (None if the rules are not the same),
    #: and the seconds between both.
    Look = tuple[Status, list[Change] | None, float]


class _Terminated(Exception):
    """SIGTERM: the terminal has to be left as it was found."""


def watch(look: Callable[[], Status], seconds: float, *, as_json: bool) -> int:
    """Look every so many seconds and show what has changed. Ctrl-C is how it ends: exit code 0."""
    gc.enable()  # this process stays
    signal.signal(signal.SIGTERM, _terminate)
    looks = _looks(look, seconds)
    try:
        if as_json or not sys.stdout.isatty():
            _write_json_lines(looks)
        elif streams.is_styled() and (live := _rich_live()):
            _show(looks, live, seconds)
        else:
            _write_lines(looks)
    except KeyboardInterrupt:
        return 0
    except _Terminated:
        return 128 + signal.SIGTERM
    return 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _looks(look: Callable[[], Status], seconds: float) -> Iterator[Look]:
    found, at = look(), time.monotonic()
    yield found, None, 0.0
    while True:
        _wait(seconds)
        before, before_at = found, at
        found, at = _look_again(look), time.monotonic()
        yield found, changes(before, found), at - before_at


def _look_again(look: Callable[[], Status]) -> Status:
    """Look; once more if it fails, since a table may go away between being listed and being printed."""
    try:
        return look()
    except KernelError:
        return look()


def _wait(seconds: float) -> None:
    """Wait; raise BrokenPipeError as soon as the reader of standard output is gone.

    A write would find that out, but while nothing changes nothing is written.
    """
    import select

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are reported whether they are asked for or not (poll(2))
    if poll.poll(seconds * 1000):
        raise BrokenPipeError


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- JSON lines, and lines ----------------------------------------------------------------------


def _write_json_lines(looks: Iterator[Look]) -> None:
    import json

    from ..status.document import document

    for found, changed, seconds in looks:
        values: dict[str, Any] | None = None
        if changed is None:
            values = {"type": "status", "time": _now(), **document(found)}
        elif changed:
            rules = [change.as_dict() for change in changed]
            values = {"type": "counters", "time": _now(), "seconds": round(seconds, 3), "rules": rules}
        if values:
            streams.write(f"{json.dumps(values)}\n")


def _write_lines(looks: Iterator[Look]) -> None:
    from ..status.text import shortened, text

    for found, changed, _ in looks:
        if changed is None:
            streams.write(f"{_now()}\n{text(found)}")
        for change in changed or ():
            where = f"{change.family} {change.table} {change.chain}"
            counted = f"+{change.packets_added} ({change.packets})"
            streams.write(f"{_now()}  {counted:<16}  {where}  {shortened(change.rule)}\n")


# --- rich ---------------------------------------------------------------------------------------


#: From this width of the terminal on there is room for the reasons beside the rules.
_WIDE = 110


def _rich_live() -> Any:
    """Return rich's live display, None without rich, which comes with Typer but is not declared there."""
    try:
        from rich.live import Live
    except ImportError:
        return None
    # A screen of its own: resizing leaves nothing behind, and what was on the terminal comes back.
    return Live(screen=True, auto_refresh=False)


def _show(looks: Iterator[Look], live: Any, interval: float) -> None:
    with live:
        for found, changed, seconds in looks:
            has_room = live.console.width >= _WIDE
            live.update(_view(found, changed or [], seconds, interval, has_room), refresh=True)


def _view(found: Status, changed: list[Change], seconds: float, interval: float, has_room: bool) -> Any:
    from rich.console import Group
    from rich.text import Text

    from ..status.text import summary

    lines = [Text(visible(line), no_wrap=True, overflow="ellipsis") for line in summary(found)]
    end = f"{_now()}, every {interval:g} s; nat counts the first packet of a connection; Ctrl-C ends it"
    return Group(*lines, Text(), _table(found, changed, seconds, has_room), Text(), _text(end, "dim"))


def _table(found: Status, changed: list[Change], seconds: float, has_room: bool) -> Any:
    """Return the rules that have counted something, by chain, as a table; reasons if there is room."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True)
    for name in ("PACKETS", "BYTES", "PER SECOND"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("RULE", "WHY IT IS THERE") if has_room else ("RULE",):
        table.add_column(name, ratio=1, no_wrap=True, overflow="ellipsis")
    columns = len(table.columns)
    gained = {(c.location, c.family, c.table, c.chain, c.number): c.packets_added for c in changed}
    idle = 0
    for where, rules in _chains(found):
        counting = [rule for rule in rules if rule.rule.counters.packets]
        idle += len(rules) - len(counting)
        if counting:
            table.add_row("", "", "", _text(" ".join(where[1:]), "bold"))
        for rule in counting:
            added = gained.get((*where, rule.number), 0)
            table.add_row(*list(_row(rule, added / seconds if seconds else 0.0))[:columns])
    table.add_row("", "", "", _text(f"({idle} more rules, which have counted nothing)", "dim"))
    return table


def _chains(found: Status) -> Iterator[tuple[tuple[str, str, str, str], tuple[CountedRule, ...]]]:
    for place in found.places:
        for table in place.tables:
            for chain in table.chains:
                yield (place.location, table.family, table.name, chain.name), chain.rules


def _row(rule: CountedRule, rate: float) -> Iterator[Any]:
    from ..status.text import shortened

    style = "bold" if rate else ""
    for number in (rule.rule.counters.packets, rule.rule.counters.bytes):
        yield _text(str(number), style)
    yield _text(f"{rate:.1f}" if rate else "", style)
    yield _text(shortened(rule.words), style)
    yield _text(rule.reason, style)


def _text(text: str, style: str = "") -> Any:
    """Return a text of rich; a plain one could be taken for markup, as `[` begins it.

    rich writes to the terminal by itself, and leaves escape sequences as they are.
    """
    from rich.text import Text

    return Text(visible(text), style=style)
