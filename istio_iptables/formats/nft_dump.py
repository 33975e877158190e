"""nft_dump: what `nft -j list ruleset` prints, as the objects that it is made of, and written again.

The schema is that of libnftables-json(5), of nftables 0.9.3 and later. What the rules mean is said in
interpreter/nft_expressions.py, which takes the objects.
"""

from __future__ import annotations

import json
import re

from ..settings.texts import shown
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Object = Mapping[str, Any]

#: The kinds of objects that have a part in what happens to a packet, and what of each has to be there.
_NEEDED: Mapping[str, Mapping[str, type]] = {
    "table": {"family": str, "name": str},
    "chain": {"family": str, "table": str, "name": str},
    "rule": {"family": str, "table": str, "chain": str, "expr": list},
    "set": {"family": str, "table": str, "name": str},
    "map": {"family": str, "table": str, "name": str},
}
#: What may be there besides.
_OPTIONAL: Mapping[str, Mapping[str, type]] = {
    "metainfo": {"version": str},
    "chain": {"handle": int, "type": str, "hook": str, "prio": int, "policy": str},
    "rule": {"handle": int, "comment": str},
    "set": {"handle": int, "elem": list, "flags": list},
    "map": {"handle": int, "elem": list, "flags": list},
}
_KINDS_IN_WORDS = {str: "a text", int: "a number", list: "a list"}
#: Kinds that statements name, and that do not change what these mean.
_NAMED = frozenset(
    {
        "counter",
        "quota",
        "limit",
        "ct helper",
        "ct timeout",
        "ct expectation",
        "flowtable",
        "synproxy",
        "secmark",
    }
)


class NftDump(Record):
    """The objects of a dump in its order, each a mapping of its kind to what it is, as nft has them."""

    objects: tuple[Object, ...]

    @property
    def version(self) -> str:
        """The version of nft that printed it, an empty text if it does not say."""
        for each in self.objects:
            if "metainfo" in each:
                return str(each["metainfo"].get("version", ""))
        return ""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many objects of each kind were read; see also `unread` of interpreter/nft_expressions.py."""
        return _counted(kind for kind in self._kinds() if kind in _NEEDED or kind in _NAMED)

    @property
    def unknown(self) -> Mapping[str, int]:
        """How many objects there are of each kind that is not known."""
        return _counted(kind for kind in self._kinds() if kind not in _NEEDED and kind not in _NAMED)

    def _kinds(self) -> Iterator[str]:
        return (kind for each in self.objects for kind in each if kind != "metainfo")


def _counted(kinds: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def parse(text: str) -> NftDump:
    """Return what nft printed. Raises ValueError, with a text for the user, if that is not such a dump."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_not_json(text, error)) from error
    except RecursionError:
        raise ValueError("the JSON is nested too deeply for one of nft") from None
    objects = whole.get("nftables") if isinstance(whole, dict) else None
    if not isinstance(objects, list):
        raise ValueError('JSON, but not of nft: it has no list "nftables"')
    for number, each in enumerate(objects, 1):
        _check(number, each)
    _check_tables(objects)
    return NftDump(tuple(objects))


def _not_json(text: str, error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    if not text.strip():
        return "nothing was read: `nft -j list ruleset` prints at least its version"
    is_short = error.pos >= len(text.rstrip()) or not text.rstrip().endswith("]}")
    if text.lstrip().startswith("{") and is_short and error.msg != "Extra data":
        return f"the JSON of nft ends at {where} before it is complete: what wrote it was interrupted"
    return f"not JSON ({error.msg}) at {where}; `nft -j list ruleset` prints it, `nft list ruleset` does not"


def _check(number: int, each: Any) -> None:
    """Raise ValueError if an object lacks what it takes to be read."""
    if not isinstance(each, dict) or len(each) != 1:
        raise ValueError(f"object {number} of the list is not one of nft: {json.dumps(each)[:80]}")
    [(kind, value)] = each.items()
    what = f"object {number} of the list, of the kind {shown(kind)}"
    needed, optional = _NEEDED.get(kind, {}), _OPTIONAL.get(kind, {})
    if (needed or optional) and not isinstance(value, dict):
        raise ValueError(f"{what}, is not an object")
    of_base = ("type", "prio") if kind == "chain" and "hook" in value else ()
    for part in (*needed, *of_base):
        if part not in value:
            raise ValueError(f"{what}, has no {part!r}")
    for part, wanted in (*needed.items(), *optional.items()):
        if part in value and not isinstance(value[part], wanted):
            raise ValueError(f"{what}: its {part!r} is not {_KINDS_IN_WORDS[wanted]}")


def _check_tables(objects: Iterable[Object]) -> None:
    """Raise ValueError if the table of an object is not there: `nft -j list chain` prints a part of one."""
    parts = [(kind, value) for each in objects for kind, value in each.items() if kind in _NEEDED]
    tables = {(value["family"], value["name"]) for kind, value in parts if kind == "table"}
    for kind, value in parts:
        if kind != "table" and (value["family"], value["table"]) not in tables:
            of = f"{shown(value['family'])} {shown(value['table'])}"
            raise ValueError(
                f"a {kind} of the table {of}, and not the table itself: an "
                "answer from a part would be wrong, so give all of it: `nft -j list ruleset`"
            )


def written(dump: NftDump) -> str:
    """Return a dump as nft prints it, character for character."""
    return json.dumps({"nftables": list(dump.objects)}, ensure_ascii=False) + "\n"


# --- `nft -a list ruleset` --------------------------------------------------------------------

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_RULE = re.compile(r"\t\t(.*\S) # handle (\d+)$")
_COUNTED = re.compile(r"counter packets \d+ bytes \d+")


def rule_texts(text: str) -> Mapping[tuple[str, str, int], str]:
    """Return the rules in what `nft -a list ruleset` prints, without counts, by family, table and handle."""
    found: dict[tuple[str, str, int], str] = {}
    of = ("", "")
    for line in text.splitlines():
        table, rule = _TABLE.match(line), _RULE.match(line)
        if table:
            of = (table[1], table[2])
        elif rule:
            found[(*of, int(rule[2]))] = _COUNTED.sub("counter", rule[1])
    return found
