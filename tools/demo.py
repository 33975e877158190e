#!/usr/bin/env python3
"""The demonstration behind `make run`: real rules, real connections, and where they arrive.

It makes two network namespaces, lets istio-iptables write its rules in one of them, and dials. There
is nothing to clean up: the namespaces have no names, so they, the veth pair and the rules are gone when
the last descriptor is closed, however this process ends, and the lock file exists in memory only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
from typing import NamedTuple

from istio_iptables.settings.declared import SETTINGS

ARGUMENTS = ("-p", "15001", "-z", "15006", "-u", "1337", "-b", "*")
OUTBOUND, INBOUND, DIRECT, NOWHERE = "15001", "15006", "direct", "nowhere"

POD, OUTSIDE, LOCALHOST = "10.0.0.2", "10.0.0.1", "127.0.0.1"
APP_PORT, SERVICE_PORT, TUNNEL_PORT = 8080, 80, 15008

TIMEOUT = 2.0  # of everything that a socket does, in seconds
CLONE_NEWNET = 0x40000000  # linux/sched.h
SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h


class CannotRun(Exception):
    """The demonstration cannot be given, and why."""


# --- what is dialled ------------------------------------------------------------------------


class Dialler(NamedTuple):
    """Who dials: a user in the pod, or a process in the client's namespace."""

    name: str
    uid: int
    in_pod: bool = True
    source: str = ""


class Connection(NamedTuple):
    """A connection, and where the rules are meant to take it: a port of the proxy, or DIRECT."""

    dialler: Dialler
    what: str
    address: str
    port: int
    meant_for: str

    @property
    def dialled(self) -> str:
        """The address and port as text."""
        return f"{self.address}:{self.port}"


CLIENT = Dialler("client", uid=1000, in_pod=False)
APP = Dialler("app (UID 1000)", uid=1000)
PROXY = Dialler("proxy (UID 1337)", uid=1337)
PROXY_FOR_CLIENT = Dialler("proxy, 127.0.0.6", uid=1337, source="127.0.0.6")  # Envoy hands inbound traffic on
ROOT = Dialler("root (UID 0)", uid=0)

CONNECTIONS = (
    Connection(CLIENT, "app", POD, APP_PORT, INBOUND),
    Connection(CLIENT, "tunnel port", POD, TUNNEL_PORT, DIRECT),
    Connection(APP, "service", OUTSIDE, SERVICE_PORT, OUTBOUND),
    Connection(APP, "own pod", POD, APP_PORT, DIRECT),
    Connection(APP, "localhost", LOCALHOST, APP_PORT, DIRECT),
    Connection(PROXY, "service", OUTSIDE, SERVICE_PORT, DIRECT),
    Connection(PROXY, "own pod", POD, APP_PORT, INBOUND),
    Connection(PROXY, "localhost", LOCALHOST, APP_PORT, DIRECT),
    Connection(PROXY_FOR_CLIENT, "app", POD, APP_PORT, DIRECT),
    Connection(ROOT, "service", OUTSIDE, SERVICE_PORT, OUTBOUND),
)


# --- the namespaces -------------------------------------------------------------------------


class Namespace:
    """A network namespace without a name: it lives as long as this object or a process in it."""

    def __init__(self) -> None:
        """Make it, and enter it."""
        self._call("unshare", CLONE_NEWNET)
        self._descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def enter(self) -> None:
        """Enter it: what this process opens or starts from now on is in there."""
        self._call("setns", self._descriptor, CLONE_NEWNET)

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in there; return its exit code and what it wrote."""
        self.enter()
        try:
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            raise CannotRun(f"the command {command[0]!r} is not installed") from None
        except subprocess.TimeoutExpired:
            raise CannotRun(f"{shlex.join(command)}: still not done after a minute") from None

    def ip(self, words: str) -> None:
        """Run an `ip` command in there."""
        done = self.run("ip", *words.split())
        if done.returncode != 0:
            raise CannotRun(f"ip {words}: {done.stderr.strip()}")

    def listen(self, *ports: int) -> list[socket.socket]:
        """Listen on ports in there."""
        self.enter()
        listeners = [socket.create_server(("0.0.0.0", port)) for port in ports]
        for listener in listeners:
            listener.settimeout(TIMEOUT)
        return listeners

    @staticmethod
    def _call(function: str, *arguments: int) -> None:
        """Call a function of libc: os.unshare() and os.setns() came with Python 3.12."""
        if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise CannotRun(f"cannot make network namespaces, which takes CAP_SYS_ADMIN: {reason}")


def join(pod: Namespace, client: Namespace) -> None:
    """Put a veth pair between the two."""
    client.ip(f"link add eth0 type veth peer name eth0 netns {pod.path}")
    for namespace, address in ((pod, POD), (client, OUTSIDE)):
        namespace.ip("link set lo up")
        namespace.ip(f"address add {address}/24 dev eth0")
        namespace.ip("link set eth0 up")


# --- the rules ------------------------------------------------------------------------------


def apply_rules(pod: Namespace) -> str:
    """Run istio-iptables in the pod and return what it logged about its choice of a backend."""
    lock = os.memfd_create("xtables.lock")  # other namespaces' rules need not wait for ours
    env = {**environment(), "XTABLES_LOCKFILE": f"/proc/{os.getpid()}/fd/{lock}"}
    done = pod.run(sys.executable, "-m", "istio_iptables", *ARGUMENTS, env=env)
    os.close(lock)
    if done.returncode != 0:
        raise CannotRun(f"istio-iptables failed with exit code {done.returncode}:\n{done.stderr.rstrip()}")
    found = re.search(r"\tbackend (.+)", done.stderr)
    return found[1] if found else "(not logged)"


def environment() -> dict[str, str]:
    """Return our variables but those that are settings: the command line shown is the whole truth."""
    settings = {name for setting in SETTINGS for name in (setting.variable, *setting.aliases)}
    return {name: value for name, value in os.environ.items() if name not in settings}


# --- the connections ------------------------------------------------------------------------


def dial(connection: Connection, namespace: Namespace, listeners: list[socket.socket]) -> str:
    """Dial in a process of the dialler's own, and return what the listener answered."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, dial_as(connection, namespace).encode())
        finally:
            os._exit(0)
    os.close(writer)
    waiting = {listener.fileno(): listener for listener in listeners}
    with open(reader) as report:
        while reader not in (ready := select.select([reader, *waiting], [], [])[0]):
            for descriptor in ready:
                answer(waiting[descriptor])
        answered = report.read()
    os.waitpid(child, 0)
    return answered or f"{NOWHERE} no answer"


