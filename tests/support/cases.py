"""cases: one test for a table of small cases, where a test for each would be mostly overhead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

#: What a case that fails raises. What pytest.raises and pytest.fail raise is no Exception.
_FAILURES = (Exception, pytest.fail.Exception, BaseExceptionGroup)
_LONGEST_NAME = 200

#: The names of the cases, or what makes a name of a value.
Ids = Sequence[str] | Callable[[Any], object]


def all_cases(
    names: str | Sequence[str], rows: Iterable[Any], ids: Ids = repr
) -> Callable[[Callable[..., None]], Any]:
    """Try all rows in one test, where pytest.mark.parametrize makes a test of each.

    The error names every case that failed. Fixtures are shared by all rows, so a test that changes what the
    next row sees (monkeypatch, capsys) takes parametrize.
    """
    fields = [name.strip() for name in names.split(",")] if isinstance(names, str) else [*names]
    cases = [_values(row, len(fields)) for row in rows]
    assert cases, "a table without cases"

    def decorated(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def through_all(**fixtures: Any) -> None:
            failures: list[BaseException] = []
            for number, case in enumerate(cases):
                try:
                    test(**dict(zip(fields, case, strict=True)), **fixtures)
                except _FAILURES as failure:
                    name = ", ".join(str(ids(value)) for value in case) if callable(ids) else ids[number]
                    failure.add_note(f"in the case: {name[:_LONGEST_NAME]}")
                    failures.append(failure)
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(cases)} cases failed", failures)

        signature = inspect.signature(test)
        fixtures = [one for one in signature.parameters.values() if one.name not in fields]
        through_all.__signature__ = signature.replace(parameters=fixtures)  # type: ignore[attr-defined]  # for pytest
        del through_all.__wrapped__
        return through_all

    return decorated


def _values(row: Any, count: int) -> Sequence[Any]:
    return [row] if count == 1 else [*row]
