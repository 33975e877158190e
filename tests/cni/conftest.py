"""Fixtures of the tests with container runtimes, which are skipped where these cannot run."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import foreign_programs, netns, skipping
from tests.support.netns import Namespace

HERE = Path(__file__).parent


@functools.cache
def why_not() -> str:
    """Return why there can be no namespaces, or nothing if there can."""
    reason = netns.why_not()
    return f"no network namespaces here: {reason}" if reason else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `cni`, and skip it if there can be no namespaces."""
    skipping.mark(items, HERE, pytest.mark.cni, why_not)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped for want of namespaces, and why."""
    skipping.say_so(terminalreporter, config, HERE, why_not, "Run them with `sudo -E make cni`")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail if a namespace outlives the tests."""
    yield
    netns.clean_up()
    assert why_not() or netns.left_behind() == []


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace with nothing in it but `lo`."""
    with Namespace() as made:
        yield made


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
