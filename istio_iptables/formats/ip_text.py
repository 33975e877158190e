"""ip_text: the plain texts of `ip rule`, `ip route` and `ip addr` as the objects that `ip -json` prints.

Source: iprule.c, iproute.c and ipaddress.c of iproute2, whose functions print both.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .ip_objects import Object

_RULE = re.compile(r"(\d+):\s+((?:not )?from .*)")
_LINK = re.compile(r"\d+: ([^:\s@]+)(?:@[^:\s]+)?: <[^>]*>")
#: One line of `ip -oneline addr`.
_ONE_LINE = re.compile(r"\d+: (\S+)\s+(inet6? .*)")

# --- rules ----------------------------------------------------------------------------------

_RANGES: Mapping[str, tuple[str, str]] = {
    "uidrange": ("uid_start", "uid_end"),
    "sport": ("sport_start", "sport_end"),
    "dport": ("dport_start", "dport_end"),
}
#: Words of a rule that one more word follows, and what they are called in JSON.
_RULE_VALUES: Mapping[str, str] = {
    "lookup": "table",
    "iif": "iif",
    "oif": "oif",
    "tos": "tos",
    "dsfield": "tos",
    "ipproto": "ipproto",
    "tun_id": "tun_id",
    "suppress_prefixlength": "suppress_prefixlen",
    "suppress_ifgroup": "suppress_ifgroup",
    "goto": "goto",
    "proto": "protocol",
    "protocol": "protocol",
    "realms": "flow_to",
}
_MARKS = {"[detached]": "iif_detached", "[unresolved]": "unresolved"}
_ACTIONS = frozenset({"unreachable", "prohibit", "blackhole"})


def rule(line: str) -> Object | None:
    """Return a line of `ip rule` as an object, None if it is none."""
    found = _RULE.fullmatch(line.strip())
    if not found:
        return None
    made: Object = {"priority": int(found[1])}
    words = iter(found[2].split())
    for word in words:
        _rule_word(made, word, words)
    return made


def _rule_word(made: Object, word: str, words: Iterator[str]) -> None:
    if word == "not":
        made["not"] = None
    elif word in ("from", "to"):
        key = {"from": "src", "to": "dst"}[word]
        made[key], _, length = next(words, "all").partition("/")
        if length:
            made[f"{key}len"] = length
    elif word == "fwmark":
        made["fwmark"], _, mask = next(words, "0").partition("/")
        if mask:
            made["fwmask"] = mask
    elif word in _RANGES:
        _range(made, word, next(words, ""))
    elif word == "lookup":
        table = next(words, "")
        made.update({"l3mdev": None} if table == "[l3mdev-table]" else {"table": table})
    elif word in _RULE_VALUES:
        made[_RULE_VALUES[word]] = next(words, "")
    elif word in _ACTIONS or word.isdigit():  # ip -Numeric prints numbers
        made["action"] = word
    elif word == "nop":
        made["nop"] = None
    elif word in _MARKS:
        made[_MARKS[word]] = None
    else:
        made[word] = _until_known(words, made)


def _range(made: Object, word: str, value: str) -> None:
    first, _, last = value.partition("-")
    if last or word == "uidrange":
        made.update(zip(_RANGES[word], (first, last or first), strict=True))
    else:
        made[word] = value


def _until_known(words: Iterator[str], made: Object) -> str:
    """Return the words that follow one that is not known, up to the action, which is read."""
    values: list[str] = []
    for word in words:
        if word in _RULE_VALUES or word in _ACTIONS or word == "nop":
            _rule_word(made, word, words)
            break
        values.append(word)
    return " ".join(values)


# --- routes ---------------------------------------------------------------------------------

_TYPES = frozenset(
    {
        *("unicast", "local", "broadcast", "anycast", "multicast"),
        *("blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"),
    }
)
_DESTINATION = re.compile(r"default|[0-9a-fA-F:.]*[.:][0-9a-fA-F:.]*(/\d+)?")
#: Words of a route that one more word follows, under their own name in JSON.
_SAME_NAME = (
    *("from", "nhid", "tos", "dev", "table", "scope", "metric", "pref", "weight"),
    *("expires", "error", "uid"),
)
#: Words about what happens to packets on their way, likewise; JSON has them together, as `metrics`.
_METRICS = (
    *("mtu", "window", "rtt", "rttvar", "ssthresh", "cwnd", "initcwnd", "initrwnd", "advmss", "reordering"),
    *("hoplimit", "features", "rto_min", "congctl", "cc_algo", "quickack", "fastopen_no_cookie"),
)
#: Words of a route that one more word follows, and what they are called in JSON.
_ROUTE_VALUES: Mapping[str, str] = {
    **{word: word for word in _SAME_NAME},
    **dict.fromkeys(_METRICS, "metrics"),
    "dsfield": "tos",
    "proto": "protocol",
    "protocol": "protocol",
    "src": "prefsrc",
    "preference": "metric",
    "realm": "flow",
    "realms": "flow",
    "ttl-propagate": "ttl-propagate",
}
_ROUTE_FLAGS = frozenset(
    {
        *("dead", "linkdown", "onlink", "pervasive", "unresolved"),
        *("offload", "trap", "notify", "rt_offload", "rt_trap", "rt_offload_failed"),
    }
)


def route(line: str) -> Object | None:
    """Return a line of `ip route` as an object, None if it is none."""
    words = line.split()
    made: Object = {"flags": []}
    if words and (words[0] in _TYPES or words[0].isdigit()):
        made["type"] = words.pop(0)
    if not words or not _DESTINATION.fullmatch(words[0]):
        return None
    made["dst"] = words.pop(0)
    return _way(made, iter(words))


def nexthop(line: str) -> Object | None:
    """Return a line with one way of a route as an object, None if it is none."""
    words = line.split()
    if words[:1] != ["nexthop"]:
        return None
    return _way({"flags": []}, iter(words[1:]))


def _way(made: Object, words: Iterator[str]) -> Object:
    for word in words:
        if word == "via":
            gateway = next(words, "")
            if gateway in ("inet", "inet6", "mpls", "link"):
                made["via"] = {"family": gateway, "host": next(words, "")}
            else:
                made["gateway"] = gateway
        elif word in ("encap", "nexthop"):
            _encapsulation(made, word, words)
        elif word in _ROUTE_VALUES:
            value = next(words, "")
            made[_ROUTE_VALUES[word]] = next(words, "") if value == "lock" else value
        elif word in _ROUTE_FLAGS:
            made["flags"].append(word)
        else:
            made[word] = None
    return made


def _encapsulation(made: Object, word: str, words: Iterator[str]) -> None:
    """Read what stands before the gateway or the interface: words that mean something else elsewhere."""
    values: list[str] = []
    for value in words:
        if value in ("via", "dev"):
            made[word] = " ".join(values)
            _way(made, iter([value, *words]))
            return
        values.append(value)
    made[word] = " ".join(values)


# --- addresses ------------------------------------------------------------------------------

_ADDRESS_VALUES = frozenset({"brd", "any", "metric", "proto"})


def link(line: str) -> str | None:
    """Return the name of the interface that a line of `ip addr` begins, None if it begins none."""
    found = _LINK.match(line)
    return found[1] if found else None


def address(line: str) -> Object | None:
    """Return a line of `ip addr` with an address as an object of `addr_info`, None if it has none."""
    words = iter(line.split("\\")[0].split())
    family = next(words, "")
    if family not in ("inet", "inet6"):
        return None
    made: Object = {"family": family}
    made["local"], _, made["prefixlen"] = next(words, "").partition("/")
    for word in words:
        if word == "peer":
            made["address"], _, made["prefixlen"] = next(words, "").partition("/")
        elif word == "scope":
            made["scope"] = next(words, "")
        elif word in _ADDRESS_VALUES:
            next(words, "")
        else:
            made[word] = True  # a flag, or the label
    return made


def one_line_address(line: str) -> tuple[str, Object] | None:
    """Return interface and address of a line of `ip -oneline addr`, None if it is none."""
    found = _ONE_LINE.match(line)
    made = address(found[2]) if found else None
    return (found[1], made) if found and made else None
