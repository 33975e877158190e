"""own_world: the addresses, routes and routing rules of a namespace, as `ip -j` prints them."""

from __future__ import annotations

import subprocess

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.routing import Network
from istio_iptables.rules.model import IPV4, IPV6


def read_network(namespace: str) -> Network:
    """Read everything, by a process for each family."""
    dumps = [
        ip_dump.read(_printed(namespace, "-4", "rule show", "route show table all", "address show"), IPV4),
        ip_dump.read(_printed(namespace, "-6", "rule show", "route show table all", "address show"), IPV6),
    ]
    network = ip_dump.joined(dumps)
    assert not network.assumed
    assert not network.unread
    return network


def _printed(namespace: str, family: str, *commands: str) -> str:
    """Return what `ip -j` prints for some commands."""
    return subprocess.run(
        ["ip", "-netns", namespace, "-j", family, "-batch", "-"],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
