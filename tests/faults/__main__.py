"""Run `make faults`: every N-th place of every phase of every backend, and report the counts."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from ..support.faults import BACKENDS, PHASES, Bench, places_of
from ..support.scratch import Scratch


def main() -> int:
    """Try the places, side by side in a process for each processor. Return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=2000, help="so many of each kind, if there are")
    parser.add_argument("--seconds", type=float, default=7200, help="stop after so many seconds")
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--phase", choices=PHASES, action="append")
    parser.add_argument("--kind", choices=["errors", "kills"], action="append")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    jobs = [(b, p) for p in options.phase or PHASES for b in options.backend or BACKENDS]
    share = -(-options.faults // len(jobs))
    children = []
    for number in range(options.processes):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                kinds = options.kind or ["errors", "kills"]
                status = _some(jobs[number :: options.processes], kinds, share, options.seconds)
                sys.stdout.flush()
            finally:
                os._exit(status)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def _some(jobs: list[tuple[str, str]], kinds: list[str], share: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    tried: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for number, (backend, phase) in enumerate(jobs):
        until = time.monotonic() + (deadline - time.monotonic()) / (len(jobs) - number)
        with Scratch(addresses=True) as scratch:
            bench = Bench(scratch, backend, phase)
            per_kind = []
            for kind in kinds:
                places = places_of(bench, kind)
                per_kind.append((kind, places[:share]))
            longest = max(len(places) for _, places in per_kind)
            for index in range(longest):
                for kind, places in per_kind:
                    if index >= len(places) or time.monotonic() > until:
                        continue
                    found = bench.wrong(places[index])
                    tried[kind] += 1
                    wrong[kind] += bool(found)
                    for text in found:
                        print(f"WRONG {places[index]}: {text}", flush=True)
        print(f"{backend} {phase}: {dict(tried)} tried so far, wrong: {dict(wrong)}", flush=True)
    return int(bool(wrong.total()))


if __name__ == "__main__":
    sys.exit(main())
