"""notices: what an operator has to know about rules in place that are foreign, or were left behind."""

from __future__ import annotations

from ..change.actions import IPTABLES_VARIANTS, EditTable, RemoveByHandle
from ..rules.edit import Delete
from ..rules.forms import versions_of
from ..rules.model import BUILTIN_CHAINS
from ..rules.ownership import is_owned_rule, owned
from .iptables_args import rule_args
from .iptables_restore import joined
from .shell import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..change.actions import Action, Live, Location
    from ..change.conflicts import Conflict
    from ..change.neighbours import Interference
    from ..rules.model import Family, Rule, Table, TableName


def conflict(found: Iterable[Conflict]) -> tuple[str, str]:
    """Return the cause and the remedy for conflicts, of which there is at least one."""
    found = tuple(found)
    ambient = [each.where for each in found if each.is_ambient]
    if ambient:
        return (
            f"Istio's ambient mode has rules in this network namespace ({', '.join(ambient)}): "
            "nothing here is owned by istio-iptables",
            "take the pod out of ambient mode (label istio.io/dataplane-mode: none), or do without a sidecar",
        )
    parts = "; ".join(_foreign_part(each) for each in found[:_MOST_NAMED])
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return (
        f"a chain with one of Istio's names has something foreign in it: {parts}{more}",
        "move it to a chain or table of another name, or delete it, then run again",
    )


#: As many foreign rules as one error names.
_MOST_NAMED = 5


def _foreign_part(each: Conflict) -> str:
    if each.rule is None:
        return f"{each.where}: {each.part}"
    if each.chain:
        return f"{each.where}: -A {each.chain} {' '.join(rule_args(each.rule))}"
    from .nft import rule_lines

    return f"{each.where}: {each.part} ({' '.join(map(str.strip, rule_lines(each.rule, counted=False)))})"


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


def leftovers(live: Live) -> Iterator[str]:
    """Yield a line for each rule that Istio's own tool left in a built-in chain, without a comment."""
    for location, tables in live.tables.items():
        for table in tables:
            for chain in (chain for chain in owned(table).chains if chain.name in BUILTIN_CHAINS):
                for rule in chain.rules:
                    if not is_owned_rule(rule):
                        who = f"Istio's own tool ({versions_of(table.name, chain.name, rule)})"
                        what = f"-A {chain.name} {' '.join(rule_args(rule))}"
                        yield (
                            f"{table.family} {table.name} ({location}): {who} has left {what}: "
                            "--reconcile takes it over, and cleanup removes it"
                        )


def unclaimed(location: Location, table: Table, chain: str, rule: Rule) -> str:
    """Return the warning about a rule that Istio's -c or -k may have left, with how to remove it."""
    command = IPTABLES_VARIANTS[location].commands[table.family]
    words = quoted(rule_args(rule))
    return (
        f"-A {chain} {words} ({table.family} {table.name}, {location}) keeps traffic from the proxy: "
        "Istio's own tool may have left it, or another program wrote it, so it stays; to remove it: "
        f"{command} -t {table.name} -D {chain} {words}"
    )


def neighbours(found: Iterable[Interference]) -> Iterator[str]:
    """Yield a warning about each foreign rule that keeps traffic from the proxy, or loses answers."""
    found = tuple(found)
    for each in found[:_MOST_NAMED]:
        yield ": ".join(neighbour(each))
    if len(found) > _MOST_NAMED:
        yield (
            f"{len(found) - _MOST_NAMED} more foreign rules of that kind are in place: "
            f"{', '.join(dict.fromkeys(each.where for each in found[_MOST_NAMED:]))}"
        )


def neighbour(each: Interference) -> tuple[str, str]:
    """Return what a foreign rule does to traffic, and what to do about it."""
    rule = each.rule
    words = rule if isinstance(rule, str) else joined(rule_args(rule))
    where = f"{each.where}, chain {each.chain}" if isinstance(rule, str) else each.where
    name = words if isinstance(rule, str) else f"-A {each.chain} {words}"
    return f"the foreign rule {name} ({where}) {_EFFECTS[each.effect](each)}", _remedy(each)


def _bypass(each: Interference) -> str:
    if each.certain:
        return f"comes before those of istio-iptables, so this bypasses the proxy: {_traffic(each)}"
    return (
        f"may come before those of istio-iptables, and this then bypasses the proxy: {_traffic(each)}; the "
        "kernel asks the nat chains that were made last first, and does not tell which were"
    )


def _traffic(each: Interference) -> str:
    more = f" and {len(each.traffic) - _MOST_NAMED} more" if len(each.traffic) > _MOST_NAMED else ""
    condition = " (if its other matches hold)" if each.vague else ""
    return "; ".join(each.traffic[:_MOST_NAMED]) + more + condition


_EFFECTS: Mapping[str, Callable[[Interference], str]] = {
    "bypass": _bypass,
    "address": lambda each: (
        "translates what TPROXY captures, so the proxy is told another destination than was dialled: "
        f"{_traffic(each)}"
    ),
    "answers": lambda each: (
        f"translates forwarded packets, and {_traffic(each)} for containers behind this network namespace "
        "gets no answers: they are looked up in conntrack zone 1, and the queries are in the default zone"
    ),
    "agent": lambda each: (
        f"sends to another port what the agent itself asks, and it gets no answers: {_traffic(each)}: they "
        "are in the default conntrack zone, and the queries are in zone 1"
    ),
}


def _remedy(each: Interference) -> str:
    if each.effect in ("answers", "agent"):
        return "use --dns-single-zone"
    if each.effect == "address":
        return "use REDIRECT, or exclude the port with --istio-local-exclude-ports"
    if each.same:
        return (
            "have its program make it after istio-iptables has run, or use another backend "
            "(--native-nftables, --force-iptables-binary)"
        )
    if each.certain:
        return "whatever is made first: remove it, or have its program leave that traffic out"
    return (
        "if it does, run `istio-iptables cleanup` and apply again once its program has made its rules, with "
        "--native-nftables unless that is on already"
    )
