"""dnsmasq: a real DNS server, and what it was asked."""

from __future__ import annotations

import re

from tests.support.netns import Namespace


def dns_server(namespace: Namespace, uid: int, gid: int, *options: str) -> None:
    """Start dnsmasq. It knows what the options say, keeps nothing, and prints every query."""
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"]
    command += ["--no-resolv", "--no-hosts", "--cache-size=0", "--bind-interfaces", "--log-queries"]
    namespace.start([*command, *options], uid, gid)


def queries(namespace: Namespace, name: str) -> set[str]:
    """Return who has asked a namespace's dnsmasq for a name."""
    return set(re.findall(rf"query\[A+\] {re.escape(name)} from (\S+)", namespace.output()))
