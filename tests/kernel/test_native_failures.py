"""Native nftables rules when something goes wrong: everything is as before, whatever was there."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from istio_iptables import KernelError, Machine, Ruleset, prepare
from istio_iptables.change.actions import EditNative
from istio_iptables.kernel.native import NativeNftables
from istio_iptables.kernel.netlink import transaction
from istio_iptables.kernel.netlink.nf_tables.edit import messages
from istio_iptables.rules.model import Jump, Rule
from istio_iptables.rules.nftables.model import NativeChain, NativeTable, Ports
from istio_iptables.rules.nftables.translate import translate
from tests.support.applying import ALL_SORTS, traffic
from tests.support.failing import OTHER, Broken, everything_stays, failed, wanted, with_owner
from tests.support.foreign import FOREIGN, foreign_rules
from tests.support.in_place import in_place_of
from tests.support.native import LOCATIONS, NATIVE, native, network

from ..support.scratch import FAMILIES, KERNEL, Fork, Scratch, needs_seccomp, refuse_replacing

pytestmark = KERNEL

#: Rules by hand that a tool of Istio's could have written. Anything else would be foreign, and refused.
BY_HAND = """\
insert rule inet istio-proxy-nat istio-output counter packets 3 bytes 180 return comment "m; {"
add rule inet istio-proxy-nat istio-output meta l4proto != tcp counter return
"""


# --- refused before anything is done ----------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "native", "legacy"])
def test_a_table_of_another_program_is_not_begun(before: str) -> None:
    """Another program owns one of the tables. At times nft prints rubbish as JSON then."""
    with Scratch(addresses=True) as scratch:
        if before != "nothing":
            scratch.apply(*LOCATIONS[before], "-m", "TPROXY", "--dual-stack")
        with with_owner(scratch, "inet istio-proxy-raw"), everything_stays(scratch):
            generation = scratch.generation()
            done = scratch.tool(*NATIVE, *ALL_SORTS, "--reconcile")
            failed(done)
            assert re.search("program owns the table|something foreign in it: .*flags ", done.stderr)
            assert scratch.generation() == generation
        scratch.apply(*NATIVE, *ALL_SORTS, "--reconcile")


def test_an_address_that_is_in_the_way() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "-b", "80", "--drop-invalid")
        scratch.give("lo", "::6/64")
        with everything_stays(scratch):
            failed(scratch.tool(*NATIVE, *ALL_SORTS, "--reconcile"), "already has the address ::6")


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_route_that_is_in_the_way(family: str) -> None:
    """By then the address, and the other family's route, have been made: they go again."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, "-b", "80", "--drop-invalid")
        scratch.ip(family, "route", "add", "unreachable", "default", "table", "140")
        with everything_stays(scratch):
            failed(
                scratch.tool(*NATIVE, *ALL_SORTS, "--reconcile"), "routing table 140", "another default route"
            )


# --- rolled back ------------------------------------------------------------------------------


@needs_seccomp
@pytest.mark.parametrize("family", FAMILIES)
def test_rules_are_written_and_those_that_they_replace_cannot_be_removed(family: str) -> None:
    """The kernel refuses the last step of a move: no native table stays, and none of the routes."""
    with Scratch(addresses=True) as scratch:
        for variant_family in FAMILIES:
            scratch.restore("legacy", variant_family, foreign_rules(variant_family), "--counters")
        scratch.nft(script=FOREIGN)
        scratch.apply(*OTHER)
        traffic(scratch)
        with everything_stays(scratch):
            done = scratch.tool(
                *(*NATIVE, *ALL_SORTS, "--reconcile"),
                preexec_fn=lambda: refuse_replacing(family, error=errno.ENOMEM),  # type: ignore[arg-type]
            )
            failed(done)


