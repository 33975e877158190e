"""A socket that is bound to an interface (SO_BINDTODEVICE): its routes, and what capturing does to it.

The routes that the interpreter finds are those of `ip route get … oif`, in a pod with two ways out, and with
routes that lead nowhere. What nat redirects to 127.0.0.1 is routed again, by the same interface.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.packet import TCP, Packet, address_text
from istio_iptables.interpreter.routing import Network
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.packet_parsers import endpoint
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.trace.answer import answer
from istio_iptables.trace.packet import Question, complete, source_for
from istio_iptables.trace.world import of_settings, proxy_of

from ..e2e.conversation import made_by
from ..support.netns import Pod
from ..support.own_world import read_network
from ..support.scenarios import Scenario, apply

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

INTERFACES = ("", "eth0", "lo1", "lo")
DESTINATIONS = {
    "ipv4": (
        "198.18.0.1",  # by the default route
        "198.19.0.1",  # by a route to lo1
        "10.88.0.1",  # a neighbour
        "10.89.0.1",
        "10.88.0.2",  # itself
        "127.0.0.1",
        "127.0.0.5",
        "203.0.113.1",  # unreachable
        "203.0.113.65",  # throw
        "203.0.113.129",  # blackhole
    ),
    "ipv6": ("2001:db8::1", "2001:db8:19::1", "fd88::1", "fd89::1", "fd88::2", "::1", "2001:db8:bad:1::1"),
}
ROUTES = (
    "route add unreachable 203.0.113.0/26",
    "route add throw 203.0.113.64/26",
    "route add blackhole 203.0.113.128/26",
    "route add unreachable 2001:db8:bad:1::/64",
)


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    with Pod() as made:
        made.ip(*ROUTES)
        yield made


def kernels_route(pod: Pod, to: str, bound: str) -> tuple[str, str]:
    """Return the interface and the source address that the kernel takes, nothing for none."""
    by = ["oif", bound] if bound else []
    done = pod.run(["ip", "-j", "route", "get", to, *by], check=False)
    if done.returncode:
        return "", ""
    found: dict[str, Any] = json.loads(done.stdout)[0]
    if found.get("type") in ("unreachable", "prohibit", "blackhole"):
        return "", ""
    return found["dev"], found.get("prefsrc", "")


def foretold_route(network: Network, family: Family, to: str, bound: str) -> tuple[str, str]:
    packet = Packet(family, TCP, 0, int(ipaddress.ip_address(to)), 40000, 80, uid=0, gid=0, bound=bound)
    [(_, routed)] = network.route(One(), packet, family, bound=bound)
    if routed.error:
        return "", ""
    return routed.leaves_by, address_text(family, source_for(network, packet)[0])


@pytest.mark.parametrize("bound", INTERFACES)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_routes_are_those_of_the_kernel(pod: Pod, family: Family, bound: str):
    network = read_network(pod.name)
    seen = {to: kernels_route(pod, to, bound) for to in DESTINATIONS[family]}
    foretold = {to: foretold_route(network, family, to, bound) for to in DESTINATIONS[family]}
    if (family, bound) == ("ipv6", "eth0"):
        # Its source is a link-local address, which source_for does not choose.
        assert seen.pop("::1")[0] == foretold.pop("::1")[0] == "eth0"
    assert foretold == seen


#: Counts what leaves by eth0 for 127.0.0.1 or ::1.
COUNTING = """\
table inet seen {
  chain out {
    type filter hook postrouting priority 500;
    oifname "eth0" ip daddr 127.0.0.1 tcp dport 15001 counter
    oifname "eth0" ip6 daddr ::1 tcp dport 15001 counter
  }
}
"""


@pytest.mark.parametrize("to", ["198.18.0.1", "2001:db8::1"])
def test_what_is_captured_leaves_by_the_interface_and_does_not_reach_the_proxy(to: str):
    settings = ["-b", "*", "-o", "3306"]
    with Pod() as pod:
        apply(pod, Scenario("", settings), "libiptc")
        proxy = pod.listen("proxy", tcp=(15001, 15006), uid=1337, gid=1337)
        world = pod.client.listen("world", tcp=(80, 3306))
        pod.run(["nft", "-f", "-"], stdin=COUNTING)
        assert foretold(pod, settings, to, 3306) == "direct"
        assert dial(pod, to, 3306) == "answered"
        assert [arrival.port for arrival in world.arrivals()] == [3306]
        local = "[::1]" if ":" in to else "127.0.0.1"
        assert foretold(pod, settings, to, 80) == f"translated {local}:15001"
        assert dial(pod, to, 80) == "timed out"
        assert proxy.arrivals() == []
        lines = pod.run(["nft", "list", "table", "inet", "seen"]).stdout.splitlines()
        [counter] = [line for line in lines if local.strip("[]") in line]
        assert "packets 0" not in counter


def foretold(pod: Pod, settings: list[str], to: str, port: int) -> str:
    facts = Facts(ipv4=True, ipv6=True)
    config, _ = resolve(parse(read_arguments([*settings, "--dual-stack"]).settings, facts), facts)
    proxy = proxy_of(config)
    world = of_settings(config, read_network(pod.name), native=False)
    wanted = endpoint(f"[{to}]:{port}" if ":" in to else f"{to}:{port}", facts)
    question = Question("out", wanted, uid=1000, interface="eth0")
    return str(answer(world, complete(question, world.network, proxy), proxy).verdict)


def dial(pod: Pod, to: str, port: int) -> str:
    """Connect, as the application, by a socket that is bound to eth0."""
    with made_by(pod, 1000, 1000, to, socket.SOCK_STREAM) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        caller.settimeout(0.5 if port == 80 else 30)
        try:
            caller.connect((to, port))
        except OSError as error:
            return str(error)
        return "answered" if caller.recv(10) else "closed"
