"""faults: one system call of a run fails, or is the last one of its process; strace(1) does it.

A Place is a call by its name and its number in a process. The first calls of the main process are those of
the interpreter, before the first instruction of ours: they are left out. Children are followed; strace counts
the calls of each process by itself, so a fault may hit more than one of them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, cast

from .applying import ALL_SORTS
from .failing import OTHER, comparable
from .scratch import Result, Scratch, end

BACKENDS: dict[str, list[str]] = {
    "libiptc": [],
    "legacy": ["--force-iptables-binary", "legacy"],
    "nft": ["--force-iptables-binary", "nft"],
    "native": ["--native-nftables"],
}
PHASES = ("apply", "second run", "reconcile", "cleanup")
#: The errors that a call may have on a machine that runs out of something, or forbids something. Calls that
#: get memory (mmap, brk) are left out: the interpreter itself does not survive them.
ERRORS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("openat", "memfd_create", "pipe2", "dup", "fcntl"), ("EMFILE",)),
    **dict.fromkeys(("socket",), ("EMFILE", "ENOBUFS", "EPERM")),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), ("EAGAIN", "ENOMEM")),
    **dict.fromkeys(("execve",), ("ENOMEM", "EACCES")),
    **dict.fromkeys(("read", "pread64", "write", "lseek", "getdents64"), ("EIO",)),
    **dict.fromkeys(("sendto", "sendmsg", "recvfrom", "recvmsg"), ("ENOBUFS", "ENOMEM")),
    **dict.fromkeys(("setsockopt", "getsockopt"), ("ENOMEM", "EPERM")),
    **dict.fromkeys(("bind", "getsockname"), ("ENOBUFS",)),
    **dict.fromkeys(("flock",), ("ENOLCK",)),
    **dict.fromkeys(("newfstatat", "fstat", "readlink", "access", "faccessat2"), ("EACCES",)),
    **dict.fromkeys(("wait4",), ("EINTR",)),
}
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)")
_OURS = "/istio_iptables/"
_LAUNCHER = str(Path(__file__).parents[2] / "tools" / "launcher")
_SECONDS = 60.0


class Place(NamedTuple):
    """Where a fault is, and which: the name of an error, or KILL."""

    backend: str
    phase: str
    call: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.backend} {self.phase}: {self.call} {self.number} {self.fault}"


class Bench:
    """A namespace in which one phase of one backend is run again and again."""

    def __init__(self, scratch: Scratch, backend: str, phase: str) -> None:
        self.scratch, self.backend, self.phase = scratch, backend, phase
        first, other = [*BACKENDS[backend], *ALL_SORTS], [*BACKENDS[backend], *OTHER]
        self._first = first
        self._places: list[tuple[str, int]] = []
        self.arguments = {
            "apply": first,
            "second run": first,
            "reconcile": [*other, "--reconcile"],
            "cleanup": ["cleanup"],
        }[phase]
        self.environment = {"PYTHONPYCACHEPREFIX": str(scratch.directory / "bytecode")}
        self._set_up()
        self._done(*self.arguments)
        self.after = self.state()
        self._done("cleanup")
        self._set_up()
        self.before = self._seen = self.state()

    def state(self) -> dict[str, object]:
        """Return all that a run could change.

        Of rules that iptables-nft made, nft prints targets for one family only, the first: that is
        left to iptables-save.
        """
        found = self.scratch.state()
        tables = re.split(r"^(?=table )", found["nft"], flags=re.MULTILINE)
        found["nft"] = "".join(
            text
            if text.startswith("table inet ")
            else re.sub(r" (redirect to :\d+|xt target \w+)?$", "", text, flags=re.M)
            for text in tables
        )
        return comparable(found)

    def _done(self, *arguments: str) -> None:
        self.scratch.apply(*arguments, env=self.environment)

    def _set_up(self) -> None:
        if self.phase != "apply":
            self._done(*self._first, "--reconcile")

    def reset(self) -> None:
        """Make the namespace as it was before the phase."""
        if self._seen == self.before:
            return
        if self.phase != "apply":  # the short way, mostly
            self._set_up()
            self._seen = self.state()
        if self._seen != self.before:
            self._done("cleanup")
            self._set_up()
            self._seen = self.state()
            assert self._seen == self.before, f"{self.backend} {self.phase}: cleanup leaves something"

    def places(self) -> list[tuple[str, int]]:
        """Return the calls of the phase, by name and number, from the first instruction of ours on."""
        if self._places:
            return self._places
        self.reset()
        file = self.scratch.directory / "trace"
        self._seen = {}
        self._strace("-o", str(file), "-e", f"trace={','.join(ERRORS)}")
        counts: Counter[tuple[str, str]] = Counter()
        of_interpreter: Counter[str] = Counter()
        main, begun = "", False
        found: dict[tuple[str, int], None] = {}
        for match in filter(None, map(_LINE.match, file.read_text(errors="replace").splitlines())):
            pid, call, rest = match.groups()
            main, begun = main or pid, begun or _OURS in rest
            counts[pid, call] += 1
            if not begun:
                of_interpreter[call] += 1
            elif counts[pid, call] > of_interpreter[call]:  # else it would hit the interpreter too
                found[call, counts[pid, call]] = None
        self._places = list(found)
        return self._places

    def _strace(self, *options: str) -> Result:
        child = self.scratch.spawn(
            *("strace", "-f", "--seccomp-bpf", "-qq", *options),
            *(sys.executable, _LAUNCHER, *self.arguments),
            env=self.environment,
        )
        try:
            output, errors = child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            end(child)
            return subprocess.CompletedProcess(child.args, 124, "", "it did not end")
        return subprocess.CompletedProcess(child.args, child.returncode, output, errors)

    def wrong(self, place: Place) -> list[str]:
        """Have a fault happen, and return what is not as it should be then."""
        self.reset()
        what = "signal=KILL" if place.fault == "KILL" else f"error={place.fault}"
        done = self._strace(
            *("-o", "/dev/null", "-e", f"trace={place.call}"),
            *("-e", f"inject={place.call}:{what}:when={place.number}"),
        )
        now = self._seen = self.state()
        if place.fault == "KILL":
            return [*self._told(done), *self._killed(done, now, place)]
        found = self._told(done)
        if done.returncode == 0 and now != self.after:
            found.append(f"ended with 0, and is not as planned: {self._difference(now, self.after)}")
        if done.returncode != 0 and now != self.before:
            found.append(
                f"ended with {done.returncode}, and is not as before: {self._difference(now, self.before)}"
            )
        return found

    def _told(self, done: Result) -> list[str]:
        """Return what is wrong with the message of a run that failed."""
        found = [
            f"says {word!r}"
            for word in ("Traceback", "[Errno", "unexpected", "install its package anew")
            if word in done.stderr
        ]
        killed = done.returncode in (-9, 137)
        if done.returncode not in (0, 1) and not killed:
            found.append(f"ended with {done.returncode}")
        if done.returncode == 1 and "what to do: " not in done.stderr:
            found.append("says not what to do")
        return [f"{text}: {done.stderr[-500:]}" for text in found]

    def _killed(self, done: Result, now: dict[str, object], place: Place) -> list[str]:
        """Every table is as before or as after; and the next run, or cleanup, leaves nothing of it."""
        found = []
        if done.returncode == 0 and now != self.after:
            found.append(f"ended with 0, and is not as planned: {self._difference(now, self.after)}")
        if done.returncode == 1 and now != self.before:
            found.append(f"ended with 1, and is not as before: {self._difference(now, self.before)}")
        tables, wanted = _rules(now), (_rules(self.before), _rules(self.after))
        found += [
            f"{name} is neither as before nor as after: {lines}"
            for name, lines in tables.items()
            if all(lines != state.get(name, []) for state in wanted)
        ]
        again = [*self.arguments, *([] if self.phase == "cleanup" else ["--reconcile"])]
        self._done(*again)
        self._seen = self.state()
        if self._seen != self.after:
            found.append(f"the next run leaves: {self._difference(self._seen, self.after)}")
        return found

    @staticmethod
    def _difference(now: dict[str, object], wanted: dict[str, object]) -> str:
        return "; ".join(
            f"{key}: {now[key]!r:.300} instead of {wanted[key]!r:.300}"
            for key in now
            if now[key] != wanted[key]
        )


def _rules(state: dict[str, object]) -> dict[str, list[str]]:
    """Return the rules of each table, without sets and base chains that are empty."""
    found: dict[str, list[str]] = {}
    for key in ("ipv4 legacy", "ipv6 legacy", "ipv4 nft", "ipv6 nft"):
        value, table = state[key], ""
        for line in (value if isinstance(value, str) else "\n".join(cast("list[str]", value))).splitlines():
            table = line[1:] if line.startswith("*") else table
            if line.startswith("-A "):
                found.setdefault(f"{key} {table}", []).append(line)
    for chains in cast("list[list[str]]", state["nft"]):
        [name] = [chain.strip("{ ") for chain in chains if chain.startswith("table ")] or [""]
        if name.startswith("table inet istio"):
            found[name] = [chain for chain in chains if chain.startswith("chain ")]
    return {name: sorted(lines, key=lambda line: line.split()[1]) for name, lines in found.items() if lines}


def places_of(bench: Bench, kind: str) -> list[Place]:
    """Return all places of a phase for a kind of fault, `errors` or `kills`.

    Calls take turns, since most calls by far are those that read the modules of the program; and those of
    one name come in an order in which the first ones are spread over the run.
    """
    groups: dict[str, list[Place]] = {}
    for call, number in bench.places():
        for fault in ("KILL",) if kind == "kills" else ERRORS[call]:
            groups.setdefault(call, []).append(Place(bench.backend, bench.phase, call, number, fault))
    spread = [sorted(group, key=lambda place: place.number * 0.6180339887 % 1) for group in groups.values()]
    return [place for turn in zip_longest(*spread) for place in turn if place]
