"""A mesh: a pod with the rules, a real Envoy and an application in it, and the world outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from tests.e2e import envoy
from tests.e2e.conversation import LIMIT, Conversation
from tests.e2e.envoy import Envoy, Identity, Service
from tests.support.netns import Listener, Namespace, Pod
from tests.support.scenarios import Scenario, apply, resolve

REDIRECT, TPROXY = "REDIRECT", "TPROXY"
MODES = (REDIRECT, TPROXY)
#: Those whose rules the kernel keeps in different ways.
WAYS_TO_WRITE = ("libiptc", "nft", "native")
each_mode = pytest.mark.parametrize("mode", MODES)
each_backend = pytest.mark.parametrize("backend", WAYS_TO_WRITE)
#: SPEC 8: in TPROXY mode the proxy is root, for the capability, but of the proxy's group.
IDENTITIES = {REDIRECT: Identity(1337, 1337), TPROXY: Identity(0, 1337)}

APP = (1000, 1000)
#: Where the application and the world listen.
APP_PORTS, WORLD_PORTS = (8080, 15008, 15020, 3306), (80, 3306)
#: What the settings exclude: the inbound port 15020, the network `blue`, the outbound port 3306.
SETTINGS = ("-b", "*", "-d", "15020", "-i", "*", "-x", "198.18.1.0/24,2001:db8:1::/48", "-o", "3306")
#: A name of ADDRESSES whose address stands for the pod's own application. If it is dialled as it is, the
#: world answers.
SERVICE = "green"


@dataclass
class Mesh:
    """What a mesh consists of."""

    pod: Pod
    envoy: Envoy
    identity: Identity
    app: Listener
    world: Listener
    mode: str
    backend: str | None
    versions: tuple[int, ...]

    @property
    def tproxy(self) -> bool:
        return self.mode == TPROXY

    def connect(self, who: str, to: str, version: int, limit: float = LIMIT) -> Conversation:
        """Connect, as one of the users, to NAME:PORT, whose name is one of ADDRESSES."""
        name, _, port = to.partition(":")
        dialled = resolve(name, version), int(port)
        caller: Namespace = self.pod.client if who == "client" else self.pod
        users = {"client": (0, 0), "app": APP, "root": (0, 0), "envoy": self.identity}
        uid, gid = users[who]
        return Conversation(caller, uid, gid, dialled, limit)

    def write_rules(self, *settings: str) -> None:
        """Run the tool, which has to succeed, with these settings besides the mode's and the backend's."""
        assert self.backend
        apply(self.pod, self._scenario(*settings), self.backend)

    def _scenario(self, *settings: str) -> Scenario:
        families = "+".join(map(str, self.versions))
        return Scenario("", [*settings, "-m", self.mode], families=families)


def envoy_in(pod: Pod, mode: str, who: Identity, versions: Sequence[int]) -> AbstractContextManager[Envoy]:
    """Run Envoy in a pod, as its mode wants it, with the pod's application as a service."""
    services = [Service(resolve(SERVICE, v), (resolve("pod", v), 8080)) for v in versions]
    return envoy.running(pod, who, versions, services, tproxy=mode == TPROXY)


@contextmanager
def mesh_of(
    mode: str,
    backend: str | None,
    families: str = "4+6",
    *,
    identity: Identity | None = None,
    settings: Sequence[str] = SETTINGS,
    resolv_conf: str | None = None,
) -> Iterator[Mesh]:
    """Make a mesh with everybody in it running, and with the rules, if there is a backend to write them."""
    versions = tuple(int(version) for version in families.split("+"))
    who = identity or IDENTITIES[mode]
    with Pod(ipv4=4 in versions, ipv6=6 in versions, resolv_conf=resolv_conf) as pod:
        app = pod.listen("app", tcp=APP_PORTS, uid=APP[0], gid=APP[1], echo=True)
        world = pod.client.listen("world", tcp=WORLD_PORTS, echo=True)
        with envoy_in(pod, mode, who, versions) as running:
            mesh = Mesh(pod, running, who, app, world, mode, backend, versions)
            if backend:
                mesh.write_rules(*settings)
            yield mesh
