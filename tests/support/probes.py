"""probes: probes planned for settings, and results of them, without a machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from istio_iptables import Config, Facts, build, configure
from istio_iptables.rules.model import Cidr
from istio_iptables.validation.model import Identity, Listening, Observation, Probe, Result, Skipped
from istio_iptables.validation.plan import Situation, plan

ROOT, PROXY = Identity(0, 0), Identity(1337, 1337)
ADDRESSES = tuple(
    Cidr(version, int(ipaddress.ip_address(address)), prefix)
    for version, address, prefix in (
        (4, "127.0.0.1", 8),
        (4, "10.88.0.2", 24),
        (6, "::1", 128),
        (6, "::6", 128),
        (6, "fd88::2", 64),
        (6, "fe80::2", 64),
    )
)


def to_the_world(family: str, address: str) -> str | None:
    """Everything is behind eth0, but for what is here."""
    parsed = ipaddress.ip_address(address)
    local = parsed.is_loopback or any(int(parsed) == own.address for own in ADDRESSES)
    return "lo" if local else "eth0"


def on_link_only(family: str, address: str) -> str | None:
    return "eth0" if address.startswith(("10.88.0.", "fd88::")) else None


def config_of(*, facts: Facts | None = None, **settings: Any) -> Config:
    named = {name.replace("_", "-"): value for name, value in settings.items() if name.islower()}
    named |= {name: value for name, value in settings.items() if not name.islower()}
    return configure(named, environment=facts or Facts(ipv4=True, ipv6=True))


def planned(
    identity: Identity = ROOT,
    may_become: bool = True,
    route: Callable[[Any, str], str | None] = to_the_world,
    port: int = 15002,
    servers: tuple[Cidr, ...] = (),
    pick: Callable[[int], int] | None = None,
    **settings: Any,
) -> tuple[Probe | Skipped, ...]:
    config = config_of(**settings)
    situation = Situation(identity, may_become, ADDRESSES, route, pick, servers)
    return plan(config, build(config), situation, port)


APP = Identity(1000, 1000)


def outbound(address: str = "192.0.2.1", port: int = 15002, family: str = "ipv4") -> list[tuple[object, ...]]:
    dialled = f"{address} {port}"
    return [
        ("outbound", family, (0, 0), dialled, 15001),
        ("exempt-uid", family, (1337, 0), dialled, None),
        ("exempt-gid", family, (0, 1337), dialled, None),
    ]


SERVERS = Facts(ipv4=True, ipv6=True, servers=("10.96.0.10", "fd00::a"))

[IN, OUT, UID, GID] = [item for item in planned() if isinstance(item, Probe)]

IN6 = next(item for item in planned(dual_stack=True) if item.family == "ipv6")
OWN_P, OWN_Z = Listening(15001), Listening(15006)
TAKEN_P, TAKEN_Z = Listening(15001, taken=True, uid=1337), Listening(15006, taken=True, uid=1337)
STUCK_P = TAKEN_P.replace(stuck=True)
DIALLED = ("192.0.2.1", 15002)
THERE = Observation("connected", address_is_here=False)
GONE = Observation("unanswered", address_is_here=False)

QUERY, QUERY_OF_UID, *_ = [
    item for item in planned(redirect_dns=True, facts=SERVERS) if isinstance(item, Probe) and item.dns
]


def results(*statuses: str) -> tuple[Result, ...]:
    return tuple(Result(OUT, status, "", "") for status in statuses)  # type: ignore[arg-type]
