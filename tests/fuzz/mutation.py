"""mutation: JSON that is still JSON, since of bytes that are changed at random hardly any is.

Half of the changes are libFuzzer's own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

#: What is odd in many places. NaN is none of JSON, but Python's reader takes it.
_ODD: list[Any] = [
    *(None, True, False, 0, -1, 65536, 2**32, 2**64, 1.5, 10**30, [], {}, [None], {"": None}),
    *("", "*", "a b", '"', "\\", "\n", "\x1b[2J", "\ud800", "é", "::", "0.0.0.0/0", "nan", "x" * 300),
]


def of_json(data: bytes, most: int, seed: int, otherwise: Callable[[bytes, int], bytes]) -> bytes:
    """Change a document; what is none, and every other one, `otherwise` changes."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return otherwise(data, most)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return otherwise(data, most)
    for _ in range(chance.choice((1, 1, 2, 5))):
        document = _changed(document, chance)
    made = json.dumps(document).encode()
    return made if len(made) <= most else otherwise(data, most)


def _changed(document: Any, chance: random.Random) -> Any:
    """Change one thing in a document, in place if it has members."""
    inner = list(_members(document))
    if not inner:
        return chance.choice(_ODD)
    where, key = chance.choice(inner)
    other_place, other_key = chance.choice(inner)
    what = chance.randrange(5)
    if what == 0:
        del where[key]
    elif what == 1:
        where[key] = chance.choice(_ODD)
    elif what == 2:
        where[key] = json.loads(json.dumps(other_place[other_key]))
    elif what == 3 and isinstance(where, list):
        where.insert(key, json.loads(json.dumps(where[key])))
    elif what == 3:
        where[str(other_key)] = where.pop(key)
    else:
        where[key] = [where[key]] if chance.random() < 0.5 else {"set": where[key]}
    return document


def _members(document: Any) -> Any:
    """Yield the places in a document: what holds a value, and its key or number there."""
    if isinstance(document, (dict, list)):
        for key, value in list(document.items() if isinstance(document, dict) else enumerate(document)):
            yield document, key
            yield from _members(value)
