"""docker: what docker sets up in a network namespace, without docker: its bridge, a container, its rules.

The rules are those of docker's libnetwork (drivers/bridge and resolver_unix.go); those of a published port
are there as a table of nftables, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.netns import Namespace

CONTAINER = "172.17.0.2"

_PUBLISHED = f"""\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {CONTAINER}:80
COMMIT
"""
_PUBLISHED_IN_NFT = f"""\
table ip docker {{
	chain DOCKER {{
		iifname "docker0" return
		iifname != "docker0" tcp dport 8080 counter dnat to {CONTAINER}:80
	}}
	chain prerouting {{ type nat hook prerouting priority -100; fib daddr type local counter jump DOCKER; }}
	chain output {{
		type nat hook output priority -100
		ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER
	}}
	chain postrouting {{
		type nat hook postrouting priority 100
		ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade
	}}
}}
"""

#: Its DNS server in a network that was made by the user, and where that really listens.
DNS_SERVER, DNS_PORT = "127.0.0.11", 41053
_EMBEDDED_DNS = f"""\
*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d {DNS_SERVER}/32 -j DOCKER_OUTPUT
-A POSTROUTING -d {DNS_SERVER}/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d {DNS_SERVER}/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination {DNS_SERVER}:{DNS_PORT}
-A DOCKER_OUTPUT -d {DNS_SERVER}/32 -p udp -m udp --dport 53 -j DNAT --to-destination {DNS_SERVER}:{DNS_PORT}
-A DOCKER_POSTROUTING -s {DNS_SERVER}/32 -p tcp -m tcp --sport {DNS_PORT} -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s {DNS_SERVER}/32 -p udp -m udp --sport {DNS_PORT} -j SNAT --to-source :53
COMMIT
"""

_IPTABLES = {"legacy": "iptables-legacy-restore", "iptables-nft": "iptables-nft-restore"}
#: The ways in which docker writes its rules.
VARIANTS = (*_IPTABLES, "nft")


def publish_port(namespace: Namespace, variant: str) -> None:
    """Write the rules for a container's port that is published as 8080, and for what containers send."""
    if variant == "nft":
        namespace.run(["nft", "-f", "-"], stdin=_PUBLISHED_IN_NFT)
    else:
        namespace.run([_IPTABLES[variant], "--noflush"], stdin=_PUBLISHED)


def redirect_dns(namespace: Namespace, variant: str) -> None:
    """Write the rules for docker's DNS server; docker has none for nftables."""
    namespace.run([_IPTABLES[variant], "--noflush"], stdin=_EMBEDDED_DNS)


@contextmanager
def container_behind(namespace: Namespace) -> Iterator[Namespace]:
    """Make docker's bridge in a namespace, and a container behind it."""
    with Namespace("container") as container:
        namespace.sysctl("net/ipv4/ip_forward", 1)
        namespace.ip("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0")
        cable = f"ip link add veth0 netns {namespace.name} type veth peer name eth0 netns {container.name}"
        subprocess.run(cable.split(), check=True)
        namespace.ip("link set veth0 master docker0", "link set veth0 up", "link set docker0 up")
        container.ip(f"address add {CONTAINER}/16 dev eth0", "link set eth0 up")
        container.ip("route add default via 172.17.0.1")
        yield container
