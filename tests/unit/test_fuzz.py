"""The harnesses of tests/fuzz hold for what they begin with; `make fuzz` goes on from there."""

from __future__ import annotations

import pytest

from tests.fuzz import NAMES, harness

#: As many texts of each corpus are tried here.
_MOST = 8


@pytest.mark.parametrize("name", NAMES)
def test_a_harness_holds_for_its_corpus(name: str) -> None:
    found = harness(name)
    corpus = sorted(set(found.corpus()), key=len)
    step = max(1, len(corpus) // _MOST)
    for data in corpus[::step]:
        found.check(data)
        found.check(data[: len(data) // 2])
        found.check(data.replace(b"10", b"9999999999"))
        found.check(data.replace(b"t", b"\x1b", 1))
    found.check(b"")
    found.check(b"\xff\xfe\x00")


@pytest.mark.parametrize("name", NAMES)
def test_a_harness_says_what_must_hold(name: str) -> None:
    module = __import__(f"tests.fuzz.{name}", fromlist=[name])
    assert module.__doc__
    assert module.__doc__.startswith(f"{name}: ")
