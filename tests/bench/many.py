"""Many pods that start at the same moment: what that costs the machine, and who waits for whom.

One process per namespace stands ready inside; all start a default apply when the word is given.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .figures import spread
from .place import Bench, Failed, Namespace, make_pod
from .processes import descendants, end, ended, going_first, in_child, memory
from .runs import DEFAULT
from .timing import Command, clearing_up, spawn

COUNTS = (1, 10, 50)
OWN, CNI, SHARED, NATIVE = "a lock file each", "--cni-mode", "one lock file", "native, a lock file each"
#: How often memory is looked at, in seconds.
_LOOK = 0.02
_MEMORY_ROUNDS = 3


class Manner(NamedTuple):
    """How the runs are started: with which options, and whether all see the same lock file."""

    name: str
    options: tuple[str, ...] = ()
    shared: bool = False


MANNERS = (
    Manner(OWN),
    Manner(CNI, ("--cni-mode",), shared=True),
    Manner(SHARED, shared=True),
    Manner(NATIVE, ("--native-nftables",)),
)


class Run(NamedTuple):
    """What became of one run. Times in seconds."""

    status: int
    end: float  #: by the clock that all processes share (CLOCK_MONOTONIC)
    wall: float
    cpu: float
    asleep: float  #: the time in which its first process neither used nor wanted a processor
    message: str = ""


class Start(NamedTuple):
    """What became of all runs that were started at one moment."""

    wall: float  #: from the word to the end of the last
    runs: list[Run]
    memory: int  #: largest sum of the proportional sets of all processes, bytes; 0 if it was not measured


def start(count: int, manner: Manner, bench: Bench, *, look: bool = False) -> Start:
    """Start `count` runs at one moment, each in a namespace of its own, and wait for all of them."""
    with clearing_up() as until:
        reports, report = os.pipe()
        word, give = os.pipe()
        waiters = []
        for number in range(count):
            lock = bench.folder / ("shared.lock" if manner.shared else f"{number}.lock")
            environment = {**bench.environment, "XTABLES_LOCKFILE": str(lock)}
            command = Command((*DEFAULT, *manner.options))
            pod = make_pod(until)
            waiters.append(_stand_ready(pod, command, environment, (word, give, report)))
            until.callback(end, waiters[-1])
        os.close(report)
        os.close(word)
        with open(reports) as told:
            for _ in waiters:
                told.readline()  # "ready"
            begin = time.perf_counter()
            os.close(give)
            held = _look_on(waiters) if look else 0
            runs = [Run(*json.loads(line)) for line in told.read().splitlines()]
    if len(runs) != count:
        raise Failed(f"{count - len(runs)} of {count} runs have not reported")
    return Start(max(run.end for run in runs) - begin, runs, held)


def _stand_ready(
    pod: Namespace, command: Command, environment: dict[str, str], pipes: tuple[int, int, int]
) -> int:
    word, give, report = pipes

    def wait() -> None:
        os.close(give)
        os.write(report, b"ready\n")
        os.read(word, 1)  # the end of the pipe is the word
        os.write(report, f"{json.dumps(_run(command, environment))}\n".encode())

    return in_child(pod, wait)


def _run(command: Command, environment: dict[str, str]) -> Run:
    errors = os.memfd_create("standard error")
    begin = time.perf_counter()
    pid = spawn(command, environment, errors)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finish = time.perf_counter()
    running, wanting = _scheduled(pid)
    _, status, used = os.wait4(pid, 0)
    lines = os.pread(errors, 10_000, 0).decode(errors="replace").splitlines() if status else []
    wall = finish - begin
    asleep = max(wall - running - wanting, 0.0)
    return Run(
        os.waitstatus_to_exitcode(status),
        finish,
        wall,
        used.ru_utime + used.ru_stime,
        asleep,
        lines[-1][:300] if lines else "",
    )


def _scheduled(pid: int) -> tuple[float, float]:
    """Return the seconds that a process ran, and those it waited for a processor (/proc/PID/schedstat)."""
    running, wanting, *_ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(running) / 1e9, int(wanting) / 1e9


def _look_on(waiters: Sequence[int]) -> int:
    """Return the most memory that the runs held together, looking on until the last has ended."""
    most, waiting = 0, set(waiters)
    with going_first():
        while waiting:
            started = [(waiter, *measured) for waiter, *measured in map(descendants, waiting)]
            most = max(most, sum(memory(measured, besides=[waiter]) for waiter, *measured in started))
            waiting = {waiter for waiter in waiting if not ended(waiter)}
            # Longer than the look itself takes, or the runs would get no processor.
            time.sleep(_LOOK)
    return most


# --- the section ----------------------------------------------------------------------------


def take(bench: Bench, counts: Sequence[int] = COUNTS) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    kinds = [(count, manner) for count in counts for manner in MANNERS]
    taken: list[list[Start]] = [[] for _ in kinds]
    for number in range(-min(bench.warm_up, 1), bench.rounds):
        in_turn = list(enumerate(kinds))
        for index, (count, manner) in in_turn if number % 2 == 0 else in_turn[::-1]:
            started = start(count, manner, bench)
            if number >= 0:
                taken[index].append(started)
    rows = [
        _row(count, manner, starts, _memory(count, manner, bench))
        for (count, manner), starts in zip(kinds, taken, strict=True)
    ]
    return {"rounds": bench.rounds, "cores": os.cpu_count(), "rows": with_waiting(rows)}


def _memory(count: int, manner: Manner, bench: Bench) -> int:
    """Return the most of some samples: they miss the peak, and never exceed it."""
    return max(start(count, manner, bench, look=True).memory for _ in range(_MEMORY_ROUNDS))


def _row(count: int, manner: Manner, starts: Sequence[Start], memory: int) -> dict[str, Any]:
    runs = [run for started in starts for run in started.runs]
    failed = [run for run in runs if run.status != 0]
    return {
        "at_once": count,
        "manner": manner.name,
        "total": spread([started.wall for started in starts]),
        "wall": spread([run.wall for run in runs]),
        "cpu": statistics.mean(run.cpu for run in runs),
        "asleep": spread([run.asleep for run in runs]),
        "memory": memory,
        "failed": len(failed),
        "runs": len(runs),
        "message": failed[0].message if failed else "",
    }


def with_waiting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add how long a run waits for the lock: what it sleeps longer than with a lock file of its own."""
    own = {row["at_once"]: row["asleep"] for row in rows if row["manner"] == OWN}
    for row in rows:
        usual = own[row["at_once"]]["median"]
        comparable = row["manner"] in (CNI, SHARED)
        row["waiting"] = (
            {name: max(row["asleep"][name] - usual, 0.0) for name in ("median", "high")}
            if comparable
            else None
        )
    return rows
