"""trace of the rules in the kernel and of dumps, in every backend; --watch, which leaves nothing behind."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.applying import BACKENDS, every_backend

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

SETTINGS = ["-x", "10.9.0.0/16", "--dual-stack"]
COMMAND = (sys.executable, "-m", "istio_iptables")
EXCLUDED, CAPTURED = "10.9.1.1:80", "10.8.1.1:80"
#: What a command is that makes one connection as an application does; it need not succeed.
DIAL = (
    "import socket; s = socket.socket(); s.setblocking(False)\n"
    "try: s.connect(('10.8.1.1', 80))\n"
    "except OSError: pass"
)


@contextmanager
def pod() -> Iterator[Scratch]:
    """A namespace with a way out."""
    with Scratch() as scratch:
        scratch.ip("link", "add", "eth0", "type", "veth", "peer", "name", "out")
        scratch.give("out")
        scratch.give("eth0", "10.0.0.2/16", "fd00::2/64")
        scratch.ip("route", "add", "default", "via", "10.0.0.1")
        yield scratch


def verdict(scratch: Scratch, *arguments: str, stdin: str = "") -> dict[str, Any]:
    found = scratch.run(*COMMAND, "trace", "out", "--uid", "1000", "--json", *arguments, stdin=stdin)
    assert found.returncode == 0, found.stderr
    document: dict[str, Any] = json.loads(found.stdout)
    assert isinstance(document["read"], list)
    code: dict[str, Any] = document["hops"][0]["verdict"]
    return code


@every_backend
def test_the_rules_in_the_kernel_are_followed(backend: str) -> None:
    options, _ = BACKENDS[backend]
    with pod() as scratch:
        scratch.apply(*options, *SETTINGS)
        before = scratch.state()
        assert verdict(scratch, "--live", "--to", EXCLUDED) == {"code": "direct", "to": ""}
        assert verdict(scratch, "--live", "--to", CAPTURED) == {"code": "redirected", "to": "15001"}
        assert scratch.state() == before


def test_a_dump_is_followed_wherever_it_was_made() -> None:
    with Scratch(addresses=True) as scratch:
        scratch.apply("--force-iptables-binary", "legacy", *SETTINGS)
        dump = scratch.save("legacy", "ipv4")
    with Scratch() as elsewhere:
        own = ["--own", "10.0.0.2", "--file", "-"]
        assert verdict(elsewhere, *own, "--to", EXCLUDED, stdin=dump)["code"] == "direct"
        assert verdict(elsewhere, *own, "--to", CAPTURED, stdin=dump)["to"] == "15001"
        half = dump.partition("COMMIT")[0]
        cut = elsewhere.run(*COMMAND, "trace", "out", "--to", CAPTURED, *own, stdin=half)
        assert (cut.returncode, cut.stdout) == (2, "")
        assert "COMMIT" in cut.stderr


@every_backend
def test_a_real_packet_is_shown_with_the_rules_that_it_met(backend: str) -> None:
    options, _ = BACKENDS[backend]
    with pod() as scratch:
        scratch.apply(*options, *SETTINGS)
        watcher = watching(scratch, "--count", "1")
        dial_until_it_ends(scratch, watcher)
        shown = json.loads(watcher.communicate(timeout=20)[0].splitlines()[0])
        assert shown["packet"]["destination"] == "10.8.1.1"
        rules = [step for step in shown["steps"] if step["step"] == "rule"]
        assert any("15001" in step["text"] for step in rules), shown
        assert "istio-iptables-trace" not in scratch.nft("list", "tables")


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6, 0.9, 1.2])
def test_nothing_stays_of_a_watcher_that_is_killed(after: float) -> None:
    with Scratch(addresses=True) as scratch:
        loggers = scratch.check("cat", "/proc/sys/net/netfilter/nf_log/2")
        watcher = watching(scratch)
        time.sleep(after)
        watcher.send_signal(signal.SIGKILL)
        watcher.wait()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if scratch.check("cat", "/proc/sys/net/netfilter/nf_log/2") == loggers:
                break
            time.sleep(0.05)
        assert scratch.check("cat", "/proc/sys/net/netfilter/nf_log/2") == loggers
        assert scratch.nft("list", "tables") == ""


def watching(scratch: Scratch, *arguments: str) -> Any:
    command = ["trace", "out", "--to", CAPTURED, "--watch", "--json", *arguments]
    return scratch.spawn(*COMMAND, *command)


def dial_until_it_ends(scratch: Scratch, watcher: Any) -> None:
    """Make connections until the watcher has seen one: when it is ready cannot be told from outside."""
    deadline = time.monotonic() + 30
    while watcher.poll() is None and time.monotonic() < deadline:
        scratch.python(DIAL)
        time.sleep(0.2)
