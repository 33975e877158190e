"""While rules are being replaced no connection gets past the proxy: SPEC section 5, "one replace per table".

Two namespaces and a cable. In both directions a client connects as fast as it can, to a port on which
a process listens that must get none of it: the outside world, and the application. Meanwhile the rules
are replaced over and over, as --reconcile does it, one set of settings for another and back.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice, product
from typing import Any

import pytest

from istio_iptables import Facts, Machine, Ruleset, build, configure, prepare

from ..support.scratch import KERNEL, Fork, Scratch, entered, wait_until

pytestmark = KERNEL

POD, OUTSIDE, PORT = "10.97.0.1", "10.97.0.2", 8080
#: The addresses of the clients.
FROM_POD, FROM_OUTSIDE = ([f"10.97.{net}.{n}" for n in range(1, 25)] for net in (1, 2))
_IP_TRANSPARENT = 19
_LINGER_NOT = struct.pack("ii", 1, 0)

#: Who got a connection, and how often a client tried, and failed.
PLACES = ("outbound listener", "inbound listener", "outside", "application", "tried", "failed")


class Tally:
    """Numbers that several processes add to, each to its own."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)

    def add(self, place: str, writer: int = 0) -> None:
        at = 8 * (PLACES.index(place) * 8 + writer)
        (number,) = struct.unpack_from("=Q", self._memory, at)
        struct.pack_into("=Q", self._memory, at, number + 1)

    def __getitem__(self, place: str) -> int:
        start = 8 * PLACES.index(place) * 8
        return sum(struct.unpack_from("=8Q", self._memory, start))


def listen(path: str, address: tuple[str, int], *, transparent: bool = False) -> socket.socket:
    with entered(path):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if transparent:
            listener.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        listener.bind(address)
        listener.listen(4096)
        listener.setblocking(False)
    return listener


def serve(listeners: dict[socket.socket, str], tally: Tally) -> int:
    os.nice(3)  # the run that replaces rules comes first; what is left, which is a lot, is for the traffic
    while True:
        for listener in select.select(list(listeners), [], [])[0]:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    connection, _ = listener.accept()
                    tally.add(listeners[listener])
                    connection.close()


def connect_for_ever(
    path: str, sources: Sequence[str], address: tuple[str, int], tally: Tally, writer: int
) -> int:
    """Connect again and again, never twice from the same address and port.

    What was tried in vain leaves an entry in conntrack, for minutes: nat would not be asked about the next
    one that looks the same, and the rules of now would not decide about it.
    """
    os.nice(3)
    with entered(path):
        for source in product(sources, range(16000, 61000)):
            tally.add("tried", writer)
            client = socket.socket()
            client.bind(source)
            client.settimeout(0.8)  # less than it takes until a first packet is sent again (TCP_TIMEOUT_INIT)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)  # no TIME_WAIT: ports are few
            try:
                client.connect(address)
            except OSError:
                tally.add("failed", writer)
            client.close()
    return 1


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[Scratch, Scratch]]:
    with Scratch() as pod, Scratch() as outside:
        pod.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", outside.name)
        for space, own, clients in ((pod, POD, FROM_POD), (outside, OUTSIDE, FROM_OUTSIDE)):
            space.give("eth0", *(f"{each}/16" for each in (own, *clients)))
        yield pod, outside


@contextlib.contextmanager
def traffic(pod: Scratch, outside: Scratch) -> Iterator[Tally]:
    """Clients in both directions, and all who may or may not be reached."""
    tally = Tally()
    listeners = {
        listen(pod.path, ("0.0.0.0", 15001)): "outbound listener",
        listen(pod.path, ("0.0.0.0", 15006), transparent=True): "inbound listener",
        listen(outside.path, (OUTSIDE, PORT)): "outside",
        listen(pod.path, (POD, PORT)): "application",
    }
    try:
        with (
            Fork(lambda: serve(listeners, tally)),
            Fork(lambda: connect_for_ever(pod.path, FROM_POD, (OUTSIDE, PORT), tally, 1)),
            Fork(lambda: connect_for_ever(outside.path, FROM_OUTSIDE, (POD, PORT), tally, 2)),
        ):
            wait_until(lambda: tally["outbound listener"] > 20 and tally["inbound listener"] > 20)
            yield tally
            time.sleep(0.1)  # for what is on its way
    finally:
        for listener in listeners:
            listener.close()


def rules(**settings: str) -> Ruleset:
    values = {name.replace("_", "-"): text for name, text in settings.items()}
    return build(configure(values, environment=Facts()))


