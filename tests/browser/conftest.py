"""What happens where there is no browser: these tests are skipped, loudly. One browser is for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import browser, skipping
from tests.support.browser import Browser

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `browser`, for one process, and skip it without a browser."""
    skipping.mark(items, HERE, pytest.mark.browser, browser.why_not)
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("browser"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped, and why."""
    what_to_do = "Run them with `make browser`, which installs what it needs"
    skipping.say_so(terminalreporter, config, HERE, browser.why_not, what_to_do)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with Browser() as started:
        yield started
