"""nft_statements: what the statements of nf_tables' rules mean, as libnftables-json(5) has them.

A rule is a sequence of conditions and actions. What is not modelled is Unmodelled where it may end the rule,
Unknown where it may end the packet's way, and both where neither is known.
Sources: nft(8), STATEMENTS; nf_tables_core.c, nft_dynset.c, nft_nat.c, nft_redir.c, nft_flow_offload.c.
"""

from __future__ import annotations

from . import action as actions
from . import nft_nat
from .condition import ALWAYS, AllOf, Condition, Unmodelled, any_of, negated
from .iptables_targets import ONLY_NOTES
from .nft_fields import NativeScope, operand
from .nft_maps import branches, choose
from .nft_marks import mark_change
from .nft_values import CATCH_ALL, UnreadError, fitting, members
from .nft_words import statement as words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeAlias

    from .action import Action

    Steps: TypeAlias = Iterable[Condition | Action]

#: What reading something that no version of nft is known to print may raise.
_MISFITS = (UnreadError, StopIteration, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def steps_of(statements: Iterable[Any], scope: NativeScope) -> tuple[Condition | Action, ...]:
    """Return what the statements of a rule mean, in order."""
    found: list[Condition | Action] = []
    since = 0  # where the conditions begin that no action has followed
    for each in statements:
        for step in _steps(each, scope):
            for part in _parts(step):
                if not isinstance(part, Condition):
                    found.append(part)
                    since = since if isinstance(part, actions.Pass) else len(found)
                elif part not in found[since:]:  # both may need the same protocol
                    found.append(part)
    return tuple(found)


def _parts(step: Condition | Action) -> Iterator[Condition | Action]:
    if isinstance(step, AllOf) and not step.about:
        for part in step.parts:
            yield from _parts(part)
    else:
        yield step


def _steps(value: Any, scope: NativeScope) -> Steps:
    why = words(value)
    if not isinstance(value, dict) or not value:  # null is what nft could not express
        return (Unmodelled(why), actions.Unknown(why))
    [(kind, inner), *_] = value.items()
    read = _STATEMENTS.get(kind)
    if read is None:
        return (Unmodelled(why), actions.Unknown(why))
    try:
        return tuple(read(inner, scope, why))
    except _MISFITS:
        return (Unmodelled(why),) if kind in _CONDITIONS else (actions.Unknown(why),)


# --- conditions -------------------------------------------------------------------------------


def _match(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    left = operand(inner["left"], scope)
    try:
        return (*left.needs, _compared(left, inner["op"], inner["right"], scope))
    except _MISFITS:
        return (*left.needs, Unmodelled(why))


def _compared(left: Any, operator: str, right: Any, scope: NativeScope) -> Condition:
    if operator == "in":
        condition: Condition = left.has_bits(right)
        return condition
    if operator == "!":
        return negated(left.has_bits(right))
    if operator not in ("==", "!="):
        condition = left.compared(operator, right)
        return condition
    return negated(_equal(left, right, scope), operator == "!=")


def _equal(left: Any, right: Any, scope: NativeScope) -> Condition:
    is_name = isinstance(right, str) and right[1:] not in scope.sets  # of an interface, such as @if5
    found = None if is_name else members(right, scope.sets)
    if found is None:
        condition: Condition = left.equal(right)
        return condition
    if any(each.value == CATCH_ALL and not each.also for each in found):
        return ALWAYS
    condition = left.one_of(found)
    return condition


def _unmodelled(_: Any, __: NativeScope, why: str) -> Steps:
    return (Unmodelled(why),)


def _update(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    """Adding to a set changes nothing for the packet, unless statements of the element refuse it.

    Old versions of nft do not print these.
    """
    keys = [_bare(inner[name]) for name in ("elem", "data") if name in inner]
    for key in keys:
        if isinstance(key, dict):
            yield from operand(key, scope).needs
    may_refuse = inner.get("stmt") or not scope.prints_all
    yield Unmodelled(why) if may_refuse else actions.Pass(why)


def _bare(element: Any) -> Any:
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _meter(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    yield from operand(_bare(inner["key"]), scope).needs
    yield Unmodelled(why)


def _object(inner: Any, scope: NativeScope, why: str) -> Steps:
    """An object, such as a counter, by its name or by a map of names; none in the map ends the rule."""
    if isinstance(inner, dict) and "map" in inner:
        needs, found = branches(inner, scope)
        yield from needs
        yield any_of(condition for condition, _ in found)
    yield actions.Pass(why)


# --- verdicts ---------------------------------------------------------------------------------


def verdict(value: Any) -> Action:
    """Return what a verdict does. Raises UnreadError."""
    if not isinstance(value, dict) or len(value) != 1:
        raise UnreadError(value)
    [(kind, inner)] = value.items()
    if kind in ("jump", "goto"):
        return actions.Call(inner["target"], kind == "goto")
    if kind not in _VERDICTS:
        raise UnreadError(value)
    return _VERDICTS[kind]


_VERDICTS: Mapping[str, Action] = {
    "accept": actions.End("accept"),
    "drop": actions.End("drop"),
    "return": actions.Return(),
    "continue": actions.Pass("continue"),
}


def _verdict(kind: str) -> Callable[[Any, NativeScope, str], Steps]:
    return lambda inner, _, __: (verdict({kind: inner}),)


def _verdict_map(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    needs, found = branches({"map": inner}, scope)
    return (*needs, choose([(condition, verdict(data)) for condition, data in found], always=False))


# --- what changes packets ---------------------------------------------------------------------


def _mangle(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    key = inner["key"]
    [(kind, what)] = key.items()
    if kind in ("meta", "ct") and what["key"] == "mark" and "dir" not in what:
        return mark_change("mark" if kind == "meta" else "connection_mark", inner["value"], scope)
    if kind == "ct" and what["key"] == "zone":
        needs, found = branches(inner["value"], scope)
        zones = [(condition, _zone(fitting(data, 16), what.get("dir", ""))) for condition, data in found]
        return (*needs, choose(zones))
    of_payload = kind == "payload" and what.get("field") not in ("saddr", "daddr", "sport", "dport")
    harmless = of_payload or kind in _HARMLESS or (kind in ("meta", "ct") and what["key"] in _UNSEEN)
    return (actions.Pass(why) if harmless else actions.Unknown(why),)


def _zone(number_: int, direction: str) -> Action:
    zones: tuple[int, int | None] = (
        (0, number_) if direction == "reply" else (number_, 0 if direction else None)
    )
    return actions.Zone(*zones, tracks_again=True)


#: Keys of meta and ct that can be set and that change nothing for the packet's way.
_UNSEEN = frozenset({"priority", "nftrace", "helper", "event", "label", "secmark"})
_HARMLESS = frozenset({"tcp option", "ip option", "exthdr"})


def _tproxy(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    """Without a port it is that of the packet."""
    needs, found = nft_nat.targets(inner, scope)
    ports = [
        (condition, actions.TProxy(0 if data is None else fitting(data, 16), accepts=False))
        for condition, data in found
    ]
    return (*nft_nat.TRANSPORT, *needs, choose(ports))


def _nothing(_: Any, __: NativeScope, why: str) -> Steps:
    return (actions.Pass(why),)


def _unknown(_: Any, __: NativeScope, why: str) -> Steps:
    return (actions.Unknown(why),)


def _xt(inner: Mapping[str, Any] | None, _: NativeScope, why: str) -> Steps:
    """A match or target of iptables, by its name alone (iptables-extensions(8)); old versions have none."""
    if inner is None:
        return (Unmodelled(why), actions.Unknown(why))
    kind, name = inner["type"], inner["name"]
    if name in _XT:
        return (_XT[name],)
    if kind == "match":
        return () if name == "comment" else (Unmodelled(why),)
    return (actions.Pass(why) if kind == "watcher" or name in ONLY_NOTES else actions.Unknown(why),)


#: Targets of iptables that do the same whatever their options.
_XT: Mapping[str, Action] = {
    "REJECT": actions.End("reject"),
    "MASQUERADE": actions.Source("masquerade"),
    "SNAT": actions.Source("snat"),
    "NOTRACK": actions.Untrack(),
}
#: Statements that may only end the rule.
_CONDITIONS = frozenset({"match", "meter", "limit", "quota", "ct count", "flow", "set", "map"})
_STATEMENTS: Mapping[str, Callable[[Any, NativeScope, str], Steps]] = {
    "match": _match,
    **{kind: _verdict(kind) for kind in ("accept", "drop", "return", "continue", "jump", "goto")},
    "vmap": _verdict_map,
    "mangle": _mangle,
    "dnat": nft_nat.destination,
    "redirect": nft_nat.redirect,
    "snat": nft_nat.source,
    "masquerade": nft_nat.masquerade,
    "tproxy": _tproxy,
    "notrack": lambda _, __, ___: (actions.Untrack(),),
    "reject": lambda _, __, ___: (actions.End("reject"),),
    "set": _update,
    "map": _update,
    "meter": _meter,
    # A flow that cannot be offloaded, as when it is new, ends the rule.
    **dict.fromkeys(("limit", "quota", "ct count", "flow"), _unmodelled),
    **dict.fromkeys(("counter", "ct helper", "ct timeout", "ct expectation", "secmark"), _object),
    **dict.fromkeys(("log", "last", "dup", "reset"), _nothing),
    **dict.fromkeys(("queue", "fwd", "synproxy"), _unknown),
    "xt": _xt,
}
