"""nft_words: statements and expressions of libnftables-json(5) in the language of nft(8), for people to read.

It is what a rule is called where nothing but JSON was given. What is not known here stays JSON.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


def rule(statements: Iterable[Any]) -> str:
    """Return a rule."""
    return " ".join(statement(each) for each in statements)


def statement(value: Any) -> str:
    """Return a statement.

    >>> statement({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}})
    'iifname lo'
    """
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    [(name, inner), *_] = value.items()
    write = _STATEMENTS.get(name)
    try:
        return write(inner) if write else _plain(name, inner)
    except (LookupError, TypeError, ValueError, AttributeError):
        return json.dumps(value)


def expression(value: Any) -> str:
    """Return an expression or a value.

    >>> expression({"concat": [{"payload": {"protocol": "ip", "field": "saddr"}}, {"range": [1, 5]}]})
    'ip saddr . 1-5'
    """
    if isinstance(value, bool):
        return "exists" if value else "missing"
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, list):
        return ",".join(expression(each) for each in value)
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    [(name, inner), *_] = value.items()
    write = _EXPRESSIONS.get(name)
    try:
        return write(inner) if write else _plain(name, inner)
    except (LookupError, TypeError, ValueError, AttributeError):
        return json.dumps(value)


def _plain(name: str, inner: Any) -> str:
    """Return a keyword and what belongs to it, which is how most things are written."""
    if inner is None:
        return name
    if isinstance(inner, dict):
        return " ".join((name, *(f"{key} {expression(each)}" for key, each in inner.items())))
    return f"{name} {expression(inner)}"


# --- expressions ------------------------------------------------------------------------------


def _payload(inner: Mapping[str, Any]) -> str:
    if "base" in inner:
        return f"@{inner['base']},{inner['offset']},{inner['len']}"
    return f"{inner['protocol']} {inner['field']}"


#: Keys of meta that are written without the word.
_BARE = frozenset({"iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "skuid", "skgid", "nftrace"})


def _meta(inner: Mapping[str, Any]) -> str:
    return inner["key"] if inner["key"] in _BARE else f"meta {inner['key']}"


def _ct(inner: Mapping[str, Any]) -> str:
    return " ".join(("ct", *([inner["dir"]] if "dir" in inner else []), inner["key"]))


def _fib(inner: Mapping[str, Any]) -> str:
    flags = inner["flags"]
    return f"fib {flags if isinstance(flags, str) else ' . '.join(flags)} {inner['result']}"


def _set(inner: Any) -> str:
    members = inner if isinstance(inner, list) else [inner]
    return f"{{ {', '.join(_member(each) for each in members)} }}"


def _member(value: Any) -> str:
    if isinstance(value, list):
        key, data = value
        is_verdict = isinstance(data, dict) and next(iter(data)) in _VERDICTS
        return f"{expression(key)} : {statement(data) if is_verdict else expression(data)}"
    return expression(value)


def _map(inner: Mapping[str, Any]) -> str:
    return f"{expression(inner['key'])} map {expression(inner['data'])}"


def _element(inner: Mapping[str, Any]) -> str:
    more = [f"{key} {expression(each)}" for key, each in inner.items() if key in ("timeout", "comment")]
    return " ".join((expression(inner["val"]), *more))


def _operator(sign: str) -> Callable[[list[Any]], str]:
    def write(inner: list[Any]) -> str:
        return f" {sign} ".join(_in_brackets(each) for each in inner)

    return write


def _in_brackets(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"({' | '.join(expression(each) for each in value)})"
    binary = isinstance(value, dict) and next(iter(value)) in _BINARY
    return f"({expression(value)})" if binary else expression(value)


_BINARY = ("|", "&", "^", "<<", ">>")
_EXPRESSIONS: Mapping[str, Callable[[Any], str]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
    "set": _set,
    "map": _map,
    "elem": _element,
    "concat": lambda inner: " . ".join(expression(each) for each in inner),
    "range": lambda inner: "-".join(expression(each) for each in inner),
    "prefix": lambda inner: f"{expression(inner['addr'])}/{inner['len']}",
    "numgen": lambda inner: f"numgen {inner['mode']} mod {inner['mod']}",
    "jhash": lambda inner: f"jhash {expression(inner['expr'])} mod {inner['mod']}",
    **{sign: _operator(sign) for sign in _BINARY},
}

# --- statements -------------------------------------------------------------------------------

_VERDICTS = frozenset({"accept", "drop", "continue", "return", "jump", "goto"})


def _match(inner: Mapping[str, Any]) -> str:
    sign = {"==": "", "in": "", "!": "!"}.get(inner["op"], inner["op"])
    return " ".join(word for word in (expression(inner["left"]), sign, expression(inner["right"])) if word)


def _counter(inner: Any) -> str:
    return f"counter name {expression(inner)}" if isinstance(inner, str) else "counter"


def _nat(name: str) -> Callable[[Any], str]:
    def write(inner: Any) -> str:
        if not inner:
            return name
        address, port = inner.get("addr", ""), inner.get("port", "")
        to = expression(address) if address else ""
        if ":" in to and port and isinstance(address, str):
            to = f"[{to}]"
        to += f":{expression(port)}" if port else ""
        family = [inner["family"]] if "family" in inner and to else []
        flags = inner.get("flags", [])
        return " ".join((name, *family, *(["to", to] if to else []), *([expression(flags)] if flags else [])))

    return write


def _named(name: str) -> Callable[[Any], str]:
    """Return how a limit or quota is written, which may be one of its own or one that has a name."""
    return lambda inner: f'{name} name "{inner}"' if isinstance(inner, str) else _plain(name, inner)


def _update(inner: Mapping[str, Any]) -> str:
    pair = f"{expression(inner['elem'])}"
    pair += f" : {expression(inner['data'])}" if "data" in inner else ""
    pair += "".join(f" {statement(each)}" for each in inner.get("stmt", []))
    return f"{inner['op']} {inner.get('set') or inner['map']} {{ {pair} }}"


def _meter(inner: Mapping[str, Any]) -> str:
    return f"meter {inner['name']} {{ {expression(inner['key'])} {statement(inner['stmt'])} }}"


def _reject(inner: Any) -> str:
    if not inner:
        return "reject"
    return " ".join(("reject with", inner["type"], *([str(inner["expr"])] if "expr" in inner else [])))


_STATEMENTS: Mapping[str, Callable[[Any], str]] = {
    "match": _match,
    "counter": _counter,
    "vmap": lambda inner: f"{expression(inner['key'])} vmap {expression(inner['data'])}",
    "jump": lambda inner: f"jump {inner['target']}",
    "goto": lambda inner: f"goto {inner['target']}",
    "mangle": lambda inner: f"{expression(inner['key'])} set {expression(inner['value'])}",
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "redirect": _nat("redirect"),
    "masquerade": _nat("masquerade"),
    "tproxy": _nat("tproxy"),
    "limit": _named("limit"),
    "quota": _named("quota"),
    "set": _update,
    "map": _update,
    "meter": _meter,
    "reject": _reject,
    "xt": lambda inner: f"xt {inner['type']} {inner['name']}",
}
