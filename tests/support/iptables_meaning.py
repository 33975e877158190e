"""iptables_meaning: a namespace in which rules of iptables count a packet that is sent, by family."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from istio_iptables.formats.iptables_dump import read
from istio_iptables.interpreter.addresses import address
from istio_iptables.interpreter.packet import Packet
from istio_iptables.rules.model import IPV4

from . import one_packet
from .netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


VARIANTS = ("legacy", "nft")
PROTOCOLS = {"udp": 17, "tcp": 6, "icmp": 1}

#: The addresses of the namespace and around it, by family.
WORDS: dict[Family, dict[str, str]] = {
    "ipv4": {
        "own": "10.9.0.1",
        "other": "10.9.0.2",
        "odd": "10.0.0.1/255.0.0.255",
        "net": "10.9.0.0/24",
        "range": "10.9.0.0-10.9.0.1",
        "loopback": "127.0.0.1",
        "far": "192.0.2.7",
        "icmp": "icmp -m icmp --icmp-type",
        "echo": "8",
        "ping": "icmp",
    },
    "ipv6": {
        "own": "fd09::1",
        "other": "fd09::2",
        "odd": "fd00::1/ff00::ffff",
        "net": "fd09::/64",
        "range": "fd09::-fd09::1",
        "loopback": "::1",
        "far": "2001:db8::7",
        "icmp": "ipv6-icmp -m icmp6 --icmpv6-type",
        "echo": "128",
        "ping": "icmpv6",
    },
}


def as_packet(sent: dict[str, Any], family: Family) -> Packet:
    """A packet as its first hook has it, behind conntrack."""
    (source, source_port), (to, port) = sent["source"], sent["to"]
    protocol = PROTOCOLS.get(sent["protocol"], sent["protocol"])
    if protocol == 1 and family != IPV4:
        protocol = 58
    first = Packet(
        family,
        protocol,
        address(source)[1],
        address(to)[1],
        source_port,
        port,
        sent_to=sent["by"],
        uid=sent.get("uid", 0),
        gid=sent.get("gid", 0),
        groups=tuple(sent.get("groups", ())),
        mark=sent.get("mark", 0),
        tracked=True,
        icmp_type=128 if protocol == 58 else 8,
        state=sent.get("state", "NEW"),
        first="state" not in sent,
        original_source=address(source)[1],
        original_destination=address(to)[1],
        original_source_port=source_port,
        original_port=port,
    )
    if not sent.get("reply"):
        return first
    return first.replace(
        source=first.destination,
        destination=first.source,
        source_port=port,
        destination_port=source_port,
        uid=0,
        gid=0,
        mark=0,
        state="ESTABLISHED",
        first=False,
        direction="reply",
        status="SEEN_REPLY CONFIRMED",
    )


def wire(namespace: Namespace) -> Namespace:
    """Give a namespace an interface on which nobody answers, and a way out by it."""
    namespace.ip(
        "link add out0 type veth peer name nobody0",
        "link set out0 arp off",
        "addr add 10.9.0.1/24 dev out0",
        "addr add fd09::1/64 dev out0 nodad",
        "link set nobody0 up",
        "link set out0 up",
        "route add default dev out0",
        "route add ::/0 dev out0",
    )
    return namespace


def command(family: Family, variant: str) -> str:
    """The name of iptables."""
    return f"{'iptables' if family == IPV4 else 'ip6tables'}-{variant}"


def send(namespace: Namespace, sent: dict[str, Any], zero: list[str]) -> None:
    """Send a packet; all counters are zero before."""
    namespace.run(zero)
    order = {**sent, "between": zero}
    namespace.run([sys.executable, "-I", "-S", one_packet.__file__, json.dumps(order)])


def counted(namespace: Namespace, family: Family, variant: str) -> Iterator[tuple[str, str, int]]:
    """The rules without a target: chain, options and the number of packets."""
    for table in read(namespace.run([f"{command(family, variant)}-save", "-c"]).stdout).tables:
        for rule in table.rules:
            if " -j " not in f" {rule.options}":
                assert rule.counters
                yield rule.chain, rule.options, rule.counters.packets
