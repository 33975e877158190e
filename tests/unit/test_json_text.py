"""startup/json_text.py: JSON as the json package reads and writes it, with the text of each value."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from istio_iptables.startup import json_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), values, max_size=5)


@given(objects, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_it_reads_what_the_json_package_writes(value: dict[str, Any], indent: Any, ascii_only: bool):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    members = json_text.read_object(f" \n{text}\r\n\t")
    assert {key: member.value for key, member in members.items()} == value
    assert {key: json.loads(member.text) for key, member in members.items()} == value
    assert all(member.text in text for member in members.values())


@given(values)
def test_it_writes_what_the_json_package_reads(value: object):
    text = json_text.write(value)
    assert json.loads(text) == value
    assert text == json.dumps(value)


def test_without_the_c_module_it_does_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "_json", None)
    members = json_text.read_object('{"a": {"b": [1, 2.50, "\\u00e9"]}, "c": null}')
    assert members["a"].value == {"b": [1, 2.5, "é"]}
    assert members["a"].text == '{"b": [1, 2.50, "\\u00e9"]}'
    assert json_text.write({"é": [None]}) == '{"\\u00e9": [null]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "1",
        "{",
        "{}x",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1 "b":2}',
        "{a: 1}",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1, "a": 2}',
        '{"a": "\n"}',
        '{"a": ' + "[" * 100_000,
        "\ufeff{}",
    ],
)
def test_what_is_no_object_is_refused(text: str):
    with pytest.raises(ValueError, match=r"."):
        json_text.read_object(text)


def test_what_json_does_not_have_is_not_written():
    with pytest.raises(TypeError):
        json_text.write({"a": object()})
    with pytest.raises(ValueError, match=r"."):
        json_text.write({"a": float("nan")})
