"""Waiting: tests that take long say so, and that nothing hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

#: A test says that it still runs after so many seconds, and then again each time as many more have gone by.
INTERVAL = 30.0


class StillRunning:
    """The tests that run at the moment, side by side with pytest-xdist, and since when."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._running: dict[str, tuple[float, int]] = {}  # the start, and how often it has said so
        self._lock = threading.Lock()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note a test that begins."""
        with self._lock:
            self._running[nodeid] = (self._now(), 0)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Forget a test that has ended."""
        with self._lock:
            self._running.pop(nodeid, None)

    def tick(self) -> None:
        """Say which tests have been running for long."""
        with self._lock:
            for nodeid, (start, said) in self._running.items():
                seconds = self._now() - start
                if seconds >= INTERVAL * (said + 1):
                    self._running[nodeid] = (start, int(seconds // INTERVAL))
                    self._say(f"still running after {seconds:.0f} s: {nodeid}")


def watch(config: pytest.Config) -> None:
    """Have the process that reports say which tests take long; pytest-xdist's workers report nothing."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or reporter is None:
        return

    def say(text: str) -> None:
        reporter.ensure_newline()
        reporter.write_line(text)

    running = StillRunning(say)
    config.pluginmanager.register(running, "still-running")
    done = threading.Event()
    config.add_cleanup(done.set)

    def tick() -> None:
        while not done.wait(5):
            running.tick()

    threading.Thread(target=tick, daemon=True).start()
