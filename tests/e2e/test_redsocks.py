"""Outbound through a redirector that is not Envoy: redsocks, and an HTTP proxy outside, which is ncat.

redsocks asks the kernel where a connection was meant to go, as Envoy does, but through code of its own, and
says so in its log. It knows IPv4 only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conversation import Conversation
from tests.e2e.mesh import APP, APP_PORTS, SETTINGS, WORLD_PORTS, each_backend
from tests.support.netns import Pod
from tests.support.scenarios import Scenario, apply, resolve

pytestmark = [
    pytest.mark.skipif(
        shutil.which(program) is None, reason=f"{program} is not installed (package {program})"
    )
    for program in ("redsocks", "ncat")
]

PROXY_PORT = 3128
PROXY_USER = (1337, 1337)


def start_redsocks(pod: Pod) -> subprocess.Popen[str]:
    """Start redsocks as the proxy's user."""
    config = pod.directory / "redsocks.conf"
    config.write_text(
        f"""
        base {{ log = "stderr"; log_info = on; daemon = off; redirector = iptables; }}
        redsocks {{
            local_ip = 0.0.0.0; local_port = 15001;
            ip = {resolve("client", 4)}; port = {PROXY_PORT}; type = http-connect;
        }}
        """
    )
    # The user need not be able to get to the file: root has opened it.
    opened = os.open(config, os.O_RDONLY)
    try:
        process = pod.start(["redsocks", "-c", f"/dev/fd/{opened}"], *PROXY_USER, open_files=[opened])
    finally:
        os.close(opened)
    pod.wait_for(15001)
    return process


@contextmanager
def pod_with_redsocks() -> Iterator[tuple[Pod, subprocess.Popen[str]]]:
    with Pod() as pod:
        pod.listen("app", tcp=APP_PORTS, uid=APP[0], gid=APP[1], echo=True)
        pod.client.listen("world", tcp=WORLD_PORTS, echo=True)
        ncat = ["ncat", "-n", "--listen", "--proxy-type", "http", "-4", str(PROXY_PORT)]
        pod.client.start(ncat, 65534, 65534)
        pod.client.wait_for(PROXY_PORT)
        yield pod, start_redsocks(pod)


def redirected(pod: Pod) -> list[str]:
    """Return where the connections that redsocks has got were meant to go."""
    return re.findall(r"\[\S+->(\S+)\]: accepted", pod.output())


@each_backend
def test_redsocks_gets_what_goes_out_and_nothing_else(backend: str) -> None:
    with pod_with_redsocks() as (pod, _):
        apply(pod, Scenario("", list(SETTINGS)), backend)
        with Conversation(pod, *APP, (resolve("world", 4), 80)) as talk:
            talk.exchange(1_000_003)
            talk.finish()
            # It was the proxy's host that has called.
            assert (talk.arrival.name, talk.arrival.peer[0]) == ("world", resolve("world", 4))
        assert redirected(pod) == [f"{resolve('world', 4)}:80"]
        for who, name, port, far in (
            (APP, "blue", 80, "world"),
            (APP, "world", 3306, "world"),
            (APP, "self", 8080, "app"),
            (APP, "pod", 8080, "app"),
            (PROXY_USER, "world", 80, "world"),
        ):
            with Conversation(pod, *who, (resolve(name, 4), port)) as talk:
                talk.exchange(1000)
                assert (talk.arrival.name, talk.arrival.peer) == (far, talk.local)
        assert redirected(pod) == [f"{resolve('world', 4)}:80"]


@each_backend
def test_what_redsocks_does_not_take_does_not_get_past_it(backend: str) -> None:
    """It does not listen for IPv6; then it does not listen at all."""
    with pod_with_redsocks() as (pod, redsocks):
        apply(pod, Scenario("", list(SETTINGS)), backend)
        with pytest.raises(ConnectionRefusedError):
            Conversation(pod, *APP, (resolve("world", 6), 80))
        pod.stop(redsocks)
        with pytest.raises(ConnectionRefusedError):
            Conversation(pod, *APP, (resolve("world", 4), 80))
        assert redirected(pod) == []
