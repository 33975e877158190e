"""When something goes wrong, everything is as before, and the operator reads what to do: SPEC section 5."""

from __future__ import annotations

import ctypes.util
import errno
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
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest

from istio_iptables import KernelError, Machine, Ruleset, prepare
from istio_iptables.change.execute import execute
from istio_iptables.change.plan import make_plan
from istio_iptables.kernel import lock
from istio_iptables.testing import FakeKernel
from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, rules_of, traffic
from tests.support.failing import OTHER, Broken, at_once, everything_stays, failed, hidden, wanted, with_owner
from tests.support.foreign import foreign_rules
from tests.support.oracle import expected, normalise_save

from ..support.scratch import (
    FAMILIES,
    KERNEL,
    SETPRIV,
    VARIANTS,
    Fork,
    Scratch,
    Variant,
    needs_seccomp,
    owned,
    refuse_replacing,
)

if TYPE_CHECKING:
    from istio_iptables.change.actions import Location

pytestmark = KERNEL


# --- rollback, for real ---------------------------------------------------------------------


@pytest.mark.parametrize("table", ["ip nat", "ip mangle", "ip6 raw", "ip6 nat"])
def test_nft_rolls_back_when_a_later_table_cannot_be_written(table: str) -> None:
    with Scratch(addresses=True) as scratch, with_owner(scratch, table), everything_stays(scratch):
        done = scratch.tool("--force-iptables-binary", "nft", *ALL_SORTS)
        failed(done, "Operation not permitted", table.split()[1])


@pytest.mark.parametrize("table", ["ip6 mangle", "ip6 nat"])
def test_nft_rolls_back_a_change_with_its_counters(table: str) -> None:
    """Foreign and owned rules are as before, to the last counter."""
    with Scratch(addresses=True) as scratch:
        scratch.restore("nft", "ipv4", foreign_rules("ipv4"), "--counters")
        scratch.apply("--force-iptables-binary", "nft", "-c", "eth1", "-m", "TPROXY")
        traffic(scratch)
        with with_owner(scratch, table), everything_stays(scratch):
            failed(scratch.tool("--force-iptables-binary", "nft", *OTHER, "--reconcile"))
        scratch.apply("--force-iptables-binary", "nft", *OTHER, "--reconcile")


@needs_seccomp
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOMEM, errno.EAGAIN, errno.EINVAL, errno.ENOENT])
@pytest.mark.parametrize("backend", ["libiptc", "iptables-legacy-restore"])
def test_legacy_rolls_back_ipv4_when_ipv6_cannot_be_written(backend: str, error: int) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.restore("legacy", "ipv4", foreign_rules("ipv4"), "--counters")
        with everything_stays(scratch):
            done = scratch.tool(
                *options, *ALL_SORTS, preexec_fn=lambda: refuse_replacing("ipv6", error=error)
            )
            failed(done, "ip")
        scratch.apply(*options, "-c", "eth1", "--drop-invalid")
        traffic(scratch)
        with everything_stays(scratch):
            done = scratch.tool(
                *options, *OTHER, "--reconcile", preexec_fn=lambda: refuse_replacing("ipv6", error=error)
            )
            failed(done)


@needs_seccomp
def test_a_failed_cleanup_is_rolled_back_too() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*ALL_SORTS)
        traffic(scratch)
        with everything_stays(scratch):
            failed(scratch.tool("cleanup", preexec_fn=lambda: refuse_replacing("ipv6", error=errno.ENOMEM)))
        scratch.apply("cleanup")
        assert rules_of(scratch) == {}


#: Rules of another program among owned ones, which this tool would never write.
STRANGE = (
    "-I ISTIO_OUTPUT 2 -m limit --limit 3/hour -m comment --comment mine -j ACCEPT",
    "-A ISTIO_INBOUND -p sctp -j RETURN",
    "-A ISTIO_REDIRECT -p udp -j REDIRECT --to-ports 1-9 --random",
    "-A ISTIO_REDIRECT",
)


