"""testbed: a pod whose rules are loaded by the real tools, read back for the interpreter, and met by packets.

`Testbed.load` puts rules of all backends into the pod, `world` is what the interpreter gets to know of it,
`send` sends one packet for real and says what became of it.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from istio_iptables.formats import iptables_compiled, iptables_dump, nft_dump
from istio_iptables.interpreter import iptables_sets, nft_expressions, program
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import ICMP, ICMPV6, TCP, Packet
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.routing import Network
from istio_iptables.kernel.sysctls import read_sysctls
from istio_iptables.rules.model import ADDRESS_FAMILIES, FAMILIES
from istio_iptables.trace.world import with_sysctls

from . import known_connections
from .netns import Namespace, Pod
from .own_world import read_network
from .scratch import entered
from .watcher import TABLE, Connected, Event, Watcher
from .wire import Cable, Identity, Numbers, Pen, acting_as

#: The transparent sockets of the pod are on these ports; each belongs to the user of that number.
LISTENING_PORTS = (15001, 15006)

_PROGRAMS = {"ipv4": "iptables", "ipv6": "ip6tables"}
_TABLES = ("raw", "mangle", "nat", "filter", "security")
_BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
#: Removes all rules, chains and policies of the legacy tables.
_EMPTY = "".join(
    f"*{table}\n{''.join(f':{chain} ACCEPT [0:0]{chr(10)}' for chain in chains)}COMMIT\n"
    for table, chains in _BUILT_IN.items()
)
#: Routes that lead nowhere, and a table that a rule for marked packets may lead to.
_ROUTES = (
    "route add unreachable 203.0.113.0/26",
    "route add prohibit 203.0.113.64/26",
    "route add blackhole 203.0.113.128/26",
    "route add default via 10.89.0.1 table 300",
    "route add throw 198.18.0.0/24 table 300",
    "route add unreachable 2001:db8:bad:1::/64",
    "route add prohibit 2001:db8:bad:2::/64",
    "route add blackhole 2001:db8:bad:3::/64",
    "route add default via fd89::1 table 300",
    "address add 10.99.0.1/32 dev lo",
)
_SYSCTLS = {
    "net/ipv4/icmp_ratemask": 0,
    "net/ipv6/icmp/ratemask": "",
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/ipv4/tcp_synack_retries": 0,
}


class Step(NamedTuple):
    """Something that is done to the pod: a program of the list below with its input.

    `legacy ipv4`, `legacy ipv6`, `nft ipv4`, `nft ipv6` are iptables-restore of that variant and family,
    `nft`, `ip` and `ip -6` those commands; for `ip` the lines are commands that add something.
    """

    program: str
    text: str


class Setup(NamedTuple):
    """The state of a pod. `sysctls` are variables with their values, such as `ipv4/conf/eth0/rp_filter`.

    `kinds` says what rules these are, for people who count.
    """

    steps: tuple[Step, ...]
    forwards: bool = True
    sysctls: tuple[tuple[str, int], ...] = ()
    kinds: tuple[str, ...] = ()


class Observed(NamedTuple):
    """What became of a packet: `how` as in Ended, `delivered` or `sent` by a device as what it then was.

    `errno` is what the sender was told. `told`: somebody sent a refusal (REJECT, or no route).
    """

    how: str
    errno: int = 0
    told: bool = False
    event: Event | None = None
    connection: Connected | None = None
    events: tuple[Event, ...] = ()


class Testbed:
    """The pod; a context manager."""

    __test__ = False

    def __init__(self, sets: str = "") -> None:
        """`sets` are commands of `ipset restore`."""
        self._sets = sets
        self._stack = ExitStack()
        self._cables: dict[str, Cable] = {}
        self._undo: list[Step] = []
        self._used: set[str] = set()
        self._sysctls: dict[str, object] = {}
        self._before: list[tuple[Path, str]] = []  #: variables that were changed, and their values

    def __enter__(self) -> Testbed:
        with ExitStack() as stack:
            pod = self.pod = stack.enter_context(Pod(vm=True))
            assert pod.vm
            self.path = f"/run/netns/{pod.name}"
            self._lock = str(pod.directory / "xtables.lock")
            for name, value in _SYSCTLS.items():
                pod.sysctl(name, value)
            pod.ip(*(f"link set {name} arp off" for name in ("eth0", "lo1", "vm0", "vm1")), *_ROUTES)
            self._run(["ipset", "restore"], self._sets)
            for neighbour in (pod.client, pod.vm):  # they say nothing
                script = "table inet mute { chain in { type filter hook prerouting priority -500; drop; }; }"
                neighbour.run(["nft", "-f", "-"], stdin=script)
            self.watcher = Watcher(pod.name, lambda args, text: pod.run(args, stdin=text))
            stack.callback(self.watcher.close)
            self._pen = Pen(pod.name)
            stack.callback(self._pen.close)
            for listening in self._listen():
                stack.enter_context(listening)
            for near, (namespace, far) in _ends(pod).items():
                self._cables[near] = Cable(namespace.name, far, _hardware_address(pod, near))
                stack.callback(self._cables[near].close)
            stack.enter_context(_on_one_processor())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _listen(self) -> Iterator[socket.socket]:
        for port in LISTENING_PORTS:
            with entered(self.path), acting_as(Identity(port, port)):
                for family in (socket.AF_INET, socket.AF_INET6):
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        yield _transparent(family, kind, port)

    # --- rules ---------------------------------------------------------------------------------

    def load(self, setup: Setup) -> None:
        """Put a pod without rules into a state."""
        self._set("net/ipv4/ip_forward", int(setup.forwards))
        self._set("net/ipv6/conf/all/forwarding", int(setup.forwards))
        with entered(self.path):
            for name, value in setup.sysctls:
                path = Path("/proc/sys/net", name)
                self._before.append((path, path.read_text()))
                path.write_text(str(value))
        for step in setup.steps:
            if step.program.startswith("ip"):
                undone = [line.replace(" add ", " del ", 1) for line in step.text.splitlines()]
                self._undo.append(Step(step.program, lines(reversed(undone))))
                self._run([*step.program.split(), "-batch", "-"], step.text)
            elif step.program == "nft":
                self._used.add("nft")
                self._run(["nft", "-f", "-"], step.text)
            else:
                variant, family = step.program.split()
                self._used |= {step.program, variant}
                self._run([f"{_PROGRAMS[family]}-{variant}-restore", "--noflush"], step.text)

    def unload(self) -> None:
        """Undo it."""
        for family in FAMILIES:
            if f"legacy {family}" in self._used:
                self._run([f"{_PROGRAMS[family]}-legacy-restore"], _EMPTY)
        if "nft" in self._used:
            tables = [line for line in self._run(["nft", "list", "tables"]).splitlines() if TABLE not in line]
            self._run(["nft", "-f", "-"], "".join(f"delete {table}\n" for table in tables))
        for step in reversed(self._undo):
            self._run([*step.program.split(), "-force", "-batch", "-"], step.text)
        with entered(self.path):
            while self._before:
                path, value = self._before.pop()
                path.write_text(value)
        self._used.clear()
        self._undo.clear()

    def world(self) -> World:
        """Return what the interpreter gets to know, all of it read from the kernel."""
        network = self._network()
        known = Known(network, iptables_sets.read(self._run(["ipset", "save"])))
        listening = frozenset((name, port) for name in ("tcp", "udp") for port in LISTENING_PORTS)
        tables = (*self._of_iptables(known), *self._of_nftables(known))
        with entered(self.path):
            said = read_sysctls()
        return with_sysctls(World(Program(tables), network, listening=listening), said)

    def _network(self) -> Network:
        """Read the network. The kernel makes the local route of an IPv6 address a moment after that."""
        deadline = time.monotonic() + 10
        while True:
            network = read_network(self.pod.name)
            if all(network.is_local(each.family, each.address) for each in network.addresses):
                return network
            assert time.monotonic() < deadline, network

    def saved(self) -> str:
        """Return all rules as text, for people."""
        parts = [self._saved(each) for each in sorted(self._used) if " " in each]
        if "nft" in self._used:
            parts.append(self._run(["nft", "list", "ruleset"]))
        for command in ("rule", "-6 rule"):
            parts.append(self._run(["ip", *command.split()]))
        return "\n".join(parts)

    def _of_iptables(self, known: Known) -> tuple[program.Table, ...]:
        text = "".join(self._saved(each) for each in sorted(self._used) if " " in each)
        dump = iptables_dump.read(text)
        assert not dump.unread, dump.unread
        return iptables_compiled.compiled(dump, known)

    def _of_nftables(self, known: Known) -> tuple[program.Table, ...]:
        if "nft" not in self._used:
            return ()
        objects = nft_dump.parse(self._run(["nft", "-j", "list", "ruleset"])).objects
        assert not nft_expressions.unread(objects)
        left_out = {*nft_expressions.iptables_tables(objects), ("inet", TABLE)}
        return nft_expressions.compiled(objects, known, leave_out=left_out)

    def _saved(self, program_: str) -> str:
        variant, family = program_.split()
        return self._run([f"{_PROGRAMS[family]}-{variant}-save"])

    def _run(self, args: Sequence[str], text: str = "") -> str:
        environment = {"PATH": os.environ["PATH"], "XTABLES_LOCKFILE": self._lock}
        with entered(self.path):
            done = subprocess.run(
                args, input=text, capture_output=True, text=True, env=environment, check=False
            )
        assert done.returncode == 0 or "-force" in args, f"{args}: {done.stderr}\n{text}"
        return done.stdout

    def _set(self, name: str, value: object) -> None:
        if self._sysctls.get(name) != value:
            with entered(self.path):
                Path("/proc/sys", name).write_text(str(value))
            self._sysctls[name] = value

    # --- packets -------------------------------------------------------------------------------

    def forget(self) -> None:
        """Remove all connections."""
        self.watcher.forget()

    def know(self, packet: Packet) -> None:
        """Have conntrack know the connection of a later packet."""
        assert packet.connection
        family = ADDRESS_FAMILIES[packet.family]
        self.watcher.make(family, known_connections.message(packet, packet.connection))

    def send(self, packet: Packet, numbers: Numbers) -> Observed:
        """Send a packet, from the pod or by the cable that it is said to come in by."""
        self.watcher.connections()
        error = 0
        if packet.received_on:
            self._cables[packet.received_on].send(packet, numbers)
        else:
            error = self._pen.send(packet, Identity(packet.uid, packet.gid, packet.groups), numbers)
        events = self.watcher.events()
        return _observed(packet, numbers, error, events, self.watcher.connections())


def _observed(
    packet: Packet, numbers: Numbers, error: int, events: Sequence[Event], connections: Sequence[Connected]
) -> Observed:
    own = [event for event in events if event.where != "made" and _is(event, packet, numbers)]
    told = any(event.where == "made" and _refuses(event, packet, numbers) for event in events)
    connection = connections[-1] if connections else None
    rest = (connection, tuple(events))
    last = own[-1] if own else None
    if last and not (last.where == "sent" and last.device == "lo"):
        return Observed(last.where, error, False, last, *rest)
    if told or error not in (0, errno.EPERM):
        return Observed("rejected", error, told, None, *rest)
    return Observed("dropped", error, False, None, *rest)


def _is(event: Event, packet: Packet, numbers: Numbers) -> bool:
    seen = event.packet
    if seen.protocol != packet.protocol:
        return False
    if packet.protocol == TCP:
        return seen.numbers[1:] == numbers[1:]
    return seen.numbers.tag == numbers.tag


def _refuses(event: Event, packet: Packet, numbers: Numbers) -> bool:
    """Tell whether what the kernel made is a refusal of a packet: a reset, or destination unreachable."""
    seen = event.packet
    if seen.protocol in (ICMP, ICMPV6):
        quoted = numbers.sequence.to_bytes(4, "big") if packet.protocol == TCP else b""
        same = quoted in seen.payload if quoted else seen.numbers.tag == numbers.tag
        return same and seen.flags == (3 if seen.protocol == ICMP else 1)
    if seen.protocol != TCP or packet.protocol != TCP or not seen.flags & 4:
        return False
    ours = (numbers.sequence + 1, numbers.sequence + 2)
    return seen.numbers.acknowledged in ours or seen.numbers.sequence == numbers.acknowledged


# --- the pod ----------------------------------------------------------------------------------


def _ends(pod: Pod) -> dict[str, tuple[Namespace, str]]:
    assert pod.vm
    ends = {"eth0": (pod.client, "pod"), "lo1": (pod.client, "pod-lo1")}
    return {**ends, "vm0": (pod.vm, "eth0"), "vm1": (pod.vm, "eth1")}


def _hardware_address(pod: Pod, interface: str) -> bytes:
    text = pod.run(["cat", f"/sys/class/net/{interface}/address"]).stdout
    return bytes.fromhex(text.strip().replace(":", ""))


def _transparent(family: int, kind: int, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
    else:
        made.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT
    made.bind(("", port))
    if kind == socket.SOCK_STREAM:
        made.listen(4096)
    return made


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """Stay on one processor: packets queue up behind each other only there (enqueue_to_backlog)."""
    before = os.sched_getaffinity(0)
    chosen = sorted(before)[os.getpid() % len(before)]
    os.sched_setaffinity(0, {chosen})
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def lines(texts: Iterable[str]) -> str:
    """Return lines of a file."""
    return "".join(f"{text}\n" for text in texts)
