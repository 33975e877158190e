"""What `trace --follow` foretells is what a real Envoy, application and agent then do, hop by hop.

A journey is foretold from the settings and from the addresses and routes of the pod. Then it is made, and
compared are: which port of Envoy got it in which order, from whom and meant for where, as Envoy's own log has
it; where it arrived and as whose, as the far side saw it; and that it went round, if it was to loop. One mesh
of a mode serves for all of its journeys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest

from istio_iptables.interpreter.packet import TCP, UDP, Packet, address_text, endpoint_text
from istio_iptables.settings.config import Config
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.packet_parsers import Endpoint, endpoint
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.trace.follow import Choices, Followed, follow
from istio_iptables.trace.packet import Question, complete
from istio_iptables.trace.world import of_settings, proxy_of
from tests.e2e.envoy import INBOUND_PORT, LIMIT, OUTBOUND_PORT, Passage
from tests.e2e.mesh import APP, SERVICE, SETTINGS, Mesh, each_mode, mesh_of
from tests.e2e.test_dns import AGENT, FROM_OTHER, FROM_UPSTREAM, TRANSPORTS, ask, start_servers
from tests.support import scenarios
from tests.support.arrivals import Arrival
from tests.support.dnsmasq import queries
from tests.support.own_world import read_network
from tests.support.scratch import wait_until

DNS = ("--redirect-dns",)
#: Nobody runs as this one: so the proxy is exempt from nothing.
NOT_THE_PROXY = ("-u", "4242", "-g", "4242")
#: How long it may take Envoy to close and log what has ended, in seconds; most of the time it takes none.
PATIENCE = 20.0


class Trip(NamedTuple):
    """A connection: who makes it, and to which NAME:PORT; `how` it is to end."""

    who: str
    to: str
    how: str

    def __str__(self) -> str:
        return f"{self.who} > {self.to}"


TRIPS = (
    Trip("app", "world:80", "leaves"),
    Trip("app", "client:80", "leaves"),
    Trip("app", "side:80", "leaves"),  # by the other interface
    Trip("root", "world:80", "leaves"),
    Trip("app", "blue:80", "leaves"),  # an excluded network
    Trip("app", "world:3306", "leaves"),  # an excluded port
    Trip("app", f"{SERVICE}:80", "arrives"),  # itself by a service's address
    Trip("root", f"{SERVICE}:80", "arrives"),
    Trip("app", "self:8080", "arrives"),
    Trip("app", "any:8080", "arrives"),
    Trip("app", "pod:8080", "arrives"),
    Trip("app", "pod:15008", "arrives"),
    Trip("app", "pod-lo1:8080", "arrives"),
    Trip("root", "pod:8080", "arrives"),
    Trip("root", "self:8080", "arrives"),
    Trip("root", "client:80", "leaves"),
    Trip("root", "side:80", "leaves"),
    Trip("root", "blue:80", "leaves"),
    Trip("root", "world:3306", "leaves"),
    Trip("app", "pod:15020", "arrives"),  # an excluded port, which counts for what comes in alone
    Trip("app", "self:15001", "ends"),
    Trip("app", "pod:15001", "ends"),
    Trip("app", "pod:15006", "ends"),
    Trip("app", "world:15001", "ends"),
    Trip("envoy", "world:80", "leaves"),
    Trip("envoy", "side:80", "leaves"),
    Trip("envoy", "client:80", "leaves"),
    Trip("envoy", "blue:80", "leaves"),
    Trip("envoy", "world:3306", "leaves"),
    Trip("envoy", "self:8080", "arrives"),
    Trip("envoy", "self:3306", "arrives"),
    Trip("envoy", "pod:8080", "arrives"),
    Trip("envoy", "pod:15020", "arrives"),
    Trip("envoy", "pod:15008", "arrives"),  # the tunnel port
    Trip("envoy", "pod-lo1:8080", "arrives"),
    Trip("client", "pod:8080", "arrives"),
    Trip("client", "pod:3306", "arrives"),
    Trip("client", "pod-lo1:8080", "arrives"),
    Trip("client", "pod:15020", "arrives"),  # an excluded port
    Trip("client", "pod:15008", "arrives"),  # the tunnel port
    Trip("client", "pod-lo1:15020", "arrives"),
    Trip("client", "pod:15001", "ends"),
    Trip("client", "pod:15006", "ends"),
)


# --- what is foretold -------------------------------------------------------------------------


def config_of(settings: Sequence[str], servers: Sequence[str] = ()) -> Config:
    read = read_arguments(list(settings))
    assert not read.mistakes
    facts = Facts(ipv4=True, ipv6=True, servers=tuple(servers))
    return resolve(parse(read.settings, facts), facts)[0]


def test_enough_journeys_are_made() -> None:
    """Different ones, each by both families and in both modes; those to DNS and the loops not counted."""
    assert len(set(TRIPS)) == len(TRIPS) >= 40


class Oracle:
    """Foretells journeys in a mesh with some settings."""

    def __init__(self, mesh: Mesh, settings: Sequence[str]) -> None:
        self._mesh = mesh
        servers = [scenarios.resolve("dns", version) for version in reversed(mesh.versions)]
        self._config = config_of([*settings, "-m", mesh.mode, "--dual-stack"], servers)
        self._proxy = proxy_of(self._config)
        network = read_network(mesh.pod.name)
        self._world = of_settings(self._config, network, native=mesh.backend == "native")

    def foretell(self, who: str, to: str, version: int, *, udp: bool = False) -> Followed:
        name, _, port = to.partition(":")
        wanted = _endpoint(scenarios.resolve(name, version), int(port))
        if who == "client":
            side = "client-lo1" if name == "pod-lo1" else "client"
            question = Question("in", wanted, _endpoint(scenarios.resolve(side, version)))
        else:
            uid, gid = {"app": APP, "root": (0, 0), "agent": AGENT}.get(who, self._mesh.identity)
            question = Question("out", wanted, uid=uid, gid=gid, protocol=UDP if udp else TCP)
        pod = _endpoint(scenarios.resolve("pod", version), 8080)
        user = AGENT if udp or port == "53" else self._mesh.identity
        choices = Choices(pod if name == SERVICE else Endpoint(), user, self._config.dns_servers)
        asked = complete(question, self._world.network, self._proxy)
        return follow(self._world, asked, self._proxy, choices)


def _endpoint(address: str, port: int = 0) -> Endpoint:
    written = f"[{address}]" if ":" in address else address
    return endpoint(f"{written}:{port}" if port else address, Facts())


def passages(found: Followed) -> list[Passage]:
    """Return the connections that Envoy is foretold to have."""
    packets = [hop.answer.asked.packet for hop in found.hops]
    if "there is no connection" in found.conclusion:
        packets.pop()
    foretold = []
    for at, hop in enumerate(found.hops[: len(packets)]):
        packet, verdict = packets[at], hop.answer.verdict
        port = int(verdict.to) if verdict.code in ("redirected", "tproxied") else packet.destination_port
        if port not in (OUTBOUND_PORT, INBOUND_PORT):
            continue
        next_one = packets[at + 1] if at + 1 < len(packets) else None
        beyond = (_destination(next_one), _source(next_one)) if next_one else ("", "")
        foretold.append(Passage(port, _source(packet), _destination(packet), *beyond))
    return foretold


def _source(packet: Packet) -> str:
    return address_text(packet.family, packet.source)


def _destination(packet: Packet) -> str:
    return endpoint_text(packet.family, packet.destination, packet.destination_port)


# --- what is seen -----------------------------------------------------------------------------


def ended(mesh: Mesh, least: int) -> list[Passage]:
    """Return all connections of Envoy, when they have ended, and there are at least so many."""

    def all_ended() -> bool:
        accepted = sum(number for name, number in mesh.envoy.counters().items() if name.endswith("accepted"))
        return len(mesh.envoy.passages()) == accepted >= least

    with contextlib.suppress(AssertionError):  # then what is there is not what was foretold
        wait_until(all_ended, PATIENCE)
    return mesh.envoy.passages()


def travel(mesh: Mesh, trip: Trip, version: int, limit: float) -> tuple[Arrival | None, str]:
    """Make a connection; return where it arrived, or why not."""
    try:
        with mesh.connect(trip.who, trip.to, version, limit) as talk:
            talk.exchange(1000)
            talk.finish()
            return talk.arrival, ""
    except OSError as error:
        return None, str(error)


def wrong_with(mesh: Mesh, oracle: Oracle, trip: Trip, version: int) -> Iterable[str]:
    """Make a journey, and yield what was foretold and is not what is seen."""
    found = oracle.foretell(trip.who, trip.to, version)
    if found.ending != trip.how:
        yield f"foretold that it {found.ending}, not that it {trip.how}: {found.conclusion}"
    foretold, before = passages(found), len(mesh.envoy.passages())
    arrival, failure = travel(mesh, trip, version, 1 if found.ending == "ends" else PATIENCE)
    seen = ended(mesh, before + len(foretold))[before:]
    if found.ending == "loops":
        if len(seen) < LIMIT // 2:  # every round is a connection, and both families share the limit
            yield f"foretold that it loops, but Envoy had {len(seen)} connections"
        foretold = foretold[:-1]  # of the last one it is not foretold what comes next
        seen = seen[: len(foretold)]
    if seen != foretold:
        yield f"foretold {foretold}, Envoy had {seen}"
    if found.ending not in ("arrives", "leaves"):
        if arrival:
            yield f"foretold that it {found.ending}, but it arrived: {arrival}"
        return
    last = found.hops[-1].answer.paths[0].packet
    far = "app" if found.ending == "arrives" else "world"
    wanted = (far, _destination(last), _source(last))
    if arrival is None:
        yield f"foretold {wanted}, but it did not arrive: {failure}"
        return
    got = arrival.name, _written(*arrival.local), arrival.peer[0]
    if got != wanted:
        yield f"foretold {wanted}, seen {got}"


def _written(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def compare(mesh: Mesh, oracle: Oracle, trips: Sequence[Trip], versions: Sequence[int] = (4, 6)) -> list[str]:
    """Make journeys; return what was wrong."""
    return [
        f"{mesh.mode}, IPv{version}: {trip}: {wrong}"
        for trip in trips
        for version in versions
        for wrong in wrong_with(mesh, oracle, trip, version)
    ]


def compare_query(
    mesh: Mesh, oracle: Oracle, who: str, server: str, transport: str, version: int
) -> list[str]:
    """Ask a DNS server; return what was foretold and is not what is seen."""
    found = oracle.foretell(who, f"{server}:53", version, udp=transport == "udp")
    domain = "upstream.test" if server == "dns" else "other.test"
    name = f"{who}.{server}.{transport}{version}.{domain}"
    before = len(mesh.envoy.passages())
    user = APP if who == "app" else AGENT
    answer = ask(mesh, name, scenarios.resolve(server, version), transport, user)
    wanted_answer = FROM_UPSTREAM if server == "dns" else FROM_OTHER
    foretold = passages(found)
    seen = ended(mesh, before + len(foretold))[before:]
    to_agent = {_source(h.answer.asked.packet) for h in found.hops if h.answer.verdict.to == "15053"}
    last = {_source(found.hops[-1].answer.paths[0].packet)}
    pairs = (
        ("answer", wanted_answer, answer),
        ("connections of Envoy", foretold, seen),
        ("who asked the agent", to_agent, queries(mesh.pod, name)),
        ("who asked the server", last, queries(mesh.pod.client, name)),
        ("ending", "leaves", found.ending),
    )
    return [
        f"{mesh.mode}, {name}: {what}: foretold {wanted}, seen {seen}"
        for what, wanted, seen in pairs
        if wanted != seen
    ]


@each_mode
def test_a_connection_takes_the_hops_that_are_foretold(mode: str) -> None:
    settings = (*SETTINGS, *DNS)
    resolv_conf = "".join(f"nameserver {scenarios.resolve('dns', version)}\n" for version in (6, 4))
    with mesh_of(mode, "libiptc", settings=settings, resolv_conf=resolv_conf) as mesh:
        start_servers(mesh)
        oracle = Oracle(mesh, settings)
        wrong = compare(mesh, oracle, TRIPS)
        for who, server in (("app", "dns"), ("app", "dns2"), ("agent", "dns")):
            for transport in TRANSPORTS:
                for version in mesh.versions:
                    wrong += compare_query(mesh, oracle, who, server, transport, version)
        wrong += check_loops(mesh)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def check_loops(mesh: Mesh) -> list[str]:
    """Write rules that exempt somebody else than Envoy, and in TPROXY mode some that know it by its UID."""
    broken = ("-b", "*", *NOT_THE_PROXY)
    mesh.write_rules(*broken, "--reconcile")
    trips = [
        Trip("app", "world:80", "loops"),
        Trip("envoy", "world:80", "loops"),
        Trip("client", "pod:8080", "arrives"),
        Trip("app", f"{SERVICE}:80", "arrives"),
    ]
    wrong = compare(mesh, Oracle(mesh, broken), trips)
    if mesh.tproxy:
        by_uid = ("-b", "*", "-u", "0", "-g", "0")
        mesh.write_rules(*by_uid, "--reconcile")
        oracle = Oracle(mesh, by_uid)
        for version, how in ((4, "ends"), (6, "loops")):  # 127.0.0.1 cannot answer a caller outside
            wrong += compare(mesh, oracle, [Trip("client", "pod:8080", how)], (version,))
    return wrong
