"""cases: one test for a table of small cases, where a test for each would be mostly overhead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

#: What a case that fails raises: pytest.raises and pytest.fail do not raise an Exception.
_FAILURES = (Exception, pytest.fail.Exception)


def each(names: str | Sequence[str], rows: Iterable[Any]) -> Callable[[Callable[..., None]], Any]:
    """Go through all rows in one test, as pytest.mark.parametrize does in a test for each.

    Every row is tried, and the error has a note for each that failed, with its values. Fixtures are shared by
    all rows, so a test that writes files or sets variables takes parametrize.
    """
    fields = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    cases = [_values(row, len(fields)) for row in rows]
    assert cases, "no cases"

    def decorated(test: Callable[..., None]) -> Any:
        signature = inspect.signature(test)

        @functools.wraps(test)
        def through_all(**fixtures: Any) -> None:
            failures: list[BaseException] = []
            for case in cases:
                named = dict(zip(fields, case, strict=True))
                try:
                    test(**named, **fixtures)
                except _FAILURES as failure:
                    failure.add_note(f"in the case {', '.join(f'{n}={v!r}' for n, v in named.items())}")
                    failures.append(failure)
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} cases failed", failures)

        left = [one for one in signature.parameters.values() if one.name not in fields]
        through_all.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]  # what is a fixture
        del through_all.__wrapped__  # pytest would look for fixtures there
        return through_all

    return decorated


def _values(row: Any, count: int) -> Sequence[Any]:
    if hasattr(row, "marks"):  # pytest.param
        assert not row.marks
        row = row.values if count > 1 else row.values[0]
    return [row] if count == 1 else [*row]
