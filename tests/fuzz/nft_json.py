"""nft_json: what `nft -j` prints of all tables, or of one.

It is refused with the reason, or is a dump that, written again and read once more, is the same. One table can
be read as a native one, or is not one; and as a neighbour's. A native table that has nothing foreign can be
written for nft, a line a rule, and nothing in it ends its line or its quotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from istio_iptables.formats import nft, nft_dump, nft_foreign, nft_json
from istio_iptables.rules.model import Jump
from istio_iptables.rules.nftables.model import NativeTable
from tests.fuzz.holding import allowed, files, one_line_a_rule, text_of
from tests.support.nft_printed import COUNTER, MATCHES, TARGETS, printed


def corpus() -> Iterator[bytes]:
    for dump in files("tests/fixtures/nft/*.json"):
        yield dump
        objects = json.loads(dump)["nftables"]
        for table in [each["table"] for each in objects if "table" in each]:
            where = table["family"], table["name"]
            mine = [each for each in objects if where in [_place(value) for value in each.values()]]
            yield json.dumps({"nftables": [{"table": table}, *mine]}).encode()
    rules = [[match, COUNTER, *TARGETS[0][2]] for _, _, match in MATCHES]
    rules += [[COUNTER, *target] for _, _, target in TARGETS]
    yield printed(*rules, comment="istio-iptables").encode()
    for rule in rules:
        yield printed(rule).encode()


def _place(value: dict[str, object]) -> tuple[object, object]:
    return value.get("family"), value.get("table")


def check(data: bytes) -> None:
    text = text_of(data)
    if text is None:
        return
    found = allowed(lambda: nft_dump.parse(text), ValueError)
    if found is not None:
        assert nft_dump.parse(nft_dump.written(found)) == found
        assert found.counts is not None
    table = allowed(lambda: nft_json.parse(text), ValueError)
    allowed(lambda: list(nft_foreign.neighbours(text, "")), ValueError)
    if found and table is not None and not table.is_foreign and _has_names(table):
        one_line_a_rule(allowed(lambda: nft.script([table])) or "")


def _has_names(table: NativeTable) -> bool:
    """Tell whether tables and chains have names that nft takes; those of its own are not quoted."""
    rules = [rule for chain in table.chains for rule in chain.rules]
    names = [table.name, *(chain.name for chain in table.chains)]
    names += [rule.target.chain for rule in rules if isinstance(rule.target, Jump)]
    hooks = [f"{chain.hook.kind}{chain.hook.hook}{chain.hook.policy}" for chain in table.chains if chain.hook]
    return all(isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w./-]*", name) for name in (*names, *hooks))
