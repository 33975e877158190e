"""Journeys: connections that users and programs make, the way that each has to take, and who has to see what.

The way is judged by three witnesses that know nothing of each other: the bytes that come back, the addresses
that the far side has seen, and the counters of Envoy. A connection that takes the right way twice, or another
one beside it, is as wrong as one that gets lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from tests.e2e.conversation import Conversation, failure
from tests.e2e.envoy import difference
from tests.e2e.mesh import SERVICE, Mesh
from tests.support.arrivals import Endpoint
from tests.support.scenarios import resolve

#: Bytes of an exchange: more than one segment, and no round number.
SIZE = 100_003


class Journey(NamedTuple):
    """A connection, and how it has to go."""

    who: str  #: `client`, outside; in the pod `app`, `envoy` (as its user) or `root`
    to: str  #: NAME:PORT
    way: Sequence[str]  #: the listeners of Envoy that it passes, in order; none: it goes there directly
    far: str  #: who answers: `app` or `world`
    seen_as: str  #: the name of the address as which the far side sees the caller
    seen_as_in_tproxy: str = ""  #: the same in TPROXY mode, where it differs
    arrives_at: str = ""  #: NAME:PORT at which it arrives, where that is not what was dialled

    def __str__(self) -> str:
        return f"{self.who} > {self.to}"


def expected(journey: Journey, version: int, times: int = 1) -> dict[str, int]:
    """Return by how much Envoy's counters have to grow; all others have to stay."""
    grown: dict[str, int] = {}
    for listener in journey.way:
        service = listener == "outbound" and journey.to.startswith(f"{SERVICE}:")
        cluster = f"service-{version}-0" if service else f"{listener}-{version}"
        grown |= {f"{listener}-{version} accepted": times, f"{cluster} opened": times}
    return grown


def undertake(mesh: Mesh, journey: Journey, version: int, size: int = SIZE) -> list[str]:
    """Make a connection and talk over it; return what all witnesses find wrong."""
    before = mesh.envoy.counters()
    try:
        with mesh.connect(journey.who, journey.to, version) as talk:
            wrong = misplaced(mesh, journey, version, talk)
            talk.exchange(size)
            talk.finish()
    except OSError as error:
        wrong = [f"the connection failed: {failure(error)}"]
    except AssertionError as error:
        wrong = [str(error)]
    wrong += miscounted(mesh, before, expected(journey, version))
    return [f"IPv{version}: {journey}: {complaint}" for complaint in wrong]


def miscounted(mesh: Mesh, before: dict[str, int], wanted: dict[str, int]) -> list[str]:
    """Return what is wrong with what Envoy has counted since."""
    grown = difference(before, mesh.envoy.counters())
    if grown == wanted:
        return []
    loop = any(number > 1 + wanted.get(name, 0) for name, number in grown.items())
    return [f"{'it loops, ' * loop}Envoy has counted {grown or 'nothing'}, not {wanted or 'nothing'}"]


def misplaced(mesh: Mesh, journey: Journey, version: int, talk: Conversation) -> list[str]:
    """Return what is wrong with where a connection has arrived, and from where."""
    seen = talk.arrival
    name, _, port = journey.arrives_at.partition(":")
    arrives_at: Endpoint = (resolve(name, version), int(port)) if name else talk.dialled
    seen_as = (mesh.tproxy and journey.seen_as_in_tproxy) or journey.seen_as
    address = resolve(seen_as, version)
    wrong = []
    if (seen.name, seen.local) != (journey.far, arrives_at):
        wrong.append(f"it arrived at {seen.name}, {seen.local}, not {journey.far}, {arrives_at}")
    if seen.peer[0] != address:
        wrong.append(f"the far side saw the caller as {seen.peer[0]}, not {address}, {seen_as}")
    if not journey.way and seen.peer != talk.local:
        wrong.append(f"the far side saw the caller as {seen.peer}, not {talk.local}")
    return wrong


def check(mesh: Mesh, *journeys: Journey, size: int = SIZE) -> None:
    """Make journeys, in each IP version that the mesh has; fail with everything that is wrong."""
    wrong = [w for j in journeys for v in mesh.versions for w in undertake(mesh, j, v, size)]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


# --- the journeys ---------------------------------------------------------------------------

INBOUND, OUTBOUND = "inbound", "outbound"
FROM_OUTSIDE = Journey("client", "pod:8080", [INBOUND], "app", "passthrough", "client")
FROM_OUTSIDE_EXCLUDED = Journey("client", "pod:15020", [], "app", "client")
#: Who listens on the HBONE tunnel port is called directly. (The rules of TPROXY make no exception for it.)
TO_TUNNEL_PORT = Journey("client", "pod:15008", [], "app", "client")
TO_WORLD = Journey("app", "world:80", [OUTBOUND], "world", "pod")
TO_EXCLUDED_NETWORK = Journey("app", "blue:80", [], "world", "pod")
TO_EXCLUDED_PORT = Journey("app", "world:3306", [], "world", "pod")
TO_OWN_SERVICE = Journey(
    "app", f"{SERVICE}:80", [OUTBOUND, INBOUND], "app", "passthrough", "pod", arrives_at="pod:8080"
)
TO_SELF = Journey("app", "self:8080", [], "app", "self")
TO_OWN_POD = Journey("app", "pod:8080", [], "app", "pod")
OF_ENVOY = Journey("envoy", "world:80", [], "world", "pod")

JOURNEYS = [
    FROM_OUTSIDE,
    Journey("client", "pod-lo1:8080", [INBOUND], "app", "passthrough", "client-lo1"),
    FROM_OUTSIDE_EXCLUDED,
    TO_WORLD,
    Journey("app", "client:80", [OUTBOUND], "world", "pod"),
    Journey("root", "world:80", [OUTBOUND], "world", "pod"),
    TO_EXCLUDED_NETWORK,
    TO_EXCLUDED_PORT,
    TO_OWN_SERVICE,
    TO_SELF,
    TO_OWN_POD,
    OF_ENVOY,
    Journey("envoy", "self:8080", [], "app", "self"),
    Journey("envoy", "pod:8080", [INBOUND], "app", "passthrough", "pod"),
]
