"""trace --live heeds the kernel's variables: forwarding, route_localnet and reverse path filtering."""

from __future__ import annotations

import json
import sys

from ..support.scratch import KERNEL, Scratch

pytestmark = KERNEL

COMMAND = (sys.executable, "-m", "istio_iptables", "trace", "in", "--live", "--udp", "--json")


def end(scratch: Scratch, interface: str, source: str, destination: str) -> tuple[str, str]:
    """Return the verdict and where the way ends."""
    place = ("--iface", interface, "--from", f"{source}:4000", "--to", f"{destination}:7000")
    found = scratch.run(*COMMAND, *place)
    assert found.returncode == 0, found.stderr
    [hop] = json.loads(found.stdout)["hops"]
    return hop["verdict"]["code"], hop["paths"][0]["end"]


def test_variables_of_the_kernel_are_named() -> None:
    with Scratch() as scratch:
        for number in (0, 1):
            scratch.ip("link", "add", f"eth{number}", "type", "veth", "peer", "name", f"out{number}")
            scratch.give(f"out{number}")
            scratch.give(f"eth{number}", f"10.0.{number}.2/24")
            for variable in ("rp_filter", "forwarding", "route_localnet"):
                scratch.check("sysctl", "-qw", f"net.ipv4.conf.eth{number}.{variable}=0")
        scratch.check("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.all.route_localnet=0")
        ways = {
            "rp_filter": ("eth1", "10.0.0.9", "10.0.1.2"),
            "forwarding": ("eth1", "10.0.1.9", "10.0.0.9"),
            "route_localnet": ("eth1", "10.0.1.9", "127.0.0.1"),
        }
        before = {name: end(scratch, *way) for name, way in ways.items()}
        assert before["rp_filter"] == ("direct", "delivered")
        assert before["forwarding"][0] == before["route_localnet"][0] == "dropped"
        assert "forwarding" in before["forwarding"][1]
        for name in ways:
            scratch.check("sysctl", "-qw", f"net.ipv4.conf.eth1.{name}=1")
        after = {name: end(scratch, *way) for name, way in ways.items()}
        assert after["rp_filter"][0] == "dropped"
        assert "net.ipv4.conf.eth1.rp_filter" in after["rp_filter"][1]
        assert after["forwarding"] == ("direct", "sent")
        assert after["route_localnet"] == ("direct", "delivered")
