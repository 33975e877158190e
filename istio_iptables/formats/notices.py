"""notices: what an operator has to know about rules in place that are foreign, or were left behind."""

from __future__ import annotations

from ..change.actions import EditTable, RemoveByHandle
from ..rules.edit import Delete
from ..rules.forms import versions_of
from ..rules.model import BUILTIN_CHAINS, IPV4
from ..rules.ownership import is_owned_rule, owned
from . import IPTABLES
from .iptables_args import rule_args
from .shell import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..change.actions import Action, Location
    from ..change.conflicts import Conflict
    from ..rules.model import Family, Rule, Table, TableName


def conflict(found: Iterable[Conflict]) -> tuple[str, str]:
    """Return the cause and the remedy for conflicts, of which there is at least one."""
    found = tuple(found)
    ambient = [each.where for each in found if each.is_ambient]
    if ambient:
        return (
            f"Istio's ambient mode has rules in this network namespace ({', '.join(ambient)}): "
            "nothing here is owned by istio-iptables, and nothing was changed",
            "take the pod out of ambient mode (label istio.io/dataplane-mode: none), or do without a sidecar",
        )
    parts = "; ".join(_foreign_part(each) for each in found[:_MOST_NAMED])
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return (
        f"a chain with one of Istio's names has something foreign in it: {parts}{more}: nothing was changed",
        "move it to a chain or table of another name, or delete it, then run again",
    )


#: As many foreign rules as one error names.
_MOST_NAMED = 5


def _foreign_part(each: Conflict) -> str:
    if each.rule is not None:
        return f"{each.where}: -A {each.chain} {' '.join(rule_args(each.rule))}"
    return f"{each.where}: {each.part}"


def taken_over(actions: Iterable[Action]) -> Iterator[str]:
    """Yield a line for each rule that Istio's tools left without a comment and that the actions remove."""
    for action in actions:
        if isinstance(action, EditTable):
            edit = action.edit
            for step in edit.steps:
                if isinstance(step, Delete) and step.chain in BUILTIN_CHAINS and not is_owned_rule(step.rule):
                    yield _left(action.location, edit.family, edit.table, step.chain, step.rule)
        elif isinstance(action, RemoveByHandle):
            for part in (table.part for table in action.tables if table.part):
                for chain in (chain for chain in owned(part).chains if chain.name in BUILTIN_CHAINS):
                    for rule in chain.rules:
                        if not is_owned_rule(rule):
                            yield _left(action.location, part.family, part.name, chain.name, rule)


def _left(location: Location, family: Family, table: TableName, chain: str, rule: Rule) -> str:
    return (
        f"{family} {table} ({location}): remove a rule that Istio's own tool "
        f"({versions_of(table, chain, rule)}) has left: -A {chain} {' '.join(rule_args(rule))}"
    )


def unclaimed(location: Location, table: Table, chain: str, rule: Rule) -> str:
    """Return the warning about a rule that Istio's -c or -k may have left, with how to remove it."""
    command = location.replace(IPTABLES[IPV4], IPTABLES[table.family])
    words = quoted(rule_args(rule))
    return (
        f"-A {chain} {words} ({table.family} {table.name}, {location}) keeps traffic from the proxy: "
        "Istio's own tool may have left it, or another program wrote it, so it stays; to remove it: "
        f"{command} -t {table.name} -D {chain} {words}"
    )
