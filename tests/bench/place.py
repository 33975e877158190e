"""Where things are measured: network namespaces without names, and what every measurement needs.

A namespace without a name is gone as soon as no process and no descriptor holds it, so nothing stays behind
whatever becomes of the benchmark.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TOOL = str(Path(sys.executable).with_name("istio-iptables"))
#: The pod's address and that of its neighbour, who stands for the rest of the world.
POD, OUTSIDE = "172.30.0.2", "172.30.0.1"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CLONE_NEWNET = 0x40000000  # linux/sched.h


class Failed(Exception):
    """Something did not work that has to, so that there is nothing to measure."""


class Bench(NamedTuple):
    """What every measurement needs."""

    folder: Path  #: for files; goes away afterwards
    rounds: int  #: how often each case is measured
    warm_up: int  #: how often it is run before that
    connections: int  #: of the data path, of each variant in all rounds together

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of measured programs: no settings, and a lock file of their own.

        Bytecode is there already: see `compile_bytecode`.
        """
        return {
            "PATH": _PATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            "XTABLES_LOCKFILE": str(self.folder / "xtables.lock"),
        }

    def say(self, text: str) -> None:
        """Say on standard error how far it has got."""
        print(f"bench: {text}", file=sys.stderr, flush=True)


def compile_bytecode() -> None:
    """Compile the package's bytecode, as installing it would, and as the user who owns the sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    package = ROOT / "istio_iptables"
    owner = package.stat().st_uid
    command = [sys.executable, "-m", "compileall", "-q", str(package)]
    subprocess.run(command, env=environment, check=True, user=owner if os.geteuid() == 0 else None)


def hand_over(*paths: Path) -> None:
    """Give files that root has written to the user who owns the sources."""
    if os.geteuid() == 0:
        owner = ROOT.stat()
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)


class Namespace:
    """A network namespace without a name."""

    def __init__(self) -> None:
        with _coming_back():
            call("unshare", _CLONE_NEWNET)
            self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Enter it for good: what this process opens or starts from now on is in there."""
        call("setns", self.descriptor, _CLONE_NEWNET)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside for a while."""
        with _coming_back():
            self.enter()
            yield

    def ip(self, *commands: str) -> None:
        """Run `ip` commands inside, given without the word `ip`."""
        with self.inside():
            check(("ip", "-batch", "-"), "".join(f"{command}\n" for command in commands))

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def make_pod(until: contextlib.ExitStack) -> Namespace:
    """Make a namespace that looks like a pod before its first process: `lo`, and `eth0` with an address."""
    pod = Namespace()
    until.callback(pod.close)
    pod.ip("link set lo up", "link add eth0 type veth peer name other", *_addressed(POD))
    return pod


def make_pod_and_world(until: contextlib.ExitStack, world: str) -> tuple[Namespace, Namespace]:
    """Make a pod, and a neighbour at the other end of its cable that answers for all addresses of `world`."""
    pod, outside = Namespace(), Namespace()
    until.callback(pod.close)
    until.callback(outside.close)
    outside.ip(
        "link set lo up",
        f"link add eth0 type veth peer name eth0 netns /proc/{os.getpid()}/fd/{pod.descriptor}",
        *_addressed(OUTSIDE),
        f"route add local {world} dev lo",
    )
    pod.ip("link set lo up", *_addressed(POD), f"route add default via {OUTSIDE}")
    return pod, outside


def _addressed(address: str) -> tuple[str, str]:
    return f"address add {address}/24 dev eth0", "link set eth0 up"


def check(command: tuple[str, ...], text: str = "", environment: dict[str, str] | None = None) -> str:
    """Run a program that has to succeed and return what it prints. Raises Failed."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env=environment or {"PATH": _PATH}, check=False
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)[:200]}: {done.stderr.strip()[-500:]}")
    return done.stdout


@contextlib.contextmanager
def _coming_back() -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        call("setns", home, _CLONE_NEWNET)
        os.close(home)


def call(function: str, *arguments: int) -> None:
    """Call a function of libc: os.unshare() and os.setns() came with Python 3.12."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) != 0:
        raise Failed(f"{function}: {os.strerror(ctypes.get_errno())} (the benchmark needs root)")
