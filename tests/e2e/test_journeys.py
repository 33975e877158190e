"""Connections through a real Envoy take the way that the rules mean, in every mode, by every backend.

The journeys are those of journey.py. All of one mode, one backend and one kind of pod are made in one mesh.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.journey import (
    FROM_OUTSIDE,
    JOURNEYS,
    TO_OWN_POD,
    TO_OWN_SERVICE,
    TO_SELF,
    TO_TUNNEL_PORT,
    TO_WORLD,
    Journey,
    check,
    expected,
    miscounted,
)
from tests.e2e.mesh import REDIRECT, SERVICE, Mesh, each_backend, each_mode, mesh_of
from tests.support.netns import left_behind

#: More than every buffer on the way.
LONG = 8 << 20
MANY = 30
THROUGH_ENVOY = (FROM_OUTSIDE, TO_WORLD, TO_OWN_SERVICE)


def check_many_at_once(mesh: Mesh, journey: Journey) -> None:
    """Keep many connections open and talk over all of them: each is its own, and Envoy counts as many."""
    for version in mesh.versions:
        before = mesh.envoy.counters()
        with ExitStack() as stack:
            talks = [stack.enter_context(mesh.connect(journey.who, journey.to, version)) for _ in range(MANY)]
            for number, talk in enumerate(talks):
                talk.exchange(1000 + number)
            for talk in talks:
                talk.finish()
        assert not miscounted(mesh, before, expected(journey, version, MANY))


@each_mode
@each_backend
@pytest.mark.parametrize("families", ["4", "4+6", "6"])
def test_connections_take_their_way(mode: str, backend: str, families: str) -> None:
    with mesh_of(mode, backend, families) as mesh:
        check(mesh, *JOURNEYS)
        if mode == REDIRECT:
            check(mesh, TO_TUNNEL_PORT)
        check(mesh, *THROUGH_ENVOY, size=LONG)
        for journey in THROUGH_ENVOY:
            check_many_at_once(mesh, journey)


def test_without_rules_every_connection_goes_directly() -> None:
    """Else the journeys would show how the mesh is wired, and not what the rules do."""
    with mesh_of("REDIRECT", None) as mesh:
        check(
            mesh,
            Journey("client", "pod:8080", [], "app", "client"),
            Journey("app", "world:80", [], "world", "pod"),
            Journey("app", f"{SERVICE}:80", [], "world", "pod"),
            TO_SELF,
            TO_OWN_POD,
        )


def test_nothing_is_left_of_a_mesh_when_a_test_fails() -> None:
    class Failure(Exception):
        pass

    made: list[Mesh] = []

    def fail() -> None:
        with mesh_of("TPROXY", None) as mesh:
            made.append(mesh)
            assert {mesh.pod.name, mesh.pod.client.name} <= set(left_behind())
            raise Failure

    with pytest.raises(Failure):
        fail()
    (mesh,) = made
    assert not {mesh.pod.name, mesh.pod.client.name} & set(left_behind())
    assert not mesh.pod.directory.exists()
    assert not mesh.envoy.folder.exists()
    assert mesh.envoy.process.poll() is not None
    deadline = time.monotonic() + 5  # a listener ends as soon as it sees that its helper has ended
    while alive := [p for p in (mesh.app.pid, mesh.world.pid) if os.path.exists(f"/proc/{p}")]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


def test_envoy_has_no_more_rights_than_in_a_pod() -> None:
    """Else traffic could get through by rights that a real sidecar does not have."""
    for mode, wanted in (("REDIRECT", 0), ("TPROXY", 1 << 12)):  # CAP_NET_ADMIN
        with mesh_of(mode, None, "4") as mesh:
            status = Path(f"/proc/{mesh.envoy.process.pid}/status").read_text()
            rows = dict(line.split(":\t", 1) for line in status.splitlines())
            assert {rows["Uid"].split()[1], rows["Gid"].split()[1]} == {*map(str, mesh.identity)}
            assert int(rows["CapEff"], 16) == int(rows["CapPrm"], 16) == wanted
