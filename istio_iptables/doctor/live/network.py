"""network: addresses, sysctls and routing of the network namespace that the process is in."""

from __future__ import annotations

import os

from ...kernel import routing
from ..checks.network import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...errors import KernelError
    from ...rules.model import RoutingObject

_SYSCTLS = "/proc/sys/net"


def ipv6_disabled() -> dict[str, str] | None:
    """Return net.ipv6.conf.*.disable_ipv6 by name, None in a kernel without IPv6."""
    folder = f"{_SYSCTLS}/ipv6/conf"
    if not os.path.isdir(folder):
        return None
    return {name: _value(f"{folder}/{name}/disable_ipv6") for name in ("all", "default", "lo")}


def forwarding() -> dict[str, Forwarding]:
    """Return what decides, by interface, what becomes of IPv4 packets with odd addresses."""
    folder = f"{_SYSCTLS}/ipv4/conf"
    return {
        name: Forwarding(
            **{field: int(_value(f"{folder}/{name}/{field}") or 0) for field in Forwarding._fields}
        )
        for name in sorted(os.listdir(folder))
    }


def forwards() -> tuple[bool, bool]:
    """Tell whether IPv4, and IPv6, packets of others are forwarded."""
    names = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
    return _value(f"{_SYSCTLS}/{names[0]}") != "0", _value(f"{_SYSCTLS}/{names[1]}") != "0"


def obstacles(wanted: Iterable[RoutingObject]) -> list[KernelError]:
    """Return what keeps addresses, routing rules and routes from being made. Raises OSError."""
    found = (routing.obstacle(item) for item in wanted)
    return [error for error in found if error is not None]


def _value(path: str) -> str:
    """Return a sysctl; nothing if this kernel does not have it, or an interface is gone."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