@needs_seccomp
@pytest.mark.parametrize(
    ("change", "strange"),
    [
        (["--dual-stack", "--reconcile"], STRANGE),
        (["cleanup"], (*STRANGE, "-I OUTPUT -m statistic --mode random --probability 0.5 -j ISTIO_OUTPUT")),
    ],
    ids=["reconcile", "cleanup"],
)
@pytest.mark.parametrize("backend", ["libiptc", "iptables-legacy-restore"])
def test_foreign_rules_among_owned_ones_come_back_with_the_rollback(
    backend: str, change: list[str], strange: tuple[str, ...]
) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, *OTHER)
        for rule in strange:
            scratch.check("iptables-legacy", "-t", "nat", *rule.split())
        with everything_stays(scratch):
            no_ipv6 = partial(refuse_replacing, "ipv6", error=errno.ENOMEM)
            failed(scratch.tool(*options, *change, preexec_fn=no_ipv6))


@every_backend
def test_rollback_of_everything_when_the_last_step_fails(backend: str) -> None:
    """Rules are in place, the native tables that they replace cannot be removed: back to these."""
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        for family in FAMILIES:
            scratch.restore(BACKENDS[backend][1], family, foreign_rules(family), "--counters")
        with with_owner(scratch, "inet istio-proxy-nat"), everything_stays(scratch):
            failed(scratch.tool(*options, *ALL_SORTS, "--reconcile"), "istio-proxy-nat")


