"""resolv_conf: the file of the DNS servers. What is a server in it gets rules, and nothing else does.

The rules are those for DNS with the servers that were read: see argv.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from istio_iptables.kernel.this_machine import ThisMachine
from istio_iptables.settings.declared import BY_NAME
from istio_iptables.settings.texts import Given
from tests.fuzz.holding import FACTS, allowed, settled

_DNS = [Given(BY_NAME[name], "true", "here") for name in ("redirect-dns", "dual-stack", "rule-comments")]


def corpus() -> Iterator[bytes]:
    yield b"nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
    yield b"# IPv6\nnameserver\tfd00::a\nnameserver fe80::1%eth0\n; no server\nnameserver 010.1.1.1\r\n"
    yield b"nameserver ::ffff:10.0.0.1\nnameserver localhost\nnameserver\n\xff\xfe nameserver 1.1.1.1\n"


def check(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resolv.conf")
        path.write_bytes(data)
        servers = allowed(ThisMachine(str(path)).dns_servers)
    assert servers is not None
    settled(_DNS, (), FACTS.replace(servers=servers))
