"""What one run of the command costs, as a whole process: `make bench`.

Every command is run many times in turn with the others, in a network namespace of its own. Quoted
are medians of the wall time and, since machines differ, the ratio to a bare interpreter and one
iptables-restore together. Peak memory is what GNU time says of one more run: it starts small, while
a process that Python starts is billed for what Python held when it was forked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROUNDS = 25
WARM_UP = 3
TOOL = (str(Path(sys.executable).with_name("istio-iptables")),)
DEFAULT = (*TOOL, "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*")
EMPTY = "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
NAMESPACE = f"iib-{os.getpid()}"


class Case(NamedTuple):
    """A command, what it reads, and whether rules are in place before each run."""

    name: str
    command: tuple[str, ...]
    standard_input: str = ""
    rules_in_place: bool = False


def inside(*command: str, text: str = "") -> str:
    """Run a command in the namespace and return what it prints."""
    full = ("ip", "netns", "exec", NAMESPACE, *command)
    return subprocess.run(full, input=text, text=True, capture_output=True, check=True).stdout


def prepare(case: Case, script: str) -> None:
    """Put the namespace into the state that the case starts from."""
    inside("iptables-legacy-restore", text=EMPTY)
    if case.rules_in_place:
        inside("iptables-legacy-restore", "--noflush", text=script)


def measure(case: Case, environment: dict[str, str]) -> float:
    """Run a case once and return its seconds. Its parent is in the namespace already."""
    with tempfile.TemporaryFile() as source, open(os.devnull, "wb") as sink:
        source.write(case.standard_input.encode())
        source.seek(0)
        actions = [
            (os.POSIX_SPAWN_DUP2, source.fileno(), 0),
            (os.POSIX_SPAWN_DUP2, sink.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, sink.fileno(), 2),
        ]
        start = time.perf_counter()
        pid = os.posix_spawnp(case.command[0], case.command, environment, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        seconds = time.perf_counter() - start
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{case.name}: {' '.join(case.command)} ended with {status}")
    return seconds


def peak_memory(case: Case, environment: dict[str, str]) -> int:
    """Run a case once and return its peak memory in KiB."""
    command = ("/usr/bin/time", "--format", "%M", *case.command)
    done = subprocess.run(
        command, input=case.standard_input, text=True, capture_output=True, env=environment, check=True
    )
    return int(done.stderr.split()[-1])


def cases(script: str) -> list[Case]:
    """Return what is measured; the first two are what the others are compared with."""
    return [
        Case("bare interpreter", (sys.executable, "-c", "pass")),
        Case("iptables-legacy-restore", ("iptables-legacy-restore", "--noflush"), script),
        Case("default apply", DEFAULT),
        Case("second apply (nothing to do)", DEFAULT, rules_in_place=True),
        Case("cleanup", (*TOOL, "cleanup"), rules_in_place=True),
        Case("--dry-run", (*DEFAULT, "--dry-run")),
        Case("--help", (*TOOL, "--help")),
    ]


def table(samples: dict[str, list[float]], peaks: dict[str, int]) -> str:
    """Return the medians as a Markdown table, ratios to the first two rows together."""
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    names = list(samples)
    base = medians[names[0]] + medians[names[1]]
    lines = [
        "| command | median | times (bare + restore) | peak memory |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in names:
        ratio = f"{medians[name] / base:.1f}" if name not in names[:2] else ""
        lines.append(f"| {name} | {medians[name] * 1000:.1f} ms | {ratio} | {peaks[name] / 1024:.0f} MB |")
    return "\n".join(lines)


def enter_namespace() -> None:
    """Move this process into the benchmark's namespace."""
    from istio_iptables import enter_network_namespace

    enter_network_namespace(NAMESPACE)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "XTABLES_LOCKFILE": str(Path(folder, "xtables.lock"))}
            # As installed: bytecode is compiled once, not at every start.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            os.environ.update(environment)
            script = subprocess.run((*TOOL, "render"), capture_output=True, text=True, check=True).stdout
            enter_namespace()
            samples: dict[str, list[float]] = {case.name: [] for case in cases(script)}
            for round_number in range(-WARM_UP, rounds):
                for case in cases(script):
                    prepare(case, script)
                    seconds = measure(case, environment)
                    if round_number >= 0:
                        samples[case.name].append(seconds)
            peaks = {}
            for case in cases(script):
                prepare(case, script)
                peaks[case.name] = peak_memory(case, environment)
        print(table(samples, peaks))
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


if __name__ == "__main__":
    main()
