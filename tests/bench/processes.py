"""Processes that the benchmark starts besides those it measures, and what the kernel says of any."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .place import Namespace, call

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def in_child(namespace: Namespace, what: Callable[[], object]) -> int:
    """Do something in a process inside a namespace, and return its number."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # Whatever its parent dies of, the kernel ends it then.
        call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        namespace.enter()
        what()
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def end(pid: int) -> None:
    """End a process that was started here, and what it has started."""
    for number in tuple(descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    os.waitpid(pid, 0)


def ended(pid: int) -> bool:
    """Tell whether a child has ended, without taking note of it for good."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def descendants(pid: int) -> Iterable[int]:
    """Return a process and all that it has started and that still run (as far as the kernel tells)."""
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from descendants(int(child))


@contextlib.contextmanager
def going_first() -> Iterator[None]:
    """Have a processor whenever this process wants one, so that it sees others as they are at one moment."""
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def memory(pids: Iterable[int], besides: Iterable[int] = ()) -> int:
    """Return the sum of the proportional sets of some processes in bytes: what they share counts once.

    A process that has been started but is not yet the new program still is its parent as far as memory goes
    (vfork). So what looks the same does not count again, nor what looks like one of `besides`.
    """
    # All numbers first: a child forked meanwhile would count again what its parent held alone before.
    looks = dict(map(_look, tuple(pids)))
    for same, _ in map(_look, besides):
        looks.pop(same, None)
    return sum(looks.values())


def _look(pid: int) -> tuple[tuple[str, ...], int]:
    """Return how a process's memory looks (its addresses, what it holds), and its proportional set, bytes."""
    try:
        addresses, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ValueError):  # it has ended
        return (), 0
    sizes = dict(line.split(":") for line in lines)
    return (addresses, sizes["Rss"], sizes["Anonymous"]), int(sizes["Pss"].split()[0]) * 1024
