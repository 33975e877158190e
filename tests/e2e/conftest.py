"""What happens where there can be no namespaces, or is no Envoy: these tests are skipped, loudly."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.e2e import envoy
from tests.support import skipping
from tests.support.fixtures import nothing_left_behind as nothing_left_behind
from tests.support.fixtures import why_no_namespaces

HERE = Path(__file__).parent


@functools.cache
def why_not() -> str:
    """Return why these tests cannot run, or nothing if they can."""
    return why_no_namespaces() or envoy.why_not()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `e2e`, and skip it if it cannot run."""
    skipping.mark(items, HERE, pytest.mark.e2e, why_not)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped, and why."""
    what_to_do = "Run them with `sudo -E make e2e`, which installs what it needs"
    skipping.say_so(terminalreporter, config, HERE, why_not, what_to_do)
