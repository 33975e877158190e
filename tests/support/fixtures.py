"""fixtures: what tests in network namespaces share. A folder's conftest.py imports those that it offers."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.support import netns
from tests.support.netns import Namespace


@functools.cache
def why_no_namespaces() -> str:
    """Return why there can be no namespaces, or nothing if there can."""
    reason = netns.why_not()
    return f"no network namespaces here: {reason}" if reason else ""


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail if a namespace outlives the tests."""
    yield
    netns.clean_up()
    assert why_no_namespaces() or netns.left_behind() == []


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace of its own, with nothing in it but `lo`."""
    with Namespace() as made:
        yield made