#: How each backend is asked for.
BACKENDS: dict[str, dict[str, Any]] = {
    "libiptc": {},
    "iptables-legacy-restore": {"forced_variant": "legacy"},
    "iptables-nft-restore": {"forced_variant": "nft"},
    "native nftables": {"native_nftables": True},
}


def put_in_place(wanted: Ruleset, backend: str = "libiptc") -> bool:
    """Do what `istio-iptables --reconcile` does; tell whether there was something to do."""
    with Machine(**BACKENDS[backend]) as machine:
        prepared = prepare(machine, wanted)
        prepared.apply()
        return bool(prepared.plan.actions)


LISTS = (
    rules(
        istio_service_exclude_cidr=",".join(f"192.0.2.{n}" for n in range(100)),
        istio_local_exclude_ports="15090,15021",
        istio_exclude_interfaces="eth7,eth8",
        istio_local_outbound_ports_exclude="123",
    ),
    rules(
        proxy_uid="1337,1400", istio_inbound_ports="80,8000-8100", istio_exclude_interfaces="eth8,eth9,eth7"
    ),
)
TPROXY = "TPROXY"
MODES = (rules(), rules(istio_inbound_interception_mode=TPROXY))
ROUNDS = {
    "lists and modes": (LISTS[0], MODES[1], LISTS[1], MODES[0]),
    "marks and routes": (
        rules(istio_inbound_interception_mode=TPROXY, istio_inbound_tproxy_mark="7"),
        rules(istio_inbound_interception_mode=TPROXY, istio_inbound_tproxy_route_table="140"),
    ),
    # Both tables gain rules and lose some: which of them comes first depends on the direction.
    "modes and dropping": (
        rules(drop_invalid="true", istio_exclude_interfaces="eth7"),
        rules(istio_inbound_interception_mode=TPROXY, istio_exclude_interfaces="eth8"),
    ),
    # What is captured because a list names it, in both directions.
    "captured lists": (
        rules(istio_inbound_ports="80,8000-8100", istio_service_cidr="10.0.0.0/8,192.0.2.0/24"),
        rules(istio_inbound_ports="81,8000-8101", istio_service_cidr="10.97.0.0/16,192.0.2.0/24"),
        rules(
            istio_inbound_interception_mode=TPROXY,
            istio_inbound_ports="80,8000-8100",
            istio_service_cidr="",
            istio_outbound_ports="1,8000-8100",
        ),
    ),
}


def nobody_was_reached(tally: Tally, tried_at_least: int) -> None:
    numbers = {place: tally[place] for place in PLACES}
    print(numbers)
    assert numbers["outside"] == 0, numbers
    assert numbers["application"] == 0, numbers
    assert numbers["tried"] >= tried_at_least, numbers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("settings", "times"),
    [
        pytest.param("lists and modes", 100, marks=pytest.mark.slow),
        ("marks and routes", 30),
        ("modes and dropping", 30),
        ("captured lists", 60),
    ],
)
def test_no_connection_gets_past_the_proxy_while_rules_are_replaced(
    backend: str, settings: str, times: int
) -> None:
    sets = ROUNDS[settings]
    with two_namespaces() as (pod, outside):
        with pod.inside():
            put_in_place(sets[-1], backend)
        with traffic(pod, outside) as tally, pod.inside():
            for wanted in islice(cycle(sets), times):
                assert put_in_place(wanted, backend)
        nobody_was_reached(tally, 5 * times)


def test_no_connection_gets_past_the_proxy_while_rules_move_from_one_backend_to_another() -> None:
    """Each move from one to each other: a walk through all of them, one way round and then the other."""
    native, legacy, nft = "native nftables", "iptables-legacy-restore", "iptables-nft-restore"
    moves = [native, legacy, nft, native, nft, legacy]
    with two_namespaces() as (pod, outside):
        with pod.inside():
            put_in_place(MODES[0], moves[-1])
        with traffic(pod, outside) as tally, pod.inside():
            for number, backend in enumerate(islice(cycle(moves), 36)):
                assert put_in_place(MODES[number // 6 % 2], backend)
        nobody_was_reached(tally, 180)


def test_a_moment_without_rules_would_be_noticed() -> None:
    """The test of the test: removing and making the rules, one after the other, lets connections past."""
    with two_namespaces() as (pod, outside):
        with pod.inside():
            put_in_place(MODES[0])
        with traffic(pod, outside) as tally, pod.inside():
            deadline = time.monotonic() + 10
            while not (tally["outside"] and tally["application"]):
                put_in_place(Ruleset())
                put_in_place(MODES[0])
                assert time.monotonic() < deadline
