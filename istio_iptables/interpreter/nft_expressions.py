"""nft_expressions: any tables of nf_tables as a program, from the JSON that `nft -j list ruleset` prints.

The schema is that of libnftables-json(5). What a rule means is in nft_statements.py.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6, NO_COUNTERS, Counters
from . import nft_words
from .action import End
from .condition import Unmodelled
from .known import NOTHING_KNOWN
from .nft_fields import NativeScope
from .nft_rules import LOCATION, title
from .nft_statements import steps_of
from .program import CONNTRACK_PRIORITY, Base, Rule, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from typing import Any

    from ..rules.model import Family
    from .known import Known
    from .program import HookName

#: The families of tables whose packets have hosts' addresses, and the families of these.
FAMILIES: Mapping[str, frozenset[Family]] = {
    "ip": frozenset({IPV4}),
    "ip6": frozenset({IPV6}),
    "inet": frozenset({IPV4, IPV6}),
}
_HOOKS: frozenset[HookName] = frozenset({"prerouting", "input", "forward", "output", "postrouting"})
#: The tables and built-in chains of iptables-nft.
_OF_IPTABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})


def compiled(
    objects: Iterable[Mapping[str, Any]],
    known: Known = NOTHING_KNOWN,
    *,
    texts: Mapping[tuple[str, str, int], str] | None = None,
    leave_out: Container[tuple[str, str]] = (),
) -> tuple[Table, ...]:
    """Return all tables as a program has them.

    `objects` are the members of `nftables` in the JSON. `texts` are rules as `nft -a` prints them, by family,
    table and handle; else nft_words.py writes them. `leave_out` names tables by family and name, such as
    those of iptables-nft. A table that is dormant has no hooks, and is left out; see also `unread`.
    """
    objects = tuple(objects)
    found = _by_table(objects)
    prints_all = _prints_all(objects)
    return tuple(
        _table(parts, known, texts or {}, prints_all)
        for key, parts in found.items()
        if key[0] in FAMILIES and key not in leave_out and not _is_dormant(parts["table"][0])
    )


def iptables_tables(objects: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    """Return the family and name of each table that iptables-nft has made.

    These have its names, and no base chains but the built-in ones. iptables-nft-save tells more about them:
    what only iptables knows is in JSON without its options. (If another program has put a rule into such a
    table, iptables-nft cannot read it.)
    """
    return frozenset(
        key
        for key, parts in _by_table(objects).items()
        if key[0] in ("ip", "ip6") and key[1] in _OF_IPTABLES and _has_built_in_chains(parts["chain"])
    )


def _has_built_in_chains(chains: Sequence[Mapping[str, Any]]) -> bool:
    bases = [chain for chain in chains if "hook" in chain]
    return bool(bases) and all(chain["name"] == chain["hook"].upper() for chain in bases)


def may_sleep(objects: Iterable[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    """Return the family and name of each table that is or may be dormant; iptables-nft-save shows it."""
    return frozenset(
        key
        for key, parts in _by_table(objects).items()
        if _is_dormant(parts["table"][0]) or _may_be_dormant(parts["table"][0])
    )


def unread(objects: Iterable[Mapping[str, Any]]) -> Mapping[str, int]:
    """Return what is not part of the program, and how often: what it is to the number of rules in it.

    Tables of other families see frames and ARP; a chain at the hook ingress or egress comes before, or after,
    all that is modelled.
    """
    counts: dict[str, int] = {}
    for (family, name), parts in _by_table(objects).items():
        rules = [rule["chain"] for rule in parts["rule"]]
        if family not in FAMILIES:
            counts[f"table {family} {name}"] = len(rules)
        elif _is_dormant(parts["table"][0]):
            counts[f"table {family} {name} (dormant)"] = len(rules)
        else:
            for chain in parts["chain"]:
                if chain.get("hook", "output") not in _HOOKS:
                    what = f"chain {chain['name']} of table {family} {name} (hook {chain['hook']})"
                    counts[what] = rules.count(chain["name"])
    return counts


_Parts = dict[str, list]  # type: ignore[type-arg]  # evaluated when the module is loaded


def _by_table(objects: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], _Parts]:
    """Return tables by family and name, each with its objects by kind."""
    found: dict[tuple[str, str], _Parts] = {}
    for each in objects:
        for kind, value in each.items():
            if kind == "metainfo" or not isinstance(value, dict):
                continue
            family, name = value.get("family"), value["name"] if kind == "table" else value.get("table", "")
            if not (isinstance(family, str) and isinstance(name, str)):
                continue  # of a kind that is not known
            key = (family, name)
            parts = found.setdefault(key, {"table": [], "chain": [], "rule": [], "set": [], "map": []})
            parts.setdefault(kind, []).append(value)
    return {key: parts for key, parts in found.items() if parts["table"]}


def _flags(table: Mapping[str, Any]) -> Sequence[str]:
    flags = table.get("flags", ())
    return (flags,) if isinstance(flags, str) else flags


def _is_dormant(table: Mapping[str, Any]) -> bool:
    return "dormant" in _flags(table)


def _may_be_dormant(table: Mapping[str, Any]) -> bool:
    """Tell whether the flags of a table cannot be made out: nft 1.0.6 prints another text in their place."""
    return not _KNOWN_FLAGS.issuperset(_flags(table))


_KNOWN_FLAGS = frozenset({"dormant", "owner", "persist"})


def _prints_all(objects: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether what nft prints has the statements of added elements: 0.9.8 does not, 1.0.6 does."""
    for each in objects:
        if "metainfo" in each:
            version = str(each["metainfo"].get("version", "")).split(".")
            return all(part.isdigit() for part in version) and [*map(int, version)] >= [1, 0, 6]
    return False


