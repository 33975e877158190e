"""ip_objects: what the objects mean that `ip -json rule`, `ip -json route` and `ip -json addr` print.

Source: print_rule in iprule.c, print_route in iproute.c and print_addrinfo in ipaddress.c of iproute2.
The plain texts are turned into the same objects first (ip_text.py), so what a word means is said here alone.
"""

from __future__ import annotations

from ..interpreter.ip_names import KINDS, LINKDOWN, MAIN_TABLE, PREFERENCES, SCOPES, UNUSABLE, table_name
from ..interpreter.ip_rule import IpRule, ends_of
from ..interpreter.protocols import PROTOCOLS
from ..interpreter.route import Address, Hop, Route, RoutingRule
from ..rules.model import FULL_MASK, IPV4, IPV6
from ..startup.c_modules import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, TypeAlias

    from ..interpreter.ip_names import RouteKind
    from ..rules.model import Family

    Object: TypeAlias = dict[str, Any]

#: Kinds of routes by their names, and by their numbers, which `ip -Numeric` prints.
_KIND_NAMES: Mapping[str, RouteKind] = {kind: kind for kind in KINDS.values()} | {
    str(number): kind for number, kind in KINDS.items()
}
#: The action nat: what `ip -json` and the plain text call it.
_NAT = frozenset({"masquerade", "nat_gateway", "map-to"})
_ENDS = frozenset({"unreachable", "prohibit", "blackhole"})
#: The flags of an address that have an influence on which source is chosen.
ADDRESS_FLAGS = frozenset({"secondary", "temporary", "deprecated", "tentative", "dadfailed", "optimistic"})

#: What rules and routes have besides, without any influence on the choice of a route.
_IDLE_IN_RULES = frozenset({"protocol", "flow_from", "flow_to", "iif_detached", "oif_detached", "unresolved"})
_IDLE_IN_ROUTES = frozenset(
    {"protocol", "flags", "nhid", "nh_info", "metrics", "pref", "flow", "expires", "error"}
    | {"ttl-propagate", "ttl-propogate", "weight"}
)


def family_of(address: str) -> Family:
    """Return the family of an address or a network."""
    return IPV6 if ":" in address else IPV4


def number_of(address: str) -> int:
    """Return an address as a number. Raises ValueError for a text that is none."""
    try:
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return int.from_bytes(socket.inet_pton(kind, address), "big")
    except OSError:
        raise ValueError(f"{address!r} is no address") from None


# --- rules ----------------------------------------------------------------------------------


def family_of_rule(words: Object) -> Family | None:
    """Return the family of a rule if its addresses tell it."""
    for key in ("src", "dst"):
        address = str(words.get(key, "all"))
        if address not in ("all", "0"):
            return family_of(address)
    return None


def rule(words: Object, family: Family) -> RoutingRule:
    """Return a rule. Raises ValueError or KeyError for an object that is none."""
    left = {key: value for key, value in words.items() if key not in _IDLE_IN_RULES}
    fields: dict[str, Any] = {"priority": int(left.pop("priority"))}
    fields["inverted"] = "not" in left
    left.pop("not", None)
    for key, field in (("src", "source"), ("dst", "destination")):
        fields[field] = _network(family, left.pop(key, "all"), left.pop(f"{key}len", None))
    fields.update(_mark(left))
    for key, (field, read) in _RULE_FIELDS.items():
        if key in left:
            fields[field] = read(left.pop(key))
    if "uid_start" in left:
        fields["uids"] = int(left.pop("uid_start")), int(left.pop("uid_end"))
    for key, field in (("sport", "source_ports"), ("dport", "destination_ports")):
        fields[field] = _ports(left, key)
    fields.update(_protocol(left))
    fields.update(_action(left))
    unmodelled = tuple(f"{key} {_text(value)}".rstrip() for key, value in left.items())
    fields["unmodelled"] = (*fields.get("unmodelled", ()), *unmodelled)
    return IpRule(family, **fields).routing_rule()


_RULE_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "tos": ("tos", str),
    "iif": ("iif", str),
    "oif": ("oif", str),
    "tun_id": ("tunnel", int),
    "suppress_prefixlen": ("suppress_prefix", int),
    "suppress_ifgroup": ("suppress_group", str),
}


def _network(family: Family, address: str, length: str | int | None) -> tuple[int, int] | None:
    if address == "all":
        return None
    return (0 if address == "0" else number_of(address)), _prefix(family, length)


def _mark(left: Object) -> Object:
    if "fwmark" not in left and "fwmask" not in left:
        return {}
    return {
        "mark": int(str(left.pop("fwmark", "0")), 0),
        "mask": int(str(left.pop("fwmask", FULL_MASK)), 0),
    }


def _ports(left: Object, key: str) -> tuple[int, int] | None:
    """Return a range of ports. A mask (Linux 6.14) stays where it is: it is not modelled."""
    if f"{key}_start" in left:
        return int(left.pop(f"{key}_start")), int(left.pop(f"{key}_end"))
    if key in left and f"{key}_mask" not in left and str(left[key]).isdigit():
        port = int(left.pop(key))
        return port, port
    return None


def _protocol(left: Object) -> Object:
    if "ipproto" not in left:
        return {}
    word = str(left["ipproto"]).removeprefix("ipproto-")
    number = PROTOCOLS.get(word, int(word) if word.isdigit() else 0)
    if number:
        del left["ipproto"]
    return {"protocol": number}


