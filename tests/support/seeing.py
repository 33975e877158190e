"""seeing: a pod with a way out, and real packets that `trace --watch` shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from .applying import BACKENDS
from .scratch import Scratch

SETTINGS = ["-x", "10.9.0.0/16", "--dual-stack"]
COMMAND = (sys.executable, "-m", "istio_iptables")
EXCLUDED, CAPTURED = "10.9.1.1:80", "10.8.1.1:80"
#: How each backend, and native nftables, is asked for.
FORMS = {**{name: options for name, (options, _) in BACKENDS.items()}, "native": ["--native-nftables"]}

every_form = pytest.mark.parametrize("form", FORMS)

#: A command that begins connections as an application does, at once and not waiting: number, address, port,
#: and the interface that the socket is bound to.
_DIAL = """
import socket, sys
number, address, port, bound = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
connections = [socket.socket(family) for _ in range(number)]
for each in connections:
    if bound:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bound.encode())
    each.setblocking(False)
    try:
        each.connect((address, port))
    except OSError:
        pass
"""


@contextmanager
def pod() -> Iterator[Scratch]:
    """A namespace with a way out."""
    with Scratch() as scratch:
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "out")
        scratch.give("out")
        scratch.give("eth0", "10.0.0.2/16", "fd00::2/64")
        scratch.ip("route", "add", "default", "via", "10.0.0.1")
        scratch.ip("route", "add", "default", "via", "fd00::1")
        yield scratch


def dial(scratch: Scratch, to: str = CAPTURED, number: int = 1, bound: str = "") -> None:
    """Begin connections, which need not come about."""
    address, _, port = to.rpartition(":")
    done = scratch.python(_DIAL, str(number), address.strip("[]"), port, bound)
    assert done.returncode == 0, done.stderr


class Watching:
    """`trace out --watch` in a namespace, once it sees packets."""

    def __init__(self, scratch: Scratch, *arguments: str, to: str = CAPTURED) -> None:
        command = [*COMMAND, "trace", "out", "--to", to, "--watch", "--json", *arguments]
        self._process = scratch.spawn(*command)
        assert self._process.stderr
        self.said: list[str] = []
        for line in self._process.stderr:
            self.said.append(line.rstrip("\n"))
            if "watching packets: " in line:
                return
        raise AssertionError(self.said)

    def packets(self) -> list[dict[str, Any]]:
        """Wait until it ends by itself, as it does with --count, and return what it has shown."""
        output, errors = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def next(self) -> dict[str, Any]:
        """Return the next packet."""
        assert self._process.stdout
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def end(self, signal: int) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self._process.send_signal(signal)
        self._process.communicate(timeout=30)
        return self._process.returncode


def rules(packet: dict[str, Any]) -> list[str]:
    """The rules that a packet met, in their order."""
    return [step["text"] for step in packet["steps"] if step["step"] == "rule"]


def texts(packet: dict[str, Any], *kinds: str) -> Sequence[str]:
    """The chains that a packet came to."""
    return [step["chain"] for step in packet["steps"] if step["step"] in kinds]
