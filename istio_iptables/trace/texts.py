"""texts: which programs have printed a text, part by part.

Dumps of several programs may follow each other in one text, as in
`(iptables-save; nft -j list ruleset; ip rule) | istio-iptables trace ... --file -`. Each part keeps the
numbers of its lines: the lines of other parts are empty in it.
"""

from __future__ import annotations

from ..formats import ip_dump, iptables_dump
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    Program: TypeAlias = Literal["nft", "ipset", "iptables", "ip"]


class Part(Record):
    """What one program, or several runs of it, have printed. Nothing else prints what `ip` is taken for."""

    program: Program
    text: str


def parts(text: str) -> Iterator[Part]:
    """Yield the parts of a text that have something in them, those of nft first.

    What is not known as another program's is `iptables` if it has a table, else `ip`: their readers say what
    they cannot read.
    """
    if text[:1] == "{" and "\n" not in text.rstrip():
        yield Part("nft", text)  # all of it, as is usual: it need not be looked through
        return
    lines = text.split("\n")
    documents = list(_documents(text, lines))
    sets = [""] * len(lines)
    for first, last, document in documents:
        yield Part("nft", "\n" * first + document)
        lines[first : last + 1] = [""] * (last + 1 - first)
    in_table = False
    for number, line in enumerate(lines):
        if line.startswith("*"):
            in_table = True
        elif line.startswith("COMMIT"):
            in_table = False
        elif not in_table and line.startswith(("create ", "add ")):
            sets[number], lines[number] = line, ""
    if any(sets):
        yield Part("ipset", "\n".join(sets))
    rest = "\n".join(lines)
    if rest.strip():
        yield Part("iptables" if iptables_dump.is_dump(rest) else "ip", rest)


def _documents(text: str, lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the JSON objects that begin a line, as nft prints them, with their first and last lines from 0.

    One that is not complete goes on to the end of the text.
    """
    import json

    decoder = json.JSONDecoder()
    at, number, started = 0, 0, False  # white space may come before the first one
    while number < len(lines):
        line = lines[number]
        start = at + len(line) - len(line.lstrip())
        last = number
        is_nft = text.startswith("{", start) and (start == at or not started)
        if is_nft or ip_dump.BEGINS.match(text, start):
            try:
                _, end = decoder.raw_decode(text, start)
                last += text.count("\n", start, end)
            except ValueError:
                last = len(lines) - 1 if is_nft else number
            if is_nft:  # else it is of `ip -json`, whose objects may begin lines, too
                yield number, last, "\n".join(lines[number : last + 1])
        started = started or bool(line.strip())
        at += sum(len(each) + 1 for each in lines[number : last + 1])
        number = last + 1