def _table(parts: _Parts, known: Known, texts: Mapping[tuple[str, str, int], str], prints_all: bool) -> Table:
    table = parts["table"][0]
    family, name = table["family"], table["name"]
    bases = tuple(_base(chain) for chain in parts["chain"] if chain.get("hook") in _HOOKS)
    early = any(
        base.hook in ("prerouting", "output") and base.priority <= CONNTRACK_PRIORITY for base in bases
    )
    sets = {each["name"]: each.get("elem", []) for kind in ("set", "map") for each in parts[kind]}
    scope = NativeScope(FAMILIES[family], known, sets, early, prints_all)
    rules: dict[str, list[Rule]] = {chain["name"]: [] for chain in parts["chain"]}
    for rule in parts["rule"]:
        chain = rules.setdefault(rule["chain"], [])
        text = texts.get((family, name, rule.get("handle", 0)), "")
        chain.append(_rule(len(chain) + 1, rule, scope, text))
    if _may_be_dormant(table):
        for base in bases:
            rules[base.chain].insert(0, _DORMANT)
    chains = {chain: tuple(found) for chain, found in rules.items()}
    return Table(LOCATION, title(family, name), name, FAMILIES[family], bases, chains)


#: It comes first in base chains of a table that may be dormant, whose packets then meet nothing.
_DORMANT = Rule(
    0,
    "the table may be dormant: nft has printed flags that are none",
    (Unmodelled("flags dormant"), End("accept")),
)


def _base(chain: Mapping[str, Any]) -> Base:
    return Base(
        chain["name"],
        chain["hook"],
        chain["prio"],
        chain["type"],
        chain.get("policy", "accept") == "drop",
    )


def _rule(at: int, rule: Mapping[str, Any], scope: NativeScope, text: str) -> Rule:
    statements = rule["expr"]
    return Rule(
        at,
        text or nft_words.rule(statements),
        steps_of(statements, scope),
        rule.get("comment", ""),
        _counters(statements),
        rule.get("handle", 0),
    )


def _counters(statements: Iterable[Any]) -> Counters:
    for each in statements:
        inner = each.get("counter") if isinstance(each, dict) else None
        if isinstance(inner, dict):
            packets, size = inner.get("packets"), inner.get("bytes")
            if isinstance(packets, int) and isinstance(size, int):
                return Counters(packets, size)
    return NO_COUNTERS
