"""merged: a program with fewer rules and the same meaning, for those that follow all packets at once.

Rules that follow each other, do the same and differ in the values of one field become one rule: a list of
twenty thousand CIDRs is then one condition, whose values were united once.
"""

from __future__ import annotations

from ..startup.record import Record
from .condition import Condition, In, numbers
from .program import Program, Rule, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Run(Record):
    """Rules that follow each other, do the same, and differ in the values of one field, as one rule.

    `differ` is the place of the statement in which they differ; None for one rule alone.
    """

    rule: Rule
    members: tuple[Rule, ...]
    differ: int | None = None


def merged(program: Program) -> Program:
    """Return the program; a rule that stands for several has the number and the text of the first.

    It is made once for each program.
    """
    made: dict[str, Program] = program.__dict__
    if "_merged" not in made:
        found = Program(tuple(_merged(table) for table in program.tables))
        found.__dict__["_merged"] = found
        made["_merged"] = found
    return made["_merged"]


def _merged(table: Table) -> Table:
    chains = {name: tuple(run.rule for run in runs(rules)) for name, rules in table.chains.items()}
    return table.replace(chains=chains)


def runs(rules: Sequence[Rule]) -> Iterator[Run]:
    """Yield the rules of a chain, those together that are one rule in a merged program."""
    run: list[Rule] = []
    at: int | None = None  #: the statement in which the rules of the run differ
    for rule in rules:
        differs = _difference(run[-1], rule) if run else None
        if differs is not None and at in (None, differs):
            at = differs
        else:
            if run:
                yield Run(_one(run, at), tuple(run), at)
            run, at = [], None
        run.append(rule)
    if run:
        yield Run(_one(run, at), tuple(run), at)


def _difference(one: Rule, other: Rule) -> int | None:
    """Return which statement of two rules differs, if it is one only, and both compare the same field."""
    if len(one.statements) != len(other.statements):
        return None
    found = [at for at, (a, b) in enumerate(zip(one.statements, other.statements, strict=True)) if a != b]
    if len(found) != 1:
        return None
    a, b = one.statements[found[0]], other.statements[found[0]]
    if not (isinstance(a, In) and isinstance(b, In) and a.field == b.field):
        return None
    # What stands before it must not do anything: it would be done to packets of all of them.
    return found[0] if all(isinstance(each, Condition) for each in one.statements[: found[0]]) else None


def _one(run: list[Rule], at: int | None) -> Rule:
    if at is None or len(run) == 1:
        return run[0]
    field = run[0].statements[at].field  # type: ignore[union-attr]  # an In, as just compared
    ranges = [each for rule in run for each in rule.statements[at].ranges]  # type: ignore[union-attr]
    statements = list(run[0].statements)
    statements[at] = numbers(field, ranges)
    return run[0].replace(statements=tuple(statements))
