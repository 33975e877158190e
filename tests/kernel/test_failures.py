"""When a step fails, everything is as before: SPEC section 5."""

from __future__ import annotations

import errno
import os
import signal
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest

from istio_iptables import KernelError, Ruleset, prepare
from istio_iptables.change.execute import execute
from istio_iptables.change.plan import make_plan
from istio_iptables.testing import FakeKernel
from tests.support.applying import ALL_SORTS, BACKENDS, every_backend, rules_of, traffic
from tests.support.failing import OTHER, Broken, everything_stays, failed, wanted, with_owner
from tests.support.foreign import foreign_rules

from ..support.scratch import FAMILIES, KERNEL, Scratch, needs_seccomp, refuse_replacing

if TYPE_CHECKING:
    from istio_iptables.change.actions import Location


pytestmark = KERNEL


# --- rollback, for real -----------------------------------------------------------------------


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


# --- these tests themselves -------------------------------------------------------------------


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
