"""The text of a network configuration, with the plugin's entry and without: all else stays byte for byte.

What a text means is read by the standard library's json, whose objects are pairs here: keys may be twice.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from istio_iptables.cni.node.listing import (
    Invalid,
    as_list,
    made_from,
    read_list,
    read_single,
    with_entry,
    without_entry,
)
from tests.support.cni_lists import ENTRY, INVALID, OURS, lists, singles


def pairs(text: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=lambda members: members)
    return found


def chain(text: str) -> list[Any]:
    found: list[Any] = [value for key, value in pairs(text) if key == "plugins"][-1]
    return found


def in_common(one: str, other: str) -> int:
    """The length of the beginning that both have in common."""
    pairs_of = zip(one, other, strict=False)
    return next((number for number, (a, b) in enumerate(pairs_of) if a != b), min(len(one), len(other)))


def types(text: str) -> list[str]:
    plugins: list[dict[str, str]] = json.loads(text)["plugins"]
    return [plugin["type"] for plugin in plugins]


#: Texts are expensive to make.
some = settings(max_examples=max(1, settings().max_examples // 2))
ENTRY_AS_PAIRS = pairs(json.dumps(ENTRY))


@some
@given(lists())
def test_the_entry_is_the_last_and_there_is_one(text: str):
    new = with_entry(read_list(text), ENTRY)
    others = [plugin for plugin in chain(text) if dict(plugin)["type"] != OURS]
    assert chain(new) == [*others, ENTRY_AS_PAIRS]
    assert [(k, v) for k, v in pairs(new) if k != "plugins"] == [
        (k, v) for k, v in pairs(text) if k != "plugins"
    ]
    assert with_entry(read_list(new), ENTRY) == new


@some
@given(lists(with_ours=False))
def test_all_else_stays_byte_for_byte_and_comes_back(text: str):
    new = with_entry(read_list(text), ENTRY)
    assert in_common(text, new) + in_common(text[::-1], new[::-1]) >= len(text)
    assert without_entry(read_list(new)) == text


@some
@given(lists(with_ours=True))
def test_entries_of_before_go_with_what_separates_them(text: str):
    without = without_entry(read_list(text))
    assert chain(without) == [plugin for plugin in chain(text) if dict(plugin)["type"] != OURS]
    remaining = iter(text)
    assert all(character in remaining for character in without)  # nothing is new


@given(singles())
def test_a_single_plugin_becomes_a_list_and_again_what_it_was(text: str):
    new = with_entry(read_list(as_list(text)), ENTRY)
    plugin = json.loads(text)
    document = json.loads(new)
    assert document["plugins"] == [plugin, ENTRY]
    assert (document["name"], document["cniVersion"]) == (plugin["name"], plugin["cniVersion"])
    assert text.strip() in new
    assert made_from(read_list(new)) == text


@some
@given(lists())
def test_a_list_that_was_always_one_is_not_taken_for_a_made_one(text: str):
    assert made_from(read_list(text)) is None


@given(INVALID)
def test_what_a_runtime_passes_over_is_invalid(text: str):
    with pytest.raises(Invalid):
        read_list(text)
    with pytest.raises(Invalid):
        read_single(text if "plugins" in text else "{}")


@pytest.mark.parametrize("key", ["type", "Type", "TYPE"])
def test_go_reads_keys_of_a_plugin_in_any_case(key: str):
    """encoding/json: "preferring an exact match but also accepting a case-insensitive match"."""
    listing = read_list(
        f'{{"name": "n", "cniVersion": "1.0.0", "plugins": [{{"type": "a"}}, {{"{key}": "{OURS}"}}]}}'
    )
    assert listing.ours == (1,)


@some
@given(lists(), st.binary(max_size=8))
def test_bytes_that_are_no_text_stay(text: str, junk: bytes):
    """Go replaces them by U+FFFD when it reads, and does not refuse the file."""
    odd = junk.decode("utf-8", "surrogateescape")
    listed = json.loads(text)["plugins"]
    changed = text.replace('"portmap"', f'"port{json.dumps(odd, ensure_ascii=False)[1:-1]}"')
    if changed == text:
        return
    new = with_entry(read_list(changed), ENTRY)
    assert len(json.loads(new)["plugins"]) == sum(p["type"] != OURS for p in listed) + 1
    if OURS not in types(text):
        assert without_entry(read_list(new)) == changed