@pytest.mark.parametrize(
    "error", [KernelError("this step fails"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
@every_backend
def test_whatever_step_fails_everything_is_as_before(backend: str, error: BaseException) -> None:
    """A change of everything, in which every single step is made to fail once."""
    variant = BACKENDS[backend][1]
    forced = dict(zip(BACKENDS, ("", "legacy", "nft"), strict=True))[backend]
    with Scratch(addresses=True) as scratch:
        for family in FAMILIES:
            scratch.restore(variant, family, foreign_rules(family), "--counters")
        scratch.apply(*BACKENDS[backend][0], *OTHER)
        traffic(scratch)
        for rules in (wanted(*ALL_SORTS), Ruleset()):
            for step in count():
                with everything_stays(scratch), scratch.inside():
                    machine = Broken(forced_variant=forced)
                    machine.fails_at, machine.error = step, error
                    with machine:
                        prepared = prepare(machine, rules)
                        steps = len(prepared.plan.actions)
                        with pytest.raises(type(error)):
                            prepared.apply()
                if step == steps - 1:
                    break
            assert steps >= 8


@pytest.mark.parametrize("step", range(1, 13))
def test_execute_undoes_what_it_did(step: int) -> None:
    first, second = wanted(*OTHER), wanted(*ALL_SORTS)
    changes: list[tuple[Ruleset, Location]] = [
        (second, "iptables-nft"),
        (second, "iptables-legacy"),
        (Ruleset(), "iptables-legacy"),
    ]
    for rules, location in changes:
        with FakeKernel(fails_at=[step]) as kernel:
            kernel.put(first)
            before = sorted(kernel.lines())
            plan = make_plan(kernel.live(), rules, location)
            if step > len(plan.actions):
                execute(plan, kernel)
                continue
            with pytest.raises(KernelError, match=r"^this action was made to fail"):
                execute(plan, kernel)
            assert sorted(kernel.lines()) == before


def test_what_cannot_be_undone_is_named() -> None:
    with FakeKernel(fails_at=[3, 4, 5]) as kernel, pytest.raises(KernelError) as caught:
        kernel.plan(wanted("--dual-stack")).apply()
    assert "and this could not be undone: ipv4 nat (iptables-legacy)" in str(caught.value)
    assert "::6/128" in str(caught.value)


def test_a_worker_that_is_killed_does_not_stop_the_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """libiptc's own process dies (as when memory runs out) after some of the steps."""
    from istio_iptables.kernel.xtables.libiptc import Libiptc

    with Scratch(addresses=True) as scratch:
        scratch.apply(*OTHER)
        edits = count()
        original = Libiptc.apply

        def apply(self: Libiptc, edit: object) -> None:
            if next(edits) == 2:
                worker = self._workers["ipv4"]
                os.kill(worker._pid, signal.SIGKILL)
            original(self, edit)  # type: ignore[arg-type]

        monkeypatch.setattr(Libiptc, "apply", apply)
        with everything_stays(scratch), scratch.inside(), Machine() as machine:
            prepared = prepare(machine, wanted(*ALL_SORTS))
            with pytest.raises(KernelError, match="libiptc ended its process") as caught:
                prepared.apply()
            assert "could not be undone" not in str(caught.value)


# --- killed ---------------------------------------------------------------------------------


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

            itself = os.getpid()

            def profile(_frame: object, event: str, _argument: object) -> None:
                nonlocal seen
                seen += os.getpid() == itself  # libiptc's processes inherit this function
                if seen == kill_at:
                    os.kill(itself, signal.SIGKILL)

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
@pytest.mark.parametrize("backend", ["libiptc", "iptables-legacy-restore"])
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_in_the_moment_of_replacing_a_table(backend: str, family: str) -> None:
    """The process that speaks to the kernel dies in its system call: exit 1, and everything as before."""
    options, _ = BACKENDS[backend]
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


# --- several at once ------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("many", [2, 4])
@pytest.mark.parametrize("same_lock", [True, False], ids=["one lock file", "a lock file each"])
def test_runs_at_once_end_in_the_state_of_one(backend: str, many: int, same_lock: bool) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as alone, Scratch(addresses=True) as crowded:
        alone.apply(*options, *ALL_SORTS)
        statuses = at_once(crowded, *[[*options, *ALL_SORTS]] * many, same_lock=same_lock)
        assert statuses == [0] * many
        assert crowded.state() == alone.state()


@pytest.mark.parametrize("backend", ["libiptc", "iptables-nft-restore"])
def test_different_runs_at_once_end_in_the_state_of_one_of_them(backend: str) -> None:
    options, _ = BACKENDS[backend]
    with Scratch(addresses=True) as scratch:
        for _ in range(3):
            runs = [ALL_SORTS, OTHER, ["--dual-stack"], ["cleanup"]]
            assert at_once(scratch, *[[*options, *run, "--reconcile"] for run in runs]) == [0] * 4
            ended = rules_of(scratch)
            states = []
            for run in runs:
                scratch.apply(*options, *run, "--reconcile")
                states.append(rules_of(scratch))
            assert ended in states


def test_rules_that_others_add_meanwhile_are_not_lost() -> None:
    """iptables itself, which takes the xtables lock, adds rules while this tool replaces its own."""
    with Scratch(addresses=True) as scratch:
        scratch.apply()
        add = "iptables-legacy -w 20 -t nat -A OUTPUT -p udp --dport $i -j RETURN"
        adding = f"for i in $(seq 60); do {add} || exit 1; done"
        adder = scratch.spawn("sh", "-c", adding)
        with scratch.inside():
            runs = 0
            while adder.poll() is None or runs < 10:
                put_in_place(wanted("-c", "eth1") if runs % 2 else wanted("-b", "80"), "")
                runs += 1
        assert adder.returncode == 0
        rules = [line for line in scratch.save("legacy", "ipv4").splitlines() if "-p udp" in line]
        assert [re.sub(r".*--dport (\d+) .*", r"\1", rule) for rule in rules] == [
            str(n) for n in range(1, 61)
        ]


# --- the lock -------------------------------------------------------------------------------

#: The tool, waiting for locks half a second instead of ten.
IMPATIENT = """
import sys
from istio_iptables.kernel.lock import Locks
Locks.__init__.__kwdefaults__["wait_limit"] = 0.5
from istio_iptables.__main__ import main
sys.exit(main())
"""


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
            failed(scratch.python(IMPATIENT), f"held by process {holder.pid} after 0.5 seconds")
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
            str(read_only): ("Is a directory", []),
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


# --- what is missing ------------------------------------------------------------------------


@every_backend
def test_missing_capabilities_are_named(backend: str) -> None:
    options, _ = BACKENDS[backend]
    cases = {
        ("-net_admin",): ["NET_ADMIN are"],
        ("-net_raw",): ["NET_RAW are"],
        ("-all",): ["NET_ADMIN and NET_RAW"],
    }
    with Scratch() as scratch, everything_stays(scratch):
        for (bounding,), texts in cases.items():
            for arguments in ([], ["cleanup"], ["diff"]):
                done = scratch.tool(*options, *arguments, prefix=[SETPRIV, f"--bounding-set={bounding}"])
                failed(done, "capabilit", "run as root", "securityContext", *(t.split()[0] for t in texts))
                assert ("NET_ADMIN" in done.stderr.split("what to do")[0]) == (bounding != "-net_raw")
                assert ("NET_RAW" in done.stderr.split("what to do")[0]) == (bounding != "-net_admin")
        assert scratch.legacy_tables() == set()


@every_backend
def test_net_admin_and_net_raw_are_enough(backend: str) -> None:
    """What the init container has; all of it, from applying to cleaning up."""
    options, _ = BACKENDS[backend]
    prefix = [SETPRIV, "--bounding-set=-all,+net_admin,+net_raw"]
    with Scratch(addresses=True) as scratch:
        before = scratch.network()
        for arguments in (ALL_SORTS, ALL_SORTS, [*OTHER, "--reconcile"], ["diff", *OTHER], ["cleanup"]):
            done = scratch.tool(*options, *arguments, prefix=prefix)
            assert done.returncode == 0, done.stderr
        assert rules_of(scratch) == {}
        assert scratch.network() == before


def test_not_root() -> None:
    nobody = [SETPRIV, "--reuid=65534", "--regid=65534", "--clear-groups"]
    with Scratch() as scratch:
        if scratch.run(*nobody, sys.executable, "-c", "import istio_iptables.cli.handlers").returncode:
            pytest.skip("nobody may not read this checkout")
        for arguments in ([], ["cleanup"], ["diff"]):
            failed(scratch.tool(*arguments, prefix=nobody), "NET_ADMIN and NET_RAW", "run as root")
        # With the capabilities but not root: the lock file is root's, and so is the list of legacy tables.
        capable = [*nobody, "--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"]
        scratch.lock.touch(0o600)
        scratch.directory.chmod(0o755)
        failed(scratch.tool(prefix=capable), str(scratch.lock))
        scratch.lock.chmod(0o666)
        for arguments in ([], ["cleanup"], ["diff"]):
            failed(scratch.tool(*arguments, prefix=capable), "ip_tables_names", "root")


def test_missing_commands() -> None:
    legacy, nft, iptables = "/usr/sbin/xtables-legacy-multi", "/usr/sbin/xtables-nft-multi", "/usr/sbin/nft"
    with Scratch() as scratch:
        with everything_stays(scratch):
            for variant, path in (("legacy", legacy), ("nft", nft)):
                done = scratch.tool("--force-iptables-binary", variant, prefix=hidden(path))
                failed(done, f"iptables-{variant}-restore is not installed", "install the package iptables")
        # libiptc needs none of them.
        nothing = hidden(legacy, nft, iptables)
        for arguments in (["-m", "TPROXY"], ["-m", "TPROXY"], ["cleanup"]):
            assert scratch.tool(*arguments, prefix=nothing).returncode == 0
        # But what is there and cannot be read is not passed over.
        scratch.apply("--force-iptables-binary", "nft")
        with everything_stays(scratch):
            for arguments in ([], ["cleanup"]):
                failed(scratch.tool(*arguments, prefix=nothing), "iptables-nft-save is not installed")
        scratch.apply("cleanup")
        scratch.nft(script="table inet istio-proxy-nat { chain c { counter; }; }")
        with everything_stays(scratch):
            failed(
                scratch.tool("cleanup", prefix=hidden(iptables)), "nft is not installed", "package nftables"
            )


def libraries(*names: str) -> list[str]:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return [
        line.split("=> ")[1] for name in names for line in listed.splitlines() if line.split()[:1] == [name]
    ]


@pytest.mark.parametrize("name", ["libip4tc.so.2", "libip6tc.so.2", "libxtables.so.12"])
def test_missing_library(name: str) -> None:
    found = libraries(name)
    assert found, ctypes.util.find_library("ip4tc")
    with Scratch(addresses=True) as scratch:
        with everything_stays(scratch):
            failed(
                scratch.tool("--dual-stack", prefix=hidden(*found)),
                "libiptc cannot be used",
                "libip4tc, libip6tc and libxtables",
            )
        # Whether there is a nat table is tried as soon as it could be written.
        assert scratch.legacy_tables() == ({"ipv4/nat"} if name == "libip6tc.so.2" else set())


def test_who_writes_ipv4_alone_needs_no_library_for_ipv6() -> None:
    with Scratch(addresses=True) as scratch:
        done = scratch.tool(prefix=hidden(*libraries("libip6tc.so.2")))
        assert done.returncode == 0, done.stderr
        assert "backend libiptc" in done.stderr


def test_python_iptables_not_installed() -> None:
    """-S: without site-packages. The command does instead; without it, too, there is a message."""
    with Scratch() as scratch:
        tool = [sys.executable, "-S", "-m", "istio_iptables"]
        done = scratch.run(*tool)
        assert done.returncode == 0, done.stderr
        left_out = (
            "libiptc is left out: python-iptables is not installed (pip install 'istio-iptables[libiptc]')"
        )
        why = f"the kernel has the legacy tables, and no rules are in place; {left_out}\n"
        assert f"backend iptables-legacy-restore: {why}" in done.stderr
        assert rules_of(scratch) == expected({}, ipv6=False)
        # Where it would not have been used, it was not left out.
        for forced in (
            ("--force-iptables-binary", "legacy"),
            ("--force-iptables-binary", "nft"),
            ("--native-nftables",),
        ):
            done = scratch.run(*tool, *forced, "--reconcile")
            assert done.returncode == 0, done.stderr
            assert "requested" in done.stderr
            assert "libiptc" not in done.stderr
        scratch.apply("cleanup")
        assert scratch.run(*tool).returncode == 0
        failed(
            scratch.run(*hidden("/usr/sbin/xtables-legacy-multi"), *tool, "cleanup"),
            "libiptc cannot be used",
            "python-iptables",
        )
        scratch.apply("cleanup")


def test_ipv6_switched_off_for_lo_is_named() -> None:
    """The sysctl by name, and nothing changed: the address comes before all rules."""
    with Scratch() as scratch:
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        scratch.give("eth0", "10.1.0.1/24", "fd01::1/64")
        scratch.check("sysctl", "-q", "net.ipv6.conf.lo.disable_ipv6=1")
        before = scratch.network()
        for options, _ in BACKENDS.values():
            failed(scratch.tool(*options, *ALL_SORTS), "net.ipv6.conf.lo.disable_ipv6", "::6/128")
            assert rules_of(scratch) == {}
            assert scratch.network() == before
        scratch.apply("-m", "TPROXY")  # IPv4 alone does not need it
        with pytest.MonkeyPatch.context():
            before_rules = rules_of(scratch)
            failed(scratch.tool("-m", "TPROXY", "--dual-stack", "--reconcile"), "disable_ipv6")
            assert rules_of(scratch) == before_rules


# --- owner groups ---------------------------------------------------------------------------


def groups(many: int) -> dict[str, str]:
    return {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(str(1000 + number) for number in range(many))}


def test_64_owner_groups_by_libiptc() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply("--dual-stack", env=groups(64))
        for family in FAMILIES:
            with scratch.inside(), Machine(writing=False) as machine:
                tables = machine.read(Ruleset()).tables["iptables-legacy"]
            (nat,) = [table for table in tables if (table.family, table.name) == (family, "nat")]
            assert max(len(rule.matches) for rule in nat.chain("ISTIO_OUTPUT").rules) == 64
        assert "nothing to do" in scratch.apply("--dual-stack", env=groups(64)).stderr
        scratch.apply("--dual-stack", "--reconcile", env=groups(63))
        scratch.apply("cleanup")
        assert rules_of(scratch) == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_owner_groups_that_iptables_cannot_load_are_refused_before_anything_is_touched(
    variant: Variant,
) -> None:
    options = ["--force-iptables-binary", variant]
    with Scratch(addresses=True) as scratch:
        with everything_stays(scratch):
            for arguments in (["-m", "TPROXY", "--dual-stack"], ["--reconcile"]):
                for many in (50, 64):
                    done = scratch.tool(*options, *arguments, env=groups(many))
                    assert done.returncode == 2, done.stderr
                    errors = "".join(line for line in done.stderr.splitlines() if "\tinfo\t" not in line)
                    assert "ISTIO_OUTBOUND_OWNER_GROUPS" in errors
                    assert f"{many} matches" in errors
        assert scratch.legacy_tables() == set()
        scratch.apply(*options, "-m", "TPROXY", env=groups(49))
        assert "nothing to do" in scratch.apply(*options, "-m", "TPROXY", env=groups(49)).stderr
        with everything_stays(scratch):
            done = scratch.tool(*options, "--reconcile", env=groups(50))
            assert done.returncode == 2


def test_65_owner_groups_are_too_many() -> None:
    with Scratch() as scratch:
        for name in ("ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"):
            done = scratch.tool(env={name: ",".join(str(number) for number in range(65))})
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert name in line
            assert "64" in line
        assert scratch.legacy_tables() == set()


@needs_seccomp
def test_more_groups_than_iptables_can_load_come_back_with_a_rollback() -> None:
    """libiptc wrote 64, iptables-restore is asked to replace them, and a later step fails."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(env=groups(64))
        with everything_stays(scratch):
            done = scratch.tool(
                *("--force-iptables-binary", "legacy", "--dual-stack", "--reconcile"),
                preexec_fn=lambda: refuse_replacing("ipv6", error=errno.ENOMEM),
            )
            assert done.returncode in (1, 2)


# --- tables that iptables cannot read -------------------------------------------------------

#: What iptables-nft-save calls "incompatible".
NATIVE = "numgen random mod 2 vmap { 0 : accept }"


@pytest.mark.parametrize(
    ("table", "chain"), [("filter", "INPUT"), ("mangle", "INPUT"), ("nat", "PREROUTING")]
)
def test_a_foreign_table_that_only_nft_can_write_does_not_stop_libiptc(table: str, chain: str) -> None:
    hook = "type nat hook prerouting priority -100" if table == "nat" else "type filter hook input priority 0"
    with Scratch() as scratch:
        scratch.nft(script=f"table ip {table} {{ chain {chain} {{ {hook}; {NATIVE}; }}; }}")
        before = scratch.nft("list", "ruleset")
        for arguments in ([], [], ["--reconcile", "-b", "80"], ["cleanup"]):
            assert scratch.tool(*arguments).returncode == 0
        assert scratch.nft("list", "ruleset") == before


@pytest.mark.parametrize("chain", ["PREROUTING", "ISTIO_OUTPUT"])
def test_rules_of_ours_that_iptables_can_no_longer_read_are_not_taken_for_none(chain: str) -> None:
    """A rule that only nft can write is among owned ones: no first run, and no second set of rules."""
    with Scratch() as scratch:
        scratch.apply("--force-iptables-binary", "nft")
        scratch.nft("add", "rule", "ip", "nat", chain, *NATIVE.split())
        before = scratch.nft("list", "ruleset")
        for arguments in ([], ["--force-iptables-binary", "nft"]):
            done = scratch.tool(*arguments)
            assert done.returncode in (1, 3), done.stderr
            assert scratch.nft("list", "ruleset") == before
            assert not owned(scratch.save("legacy", "ipv4"))
        cleaned = scratch.tool("cleanup")
        assert cleaned.returncode == 1 or "ISTIO" not in scratch.nft("list", "ruleset")


# --- these tests themselves -----------------------------------------------------------------


def test_nothing_is_left_behind_after_a_failure() -> None:
    """Neither namespace nor process nor directory, however a test ends."""
    left: list[Scratch] = []

    def fail() -> None:
        with Scratch(addresses=True) as scratch, scratch.inside():
            left.append(scratch)
            left[0].spawn("sleep", "60")
            raise ZeroDivisionError

    home = os.readlink("/proc/self/ns/net")
    with pytest.raises(ZeroDivisionError):
        fail()
    (scratch,) = left
    assert os.readlink("/proc/self/ns/net") == home
    assert not os.path.exists(scratch.path)
    assert not scratch.directory.exists()
    (child,) = scratch._children
    assert child.returncode == -signal.SIGKILL
