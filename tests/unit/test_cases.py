"""A test that goes through cases tries all of them, and names those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import all_cases


def notes_of(failure: BaseException) -> list[str]:
    """The notes of a failure, and of those that it is made of."""
    parts = failure.exceptions if isinstance(failure, BaseExceptionGroup) else ()
    return [*getattr(failure, "__notes__", []), *(note for part in parts for note in notes_of(part))]


def test_all_cases_are_tried_and_those_that_fail_are_named() -> None:
    tried = []

    @all_cases(("number", "square"), [(1, 1), (2, 5), (3, 9), (4, 17)])
    @all_cases("sign", ["+", "-"], ids=["plus", "minus"])
    def squares(number: int, square: int, sign: str) -> None:
        tried.append((number, sign))
        if sign == "+":
            with pytest.raises(ZeroDivisionError):
                assert number**2 / (number**2 - square)
        else:
            assert number**2 == square

    with pytest.raises(BaseExceptionGroup) as failed:
        squares()
    assert tried == [(number, sign) for number in (1, 2, 3, 4) for sign in "+-"]
    assert failed.value.message == "2 of 4 cases failed"
    assert [notes_of(one) for one in failed.value.exceptions] == [
        ["in the case: 2, 5", "in the case: plus", "in the case: minus"],
        ["in the case: 4, 17", "in the case: plus", "in the case: minus"],
    ]


@all_cases("text", ["a", "b"])
def test_the_other_parameters_are_fixtures(text: str, tmp_path: Path) -> None:
    (tmp_path / text).write_text(text)
    assert (tmp_path / "a").exists()


def test_a_table_without_cases_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        all_cases("text", [])
