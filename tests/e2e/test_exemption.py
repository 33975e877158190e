"""Envoy's own traffic is left alone because of its user or of its group; if of neither, it loops, and shows.

Istio's sidecar has 1337 as both, and so have -u and -g: then the rules for one hide what is wrong with those
for the other.
"""

from __future__ import annotations

import pytest

from tests.e2e.envoy import LIMIT, Identity
from tests.e2e.journey import (
    FROM_OUTSIDE,
    OF_ENVOY,
    TO_OWN_POD,
    TO_OWN_SERVICE,
    TO_SELF,
    TO_WORLD,
    Journey,
    check,
    undertake,
)
from tests.e2e.mesh import SERVICE, SETTINGS, Mesh, each_backend, mesh_of

OTHER = 2000


@each_backend
def test_exempt_by_its_user(backend: str) -> None:
    settings = (*SETTINGS, "-u", "1337", "-g", "1337")
    with mesh_of("REDIRECT", backend, identity=Identity(1337, OTHER), settings=settings) as mesh:
        check(mesh, FROM_OUTSIDE, TO_WORLD, TO_OWN_SERVICE, OF_ENVOY, TO_SELF, TO_OWN_POD)


@each_backend
def test_exempt_by_its_group(backend: str) -> None:
    """But what it sends to its own pod is not inbound: the rule for users lets all others do as they like."""
    settings = (*SETTINGS, "-u", "1337", "-g", "1337")
    own_service = Journey("app", f"{SERVICE}:80", ["outbound"], "app", "pod", arrives_at="pod:8080")
    with mesh_of("REDIRECT", backend, identity=Identity(OTHER, 1337), settings=settings) as mesh:
        check(mesh, FROM_OUTSIDE, TO_WORLD, own_service, OF_ENVOY, TO_SELF, TO_OWN_POD)


def complaints(mesh: Mesh, journey: Journey) -> list[str]:
    return [wrong for version in mesh.versions for wrong in undertake(mesh, journey, version)]


@each_backend
@pytest.mark.parametrize(
    ("identity", "settings"),
    [
        (Identity(1337, 1337), ("-u", "4242", "-g", "4242")),
        (Identity(1337, OTHER), ("-u", "4242", "-g", "1337")),
        (Identity(OTHER, 1337), ("-u", "1337", "-g", "4242")),
    ],
    ids=["neither", "wrong user", "wrong group"],
)
def test_without_an_exemption_it_loops_and_that_is_noticed(
    identity: Identity, settings: tuple[str, str], backend: str
) -> None:
    with mesh_of("REDIRECT", backend, identity=identity, settings=(*SETTINGS, *settings)) as mesh:
        for journey in (TO_WORLD, OF_ENVOY):
            wrong = complaints(mesh, journey)
            for version in mesh.versions:
                own = "\n".join(line for line in wrong if line.startswith(f"IPv{version}"))
                assert "the connection failed" in own
                assert "it loops" in own
        # The loop has come to an end.
        counters = mesh.envoy.counters()
        assert all(counters[f"outbound-{v} opened"] <= 2 * LIMIT for v in mesh.versions)
        check(mesh, FROM_OUTSIDE)  # by the source address: no loop


def test_the_group_hides_that_the_user_is_wrong() -> None:
    """So a test in which both are 1337 says nothing about either."""
    settings = (*SETTINGS, "-u", "4242", "-g", "1337")
    with mesh_of("REDIRECT", "libiptc", settings=settings) as mesh:
        check(mesh, FROM_OUTSIDE, TO_WORLD, OF_ENVOY)
