"""Hypothesis profiles; the variable HYPOTHESIS_PROFILE chooses one.

`default` is what `make test` uses, `quick` has few examples, `fuzz` has many. A test that needs fewer or more
examples than the others takes a part or a multiple of `settings().max_examples`, so that the profile scales
it too.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("tests.support")

from tests.support import waiting  # noqa: E402, its assertions are rewritten too

for _name, _examples in (("quick", 3), ("default", 100), ("fuzz", 1000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,  # a busy machine is not an error
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "default")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and what a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Have tests that take long say so."""
    waiting.watch(config)
