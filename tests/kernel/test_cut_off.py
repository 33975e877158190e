"""A command whose output is cut off: what it printed is not taken for all that is in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.in_place import in_place_of
from tests.support.native import LOCATIONS
from tests.support.scratch import KERNEL, Scratch

pytestmark = KERNEL

#: A file, also one in memory, may have 1,024 bytes at most: less than the rules need.
SHORT_FILES = ("bash", "-c", 'ulimit -f 1; exec "$@"', "bash")


@pytest.mark.parametrize("location", ["legacy", "nft"])  # native rules are read without a command
@pytest.mark.parametrize("command", [["--reconcile"], ["diff"], ["cleanup"], ["status"]], ids=" ".join)
def test_output_that_is_cut_off_is_an_error_and_changes_nothing(location: str, command: list[str]) -> None:
    with Scratch(addresses=True) as scratch:
        options = [*LOCATIONS[location], "-x", "10.0.0.0/8,192.0.2.0/24,198.51.100.0/24,203.0.113.0/24"]
        scratch.apply(*options)
        before = scratch.state(counters=True)
        done = scratch.tool(*options, *command, prefix=SHORT_FILES)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "a signal ended it (25)" in done.stderr  # SIGXFSZ, which Python itself ignores
        assert scratch.state(counters=True) == before


@pytest.mark.parametrize("location", ["legacy", "nft"])
def test_a_dump_that_ends_early_is_an_error(tmp_path: Path, location: str) -> None:
    """Not to be had for real once the signal ends the command: a program in its place prints less."""
    with Scratch(addresses=True) as scratch:
        options = LOCATIONS[location]
        scratch.apply(*options)
        before = scratch.state(counters=True)
        for number, kept in enumerate(("head -n 12", "grep -v COMMIT", "sed /^.nat/,/COMMIT/d", "true")):
            script = (
                f'name=$(basename "$0")\ncase $name in\n*-save) $REAL "$name" "$@" | {kept};;\n'
                '*) exec $REAL "$name" "$@";;\nesac'
            )
            instead = in_place_of(f"iptables-{location}-save", tmp_path / str(number), script)
            done = scratch.tool(*options, "--reconcile", prefix=instead)
            assert done.returncode == 1, (kept, done.stderr)
            assert "did not print the whole of the table nat" in done.stderr
            assert scratch.state(counters=True) == before
