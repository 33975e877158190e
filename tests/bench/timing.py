"""What a whole process costs: its time by the clock and on the processor, its memory, its processes.

Time is taken from posix_spawn(3) to wait4(2), in rounds: every round runs every case once, in turn forwards
and backwards, so that what else the machine does hits all of them. Memory and processes are found in runs of
their own, since looking on costs time.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

from .figures import Spread, spread
from .place import Bench, Failed, Namespace, check, make_pod
from .processes import descendants, ended, memory

_MEMORY_ROUNDS = 3
#: How long the kernel gets after a round to take away its namespaces, in seconds, before it goes on.
_PAUSE = 0.1


class Command(NamedTuple):
    """A program with its arguments, and what it reads from its standard input."""

    words: tuple[str, ...]
    text: str = ""


class Case(NamedTuple):
    """Something to measure: a command, and what is run in its namespace before, without being measured."""

    name: str
    command: Command
    before: tuple[Command, ...] = ()


class Figures(TypedDict):
    """What a case costs. JSON as it is; None is what this system does not tell."""

    wall: Spread  #: seconds by the clock
    cpu: Spread  #: seconds on the processor, those of its child processes too
    peak: float  #: largest resident set of one of its processes, bytes
    tree: float | None  #: largest sum of the proportional sets of all of them, bytes; sampled
    processes: int  #: started altogether, itself included


class Usage(NamedTuple):
    """What one run took, in seconds."""

    wall: float
    cpu: float


# --- one run --------------------------------------------------------------------------------


def spawn(command: Command, environment: dict[str, str], errors: int) -> int:
    """Start a command, its standard error going to the descriptor `errors`, and return its process number."""
    source = os.memfd_create("standard input")
    try:
        os.write(source, command.text.encode()) if command.text else None
        os.lseek(source, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ]
        return os.posix_spawnp(command.words[0], command.words, environment, file_actions=actions)
    finally:
        os.close(source)


def run(command: Command, environment: dict[str, str], watch: Callable[[int], None] | None = None) -> Usage:
    """Run a command to its end and return what it took. Raises Failed unless it succeeds.

    `watch` gets its process number, and looks on until it has ended.
    """
    errors = os.memfd_create("standard error")
    try:
        start = time.perf_counter()
        pid = spawn(command, environment, errors)
        try:
            if watch:
                watch(pid)
            _, status, used = os.wait4(pid, 0)
        except BaseException:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise
        wall = time.perf_counter() - start
        if status != 0:
            message = os.pread(errors, 10_000, 0).decode(errors="replace").strip()[-500:]
            raise Failed(f"{' '.join(command.words)[:200]} ended with status {status}: {message}")
        return Usage(wall, used.ru_utime + used.ru_stime)
    finally:
        os.close(errors)


def peak(command: Command, environment: dict[str, str]) -> int:
    """Run a command and return the largest resident set of one of its processes, in bytes.

    GNU time starts it, being small: the kernel bills a process for the memory of the one that it was
    forked from, too, and Python's is not small.
    """
    words = ("/usr/bin/time", "--format", "%M", *command.words)
    done = subprocess.run(
        words, input=command.text, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(command.words)[:200]}: {done.stderr[-500:]}")
    return int(done.stderr.split()[-1]) * 1024


def tree(command: Command, environment: dict[str, str]) -> float | None:
    """Run a command and return the largest sum of its processes' proportional sets, in bytes.

    Looks on without a break: some processes last a few milliseconds.
    """
    seen: list[int] = []

    def watch(pid: int) -> None:
        while not ended(pid):
            seen.append(memory(descendants(pid)))

    run(command, environment, watch)
    return max(seen, default=0) or None


def processes(command: Command, environment: dict[str, str]) -> int:
    """Run a command and return how many processes it started, itself included.

    In a PID namespace of its own numbers are given out one after another: who comes after it tells
    by its own number how many there were.
    """
    script = '"$@" >/dev/null 2>&1 || exit 1; sh -c "echo \\$\\$"'
    words = ("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", *command.words)
    # 1 is the shell, and one number is that of the second shell
    return int(check(words, command.text, environment)) - 2


# --- many runs ------------------------------------------------------------------------------


def measure(cases: Sequence[Case], bench: Bench) -> dict[str, Figures]:
    """Measure cases in rounds. Every run has a new namespace, as in a new pod."""
    samples: dict[str, list[Usage]] = {case.name: [] for case in cases}
    for number in range(-bench.warm_up, bench.rounds):
        in_turn = cases if number % 2 == 0 else cases[::-1]
        with clearing_up() as until:
            for case in in_turn:
                with _prepared(case, bench, until).inside():
                    usage = run(case.command, bench.environment)
                if number >= 0:
                    samples[case.name].append(usage)
    return {case.name: _figures(case, samples[case.name], bench) for case in cases}


def _figures(case: Case, samples: Sequence[Usage], bench: Bench) -> Figures:
    def again(how: Callable[[Command, dict[str, str]], float | None]) -> float | None:
        with clearing_up() as until, _prepared(case, bench, until).inside():
            return how(case.command, bench.environment)

    trees = [again(tree) for _ in range(_MEMORY_ROUNDS)]
    return {
        "wall": spread([usage.wall for usage in samples]),
        "cpu": spread([usage.cpu for usage in samples]),
        "peak": statistics.median(again(peak) or 0 for _ in range(_MEMORY_ROUNDS)),
        # The highest: samples miss the peak, and never exceed it.
        "tree": max((size for size in trees if size), default=None),
        "processes": int(again(processes) or 0),
    }


def _prepared(case: Case, bench: Bench, until: contextlib.ExitStack) -> Namespace:
    pod = make_pod(until)
    with pod.inside():
        for command in case.before:
            run(command, bench.environment)
    return pod


@contextlib.contextmanager
def clearing_up():
    with contextlib.ExitStack() as until:
        yield until
    time.sleep(_PAUSE)
