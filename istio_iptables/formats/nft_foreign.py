"""nft_foreign: the nat chains of foreign nftables tables, as nft prints them, for change/neighbours.py.

nft prints a table twice: as JSON, which is read, and as text, in which an operator recognizes the rule. A
rule has the same handle in both.
"""

from __future__ import annotations

import json
import re

from ..change.foreign import NAT_PRIORITY, Base, Neighbour, Step
from ..rules import model
from ..rules.istio import CHAINS
from ..rules.nftables import model as nftables
from . import NFT_FAMILIES
from .nft_json import match_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from ..change.foreign import Kind
    from ..rules.model import Family, Match

    Object = Mapping[str, Any]

_HANDLE = re.compile(r"\s*(.*) # handle (\d+)")
_TRANSLATIONS = {"dnat", "redirect"}
_SOURCES = {"snat", "masquerade"}
_XT_TARGETS: Mapping[str, Kind] = {
    "DNAT": "translate",
    "REDIRECT": "translate",
    "NETMAP": "translate",
    "SNAT": "source",
    "MASQUERADE": "source",
}


def neighbours(printed: str, text: str) -> Iterator[Neighbour]:
    """Yield a table for each family that it is for, from `nft --json --handle` and `nft --handle`, numeric.

    Raises ValueError if that is not JSON of a table.
    """
    try:
        objects = [(kind, value) for item in json.loads(printed)["nftables"] for kind, value in item.items()]
        [table] = [value for kind, value in objects if kind == "table"]
        lines = {int(handle): rule for rule, handle in _HANDLE.findall(text)}
        for family, name in NFT_FAMILIES.items():
            if table["family"] in (name, "inet"):
                yield _neighbour(table, objects, lines, family)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not the JSON of a table: {error!r}") from error


def _neighbour(
    table: Object, objects: list[tuple[str, Any]], lines: Mapping[int, str], family: Family
) -> Neighbour:
    maps = {value["name"]: value.get("elem", []) for kind, value in objects if kind == "map"}
    steps: dict[str, list[Step]] = {}
    for kind, value in objects:
        if kind == "rule":
            words = lines.get(value["handle"], json.dumps(value["expr"]))
            steps.setdefault(value["chain"], []).append(_step(value["expr"], words, family, maps))
    chains = [value for kind, value in objects if kind == "chain"]
    return Neighbour(
        f"nftables table {table['family']} {table['name']}",
        family,
        "nat",
        tuple(
            Base(
                chain["name"],
                chain["hook"].upper(),
                _is_before(chain["prio"]),
                tuple(steps.get(chain["name"], ())),
            )
            for chain in chains
            if chain.get("type") == "nat" and chain["hook"] != "input"
        ),
        tuple((chain["name"], tuple(steps.get(chain["name"], ()))) for chain in chains),
    )


def _is_before(priority: int) -> bool | None:
    return None if priority == NAT_PRIORITY else priority < NAT_PRIORITY


def _step(statements: list[Any], words: str, family: Family, maps: Mapping[str, Any]) -> Step:
    matches: list[Match] = []
    local = vague = False
    kind: Kind = "other"
    to, chains = "", tuple[str, ...]()
    for statement in statements:
        if not isinstance(statement, dict):
            statement = {str(statement): None}
        [(name, value)] = list(statement.items())[:1]
        if name == "match":
            found = _matches(statement, family)
            if _is_local(value):
                local = True
            elif found is None:
                vague = True
            else:
                matches += found
        elif name in ("jump", "goto"):
            kind, chains = "jump", (value["target"],) if value["target"] not in CHAINS else ()
        elif name == "xt":  # a match or target of iptables, by its name alone
            vague = True
            kind = _XT_TARGETS.get(value["name"], kind) if value["type"] == "target" else kind
        elif name == "vmap":
            kind, chains, vague = "jump", tuple(_targets(value["data"], maps)), True
        elif name in _TRANSLATIONS:
            kind, to = "translate", _destination(value)
        elif name in _SOURCES:
            kind = "source"
        elif name in ("accept", "return"):
            kind = "accept" if name == "accept" else "return"
    return Step(words, kind, tuple(matches), to, tuple(chains), local, vague)


def _is_local(match: Object) -> bool:
    """Tell whether a match is `fib daddr type local`."""
    left = match["left"]
    return (
        isinstance(left, dict)
        and left.get("fib", {}).get("flags") in ("daddr", ["daddr"])
        and (match["op"], match["right"]) in (("==", "local"), ("==", 2))
    )


#: A match that no packet of a family has, for one of the other family.
_NOTHING = (model.Transport("tcp"), model.Transport("udp"))


def _matches(statement: Object, family: Family) -> tuple[Match, ...] | None:
    """Return a match as iptables has it, None for one that it does not have."""
    match = match_of(statement)
    negated = getattr(match, "negated", False)
    if isinstance(match, nftables.NfProto):
        return () if match.family == family else _NOTHING
    if isinstance(match, nftables.Addresses):
        if match.family != family:
            return _NOTHING
        return (nftables.Addresses(match.direction, family, match.ranges, negated),)
    if isinstance(match, nftables.Ports):
        return model.Transport(match.protocol), match
    return None if isinstance(match, model.ForeignMatch) else (match,)


def _targets(data: Any, maps: Mapping[str, Any]) -> Iterator[str]:
    """Yield the chains that a verdict map leads to, an anonymous or a named one."""
    elements = maps.get(data[1:], []) if isinstance(data, str) else data["set"]
    for element in elements:
        verdict = element[1] if isinstance(element, list) else {}
        for kind in ("jump", "goto"):
            if isinstance(verdict, dict) and kind in verdict:
                yield verdict[kind]["target"]


def _destination(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    address, port = value.get("addr", ""), value.get("port", "")
    if not isinstance(address, str) or isinstance(port, dict):
        return ""
    return f"{address}:{port}" if port else address
