"""iptables_restore: the format of iptables-restore(8) and iptables-save(8).

An edit is written as a script for `iptables-restore --noflush`; a whole rule set is written as the
edit from an empty table, so what is shown is what is applied. What iptables-save prints is read.
"""

from __future__ import annotations

from ..rules.edit import CreateChain, Insert, RemoveChain, ReplaceRules, edit_between
from ..rules.model import TABLES, Chain, Counters, Rule, Table
from .iptables_args import loadable_args, matches_and_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rules.edit import Step, TableEdit
    from ..rules.model import Family, Ruleset


def script(ruleset: Ruleset, family: Family, *, explain: bool = False) -> str:
    """Return the script that puts the rules of one family into a namespace that has no owned rules.

    With `explain` every rule has a comment line above it that says why it is there.
    """
    return "".join(
        edit_script(edit_between(Table(family, name), ruleset.table(family, name)), explain=explain)
        for name in TABLES
        if not ruleset.table(family, name).is_empty
    )


def edit_script(edit: TableEdit, *, explain: bool = False) -> str:
    """Return the script, for `iptables-restore --noflush --counters`, that makes an edit."""
    lines = [line for step in edit.steps for line in _lines(step, explain)]
    return "".join(f"{line}\n" for line in (f"*{edit.table}", *lines, "COMMIT"))


def _lines(step: Step, explain: bool) -> Iterator[str]:
    if isinstance(step, CreateChain):
        yield f":{step.chain} - [0:0]"
    elif isinstance(step, RemoveChain):
        yield f"-X {step.chain}"
    elif isinstance(step, ReplaceRules):
        if step.before:
            yield f"-F {step.chain}"
        for rule in step.after:
            if explain:
                yield f"# {rule.reason}"
            yield _counted(rule, f"-A {step.chain} {_specification(rule)}")
    elif isinstance(step, Insert):
        if explain:
            yield f"# {step.rule.reason}"
        where = f"-A {step.chain}" if step.last else f"-I {step.chain} {step.position}"
        yield _counted(step.rule, f"{where} {_specification(step.rule)}")
    elif step.first:
        # By its arguments, not by its number: with nft, others may write between reading and this.
        yield f"-D {step.chain} {_specification(step.rule)}"
    else:
        yield f"-D {step.chain} {step.position}"


def _counted(rule: Rule, line: str) -> str:
    if not rule.counters.packets:
        return line
    return f"[{rule.counters.packets}:{rule.counters.bytes}] {line}"


def _specification(rule: Rule) -> str:
    return joined(loadable_args(rule))


#: The characters that need no quotes in an argument of iptables-restore.
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.,:/+!@%*=")
_PLAIN_LINE = _PLAIN | {" "}


def joined(args: Sequence[str]) -> str:
    """Join the arguments of a rule as iptables-save prints them."""
    line = " ".join(args)
    if _PLAIN_LINE.issuperset(line) and line.count(" ") == len(args) - 1 and "" not in args:
        return line
    return " ".join(map(_quoted, args))


def _quoted(arg: str) -> str:
    """Quote an argument as iptables-restore takes it: in double quotes, with a backslash before both."""
    if arg and _PLAIN.issuperset(arg):
        return arg
    return '"' + arg.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- reading --------------------------------------------------------------------------------


def parse(text: str, family: Family) -> tuple[Table, ...]:
    """Read what iptables-save prints, with or without counters: the tables that this tool uses.

    Lines that are not rules of these tables are ignored.
    """
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] | None = None
    for line in text.split("\n"):
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif chains is None:
            continue
        elif line.startswith(":"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith(("-A ", "[")):
            name = line[line.index("-A ") + 3 :].split(" ", 1)[0]
            chains.setdefault(name, []).append(line)
    return tuple(
        Table(
            family,
            name,
            tuple(
                Chain(chain, tuple(_rule(line, tables[name]) for line in lines))
                for chain, lines in tables[name].items()
            ),
        )
        for name in TABLES
        if name in tables
    )


def _rule(line: str, chains: dict[str, list[str]]) -> Rule:
    counters = Counters()
    if line.startswith("["):
        packets, _, size = line[1 : line.index("]")].partition(":")
        counters = Counters(int(packets), int(size))
        line = line[line.index("]") + 2 :]
    matches, target = matches_and_target(split_args(line)[2:], chains)
    return Rule(matches, target, counters=counters)


def split_args(line: str) -> list[str]:
    """Split a line of iptables-save into arguments at blanks, but not within double quotes."""
    if '"' not in line:
        return line.split()
    args: list[str] = []
    word: list[str] = []
    quoted = escaped = started = False
    for character in line:
        if escaped:
            word.append(character)
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"' and (
            quoted or not started
        ):  # inside an argument, an interface's name, it is no quote
            quoted, started = not quoted, True
        elif character == " " and not quoted:
            if started:
                args.append("".join(word))
            word, started = [], False
        else:
            word.append(character)
            started = True
    return [*args, "".join(word)] if started else args
