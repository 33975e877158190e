"""The data path: what a new TCP connection of the application costs through the rules.

The destination is in the last of the excluded CIDRs, so a connection walks the whole list and then goes
out over the cable to a listener, just as it does where there are no rules. The difference is what the rules
cost. Every variant has a pod of its own; they take turns in every round.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from .figures import Check, ratio, spread
from .lists import COMPACT, LEGACY, LIBIPTC, NATIVE, NFT, adjacent, scattered
from .place import TOOL, Bench, Failed, Namespace, check, make_pod_and_world
from .processes import end, in_child
from .runs import Way

WORLD = "198.18.0.0/15"
#: Excluded, and the last of the list in every order; the application calls the addresses in turn.
LAST = "198.19.255.240/28"
CALLED = [str(IPv4Address("198.19.255.240") + number) for number in range(16)]
#: Captured, since it is not excluded; no process listens on the proxy's port, so the kernel refuses.
CAPTURED = "198.18.0.1"
PORT, APP_UID = 80, 1000
COUNTS = (10, 20_000)
WANTED_GROWTH = 1.10

NO_RULES, MERGED = "no rules", "CIDRs that merge"
#: With everything that is long: the application's group is the last of these, and PORT is none of the ports.
GROUPS, PORTS = 64, [str(20_000 + 2 * number) for number in range(1_000)]
#: So many groups fit into a rule of iptables-nft-restore, which takes 255 words.
GROUPS_BY_COMMAND = 40
#: Connections of each variant in all rounds together.
CONNECTIONS = 25_000
_NEVER_LINGER = struct.pack("ii", 1, 0)


class Variant(NamedTuple):
    """Rules that connections pass."""

    name: str
    entries: int = 0
    options: tuple[str, ...] = ()
    cidrs: Callable[[int], list[str]] = scattered
    groups: int = 0

    @property
    def settings(self) -> dict[str, str]:
        """The settings by their long names, for --config."""
        found = {"istio-service-exclude-cidr": ",".join([*self.cidrs(self.entries - 1), LAST])}
        return found | ({"istio-local-outbound-ports-exclude": ",".join(PORTS)} if self.groups else {})

    @property
    def variables(self) -> dict[str, str]:
        """The settings that are only variables."""
        groups = [str(APP_UID - number) for number in reversed(range(self.groups))]
        return {"ISTIO_OUTBOUND_OWNER_GROUPS": ",".join(groups)} if groups else {}


def variants(counts: Sequence[int] = COUNTS) -> list[Variant]:
    """Return what is compared; the first is what all others are compared with."""

    def of(way: Way) -> list[Variant]:
        return [Variant(way.name, count, way.options) for count in counts]

    compact = COMPACT._replace(name="legacy --compact", options=(*LEGACY.options, *COMPACT.options))
    merged = Variant(f"{compact.name}, {MERGED}", counts[-1], compact.options, adjacent)
    long = [
        everything(LIBIPTC._replace(name=LEGACY.name), counts[-1]),
        everything(NFT, counts[-1], GROUPS_BY_COMMAND),
        everything(NATIVE, counts[-1]),
    ]
    return [Variant(NO_RULES), *of(LEGACY), *of(compact), merged, *of(NFT), *of(NATIVE), *long]


def everything(way: Way, entries: int, groups: int = GROUPS) -> Variant:
    """Return a variant in which every list is long."""
    name = f"{way.name}, {groups} groups and {len(PORTS):,} ports"
    return Variant(name, entries, way.options, groups=groups)


class Lane(NamedTuple):
    """A variant in its pod, its listener running."""

    variant: Variant
    pod: Namespace


def make_lane(variant: Variant, bench: Bench, until: contextlib.ExitStack) -> Lane:
    """Make a pod and its neighbour, start the listener, apply the rules, and see that they work."""
    pod, outside = make_pod_and_world(until, WORLD)
    listener = in_child(outside, listen)
    until.callback(end, listener)
    if variant.entries:
        path = bench.folder / "datapath.json"
        path.write_text(json.dumps(variant.settings))
        with pod.inside():
            check(
                (TOOL, "--config", str(path), *variant.options),
                environment={**bench.environment, **variant.variables},
            )
    with pod.inside():
        # Entries of closed connections go soon, or they fill the kernel's table. Absent: no tracking.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close").write_text("1")
        await_listener()
    if bool(as_application(pod, lambda: float(captured()), variant.name)) != bool(variant.entries):
        raise Failed(f"{variant.name}: the rules are not in force")
    return Lane(variant, pod)


def take(bench: Bench, counts: Sequence[int] = COUNTS) -> dict[str, Any]:
    """Measure, and return the section of the results."""
    connections = -(-bench.connections // bench.rounds)
    with contextlib.ExitStack() as until:
        lanes = [make_lane(variant, bench, until) for variant in variants(counts)]
        samples: list[list[float]] = [[] for _ in lanes]
        for number in range(-bench.warm_up, bench.rounds):
            in_turn = list(enumerate(lanes))
            for index, lane in in_turn if number % 2 == 0 else in_turn[::-1]:
                cost = cost_of_connection(lane, connections)
                if number >= 0:
                    samples[index].append(cost)
    rows = []
    for lane, costs in zip(lanes, samples, strict=True):
        over = [cost - without for cost, without in zip(costs, samples[0], strict=True)]
        rows.append(
            {
                "way": lane.variant.name,
                "count": lane.variant.entries,
                "cost": spread(costs),
                "over": spread(over),
                "times": ratio(spread(costs)["median"], spread(samples[0])["median"]),
            }
        )
    return {"rounds": bench.rounds, "connections": connections, "rows": rows}


def checks(section: dict[str, Any]) -> list[Check]:
    """Return what was wanted of these figures."""
    short, *_, long = [row for row in section["rows"] if row["way"] == NATIVE.name]
    what = f"native: a connection with {long['count']:,} CIDRs beside one with {short['count']:,}"
    reached = ratio(long["cost"]["median"], short["cost"]["median"])
    return [{"what": what, "wanted": WANTED_GROWTH, "reached": reached, "unit": "times"}]


# --- processes inside -----------------------------------------------------------------------


def listen() -> None:
    """Accept connections and close them, for ever."""
    with socket.create_server(("0.0.0.0", PORT), backlog=4096) as listener:
        while True:
            with contextlib.suppress(ConnectionError):
                listener.accept()[0].close()


def await_listener() -> None:
    """Wait until the listener answers. Raises Failed if it does not in good time."""
    deadline = time.monotonic() + 30
    while not answers(CALLED[0]):
        if time.monotonic() > deadline:
            raise Failed("the listener does not answer")
        time.sleep(0.01)


def captured() -> bool:
    """Tell whether a connection to an address that is not excluded goes to the proxy, who is not there."""
    return not answers(CAPTURED)


def answers(address: str) -> bool:
    """Tell whether a connection is accepted; the kernel may also refuse it, and nothing else."""
    with socket.socket() as caller:
        caller.settimeout(5)
        error = caller.connect_ex((address, PORT))
    if error not in (0, errno.ECONNREFUSED):
        raise Failed(f"connecting to {address}: {os.strerror(error)}")
    return error == 0


def cost_of_connection(lane: Lane, count: int) -> float:
    """Make connections as the application, one after another, and return what one took, in seconds."""

    def timed() -> float:
        connect(min(count // 10, 1_000))  # warm
        start = time.perf_counter()
        connect(count)
        return (time.perf_counter() - start) / count

    return as_application(lane.pod, timed, lane.variant.name)


def as_application(pod: Namespace, what: Callable[[], float], name: str) -> float:
    """Return what a function returns in a process of the application. Raises Failed."""
    reader, writer = os.pipe()

    def report() -> None:
        os.setgroups([])
        os.setgid(APP_UID)
        os.setuid(APP_UID)
        os.write(writer, struct.pack("d", what()))

    pid = in_child(pod, report)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise Failed(f"{name}: connecting failed")
    (found,) = struct.unpack("d", told)
    return float(found)


def connect(count: int) -> None:
    """Make connections and reset each at once, so that none is left waiting (TIME_WAIT) with its port."""
    for number in range(count):
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NEVER_LINGER)
            caller.connect((CALLED[number % len(CALLED)], PORT))
