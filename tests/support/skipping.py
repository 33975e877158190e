"""What happens to tests that cannot run here: they are skipped, loudly, all for one reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

#: Returns why tests cannot run, or nothing if they can; asked only where the answer is shown.
WhyNot: TypeAlias = Callable[[], str]


def mark(items: list[pytest.Item], folder: Path, marker: pytest.MarkDecorator, why_not: WhyNot) -> None:
    """Mark every test of a folder; with a reason why not, skip them all."""
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(marker)
            if why := why_not():
                # Before what the test itself asks for, so that there is one reason for all.
                item.add_marker(pytest.mark.skip(reason=why), append=False)


def say_so(
    reporter: pytest.TerminalReporter, config: pytest.Config, folder: Path, why_not: WhyNot, what_to_do: str
) -> None:
    """Say in one line how many tests of a folder were skipped for a reason, if there is one."""
    below = folder.relative_to(config.rootpath).as_posix() + "/"
    skipped = [report for report in reporter.stats.get("skipped", []) if report.nodeid.startswith(below)]
    if skipped and (why := why_not()):
        reporter.write_line(
            f"{folder.name.upper()} TESTS NOT RUN: {len(skipped)} skipped, {why}. {what_to_do}.",
            red=True,
            bold=True,
        )
