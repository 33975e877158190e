"""Fixtures of the kernel tests, and what happens where there can be none: they are skipped, loudly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import netlink, skipping
from tests.support.fixtures import namespace as namespace
from tests.support.fixtures import nothing_left_behind as nothing_left_behind
from tests.support.fixtures import why_no_namespaces
from tests.support.netns import Pod

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `kernel`, and skip it if there can be no namespaces."""
    skipping.mark(items, HERE, pytest.mark.kernel, why_no_namespaces)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped for want of namespaces, and why."""
    skipping.say_so(terminalreporter, config, HERE, why_no_namespaces, "Run them with `sudo -E make kernel`")


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A pod with both families, wired to a client."""
    with Pod() as made:
        yield made


@pytest.fixture
def new_pod() -> Iterator[Callable[..., Pod]]:
    """Make pods as wanted (see Pod); they go away with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Pod(**options))


@pytest.fixture
def space() -> Iterator[netlink.Namespace]:
    """A namespace in which functions of the netlink client are called."""
    with netlink.new_space() as made:
        yield made


@pytest.fixture
def wired(space: netlink.Namespace) -> netlink.Namespace:
    """The same with the interfaces d0 and d1 beside lo, which have no addresses of their own."""
    netlink.wire(space)
    return space