def dial_as(connection: Connection, namespace: Namespace) -> str:
    """Become the dialler for good, dial, and return the answer or the error."""
    namespace.enter()
    uid, source = connection.dialler.uid, connection.dialler.source
    try:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        # Not create_connection(): it imports a codec, and this user may not be allowed to read our Python.
        with socket.socket() as dialling:
            dialling.settimeout(TIMEOUT)
            if source:
                dialling.bind((source, 0))
            dialling.connect((connection.address, connection.port))
            return dialling.recv(100).decode()
    except OSError as error:
        return f"{NOWHERE} {error.strerror or error}"


def answer(listener: socket.socket) -> None:
    """Accept a connection and tell it where it has arrived, and where it had been going."""
    try:
        arrived, _ = listener.accept()
        with arrived:
            arrived.settimeout(TIMEOUT)
            address, port = arrived.getsockname()
            arrived.sendall(f"{address}:{port} {original(arrived)}".encode(), socket.MSG_NOSIGNAL)
    except OSError:
        return  # the dialler has given up, and says so


def original(arrived: socket.socket) -> str:
    """Return where a connection was going before a rule redirected it."""
    try:
        found = arrived.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    except OSError:  # the namespace does not track connections
        return "unknown"
    port, address = struct.unpack_from("!2xH4s", found)
    return f"{socket.inet_ntoa(address)}:{port}"


def judge(connection: Connection, answered: str) -> tuple[str, bool]:
    """Return where a connection arrived, in words for people, and whether that is right."""
    place, _, detail = answered.partition(" ")
    if place == connection.dialled:
        return DIRECT, connection.meant_for == DIRECT
    if place == NOWHERE:
        return detail.lower(), False
    port = place.rpartition(":")[2]
    return f"{port} ({detail})", port == connection.meant_for and detail == connection.dialled


# --- what is shown --------------------------------------------------------------------------


def show(text: str) -> None:
    """Print a line, now."""
    print(text, flush=True)


def show_row(who: str, target: str, meant_for: str, arrived: str, result: str = "") -> None:
    """Print a row of the table."""
    show(f"{who:18}{target:29}{meant_for:11}{arrived:22} {result}".rstrip())


def verdict(right: bool) -> str:
    """Return PASS or FAIL, in colour on a terminal."""
    word = "PASS" if right else "FAIL"
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return word
    return f"\033[{32 if right else 31}m{word}\033[0m"


def show_connections(pod: Namespace, client: Namespace) -> bool:
    """Dial everything and print the table as answers come; return whether all went where they should."""
    show_row("FROM", "TO", "MEANT FOR", "ARRIVED AT (DIALLED)")
    right = 0
    with contextlib.ExitStack() as until_then:
        listeners = pod.listen(int(OUTBOUND), int(INBOUND), TUNNEL_PORT, APP_PORT)
        listeners += client.listen(SERVICE_PORT)
        for listener in listeners:
            until_then.enter_context(listener)
        for connection in CONNECTIONS:
            answered = dial(connection, pod if connection.dialler.in_pod else client, listeners)
            arrived, is_right = judge(connection, answered)
            target = f"{connection.what:13}{connection.dialled}"
            show_row(connection.dialler.name, target, connection.meant_for, arrived, verdict(is_right))
            right += is_right
    show(f"\n{right} of {len(CONNECTIONS)} connections went where they should.")
    return right == len(CONNECTIONS)


def demonstrate() -> bool:
    """Give the demonstration; return whether all went well."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise CannotRun("needs Linux and root, to make network namespaces: run it with sudo")
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    pod, client = Namespace(), Namespace()
    join(pod, client)
    show(f"Two throw-away network namespaces, a pod ({POD}) and a client ({OUTSIDE}) that offers a service,")
    show("are joined by a veth pair; this machine's own network stays as it is. In the pod runs:\n")
    show(f"    istio-iptables {shlex.join(ARGUMENTS)}\n")
    show(f"Backend {apply_rules(pod)}.")
    show(f"{OUTBOUND} and {INBOUND} are the proxy's ports for outbound and inbound traffic.\n")
    all_right = show_connections(pod, client)
    show('Next: make run ARGS="--help" for all settings, make run ARGS="--dry-run" for the rules as text.')
    return all_right


def main() -> int:
    """Give the demonstration and return the exit code."""
    for number in (signal.SIGINT, signal.SIGPIPE):  # Ctrl-C and `| head` just end it: see above
        signal.signal(number, signal.SIG_DFL)
    try:
        return 0 if demonstrate() else 1
    except (CannotRun, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
