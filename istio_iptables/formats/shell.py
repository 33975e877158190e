"""shell: a Ruleset as a shell script of iptables and ip commands, for people to read and run."""

from __future__ import annotations

from ..rules.model import FAMILIES, TABLES
from ..rules.ownership import is_owned
from . import IPTABLES
from .iptables_args import loadable_args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rules.model import Family, Ruleset, Table


def script(ruleset: Ruleset, families: Sequence[Family] = FAMILIES, *, explain: bool = False) -> str:
    """Return a shell script that puts the rules into a namespace that has no owned rules.

    With `explain` every rule has a comment line above it that says why it is there.
    """
    lines = ["#!/bin/sh", "set -e"]
    lines += [str(item) for item in ruleset.routing if item.family in families]
    for family in families:
        for name in TABLES:
            lines += _table_lines(ruleset.table(family, name), explain)
    return "".join(f"{line}\n" for line in lines)


def _table_lines(table: Table, explain: bool) -> Iterator[str]:
    command = f"{IPTABLES[table.family]} -t {table.name}"
    for chain in table.chains:
        if is_owned(chain):
            yield f"{command} -N {chain.name}"
    for chain in table.chains:
        for position, rule in enumerate(chain.in_order, start=1):
            where = f"-I {chain.name} {position}" if position <= len(chain.head) else f"-A {chain.name}"
            if explain:
                yield f"# {rule.reason}"
            yield f"{command} {where} {quoted(loadable_args(rule))}"


def quoted(args: Sequence[str]) -> str:
    """Join arguments so that a POSIX shell takes each as one argument."""
    import shlex

    return shlex.join(args)
