"""One system call fails, or is the last one: SPEC section 5. `make faults` tries thousands of places."""

from __future__ import annotations

import errno
import os

import pytest

from istio_iptables import KernelError, Machine, prepare
from istio_iptables.kernel.netlink import messages
from istio_iptables.rules.nftables.model import Ports, set_name
from tests.support.applying import ALL_SORTS, traffic
from tests.support.failing import OTHER, comparable, everything_stays, failed, wanted
from tests.support.faults import BACKENDS, PHASES, Bench, places_of

from ..support.scratch import (
    ADD_COUNTERS,
    FAMILIES,
    KERNEL,
    Family,
    Result,
    Scratch,
    needs_seccomp,
    refuse_replacing,
)

pytestmark = KERNEL
NFT = ["--force-iptables-binary", "nft"]


# --- a sample of `make faults` ----------------------------------------------------------------

_SAMPLE = 10


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_fault_all_is_as_before_or_as_after_and_the_message_says_what_to_do(
    backend: str, phase: str
) -> None:
    with Scratch(addresses=True) as scratch:
        bench = Bench(scratch, backend, phase)
        for kind in ("errors", "kills"):
            for place in places_of(bench, kind)[:_SAMPLE]:
                assert bench.wrong(place) == [], str(place)


# --- done, and reported as failed -------------------------------------------------------------