def _action(left: Object) -> Object:
    """Return what a rule does, and take the words for it away. What is not known stays."""
    found: Object = {}
    if "l3mdev" in left:
        del left["l3mdev"]
        found["l3mdev"] = True
    if "table" in left:
        found["table"] = table_name(left.pop("table"))
    if "goto" in left:
        target = left.pop("goto")
        found["goto"] = int(target) if str(target).isdigit() else -1
    if "nop" in left:
        del left["nop"]
    if _NAT & left.keys():  # the kernel has not had it since 2.6, and treats it as blackhole
        found = {"ends": "blackhole"}
        for key in _NAT:
            left.pop(key, None)
    word = _KIND_NAMES.get(str(left.get("action")), "")
    if word in _ENDS:
        found["ends"] = word
        del left["action"]
    return found


def _text(value: object) -> str:
    return "" if value is None else str(value)


# --- routes ---------------------------------------------------------------------------------


def family_of_route(words: Object) -> Family:
    """Return the family of a route: an address tells it, else `pref`, which IPv6 routes alone have."""
    for key in ("dst", "from", "prefsrc", "gateway"):
        address = str(words.get(key, "default"))
        if address != "default":
            return family_of(address)
    for hop in words.get("nexthops", ()):
        if "gateway" in hop:
            return family_of(hop["gateway"])
    return IPV6 if "pref" in words else IPV4


def route(words: Object, default_table: str = MAIN_TABLE) -> tuple[Route | None, list[str]]:
    """Return a route, and what of it is not modelled. A route that the kernel passes over is None.

    `default_table` is the table if none is named. Raises ValueError or KeyError for an object that is none.
    """
    if "uid" in words:
        raise ValueError("`ip route get` prints this; it says nothing about other packets")
    family = family_of_route(words)
    notes = [f"{key} {_text(value)}" for key, value in words.items() if key not in _ROUTE_WORDS]
    kind = _KIND_NAMES.get(str(words.get("type", "unicast")))
    if kind is None:
        raise ValueError(f"routes of the type {words['type']} are not known")
    first, last = _ends(family, words["dst"])
    hops, dead = _hops(words)
    notes += dead
    if not hops and kind == "unicast":
        return None, [*notes, UNUSABLE]
    return Route(
        family=family,
        table=table_name(words.get("table", default_table)),
        kind=kind,
        first=first,
        last=last,
        interface=hops[0].interface if hops else "",
        source=number_of(words["prefsrc"]) if "prefsrc" in words else None,
        metric=int(words.get("metric", 0)),
        scope=scope_number(words.get("scope", "global")) if family == IPV4 else 0,
        gateway=hops[0].gateway if len(hops) == 1 else "",
        hops=tuple(hops) if len(hops) > 1 else (),
        sources=_ends(family, words["from"]) if "from" in words else None,
        tos=str(words.get("tos", "")),
        preference=PREFERENCES.get(str(words.get("pref")), 0),
    ), notes


_ROUTE_WORDS = _IDLE_IN_ROUTES | {
    *(
        "type",
        "dst",
        "from",
        "tos",
        "via",
        "gateway",
        "dev",
        "table",
        "scope",
        "prefsrc",
        "metric",
        "nexthops",
    )
}


def _ends(family: Family, network: str) -> tuple[int, int]:
    if network == "default":
        return ends_of(family, 0, 0)
    address, _, prefix = network.partition("/")
    return ends_of(family, number_of(address), _prefix(family, prefix or None))


def _prefix(family: Family, length: str | int | None) -> int:
    """Return the length of a prefix, without one that of an address. Raises ValueError if it cannot be."""
    bits = 32 if family == IPV4 else 128
    found = bits if length is None else int(length)
    if not 0 <= found <= bits:
        raise ValueError(f"a prefix of {found} bits")
    return found


def _hops(words: Object) -> tuple[list[Hop], list[str]]:
    """Return the ways of a route that the kernel uses, and what is to be said about the others."""
    found: list[Hop] = []
    notes = []
    for hop in words.get("nexthops") or [words]:
        gateway = str(hop.get("gateway", ""))
        if "via" in hop:
            gateway = f"{hop['via']['family']} {hop['via']['host']}"
        made = Hop(str(hop.get("dev", "")), gateway)
        if "dead" in (hop.get("flags") or ()):
            notes.append(f"dead: the way by {made.interface} is not used")
        elif made.interface or made.gateway:
            found.append(made)
        if "linkdown" in (hop.get("flags") or ()):
            notes.append(LINKDOWN)
    return found, notes


def scope_number(word: str) -> int:
    """Return the number of a scope from its name or its number."""
    if word in SCOPES:
        return SCOPES[word]
    return int(word)


# --- addresses ------------------------------------------------------------------------------


def addresses(link: Object) -> Iterator[Address]:
    """Yield the addresses of an interface. Raises ValueError or KeyError for an object that is none."""
    for each in link.get("addr_info", ()):
        if not each:  # iproute2 before 5.0 prints an empty object for an address that it leaves out
            continue
        family = {"inet": IPV4, "inet6": IPV6}.get(each["family"])
        if family is None:
            continue
        peer = each.get("address")
        yield Address(
            interface=link["ifname"],
            family=family,
            address=number_of(each["local"]),
            prefix=_prefix(family, each["prefixlen"]),
            scope=scope_number(str(each.get("scope", "global"))),
            flags=frozenset(word for word in ADDRESS_FLAGS if each.get(word)),
            peer=number_of(peer) if peer and peer != each["local"] else None,
        )
