"""What released versions left (tests/fixtures/releases) is read, kept, taken over and cleaned by this one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from ..support import releases
from ..support.istio_fixtures import IstioRules
from ..support.scratch import KERNEL, Result, Scratch
from ..support.snapshots import LOCATIONS, everything, with_files

pytestmark = KERNEL

#: Settings that no release has been dumped with.
OTHER = ["--dual-stack", "-b", "9090", "-x", "172.16.0.0/12"]


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    """A namespace with a usable address of either family."""
    with Scratch(addresses=True) as made:
        yield made


@cache
def first_run(location: str) -> tuple[object, ...]:
    """Return what OTHER makes in a clean namespace."""
    with Scratch(addresses=True) as clean:
        clean.apply(*LOCATIONS[location], *OTHER)
        return releases.state(clean)


def run(scratch: Scratch, left: IstioRules, *command: str) -> Result:
    """Run the tool with the settings of the dump."""
    servers = "".join(f"nameserver {server}\n" for server in left.nameservers)
    prefix = with_files(scratch, {"/etc/resolv.conf": servers})
    return scratch.tool(*left.settings, *command, env=left.environment, prefix=prefix)


@pytest.mark.parametrize("name", releases.dumps())
def test_what_a_release_left_is_read_kept_taken_over_and_cleaned(scratch: Scratch, name: str) -> None:
    left, location = releases.read(name), name.rpartition(".")[2]
    clean = releases.state(scratch)
    releases.load(scratch, left, location)
    before = everything(scratch)

    different = run(scratch, left, "diff")
    assert different.returncode == (0 if left.same else 3), different.stdout + different.stderr
    kept = run(scratch, left)
    assert kept.returncode == (0 if left.same else 3), kept.stdout + kept.stderr
    assert everything(scratch) == before

    # Not knowing the settings.
    assert scratch.tool("status").returncode == 0
    scratch.apply("cleanup")
    assert releases.state(scratch) == clean

    releases.load(scratch, left, location)
    scratch.apply(*LOCATIONS[location], *OTHER, "--reconcile")
    assert releases.state(scratch) == first_run(location)
    scratch.apply("cleanup")
    assert releases.state(scratch) == clean


def test_every_release_has_each_configuration_in_each_location() -> None:
    """Whatever is added later: 0.1.0 has what it was made with."""
    made = {name for name in releases.dumps() if name.startswith("0.1.0/")}
    assert {name.rpartition(".")[2] for name in made} == set(LOCATIONS)
    assert len(made) == 17
