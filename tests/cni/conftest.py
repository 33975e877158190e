"""Fixtures of the tests with container runtimes, which are skipped where these cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import foreign_programs, skipping
from tests.support.fixtures import namespace as namespace
from tests.support.fixtures import nothing_left_behind as nothing_left_behind
from tests.support.fixtures import why_no_namespaces
from tests.support.netns import Namespace

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `cni`, and skip it if there can be no namespaces."""
    skipping.mark(items, HERE, pytest.mark.cni, why_no_namespaces)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped for want of namespaces, and why."""
    skipping.say_so(terminalreporter, config, HERE, why_no_namespaces, "Run them with `sudo -E make cni`")


@pytest.fixture
def node() -> Iterator[Namespace]:
    """The network namespace of a node."""
    with Namespace("n") as made:
        yield made


@pytest.fixture(scope="session")
def plugins() -> Path:
    """The folder with the CNI plugins of Debian, which tools/foreign-programs has fetched."""
    folder = foreign_programs.FETCHED / "root/usr/lib/cni"
    if not (folder / "bridge").exists():
        pytest.skip(foreign_programs.why_not() or "no package of this release has the CNI plugins")
    return folder
