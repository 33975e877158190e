"""nft_json: what `nft --json list table` prints, as the typed table that it is.

The schema is that of libnftables-json(5). What this tool never writes becomes a ForeignMatch or
ForeignTarget that holds what nft printed, so that it equals nothing that this tool writes. Protocols,
states and marks may be names or, as `nft --numeric` prints them, numbers.
"""

from __future__ import annotations

import json
import socket

from ..rules import model
from ..rules.lists import union
from ..rules.model import Counters, Rule
from ..rules.nftables import model as nftables
from ..rules.nftables.model import Hook, NativeChain, NativeTable
from . import NFT_FAMILIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from ..rules.model import Family, Match, Protocol, Target
    from ..rules.nftables.model import Direction, Ranges

    Object = Mapping[str, Any]


class _Unknown(Exception):
    """Something that this tool never writes."""


def parse(text: str) -> NativeTable:
    """Return the one table in what nft printed. Raises ValueError if that is not JSON of a table."""
    try:
        return table_of(json.loads(text)["nftables"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not the JSON of a table: {error!r}") from error


def table_of(found: Iterable[Object]) -> NativeTable:
    """Return the one table among the objects that nft printed: each is a mapping of its kind to what it is.

    Raises ValueError, LookupError, TypeError or AttributeError if these are not the objects of one table.
    """
    objects = [(kind, value) for item in found for kind, value in item.items()]
    tables = [value for kind, value in objects if kind == "table"]
    if len(tables) != 1:
        raise ValueError(f"{len(tables)} tables where one was asked for")
    sets = {value["name"]: value["elem"] for kind, value in objects if kind == "set" and _is_owned_set(value)}
    rules: dict[str, list[Rule]] = {}
    for kind, value in objects:
        if kind == "rule":
            rules.setdefault(value["chain"], []).append(_rule(value, sets))
    chains = [
        NativeChain(value["name"], _hook(value), tuple(rules.get(value["name"], ())))
        for kind, value in objects
        if kind == "chain"
    ]
    table = NativeTable(tables[0]["name"], tuple(chains), tuple(_extras(tables[0], objects, sets)))
    return table.replace(unused=tuple(sorted(sets.keys() - table.set_names())))


def _extras(table: Object, objects: list[tuple[str, Any]], sets: Object) -> Iterator[str]:
    flags = table.get("flags", [])
    for flag in [flags] if isinstance(flags, str) else flags:
        yield f"flags {flag}"
    for kind, value in objects:
        if kind not in ("metainfo", "table", "chain", "rule") and not (
            kind == "set" and value["name"] in sets
        ):
            yield f"{kind} {value.get('name', '')}".strip()


def _is_owned_set(value: Object) -> bool:
    """Tell whether a set is one that this tool makes: its name is made from its content."""
    key = _KEYS.get(value["type"]) if isinstance(value["type"], str) else None
    if key is None or set(value) != _SET_PARTS or value["flags"] not in ("interval", ["interval"]):
        return False
    try:
        match = _MATCH[key]({"set": value["elem"]}, False)
    except _MISFITS:
        return False
    return (
        isinstance(match, (nftables.Addresses, nftables.Ports, nftables.Owners))
        and nftables.set_name(match) == value["name"]
    )


_SET_PARTS = {"family", "name", "table", "type", "handle", "flags", "elem"}
#: A match that has values of a set's type.
_KEYS = {
    "inet_service": "tcp dport",
    "ipv4_addr": "ip daddr",
    "ipv6_addr": "ip6 daddr",
    "uid": "meta skuid",
    "gid": "meta skgid",
}


def _hook(chain: Object) -> Hook | None:
    if "hook" not in chain:
        return None
    return Hook(chain["type"], chain["hook"], chain["prio"], chain.get("policy", "accept"))


# --- rules ------------------------------------------------------------------------------------


def _rule(rule: Object, sets: Object) -> Rule:
    statements: list[Object] = rule["expr"]
    conditions = [statement for statement in statements if _is_condition(statement)]
    effects = [statement for statement in statements if not _is_condition(statement)]
    comment = _comment(rule.get("comment", ""))
    if statements != conditions + effects:  # it does something whether or not the later matches hold
        return Rule(tuple(comment), _foreign(statements))
    matches = [_match(statement, sets) for statement in conditions]
    ports = {match.protocol for match in matches if isinstance(match, nftables.Ports)}
    matches = [m for m in matches if not (isinstance(m, model.Transport) and m.protocol in ports)]
    try:
        counters, target = _effects(effects)
    except _MISFITS:
        counters, target = Counters(), _foreign(effects)
    return Rule((*matches, *comment), target, counters=counters)


def match_of(statement: Object) -> Match:
    """Return a match as nft prints it; one that this tool never writes, or a named set, is a ForeignMatch."""
    return _match(statement, {})


def _comment(text: str) -> list[Match]:
    if '"' in text:  # another program wrote it: nft could not write it again
        return [model.ForeignMatch((json.dumps({"comment": text}),))]
    return [model.Comment(text)] if text else []


def _is_condition(statement: Any) -> bool:
    return isinstance(statement, dict) and "match" in statement  # what nft cannot express is null


#: The errors that reading something that this tool never writes may raise.
_MISFITS = (_Unknown, StopIteration, LookupError, TypeError, ValueError, AttributeError, OSError)


def _foreign(statements: list[Object]) -> model.ForeignTarget:
    return model.ForeignTarget(tuple(json.dumps(statement) for statement in statements))


def _effects(statements: list[Object]) -> tuple[Counters, Target]:
    """Return what a rule counts and what it does; the counter comes first in every rule of this tool."""
    counter, *rest = statements
    value = counter["counter"]
    return Counters(_number(value["packets"]), _number(value["bytes"])), _target(rest)


def _match(statement: Object, sets: Object) -> Match:
    match = statement["match"]
    try:
        [(kind, left)] = match["left"].items()
        key = f"{left['protocol']} {left['field']}" if kind == "payload" else f"{kind} {left['key']}"
        if set(left) - {"protocol", "field", "key"} or match["op"] != _USUAL.get(key, match["op"]):
            raise _Unknown
        right = match["right"]
        if isinstance(right, str) and right.startswith("@") and not key.endswith("ifname"):
            right = {"set": sets[right[1:]]}
        return _MATCH[key](right, _IS_NEGATED[match["op"]])
    except _MISFITS:
        return model.ForeignMatch((json.dumps(statement),))


#: Operators, and whether they negate. `in` is one of several bits.
_IS_NEGATED = {"==": False, "in": False, "!=": True}
#: Keys that this tool uses with one operator only: a state out of a list (`==` would mean all of them).
_USUAL = {"ct state": "in", "meta nfproto": "=="}


def _ranges(value: Any, number: Callable[[Any], int], bits: int) -> Ranges:
    """Return a value, a range, a CIDR or a set of these as ranges of numbers."""
    members = value["set"] if isinstance(value, dict) and "set" in value else [value]
    found = []
    for member in members:
        if not isinstance(member, dict):
            first = last = number(member)
        elif "prefix" in member:
            first = number(member["prefix"]["addr"])
            last = first | (1 << (bits - member["prefix"]["len"])) - 1
        else:
            first, last = (number(end) for end in member["range"])
        found.append((first, last))
    return union(found)


def _number(value: Any) -> int:
    """Return a number as it is. A name, such as that of a user, is not one."""
    if type(value) is not int:
        raise _Unknown
    return value


def _addresses(direction: Direction, family: Family) -> Callable[[Any, bool], Match]:
    of, bits = (socket.AF_INET, 32) if family == "ipv4" else (socket.AF_INET6, 128)

    def number(text: str) -> int:
        return int.from_bytes(socket.inet_pton(of, text), "big")

    return lambda value, negated: nftables.Addresses(direction, family, _ranges(value, number, bits), negated)


def _ports(direction: Direction, protocol: Protocol) -> Callable[[Any, bool], Match]:
    return lambda value, negated: nftables.Ports(direction, protocol, _ranges(value, _number, 16), negated)


def _interface(name: Any) -> str:
    """Return a name as iptables writes it: there a wildcard is `+`."""
    if not isinstance(name, str) or name.endswith("+"):
        raise _Unknown
    if name.endswith("\\*"):
        return f"{name[:-2]}*"
    return f"{name[:-1]}+" if name.endswith("*") else name


def _name(names: Mapping[Any, str]) -> Callable[[Any], Any]:
    """Return a function that reads names which may be printed as numbers: those of `names`, no others."""
    known = {**names, **{name: name for name in names.values()}}
    return lambda value: known[value]


#: Numbers of linux/netfilter.h, linux/in.h, and of linux/netfilter/nf_conntrack_common.h, as bits.
_family = _name({number: family for family, number in model.ADDRESS_FAMILIES.items()})
_protocol = _name({number: name for name, number in model.PROTOCOL_NUMBERS.items()})
_state = _name({1: "INVALID", 2: "ESTABLISHED", 4: "RELATED", 8: "NEW", 64: "UNTRACKED"})


def _states(value: Any) -> frozenset[str]:
    """Return one state or several; some versions of nft print a list and some `|`."""
    several = value["|"] if isinstance(value, dict) else value
    members = several if isinstance(several, list) else [several]
    return frozenset(_state(state.upper() if isinstance(state, str) else state) for state in members)


_MATCH: Mapping[str, Callable[[Any, bool], Match]] = {
    "meta nfproto": lambda value, _: nftables.NfProto(_family(value)),
    "meta l4proto": lambda value, negated: model.Transport(_protocol(value), negated),
    "meta iifname": lambda value, negated: model.InInterface(_interface(value), negated),
    "meta oifname": lambda value, negated: model.OutInterface(_interface(value), negated),
    "meta skuid": lambda value, negated: nftables.Owners("user", _ranges(value, _number, 32), negated),
    "meta skgid": lambda value, negated: nftables.Owners("group", _ranges(value, _number, 32), negated),
    "meta mark": lambda value, negated: model.Mark(_number(value), negated=negated),
    "ct mark": lambda value, negated: model.ConnectionMark(_number(value), negated=negated),
    "ct state": lambda value, _: model.ConntrackState(_states(value)),
    "ip saddr": _addresses("source", "ipv4"),
    "ip daddr": _addresses("destination", "ipv4"),
    "ip6 saddr": _addresses("source", "ipv6"),
    "ip6 daddr": _addresses("destination", "ipv6"),
    "tcp sport": _ports("source", "tcp"),
    "tcp dport": _ports("destination", "tcp"),
    "udp sport": _ports("source", "udp"),
    "udp dport": _ports("destination", "udp"),
}

_VERDICTS = {"accept": model.ACCEPT, "drop": model.DROP, "return": model.RETURN}


def _target(statements: list[Object]) -> Target:
    """Return what a rule does, from all statements but matches and the counter."""
    kinds = [next(iter(statement)) for statement in statements]
    if kinds == ["tproxy", "mangle", "accept"]:
        return _tproxy(statements[0]["tproxy"], statements[1]["mangle"])
    if len(kinds) != 1:
        raise _Unknown
    kind, value = kinds[0], statements[0][kinds[0]]
    if kind in _VERDICTS:
        return _VERDICTS[kind]
    if kind in ("jump", "goto"):
        return model.Jump(value["target"], kind == "goto")
    if kind == "redirect" and set(value) == {"port"}:
        return model.Redirect(_number(value["port"]))
    if kind == "mangle":
        return _mangle(_key(value["key"]), value["value"])
    raise _Unknown


def _key(value: Object) -> str:
    [(kind, inner)] = value.items()
    [key] = inner.values()  # and nothing else, such as a direction
    return f"{kind} {key}"


def _mangle(key: str, value: Any) -> Target:
    if key == "ct zone":
        return model.ConntrackZone(_number(value))
    if key == "meta mark":
        return (
            model.RestoreMark()
            if isinstance(value, dict) and _key(value) == "ct mark"
            else model.SetMark(_number(value))
        )
    if key == "ct mark" and _key(value) == "meta mark":
        return model.SaveMark()
    raise _Unknown


_FAMILIES: Mapping[str, Family] = {name: family for family, name in NFT_FAMILIES.items()}


def _tproxy(value: Object, mangle: Object) -> Target:
    if set(value) != {"family", "port"} or _key(mangle["key"]) != "meta mark":
        raise _Unknown
    return nftables.FamilyTProxy(_number(value["port"]), _number(mangle["value"]), _FAMILIES[value["family"]])