@pytest.mark.parametrize(
    "error", [KernelError("this step fails"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
@pytest.mark.parametrize("by_hand", [False, True], ids=["owned rules alone", "changed by hand"])
@pytest.mark.parametrize("end", [NATIVE, LOCATIONS["legacy"], None], ids=["native", "legacy", "cleanup"])
def test_whatever_step_fails_everything_is_as_before(
    end: list[str] | None, by_hand: bool, error: BaseException
) -> None:
    """Native rules, and legacy rules that a killed run may have left, become others; each step fails once."""
    with Scratch(addresses=True) as scratch:
        scratch.nft(script=FOREIGN)
        script = scratch.apply(*OTHER, "render", "--format", "nft").stdout
        scratch.apply(*OTHER)
        scratch.nft(script=script)
        if by_hand:
            scratch.nft(script=BY_HAND)
        rules = Ruleset() if end is None else wanted(*ALL_SORTS)
        for step in count():
            with everything_stays(scratch), scratch.inside():
                machine = Broken(
                    native_nftables=end == NATIVE,
                    forced_variant="legacy" if end == LOCATIONS["legacy"] else "",
                )
                machine.fails_at, machine.error = step, error
                with machine:
                    prepared = prepare(machine, rules)
                    steps = len(prepared.plan.actions)
                    with pytest.raises(type(error)):
                        prepared.apply()
            if step == steps - 1:
                break
        assert steps >= 5


class OneWay(Machine):
    """The real kernel, which writes native rules, then fails at everything."""

    written = False

    def do(self, action: object) -> None:
        if self.written:
            raise KernelError("this step fails", "nothing: it is a test")
        super().do(action)  # type: ignore[arg-type]
        self.written = isinstance(action, EditNative)


def test_what_cannot_be_put_back_is_named() -> None:
    """The way there works, the way back is refused, too: the operator reads both."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*OTHER)
        with scratch.inside(), OneWay(native_nftables=True) as machine:
            prepared = prepare(machine, wanted(*ALL_SORTS))
            with pytest.raises(KernelError, match=r"this could not be undone: .*nftables istio-proxy-raw"):
                prepared.apply()


# --- sets that are made before the rules that use them ----------------------------------------

ONE, OTHER_LIST = ["-x", "10.0.0.0/8,192.0.2.1"], ["-x", "10.0.0.0/8,192.0.2.2"]


def sets(scratch: Scratch) -> list[str]:
    return [line.split()[1] for line in scratch.nft("list", "sets", "inet").splitlines() if "\tset " in line]


def test_sets_of_rules_that_are_refused_go_again() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, *ONE)
        with scratch.inside(), everything_stays(scratch):
            backend = NativeNftables()
            before = backend.read()
            wrong = [NativeTable(t.name, (*t.chains, BROKEN)) for t in before]
            assert len(messages(before, wrong, sets_first=True)) == 2
            with pytest.raises(KernelError, match="chain istio-broken in istio-proxy-nat: No such file"):
                backend.do(EditNative(before, tuple(wrong)))
        assert len(sets(scratch)) == 1


#: Needs a set, and jumps to a chain that is not there.
BROKEN = NativeChain(
    "istio-broken", None, (Rule((Ports("destination", "tcp", ((1, 2), (4, 4))),), Jump("istio-none")),)
)


def test_a_set_that_a_killed_run_left_is_no_difference_and_goes_with_the_next_run() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NATIVE, *ONE)
        before = scratch.apply(*NATIVE, *ONE, "--dry-run").stdout
        with scratch.inside():
            other = translate(wanted(*OTHER_LIST, ipv6=False))
            first, _ = messages(NativeNftables().read(), other, sets_first=True)
            transaction.commit("make sets", first, transaction.generation())
        assert len(sets(scratch)) == 2
        assert scratch.apply(*NATIVE, *ONE, "diff").stdout == ""
        assert len(sets(scratch)) == 2
        assert "nothing to do" in scratch.apply(*NATIVE, *ONE).stderr
        assert len(sets(scratch)) == 1
        scratch.apply(*NATIVE, *ONE, "-b", "80", "--reconcile")
        [name] = sets(scratch)
        assert name in before


# --- other programs meanwhile -----------------------------------------------------------------


def test_what_others_change_between_reading_and_writing_is_read_again() -> None:
    """Other tables may change: nothing is lost. Ours may not: the edit was planned for what was there."""
    with Scratch(addresses=True) as scratch, Scratch(addresses=True) as fresh:
        scratch.apply(*NATIVE, *ONE)
        fresh.apply(*NATIVE, *OTHER_LIST)
        with scratch.inside():
            rules = translate(wanted(*OTHER_LIST, ipv6=False))
            backend = NativeNftables()
            before = backend.read()
            scratch.nft(script=BY_HAND)
            changed = scratch.nft("list", "ruleset")
            with pytest.raises(KernelError, match="another program has changed the rules meanwhile"):
                backend.do(EditNative(before, rules))
            assert scratch.nft("list", "ruleset") == changed
            before = backend.read()
            scratch.nft("add", "table", "ip", "own")
            backend.do(EditNative(before, rules))
        assert native(scratch) == native(fresh)
        assert "table ip own" in scratch.nft("list", "tables")


# --- killed -----------------------------------------------------------------------------------

# Neither moves inbound capture from one table to another, so all of it is one transaction.
A = ["--dual-stack", "-b", "80", "-c", "eth2", "--drop-invalid", "-x", "192.0.2.1"]
B = ["--dual-stack", "-d", "22,23", "-k", "vm0", "--redirect-dns", "--capture-all-dns"]


def one_of(scratch: Scratch, states: list[dict[str, list[str]]]) -> bool:
    """Whatever a killed process had started goes on for a moment: nft itself, with all of its script."""
    deadline = time.monotonic() + 10
    inside = ["ip", "netns", "pids", scratch.name]
    while subprocess.run(inside, capture_output=True, check=True).stdout and time.monotonic() < deadline:
        time.sleep(0.01)
    return native(scratch) in states


def test_killed_anywhere_while_applying_it_is_as_before_or_as_after() -> None:
    """SIGKILL at the n-th function call, for n all over the run, until all is done."""
    a, b = wanted(*A), wanted(*B)
    with Scratch(addresses=True) as scratch:
        untouched = network(scratch)
        states = []
        for rules in (b, a):
            put_in_place(scratch, rules)
            states.append(native(scratch))

        def calls(kill_at: int) -> int:
            seen = 0

            def profile(_frame: object, _event: str, _argument: object) -> None:
                nonlocal seen
                seen += 1
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            with scratch.inside(), Machine(native_nftables=True) as machine:
                prepared = prepare(machine, b)
                sys.setprofile(profile)
                prepared.apply()
                sys.setprofile(None)
            (scratch.directory / "calls").write_text(str(seen))
            return 0

        with Fork(lambda: calls(-1)) as whole:
            assert whole.wait() == 0
        total = int((scratch.directory / "calls").read_text())
        assert native(scratch) == states[0]
        killed = 0
        for kill_at in range(1, total + 1, max(1, total // 15)):
            put_in_place(scratch, a)
            with Fork(lambda kill_at=kill_at: calls(kill_at)) as child:  # type: ignore[misc]
                killed += child.wait() == -signal.SIGKILL
            assert one_of(scratch, states)
        assert killed >= 14
        put_in_place(scratch, b)
        assert native(scratch) == states[0]
        put_in_place(scratch, Ruleset())
        assert (native(scratch), network(scratch)) == ({}, untouched)


def put_in_place(scratch: Scratch, rules: Ruleset) -> None:
    with scratch.inside(), Machine(native_nftables=True) as machine:
        prepare(machine, rules).apply()


def test_the_whole_command_killed_at_random_moments() -> None:
    chance = random.Random("native")
    with Scratch(addresses=True) as scratch:
        states, took = [], 0.0
        for arguments in (B, A):
            begun = time.monotonic()
            scratch.apply(*NATIVE, *arguments, "--reconcile")
            took = time.monotonic() - begun
            states.append(native(scratch))
        command = [sys.executable, "-m", "istio_iptables", *NATIVE, "--reconcile"]
        for number in range(12):
            child = scratch.spawn(
                *command, *(B, A)[number % 2], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            time.sleep(chance.uniform(0.2, 1.05) * took)
            child.kill()
            child.wait(10)
            assert one_of(scratch, states)
        scratch.apply(*NATIVE, *A, "--reconcile")
        assert native(scratch) == states[1]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_transaction_end(signal_number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed between two steps: what was begun is put back."""
    commit = transaction.commit
    hits: list[int] = []

    def hit(*arguments: object) -> None:
        if not hits:
            hits.append(signal_number)
            os.kill(os.getpid(), signal_number)
        commit(*arguments)  # type: ignore[arg-type]

    def run() -> int:
        monkeypatch.setattr(transaction, "commit", hit)
        refused = pytest.raises(KernelError, match="interrupted by a signal")
        with scratch.inside(), Machine(native_nftables=True) as machine, refused:
            prepare(machine, wanted(*B)).apply()
        return len(hits)

    with Scratch(addresses=True) as scratch:
        scratch.apply(*A)
        with everything_stays(scratch), Fork(run) as child:
            assert child.wait() == 1


def test_a_command_never_gets_a_part_of_its_script(tmp_path: Path) -> None:
    """iptables-restore would do the part. Here it begins to read when the tool has been killed."""
    networks = ",".join(f"10.{number >> 8}.{number & 255}.0/25" for number in range(10_000))
    config = tmp_path / "config.yaml"
    config.write_text(f"istio-service-exclude-cidr: {networks}\n")
    with Scratch(addresses=True) as scratch:
        flags = LOCATIONS["nft"]
        scratch.apply(*flags)
        waits = (
            'case "$0" in *-restore) ;; *) exec "$REAL" "$(basename "$0")" "$@"; esac\n'
            f"parent=$PPID; touch {tmp_path}/started\n"
            "while grep -q 'State:.[^Z]' /proc/$parent/status; do sleep 0.01; done 2>/dev/null\n"
            f"cat >{tmp_path}/script; touch {tmp_path}/ended"
        )
        instead = in_place_of("iptables-nft-restore", tmp_path / "bin", waits)
        command = [sys.executable, "-m", "istio_iptables", *flags, "--config", str(config), "--reconcile"]
        child = scratch.spawn(*instead, *command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: (tmp_path / "started").exists())
        child.kill()
        child.wait(10)
        wait_for(lambda: (tmp_path / "ended").exists())
        made = (tmp_path / "script").read_text()
        assert made.count("/25") == 10_000
        assert made.endswith("COMMIT\n")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
