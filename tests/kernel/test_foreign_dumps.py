"""Dumps of the rules that other programs write are read whole, and written again as they were.

The programs are real (tests/support/foreign_programs.py), each in a network namespace of its own.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator

import pytest

from istio_iptables.formats.iptables_args import rule_args
from istio_iptables.formats.iptables_compiled import compiled
from istio_iptables.formats.iptables_dump import Dump, read, written
from istio_iptables.formats.iptables_restore import joined, split_args
from istio_iptables.interpreter.iptables_sets import read as read_sets
from istio_iptables.interpreter.known import Known
from tests.support import foreign_programs
from tests.support.foreign_programs import FAMILIES, PROGRAMS, NotThereError, Program
from tests.support.meeting import NOT_MODELLED, not_modelled
from tests.support.netns import Namespace


@pytest.fixture(params=PROGRAMS, ids=str)
def written_by(request: pytest.FixtureRequest) -> Iterator[tuple[Program, Namespace]]:
    """A program, and a namespace in which it has written its rules."""
    program: Program = request.param
    if reason := program.why_not():
        pytest.skip(reason)
    try:
        with foreign_programs.run(program) as namespace:
            yield program, namespace
    except NotThereError as reason:
        pytest.skip(str(reason))


def test_the_rules_of_other_programs_are_read_and_written_again(written_by: tuple[Program, Namespace]):
    program, namespace = written_by
    rules = 0
    for family in FAMILIES:
        for options in ((), ("-c",)):
            text = foreign_programs.dump(namespace, program.variant, family, *options)
            dump = read(text)
            assert written(dump) == text
            assert dump.unread == ()
            assert {table.family for table in dump.tables} <= {family}
        rules += sum(len(table.rules) for table in dump.tables)
        known = Known(sets=read_sets(_sets(namespace)))
        assert set(not_modelled(compiled(dump, known))) <= NOT_MODELLED
        if dump.tables:
            assert _rewritten(dump, namespace, program.variant, family) == _words(text)
    assert rules >= 10


def _rewritten(dump: Dump, first: Namespace, variant: str, family: str) -> Counter[tuple[str, ...]]:
    """The words of the lines of a dump, after its typed rules were restored in another namespace."""
    lines: list[str] = []
    for table in dump.tables:
        lines.append(f"*{table.name}")
        lines += [f":{each.chain} {each.policy} [0:0]" for each in table.declarations]
        lines += [joined(["-A", line.chain, *rule_args(line.rule)]) for line in table.rules]
        lines.append("COMMIT")
    with Namespace("r") as second:
        if sets := _sets(first):
            second.run(["ipset", "restore"], stdin=sets)
        command = "iptables" if family == "ipv4" else "ip6tables"
        second.run([f"{command}-{variant}-restore"], stdin="".join(f"{line}\n" for line in lines))
        return _words(foreign_programs.dump(second, variant, family))


def _sets(namespace: Namespace) -> str:
    return namespace.run(["ipset", "save"]).stdout if shutil.which("ipset") else ""


def _words(text: str) -> Counter[tuple[str, ...]]:
    """The lines of a dump, without comments and counters; the matches of a rule may be in any order."""
    lines = [re.sub(r"\[\d+:\d+\]", "", line) for line in text.splitlines() if not line.startswith("#")]
    return Counter(tuple(sorted(split_args(line))) for line in lines)
