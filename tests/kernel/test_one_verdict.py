"""One verdict: whatever the settings and whatever the packet, every backend sends it to the same place.

Hypothesis draws settings and packets. Each packet is sent for real in pods that differ in nothing but the
backend that wrote their rules; where it arrived, from whom and meant for whom has to be the same in
all. Where that is, test_traffic.py says for chosen cases; here the backends have to agree for any.

The pods stay for all examples. Each example changes the rules as --reconcile does, so what a change
leaves behind would show, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, event, given, note
from hypothesis import example as hypothesis_example
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from istio_iptables import Facts, Machine, Ruleset, build, configure, prepare

from ..support.arrivals import Call
from ..support.netns import Namespace, Pod
from ..support.netns_helper import CALL_LIMIT
from ..support.pod_settings import (
    AGENT_PORT,
    CLIENT,
    DIALLED_PORTS,
    FOR_CLIENT,
    OWN,
    PASSTHROUGH,
    PLACES,
    PORTS,
    PROXY_PORTS,
    REACHED,
    SERVERS,
    Settings,
    settings,
)
from ..support.scratch import entered

#: For each backend: what it adds to the settings, and how the machine is opened. The command and libiptc take
#: turns in the legacy tables.
BACKENDS: dict[str, tuple[Settings, dict[str, Any]]] = {
    "legacy": ({}, {}),
    "compact": ({"compact": "true"}, {}),
    "nft": ({}, {"forced_variant": "nft"}),
    "native": ({}, {"native_nftables": True}),
}

# --- packets ----------------------------------------------------------------------------------


class Packet(NamedTuple):
    """A packet that begins something: by whom (`pod`, `client` or `vm`), to where, and of which kind."""

    sender: str
    uid: int
    gid: int
    mark: int
    source: str
    address: str
    port: int
    kind: str  #: tcp, udp, or the flags of one segment that belongs to no connection


def members(values: Settings, *names: str) -> list[str]:
    return [text for name in names for text in values.get(name, "").split(",") if text]


def interesting_ports(values: Settings) -> list[int]:
    """The ends of the port ranges in the settings, and what is next to them, where a process listens."""
    names = ("istio-inbound-ports", "istio-local-exclude-ports", "istio-outbound-ports")
    said = members(values, *names, "istio-local-outbound-ports-exclude", "inbound-tunnel-port")
    ends = {int(end) for text in said for end in text.split("-")}
    return sorted({end + step for end in ends for step in (-1, 0, 1)} & set(DIALLED_PORTS)) or [80]


def interesting_addresses(values: Settings, version: int) -> list[str]:
    """The ends of the CIDRs of the settings, and what is next to them, where a host answers."""
    said = members(values, "istio-service-cidr", "istio-service-exclude-cidr")
    networks = [ipaddress.ip_network(text) for text in said]
    found = set()
    for network in networks:
        if network.version == version:
            first, last = int(network[0]), int(network[-1])
            found |= {number for end in (first, last) for number in (end - 1, end, end + 1)}
    kind: Callable[[int], Any] = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    bits = 32 if version == 4 else 128
    addresses = [kind(number) for number in sorted(found) if 0 < number < 2**bits]
    return [str(a) for a in addresses if any(a in network for network in REACHED)] or PLACES[version]


def owners(values: Settings) -> SearchStrategy[int]:
    names = ("proxy-uid", "proxy-gid", "ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE")
    said = [int(text) for text in members(values, *names)]
    return st.sampled_from([1000, 1337, 0, 2000, *said])


@st.composite
def packets(draw: DrawFn, values: Settings, versions: tuple[int, ...]) -> Packet:
    version = draw(st.sampled_from(versions))
    sender = draw(st.sampled_from(["pod", "pod", "pod", "client", "client", "vm"]))
    kind = draw(st.sampled_from(["tcp", "tcp", "tcp", "udp", "fin+ack" if sender == "client" else "tcp"]))
    own = st.sampled_from(OWN[version])
    port = draw(st.sampled_from(interesting_ports(values)) | st.sampled_from(DIALLED_PORTS) | st.just(53))
    if sender == "client":
        return Packet(sender, 0, 0, 0, "", draw(st.sampled_from(FOR_CLIENT[version])), port, kind)
    anywhere = (
        own | st.sampled_from(PLACES[version]) | st.sampled_from(interesting_addresses(values, version))
    )
    address = draw(anywhere)
    if sender == "vm":
        if ipaddress.ip_address(address).is_loopback:  # it would stay where it is
            address = draw(own)
        return Packet(sender, 0, 0, 0, "", address, port, kind)
    mark, source = 0, ""
    special = draw(st.integers(0, 9))
    if special == 0:  # as Envoy calls the application
        source, address = PASSTHROUGH[version], draw(own)
    elif special < 4 and kind == "tcp" and "istio-inbound-interception-mode" in values:  # as the client
        mark, source = draw(st.sampled_from([1337, 1338, 77])), CLIENT[version]
        address = draw(st.sampled_from(FOR_CLIENT[version]))
    uid, gid = (1000, 1000) if draw(st.booleans()) else (draw(owners(values)), draw(owners(values)))
    return Packet(sender, uid, gid, mark, source, address, port, kind)


class Example(NamedTuple):
    """Settings, the families of the pod, packets; `command`: legacy tables are written by the command."""

    settings: Settings
    families: str
    command: bool
    packets: list[Packet]


@st.composite
def examples(draw: DrawFn) -> Example:
    values = draw(settings())
    families = draw(st.sampled_from(["46", "46", "46", "46", "6"]))
    versions = tuple(int(digit) for digit in families)
    sent = draw(st.lists(packets(values, versions), min_size=15, max_size=30))
    return Example(values, families, draw(st.booleans()), sent)


# --- the pods ---------------------------------------------------------------------------------


class Backends:
    """A pod for each backend, made when a family combination is first wanted."""

    def __init__(self, stack: ExitStack, lock: str) -> None:
        self._stack = stack
        self._lock = lock
        self._pods: dict[str, dict[str, Pod]] = {}

    def pods(self, families: str) -> dict[str, Pod]:
        if families not in self._pods:
            self._pods[families] = {backend: self._make(families) for backend in BACKENDS}
        return self._pods[families]

    def _make(self, families: str) -> Pod:
        pod = self._stack.enter_context(Pod(ipv4="4" in families, vm=True))
        pod.client.listen("world", tcp=DIALLED_PORTS, udp=DIALLED_PORTS)
        pod.listen("app", tcp=PORTS, udp=(*PORTS, *PROXY_PORTS), uid=1000, gid=1000)
        pod.listen("proxy", tcp=PROXY_PORTS, gid=1337, transparent=True)
        own = ("127.0.0.1", "::1")  # on these, as Istio's does: it answers from the one that was asked
        pod.listen("agent", tcp=[AGENT_PORT], udp=[AGENT_PORT], addresses=own, gid=1337)
        return pod

    def put_in_place(self, backend: str, example: Example) -> None:
        """Replace what is in place by the rules of an example, as --reconcile does."""
        added, how = BACKENDS[backend]
        if backend in ("legacy", "compact"):
            how = {"forced_variant": "legacy" if example.command else ""}
        facts = Facts(ipv4="4" in example.families, ipv6=True, servers=SERVERS)
        wanted = build(configure({**example.settings, **added}, environment=facts))
        self._apply(self.pods(example.families)[backend], wanted, how)

    def _apply(self, pod: Pod, wanted: Ruleset, how: dict[str, Any]) -> None:
        with entered(f"/run/netns/{pod.name}"), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XTABLES_LOCKFILE", self._lock)
            with Machine(**how) as machine:
                prepare(machine, wanted).apply()
            with Machine(**how) as machine:
                assert not prepare(machine, wanted).plan.actions, "nothing to do the second time"

    def empty(self) -> None:
        """Clean up, and see that nothing is left."""
        for pods in self._pods.values():
            for pod in pods.values():
                self._apply(pod, Ruleset(), {})


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with ExitStack() as stack:
        made = Backends(stack, str(tmp_path_factory.mktemp("lock") / "xtables.lock"))
        yield made
        made.empty()


# --- sending ----------------------------------------------------------------------------------

#: How long the first try waits. Who gets no answer in that time is asked again, with all the time there is.
SHORT_LIMIT = 0.5
TRIES = 3


def send(pod: Pod, packet: Packet, limit: float) -> str:
    """Send a packet and say what became of it, as text that is the same in every pod."""
    senders: dict[str, Namespace | None] = {"pod": pod, "client": pod.client, "vm": pod.vm}
    sender = senders[packet.sender]
    assert sender
    version = 6 if ":" in packet.address else 4
    if packet.kind not in ("tcp", "udp"):
        return sender.provoke(packet.address, packet.port, CLIENT[version], packet.kind.split("+"))
    how: dict[str, Any] = {"uid": packet.uid, "gid": packet.gid, "limit": limit}
    how["source"] = (packet.source, 0) if packet.source else None
    if packet.kind == "udp":
        return what_became_of(sender.query(packet.address, packet.port, **how))
    mark = {"mark": packet.mark, "transparent": bool(packet.mark)}
    return what_became_of(sender.connect(packet.address, packet.port, **mark, **how))


def what_became_of(call: Call) -> str:
    """Where it arrived, as whose and for whom; without the ports that the kernel chose."""
    seen = call.arrival
    if seen is None:
        return call.error
    # Who was not redirected has no original destination, or, where connections are tracked, the one dialled.
    original = seen.original if seen.local != call.dialled else call.dialled
    return f"{seen.name}:{seen.port} at {seen.local}, from {seen.peer[0]}, for {original}"


def verdicts(pods: dict[str, Pod], packet: Packet) -> dict[str, str]:
    """Return what became of a packet by backend.

    If that differs it is sent again: an answer may be late, or a port of an earlier connection be used again.
    """
    found = {backend: send(pod, packet, SHORT_LIMIT) for backend, pod in pods.items()}
    for _ in range(TRIES):
        if len(set(found.values())) == 1:
            break
        found = {backend: send(pod, packet, CALL_LIMIT) for backend, pod in pods.items()}
    return found


def shown(packet: Packet, found: dict[str, str]) -> str:
    return "\n".join([str(packet), *(f"    {backend:8} {words}" for backend, words in found.items())])


@hypothesis_settings(
    max_examples=max(1, hypothesis_settings().max_examples // 6),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(example=examples())
# Lists of every kind, members that overlap and touch, and a packet for each end of each.
@hypothesis_example(
    example=Example(
        {
            "dual-stack": "true",
            "istio-inbound-ports": "79-81,80,443,8000-8004,8001-8002,9000",
            "istio-service-exclude-cidr": "198.18.0.0/25,198.18.0.128/25,198.19.0.0/24,2001:db8:53::/48",
            "istio-outbound-ports": "22,53-54,54",
            "istio-local-outbound-ports-exclude": "9002,9004",
        },
        "46",
        False,
        [
            *(
                Packet("client", 0, 0, 0, "", OWN[v][0], port, "tcp")
                for v in (4, 6)
                for port in DIALLED_PORTS
            ),
            *(
                Packet("pod", 1000, 1000, 0, "", address, port, "tcp")
                for address in (
                    "198.18.0.1",
                    "198.18.0.200",
                    "198.18.1.0",
                    "198.19.0.1",
                    "198.19.1.0",
                    "2001:db8::1",
                )
                for port in (22, 52, 53, 54, 79, 9000, 9002, 9004)
            ),
        ],
    )
)
def test_every_backend_has_the_same_verdict_for_every_packet(backends: Backends, example: Example) -> None:
    for backend in BACKENDS:
        backends.put_in_place(backend, example)
    wrong = []
    for packet in example.packets:
        found = verdicts(backends.pods(example.families), packet)
        event(f"{packet.kind} by {packet.sender}: {next(iter(found.values())).partition(':')[0]}")
        if len(set(found.values())) > 1:
            wrong.append(shown(packet, found))
    note("\n".join(wrong))
    assert not wrong
