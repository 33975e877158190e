"""What happens where there can be no namespaces, or is no Envoy: these tests are skipped, loudly."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import envoy
from tests.support import netns, skipping

HERE = Path(__file__).parent


@functools.cache
def why_not() -> str:
    """Return why these tests cannot run, or nothing if they can."""
    reason = netns.why_not()
    return f"no network namespaces here: {reason}" if reason else envoy.why_not()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `e2e`, and skip it if it cannot run."""
    skipping.mark(items, HERE, pytest.mark.e2e, why_not)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped, and why."""
    what_to_do = "Run them with `sudo -E make e2e`, which installs what it needs"
    skipping.say_so(terminalreporter, config, HERE, why_not, what_to_do)


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail if a namespace outlives the tests."""
    yield
    netns.clean_up()
    assert why_not() or netns.left_behind() == []