@needs_seccomp
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", ["libiptc", "legacy"])
def test_a_table_that_was_replaced_before_its_counters_failed_is_put_back(
    backend: str, family: Family
) -> None:
    """The kernel has the new table; libiptc and iptables-restore report that it could not be committed."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*BACKENDS[backend], *ALL_SORTS)
        traffic(scratch)
        before = comparable(scratch.state())
        done = scratch.tool(
            *(*BACKENDS[backend], *OTHER, "--reconcile"),
            preexec_fn=lambda: refuse_replacing(family, error=errno.ENOMEM, option=ADD_COUNTERS),
        )
        assert done.returncode == 1
        assert "could not be undone" not in done.stderr
        assert "what to do: " in done.stderr
        assert comparable(scratch.state()) == before


@pytest.mark.parametrize("lost", range(1, 5))
def test_what_was_done_though_its_acknowledgement_was_lost_is_undone(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, count = messages._answer, 0

    def losing(operation: str, connection: object) -> object:
        nonlocal count
        found = answer(operation, connection)  # type: ignore[arg-type]
        if operation.split()[0] in ("add", "delete"):
            count += 1
            if count == lost:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return found

    with Scratch(addresses=True) as scratch:
        scratch.apply(*OTHER)
        before = comparable(scratch.state())
        with scratch.inside(), Machine() as machine:
            prepared = prepare(machine, wanted(*ALL_SORTS))
            monkeypatch.setattr(messages, "_answer", losing)
            with pytest.raises(KernelError) as caught:
                prepared.apply()
        assert "could not be undone" not in str(caught.value)
        assert "memory" in caught.value.remedy
        assert comparable(scratch.state()) == before


# --- processes that do not start --------------------------------------------------------------


def _with_strace(scratch: Scratch, *arguments: str, inject: str = "", output: str = "/dev/null") -> Result:
    options = ["-e", f"inject={inject}"] if inject else ["-e", "trace=execve"]
    return scratch.tool(*arguments, prefix=["strace", "-f", "-qq", "-o", output, *options])


@pytest.mark.parametrize("number", range(1, 4))
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_process_that_does_not_start(number: int, error: str) -> None:
    with Scratch(addresses=True) as scratch, everything_stays(scratch):
        done = _with_strace(
            scratch, *NFT, *ALL_SORTS, inject=f"clone3,clone,vfork:error={error}:when={number}"
        )
        text = failed(done, "cannot be run")
        assert ("limit of processes" if error == "EAGAIN" else "more memory") in text
        assert "package" not in text


def test_no_process_is_started_to_prune_what_is_not_there() -> None:
    with Scratch(addresses=True) as scratch:
        output = scratch.directory / "trace"
        _with_strace(scratch, *NFT, output=str(output))
        started = [line for line in output.read_text().splitlines() if "-nft-restore" in line]
        assert len([line for line in started if " = 0" in line]) == 1, started


def test_what_a_cleanup_leaves_empty_goes_in_one_transaction() -> None:
    """Each table of each family is an edit, and a transaction; what they leave empty takes one more."""
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NFT, *ALL_SORTS)
        generation = scratch.generation()
        done = scratch.apply(*NFT, "cleanup")
        edits = [line for line in done.stderr.splitlines() if "planned: " in line and "iptables-nft" in line]
        assert len(edits) >= 4
        assert scratch.generation() == generation + len(edits) + 1
        assert scratch.nft("list", "ruleset") == ""


# --- what a run that was killed has left -------------------------------------------------------

#: What iptables-nft 1.8.9 makes before it puts rules in, as nft lists it.
_REMAINS = """
table ip nat {
    chain PREROUTING { type nat hook prerouting priority -100; policy accept; }
    chain INPUT { type nat hook input priority 100; policy accept; }
    chain OUTPUT { type nat hook output priority -100; policy accept; }
    chain POSTROUTING { type nat hook postrouting priority 100; policy accept; }
}
table ip6 mangle {
    chain PREROUTING { type filter hook prerouting priority -150; policy accept; }
    chain OUTPUT { type route hook output priority -150; policy accept; }
}
table ip6 raw {
    chain OUTPUT { type filter hook output priority -300; policy accept; }
}
"""
_SET = set_name(Ports("destination", "tcp", ((5, 9), (11, 12))))


@pytest.mark.parametrize("arguments", [[], ["--reconcile"], ["cleanup"], NFT, ["--native-nftables"]])
@pytest.mark.parametrize("twice", [False, True])
def test_empty_chains_and_tables_are_taken_away(arguments: list[str], twice: bool) -> None:
    with Scratch() as scratch:
        if twice:
            scratch.apply(*arguments)
        if not (twice and arguments == NFT):
            scratch.nft(script=_REMAINS)
        scratch.apply(*arguments)
        left = scratch.nft("list", "tables")
        assert "mangle" not in left
        assert "raw" not in left
        assert ("ip nat" in left) == (arguments == NFT)


_OUTPUT = "type nat hook output priority -100; policy"


@pytest.mark.parametrize(
    "foreign",
    [
        f"table ip nat {{\nchain OUTPUT {{ {_OUTPUT} drop; }}\n}}",
        "table ip nat {\nchain OUTPUT { type nat hook output priority -99; policy accept; }\n}",
        "table ip nat {\nchain OUTPUT { type filter hook output priority -100; policy accept; }\n}",
        f"table ip nat {{\nchain output {{ {_OUTPUT} accept; }}\n}}",
        f"table ip nat {{\nchain OUTPUT {{ {_OUTPUT} accept; }}\nchain mine {{ }}\n}}",
        f"table ip nat {{\nchain OUTPUT {{ {_OUTPUT} accept; accept; }}\n}}",
        f"table ip nat {{\nset s {{ type ipv4_addr; }}\nchain OUTPUT {{ {_OUTPUT} accept; }}\n}}",
        f"table ip mine {{\nchain OUTPUT {{ {_OUTPUT} accept; }}\n}}",
        f"table inet nat {{\nchain OUTPUT {{ {_OUTPUT} accept; }}\n}}",
        "table ip filter {\nchain OUTPUT { type filter hook output priority 0; policy accept; }\n}",
    ],
)
def test_what_could_be_another_programs_stays(foreign: str) -> None:
    with Scratch() as scratch:
        scratch.nft(script=f"{foreign}\n")
        before = scratch.nft("list", "ruleset")
        scratch.apply("cleanup")
        assert scratch.nft("list", "ruleset") == before


def test_an_unused_set_is_taken_away_by_a_run_that_has_nothing_to_do() -> None:
    settings = ["--native-nftables", "-b", "80,8000-8100"]
    with Scratch() as scratch:
        scratch.apply(*settings)
        before = scratch.nft("list", "ruleset")
        declared = "{ type inet_service; flags interval; elements = { 5-9, 11-12 }; }"
        scratch.nft("add", "set", "inet", "istio-proxy-nat", _SET, declared)
        assert scratch.nft("list", "ruleset") != before
        assert "nothing to do" in scratch.apply(*settings).stderr
        assert scratch.nft("list", "ruleset") == before
