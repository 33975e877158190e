"""A run that is killed or stopped, and the lock between several: SPEC section 5."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from istio_iptables import Machine, Ruleset, prepare
from istio_iptables.kernel import lock
from istio_iptables.kernel.own_network import FIRST_PID_NAMESPACE
from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, rules_of
from tests.support.failing import OTHER, WAITING, everything_stays, failed, wanted
from tests.support.oracle import expected
from tests.support.saved import normalise_save

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    VARIANTS,
    Fork,
    Scratch,
    needs_seccomp,
    owned,
    refuse_replacing,
)

if TYPE_CHECKING:
    pass


pytestmark = KERNEL


# --- killed -----------------------------------------------------------------------------------


def put_in_place(rules: Ruleset, variant: str) -> None:
    with Machine(forced_variant=variant) as machine:
        prepare(machine, rules).apply()


def tables_of(scratch: Scratch) -> dict[str, dict[str, list[str]]]:
    return {
        f"{family} {variant}": normalise_save(scratch.save(variant, family))
        for family in FAMILIES
        for variant in VARIANTS
    }


def every_table_is_one_of(scratch: Scratch, states: list[dict[str, dict[str, list[str]]]]) -> None:
    """A child that the killed process had started may still be at work for a moment."""

    def wrong() -> list[str]:
        now = tables_of(scratch)
        names = {(k, t) for state in (*states, now) for k, tables in state.items() for t in tables}
        return [
            f"{key} {table}: {now[key].get(table)}"
            for key, table in sorted(names)
            if all(now[key].get(table) != state[key].get(table) for state in states)
        ]

    deadline = time.monotonic() + 2
    while wrong() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert wrong() == []


@every_backend
def test_killed_anywhere_while_applying_every_table_is_as_before_or_as_after(backend: str) -> None:
    """SIGKILL at the n-th function call, for n all over the run."""
    forced = dict(zip(BACKENDS, ("", "legacy", "nft"), strict=True))[backend]
    # The usual mark and table are what a later run knows again, even without the rules that use them.
    a, b = wanted(*OTHER, "-t", "1337"), wanted(*ALL_SORTS)
    with Scratch(addresses=True) as scratch, scratch.inside():
        network = scratch.network()
        states = []
        for rules in (b, a):
            put_in_place(rules, forced)
            states.append(tables_of(scratch))

        def calls(kill_at: int) -> int:
            seen = 0

            def profile(_frame: object, event: str, _argument: object) -> None:
                nonlocal seen
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            with Machine(forced_variant=forced) as machine:
                prepared = prepare(machine, b)
                sys.setprofile(profile)
                prepared.apply()
            sys.setprofile(None)
            (scratch.directory / "calls").write_text(str(seen))
            return 0

        with Fork(lambda: calls(-1)) as whole:
            assert whole.wait() == 0
        total = int((scratch.directory / "calls").read_text())
        assert tables_of(scratch) == states[0]
        killed = 0
        for kill_at in range(1, total + 1, max(1, total // 20)):
            put_in_place(a, forced)
            with Fork(lambda kill_at=kill_at: calls(kill_at)) as child:  # type: ignore[misc]
                killed += child.wait() == -signal.SIGKILL
            every_table_is_one_of(scratch, states)
            put_in_place(b, forced)
            assert tables_of(scratch) == states[0]
        assert killed >= 18
        put_in_place(Ruleset(), forced)
        assert scratch.network() == network


@needs_seccomp
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_in_the_moment_of_replacing_a_table(family: str) -> None:
    """The command that speaks to the kernel dies in its system call: exit 1, and everything as before."""
    options, _ = BACKENDS["iptables-legacy-restore"]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, "-c", "eth1", "--drop-invalid")
        if family == "ipv6":
            with everything_stays(scratch):
                failed(
                    scratch.tool(*options, *OTHER, "--reconcile", preexec_fn=lambda: refuse_replacing("ipv6"))
                )
        else:
            before = tables_of(scratch)
            failed(scratch.tool(*options, *OTHER, "--reconcile", preexec_fn=lambda: refuse_replacing("ipv4")))
            assert tables_of(scratch) == before


@every_backend
def test_the_whole_command_killed_at_random_moments(backend: str) -> None:
    options, variant = BACKENDS[backend]
    chance = random.Random(backend)
    with Scratch(addresses=True) as scratch:
        states = []
        started = 0.0
        for arguments in (ALL_SORTS, OTHER):
            begun = time.monotonic()
            scratch.apply(*options, *arguments, "--reconcile")
            started = time.monotonic() - begun
            states.append(tables_of(scratch))
        command = [sys.executable, "-m", "istio_iptables", *options, "--reconcile"]
        for number in range(12):
            arguments = (ALL_SORTS, OTHER)[number % 2]
            child = scratch.spawn(*command, *arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.3, 1.05) * started)
            child.kill()
            child.wait(10)
            every_table_is_one_of(scratch, states)
        scratch.apply(*options, *OTHER, "--reconcile")
        assert tables_of(scratch) == states[1]
        scratch.apply("cleanup")
        assert not owned(scratch.save(variant, "ipv4"))


# --- the lock ---------------------------------------------------------------------------------


IMPATIENT = WAITING.format(seconds=0.5)


def this_process() -> str:
    with open("/proc/self/comm") as file:
        return f"{file.read().strip()} (PID {os.getpid()})"


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[Callable[[], None]]:
    """Hold a lock; yields what lets it go."""
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(file, fcntl.LOCK_UN)


def test_lock_that_is_held_is_waited_for_and_then_named() -> None:
    assert 1 <= lock.WAIT_LIMIT <= 60
    with Scratch() as scratch:
        scratch.lock.touch()
        for path in (str(scratch.lock), scratch.path):
            with held(path), everything_stays(scratch):
                for arguments in ([], ["cleanup"], ["--force-iptables-binary", "nft"]):
                    begun = time.monotonic()
                    done = scratch.python(IMPATIENT, *arguments)
                    shown = str(scratch.lock) if path == str(scratch.lock) else "/proc/self/ns/net"
                    failed(done, shown, f"held by {this_process()} after 0.5 seconds")
                    assert 0.4 < time.monotonic() - begun < 5
                for arguments in (["diff"], ["--dry-run"], ["render"], ["cleanup", "--dry-run"]):
                    assert scratch.tool(*arguments).returncode in (0, 3)  # who only reads does not wait
        assert scratch.legacy_tables() == set()


def test_lock_that_is_let_go_in_time() -> None:
    with Scratch() as scratch:
        scratch.lock.touch()
        with held(scratch.lock) as let_go:
            child = scratch.spawn(sys.executable, "-m", "istio_iptables")
            time.sleep(0.4)
            assert child.poll() is None
            let_go()
            child.communicate(timeout=30)
            assert child.returncode == 0
        assert rules_of(scratch) == expected({}, ipv6=False)


def test_waiting_for_a_lock_says_for_whom_and_how_long() -> None:
    """The lock is let go when the line appears, so the run ends well however slow the machine is."""
    with Scratch() as scratch:
        scratch.lock.touch()
        held_by = f"held by {this_process()}: at most "
        for path, shown in ((scratch.lock, scratch.lock), (scratch.path, "/proc/self/ns/net")):
            with held(path) as let_go:
                child = scratch.spawn(sys.executable, "-m", "istio_iptables", "-p", str(len(str(path))))
                assert child.stderr
                lines = iter(child.stderr.readline, "")
                line = next(line for line in lines if "waiting" in line)
                assert re.search(
                    rf"\tinfo\twaiting for the lock {shown}, {re.escape(held_by)}\d seconds more$", line
                )
                let_go()
                assert not any("waiting" in line for line in lines)  # once
                assert child.wait(30) in (0, 3)


def test_a_lock_of_a_process_that_cannot_be_seen() -> None:
    """One in another PID namespace, as that of another pod on the node is."""
    with Scratch() as scratch:
        scratch.lock.touch()
        hidden = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", IMPATIENT]
        with held(scratch.lock):
            failed(scratch.run(*hidden), "held by another process after 0.5 seconds")


def ended(pid: int) -> str:
    """Return what a process that has ended is called: in a container /proc/locks no longer lists it."""
    in_container = os.readlink("/proc/self/ns/pid") != FIRST_PID_NAMESPACE
    return "another process" if in_container else f"process {pid}"


def test_a_lock_that_an_ended_process_left_to_another_names_the_ended_one() -> None:
    with Scratch() as scratch:
        scratch.lock.touch()
        # flock(1) locks and becomes sh, which starts sleep; that inherits the lock.
        holder = scratch.spawn(
            "flock", "--no-fork", str(scratch.lock), "sh", "-c", "sleep 600 & echo $!; wait"
        )
        assert holder.stdout
        left = int(holder.stdout.readline())
        try:
            holder.kill()
            holder.wait(30)
            failed(scratch.python(IMPATIENT), f"held by {ended(holder.pid)} after 0.5 seconds")
        finally:
            os.kill(left, signal.SIGKILL)


def test_lock_file_that_cannot_be_made() -> None:
    with Scratch() as scratch:
        read_only = scratch.directory / "read-only"
        read_only.mkdir()
        mount = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount -t tmpfs -o ro none {read_only} && exec "$@"',
            "sh",
        ]
        cases = {
            "/no/such/directory/lock": ("No such file or directory", []),
            str(read_only / "lock"): ("Read-only file system", mount),
            str(read_only): ("it is a directory", []),
            "/proc/version/lock": ("Not a directory", []),
        }
        for path, (reason, prefix) in cases.items():
            done = scratch.tool(env={"XTABLES_LOCKFILE": path}, prefix=prefix)
            failed(done, path, reason, "XTABLES_LOCKFILE", "--cni-mode")
        assert scratch.legacy_tables() == set()
        # A lock file that is there already need not be writable: /run/xtables.lock in a read-only image.
        scratch.lock.touch(0o444)
        here = scratch.directory
        bind = f"mount --bind {here} {here} && mount -o remount,bind,ro {here}"
        prefix = ["unshare", "--mount", "sh", "-c", f'{bind} && exec "$@"', "sh"]
        for options, _ in BACKENDS.values():
            assert scratch.tool(*options, "--reconcile", prefix=prefix).returncode == 0
