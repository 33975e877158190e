"""Fixtures of the kernel tests, and what happens where there can be none: they are skipped, loudly."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import netlink, netns, skipping
from tests.support.netns import Namespace, Pod

HERE = Path(__file__).parent


@functools.cache
def why_not() -> str:
    """Return why there can be no namespaces, or nothing if there can."""
    reason = netns.why_not()
    return f"no network namespaces here: {reason}" if reason else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder `kernel`, and skip it if there can be no namespaces."""
    skipping.mark(items, HERE, pytest.mark.kernel, why_not)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line how many tests were skipped for want of namespaces, and why."""
    skipping.say_so(terminalreporter, config, HERE, why_not, "Run them with `sudo -E make kernel`")


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail if a namespace outlives the tests."""
    yield
    netns.clean_up()
    assert why_not() or netns.left_behind() == []


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace of its own, with nothing in it but `lo`."""
    with Namespace() as made:
        yield made


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
