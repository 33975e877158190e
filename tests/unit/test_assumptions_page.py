"""docs/what-is-proved.md: each assumption names a test that exists, and every such test is named."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.pages import ROOT

_KERNEL = ROOT / "tests/kernel"
_ASSUMPTIONS = "test_assumptions.py"


def _section() -> str:
    page = (ROOT / "docs/what-is-proved.md").read_text()
    _, _, rest = page.partition("\n## What is assumed of the kernel\n")
    return rest.partition("\n## ")[0]


def _named() -> list[tuple[str, str]]:
    """Return file and name of each test that the section names."""
    found = re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", _section())
    return [(file or _ASSUMPTIONS, name) for file, name in found]


def _tests(file: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", file.read_text(), re.MULTILINE))


def test_each_assumption_names_tests():
    rows = [line for line in _section().splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert [row for row in rows[2:] if not re.search(r"\| `test_.*` \|$", row)] == []


def test_every_test_that_is_named_exists():
    assert [each for each in _named() if each[1] not in _tests(_KERNEL / each[0])] == []


def test_every_test_of_an_assumption_is_named():
    assert _tests(_KERNEL / _ASSUMPTIONS) - {name for _, name in _named()} == set()
