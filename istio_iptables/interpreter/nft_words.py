"""nft_words: statements and expressions of libnftables-json(5) in the language of nft(8), for people to read.

They are written as nft prints them but for the numbers of counters, so that a rule is the same text wherever
it was read. What is not known here stays JSON. (formats/nft.py writes what this tool makes, to be loaded.)
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal, TypeAlias

    Object: TypeAlias = Mapping[str, Any]
    #: How the constants are written that an expression is compared with; one for each part of several.
    Kind: TypeAlias = Literal["", "mark", "name", "raw"] | tuple["Kind", ...]

_MISFITS = (StopIteration, LookupError, TypeError, ValueError, AttributeError)


def rule(statements: Iterable[Any]) -> str:
    """Return a rule."""
    return " ".join(statement(each) for each in statements)


def statement(value: Any) -> str:
    """Return a statement.

    >>> statement({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}})
    'iifname "lo"'
    """
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    [(name, inner), *_] = value.items()
    try:
        return _STATEMENTS.get(name, lambda _: _plain(name, inner))(inner)
    except _MISFITS:
        return json.dumps(value)


def expression(value: Any, kind: Kind = "") -> str:
    """Return an expression or a constant, of a kind if it is one.

    >>> expression({"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"range": [1, 5]}]})
    'ip saddr . 1-5'
    """
    if isinstance(value, dict) and value:
        [(name, inner), *_] = value.items()
        try:
            if name in _COMPOSED:
                return _COMPOSED[name](inner, kind)
            return _EXPRESSIONS.get(name, lambda _: _plain(name, inner))(inner)
        except _MISFITS:
            return json.dumps(value)
    if isinstance(value, list):
        return ",".join(expression(each, kind) for each in value)
    return _constant(value, kind)


def _constant(value: Any, kind: Kind) -> str:
    if isinstance(value, bool):
        return "exists" if value else "missing"
    if isinstance(value, int):
        return f"{value:#010x}" if kind == "mark" else f"{value:#x}" if kind == "raw" else str(value)
    if isinstance(value, str):
        return f'"{value}"' if kind == "name" and not value.startswith("@") else value
    return json.dumps(value)


def _plain(name: str, inner: Any) -> str:
    """Return a keyword and what belongs to it, which is how most things are written."""
    if inner is None:
        return name
    if isinstance(inner, dict):
        return " ".join((name, *(f"{key} {expression(each)}" for key, each in inner.items())))
    return f"{name} {expression(inner)}"


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)


# --- what can be compared ---------------------------------------------------------------------

_NAMES = frozenset({"iif", "oif", "iifname", "oifname", "iifkind", "oifkind", "time", "hour", "day"})


def _kind(value: Any) -> Kind:
    """Return how constants are written that are compared with an expression."""
    if not isinstance(value, dict) or not value:
        return ""
    [(name, inner), *_] = value.items()
    if name == "concat":
        return tuple(_kind(part) for part in inner)
    if name in _OPERATORS:
        return _kind(inner[0])
    if name == "payload":
        return "raw" if "base" in inner else ""
    key = inner.get("result" if name == "fib" else "key", "") if isinstance(inner, dict) else ""
    if key == "mark":
        return "mark"
    is_name = (name == "meta" and key in _NAMES) or (name, key) in _NAMED_BY
    return "name" if is_name else ""


_NAMED_BY = {("ct", "helper"), ("osf", "name"), ("fib", "oif"), ("fib", "oifname")}


def _payload(inner: Object) -> str:
    if "base" in inner:
        return f"@{inner['base']},{inner['offset']},{inner['len']}"
    return f"{inner['protocol']} {inner['field']}"


#: Keys of meta that nft writes without the word.
_BARE = frozenset({"iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup"})


def _meta(inner: Object) -> str:
    return str(inner["key"]) if inner["key"] in _BARE else f"meta {inner['key']}"


def _fib(inner: Object) -> str:
    flags = inner["flags"]
    return f"fib {flags if isinstance(flags, str) else ' . '.join(flags)} {inner['result']}"


def _keyed(name: str, *parts: str) -> Callable[[Object], str]:
    """Return how an expression is written that is a word and some of its parts, in this order."""
    return lambda inner: _words(name, *(str(inner[part]) for part in parts if part in inner))


def _hash(name: str) -> Callable[[Object], str]:
    def write(inner: Object) -> str:
        offset = f"offset {inner['offset']}" if inner.get("offset") else ""
        of = expression(inner["expr"]) if "expr" in inner else str(inner.get("mode", ""))
        return _words(name, of, f"mod {inner['mod']}", offset)

    return write


_EXPRESSIONS: Mapping[str, Callable[[Any], str]] = {
    "payload": _payload,
    "meta": _meta,
    "fib": _fib,
    "ct": _keyed("ct", "dir", "key"),
    "rt": _keyed("rt", "family", "key"),
    "socket": _keyed("socket", "key"),
    "osf": _keyed("osf", "key"),
    "ipsec": _keyed("ipsec", "dir", "family", "key"),
    "exthdr": _keyed("exthdr", "name", "field"),
    "tcp option": _keyed("tcp option", "name", "field"),
    "ip option": _keyed("ip option", "name", "field"),
    "numgen": _hash("numgen"),
    "jhash": _hash("jhash"),
    "symhash": _hash("symhash"),
}


# --- values and what combines expressions -----------------------------------------------------


def _set(inner: Any, kind: Kind) -> str:
    members = inner if isinstance(inner, list) else [inner]
    return f"{{ {', '.join(_member(each, kind) for each in members)} }}"


def _member(value: Any, kind: Kind, data_kind: Kind = "") -> str:
    if isinstance(value, list):
        key, data = value
        is_verdict = isinstance(data, dict) and next(iter(data)) in _VERDICTS
        return f"{expression(key, kind)} : {statement(data) if is_verdict else expression(data, data_kind)}"
    return expression(value, kind)


def _map(inner: Object, kind: Kind) -> str:
    return f"{expression(inner['key'])} map {_data(inner, kind)}"


def _data(inner: Object, kind: Kind) -> str:
    """Return the elements of a map; `kind` is that of what they are mapped to."""
    data = inner["data"]
    if isinstance(data, str):
        return data
    members = ", ".join(_member(each, _kind(inner["key"]), kind) for each in data["set"])
    return f"{{ {members} }}"


def _element(inner: Object, kind: Kind) -> str:
    comment = f'comment "{inner["comment"]}"' if "comment" in inner else ""
    timeout = f"timeout {_duration(inner['timeout'])}" if inner.get("timeout") else ""
    return _words(expression(inner["val"], kind), timeout, comment)


def _duration(seconds: int) -> str:
    """Return a time as nft prints it.

    >>> _duration(90061)
    '1d1h1m1s'
    """
    units = (("d", seconds // 86400), ("h", seconds // 3600 % 24), ("m", seconds // 60 % 60))
    return "".join(f"{count}{unit}" for unit, count in (*units, ("s", seconds % 60)) if count) or "0s"


def _concatenation(inner: Sequence[Any], kind: Kind) -> str:
    known = isinstance(kind, tuple) and len(kind) == len(inner)
    kinds: tuple[Kind, ...] = kind if known else ("",) * len(inner)  # type: ignore[assignment]
    return " . ".join(expression(part, of) for part, of in zip(inner, kinds, strict=True))


#: How much operators bind, from the weakest.
_OPERATORS: Mapping[str, int] = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4}


def _operator(sign: str) -> Callable[[Sequence[Any], Kind], str]:
    def write(inner: Sequence[Any], kind: Kind) -> str:
        own = _kind(inner[0]) or kind
        return f" {sign} ".join(_operand(each, sign, own) for each in inner)

    return write


def _operand(value: Any, sign: str, kind: Kind) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"({' | '.join(expression(each, kind) for each in value)})"
    if sign in ("<<", ">>") and not isinstance(value, dict):
        return str(value)
    inner = next(iter(value)) if isinstance(value, dict) and value else ""
    text = expression(value, kind)
    return f"({text})" if _OPERATORS.get(inner, 9) < _OPERATORS[sign] else text


_COMPOSED: Mapping[str, Callable[[Any, Kind], str]] = {
    "set": _set,
    "map": _map,
    "elem": _element,
    "concat": _concatenation,
    "range": lambda inner, kind: "-".join(expression(each, kind) for each in inner),
    "prefix": lambda inner, kind: f"{expression(inner['addr'], kind)}/{inner['len']}",
    **{sign: _operator(sign) for sign in _OPERATORS},
}


# --- statements -------------------------------------------------------------------------------

_VERDICTS = frozenset({"accept", "drop", "continue", "return", "jump", "goto"})


def _match(inner: Object) -> str:
    left, right, sign = inner["left"], inner["right"], inner["op"]
    masked = left.get("&") if isinstance(left, dict) else None
    if masked and isinstance(masked[1], list) and sign in ("==", "!="):  # flags under a mask
        sign = "" if sign == "==" else sign
        return _words(expression(masked[0]), sign, f"{expression(right)} / {expression(masked[1])}")
    combined = isinstance(left, dict) and next(iter(left)) in _OPERATORS
    if sign == "in" or (sign == "==" and not combined):
        sign = ""
    return _words(expression(left), sign, expression(right, _kind(left)))


def _counter(inner: Any) -> str:
    return f'counter name "{inner}"' if isinstance(inner, str) else "counter"


def _nat(name: str) -> Callable[[Any], str]:
    def write(inner: Any) -> str:
        inner = inner or {}
        address, port = inner.get("addr", ""), inner.get("port", "")
        to = expression(address) if address else ""
        in_brackets = isinstance(address, str) and ":" in to and (port or name == "tproxy")
        to = f"[{to}]" if in_brackets else to
        to += f":{expression(port)}" if port else ""
        family = inner.get("family", "") if to else ""
        kinds = inner.get("type_flags", ())
        prefix = "prefix" if "prefix" in kinds else "addr . port" if "concat" in kinds else ""
        flags = "" if prefix == "prefix" else expression(inner.get("flags", []))
        return _words(name, family, prefix, f"to {to}" if to else "", flags)

    return write


def _limit(inner: Any) -> str:
    if isinstance(inner, str):
        return f'limit name "{inner}"'
    over = "over" if inner.get("inv") else ""
    unit = inner.get("rate_unit", "packets")
    rate = f"{inner['rate']}{'' if unit == 'packets' else f' {unit}'}/{inner['per']}"
    usual_burst = 5 if unit == "packets" else 0
    burst = inner.get("burst", usual_burst)
    usual = burst == usual_burst
    return _words("limit rate", over, rate, "" if usual else f"burst {burst} {inner.get('burst_unit', unit)}")


def _quota(inner: Any) -> str:
    if isinstance(inner, str):
        return f'quota name "{inner}"'
    return _words("quota", "over" if inner.get("inv") else "", f"{inner['val']} {inner['val_unit']}")


def _connections(inner: Object) -> str:
    return _words("ct count", "over" if inner.get("inv") else "", str(inner["val"]))


def _update(inner: Object) -> str:
    data = f": {expression(inner['data'])}" if "data" in inner else ""
    pair = _words(expression(inner["elem"]), *(statement(each) for each in inner.get("stmt", ())), data)
    return f"{inner['op']} {inner.get('set') or inner['map']} {{ {pair} }}"


def _meter(inner: Object) -> str:
    size = f"size {inner['size']}" if "size" in inner else ""
    pair = f"{{ {expression(inner['key'])} {statement(inner['stmt'])} }}"
    return _words("meter", inner["name"], size, pair)


def _reject(inner: Any) -> str:
    if not inner or (inner["type"], inner.get("expr")) == ("icmpx", "port-unreachable"):
        return "reject"
    kind = inner["type"]
    return _words("reject with", kind, str(inner.get("expr", "")))


def _log(inner: Any) -> str:
    parts = (
        f"{key} {_constant(each, 'name' if key == 'prefix' else '')}" for key, each in (inner or {}).items()
    )
    return _words("log", *parts)


def _mangle(inner: Object) -> str:
    key = inner["key"]
    return f"{expression(key)} set {expression(inner['value'], _kind(key))}"


_STATEMENTS: Mapping[str, Callable[[Any], str]] = {
    "match": _match,
    "counter": _counter,
    "vmap": lambda inner: f"{expression(inner['key'])} vmap {_data(inner, '')}",
    "jump": lambda inner: f"jump {inner['target']}",
    "goto": lambda inner: f"goto {inner['target']}",
    "mangle": _mangle,
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "redirect": _nat("redirect"),
    "masquerade": _nat("masquerade"),
    "tproxy": _nat("tproxy"),
    "limit": _limit,
    "quota": _quota,
    "ct count": _connections,
    "ct helper": lambda inner: f'ct helper set "{inner}"',
    "ct timeout": lambda inner: f'ct timeout set "{inner}"',
    "ct expectation": lambda inner: f'ct expectation set "{inner}"',
    "set": _update,
    "map": _update,
    "meter": _meter,
    "reject": _reject,
    "log": _log,
    "flow": lambda inner: f"flow {inner['op']} {inner['flowtable']}",
    "xt": lambda inner: f"xt {inner['type']} {inner['name']}",
    "reset": lambda inner: f"reset {expression(inner)}",
}
