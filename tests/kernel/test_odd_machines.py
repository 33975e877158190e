"""Odd names, odd programs, and runs that are killed: what is in place is still found."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import pytest

from tests.support.scratch import KERNEL, Scratch, end, wait_until

pytestmark = KERNEL


def instead_of_nft(folder: Path, script: str) -> str:
    """Return a PATH on which nft is a shell script, to which the real one is $NFT."""
    program = folder / "nft"
    program.write_text(f"#!/bin/bash\nNFT=/usr/sbin/nft\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"


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
        scratch.apply("--native-nftables", "-b", "80")
        slow = f'[ "$1" = -f ] && touch {tmp_path}/there && sleep 1\nexec "$NFT" "$@"'
        path = instead_of_nft(tmp_path, slow)
        words = ("--native-nftables", "-b", "81", "--reconcile")
        running = scratch.spawn(sys.executable, "-m", "istio_iptables", *words, env={"PATH": path})
        wait_until(lambda: (tmp_path / "there").exists())
        running.kill()
        end(running)
        started = time.monotonic()
        found = scratch.tool("--native-nftables", "-b", "80")
        assert found.returncode == 3, found.stderr  # it has waited for what the other run has begun
        assert time.monotonic() - started > 0.1
        assert scratch.tool("--native-nftables", "-b", "81", "diff").returncode == 0


def test_an_nft_that_cannot_read_back_writes_nothing(tmp_path: Path) -> None:
    without = 'case " $* " in *" --json "*) echo "JSON support not compiled-in" >&2; exit 1;; esac'
    with Scratch(addresses=True) as scratch:
        path = instead_of_nft(tmp_path, f'{without}\nexec "$NFT" "$@"')
        done = scratch.tool("--native-nftables", env={"PATH": path})
        assert done.returncode == 1
        assert "install an nft that was built with JSON support" in done.stderr
        assert scratch.nft("list", "ruleset") == ""


def test_a_move_says_which_chain_another_program_still_needs() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply()
        for words in (("-N", "MINE"), ("-A", "MINE", "-j", "ISTIO_REDIRECT")):
            scratch.check("iptables-legacy", "-t", "nat", *words)
        moved = scratch.apply("--native-nftables", "--reconcile")
        assert "warn\tchain ISTIO_REDIRECT (ipv4 nat, iptables-legacy) stays, empty" in moved.stderr


def test_a_folder_called_nft_is_not_the_command(tmp_path: Path) -> None:
    (tmp_path / "nft").mkdir()
    with Scratch(addresses=True) as scratch:
        path = f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"
        assert scratch.tool("--native-nftables", env={"PATH": path}).returncode == 0
