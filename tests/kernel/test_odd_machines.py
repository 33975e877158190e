"""Odd names, odd programs, and runs that are killed: what is in place is still found."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.in_place import in_place_of
from tests.support.native import in_place_of_nft
from tests.support.scratch import KERNEL, Scratch, end, wait_until

pytestmark = KERNEL

NFT = ["--force-iptables-binary", "nft"]


@pytest.mark.parametrize("binary", ["legacy", "nft", ""])
def test_an_interface_with_a_quote_in_its_name_is_read_back_as_it_is(binary: str) -> None:
    options = ["--force-iptables-binary", binary] if binary else []
    with Scratch(addresses=True) as scratch:
        scratch.apply(*options, "-c", 'a"b')
        assert "nothing to do" in scratch.apply(*options, "-c", 'a"b').stderr
        scratch.apply("cleanup")
        for variant in ("legacy", "nft"):
            assert 'a"b' not in scratch.save(variant, "ipv4")


def test_the_lock_is_held_until_the_command_of_a_killed_run_has_ended(tmp_path: Path) -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply(*NFT, "-b", "80")
        slow = (
            f'case $(basename "$0") in iptables-nft-restore) touch {tmp_path}/there && sleep 1;; esac\n'
            'exec $REAL "$(basename "$0")" "$@"'
        )
        instead = in_place_of("iptables-nft-restore", tmp_path / "bin", slow)
        words = (*NFT, "-b", "81", "--reconcile")
        running = scratch.spawn(*instead, sys.executable, "-m", "istio_iptables", *words)
        wait_until(lambda: (tmp_path / "there").exists())
        running.kill()
        end(running)
        started = time.monotonic()
        found = scratch.tool(*NFT, "-b", "80")
        assert found.returncode == 3, found.stderr  # it has waited for what the other run has begun
        assert time.monotonic() - started > 0.1
        assert scratch.tool(*NFT, "-b", "81", "diff").returncode == 0


def test_an_nft_that_cannot_show_what_is_foreign_changes_nothing(tmp_path: Path) -> None:
    without = 'case " $* " in *" --json "*) echo "JSON support not compiled-in" >&2; exit 1;; esac'
    with Scratch(addresses=True) as scratch:
        instead = in_place_of_nft(tmp_path / "bin", f'{without}\nexec "$NFT" "$@"')
        assert scratch.tool("--native-nftables", prefix=instead).returncode == 0  # it is not asked
        scratch.nft("add", "rule", "inet", "istio-proxy-nat", "istio-output", "log")
        before = scratch.nft("list", "ruleset")
        done = scratch.tool("--native-nftables", "-b", "80", "--reconcile", prefix=instead)
        assert done.returncode == 1
        assert "install an nft that was built with JSON support" in done.stderr
        assert scratch.nft("list", "ruleset") == before


def test_a_move_says_which_chain_another_program_still_needs() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply()
        for words in (("-N", "MINE"), ("-A", "MINE", "-j", "ISTIO_REDIRECT")):
            scratch.check("iptables-legacy", "-t", "nat", *words)
        moved = scratch.apply("--native-nftables", "--reconcile")
        assert "warn\tchain ISTIO_REDIRECT (ipv4 nat, iptables-legacy) stays, empty" in moved.stderr
