"""sysctls: the variables of the kernel on which the way of a packet depends besides rules and routes.

They are read from /proc/sys/net, for the network namespace that the process is in. Each is described in the
kernel's Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import os

from ..rules.model import IPV4, IPV6
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..rules.model import Family

_FOLDER = "/proc/sys/net"
#: Names below conf/ that are no interfaces.
_NO_INTERFACES = frozenset({"all", "default"})


class Sysctls(Record):
    """What the kernel's variables say, with what they are for all interfaces taken into account.

    `forwards` has whether packets of others are forwarded, for each family that there is, and
    `forwarding` the interfaces for which an own variable says something else. `route_localnet`: the
    interfaces by which 127.0.0.0/8 may come and go. `rp_filter`: 1 (strict) or 2 (loose) for interfaces that
    drop packets from sources to which another route leads, or none. `unread` are variables that could not be
    read, by path.
    """

    forwards: Mapping[Family, bool]
    forwarding: frozenset[tuple[Family, str]] = frozenset()
    route_localnet: frozenset[str] = frozenset()
    rp_filter: Mapping[str, int] = {}
    unread: tuple[str, ...] = ()


def read_sysctls() -> Sysctls:
    """Return the variables; needs no privilege. A kernel without IPv6 has none of it."""
    reader = _Reader()
    forwards: dict[Family, bool] = {IPV4: reader.number("ipv4/ip_forward") != 0}
    if os.path.isdir(f"{_FOLDER}/ipv6/conf"):
        forwards[IPV6] = reader.number("ipv6/conf/all/forwarding") != 0
    other = [
        (family, name)
        for family, usual in forwards.items()
        for name in reader.interfaces(family)
        if (reader.number(f"{family}/conf/{name}/forwarding") != 0) != usual
    ]
    localnet = reader.number("ipv4/conf/all/route_localnet")
    filtered = reader.number("ipv4/conf/all/rp_filter")
    names = reader.interfaces(IPV4)
    return Sysctls(
        forwards=forwards,
        forwarding=frozenset(other),
        # Either variable switches it on (IN_DEV_ORCONF), and the greater of both counts (IN_DEV_MAXCONF).
        route_localnet=frozenset(
            name for name in names if localnet or reader.number(f"ipv4/conf/{name}/route_localnet")
        ),
        rp_filter={
            name: value
            for name in names
            if (value := max(filtered, reader.number(f"ipv4/conf/{name}/rp_filter")))
        },
        unread=tuple(reader.unread),
    )


class _Reader:
    """Reads variables, each a number; one that cannot be read counts as 0 and is kept in `unread`."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def number(self, name: str) -> int:
        path = f"{_FOLDER}/{name}"
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except FileNotFoundError:  # the interface is gone, or this kernel does not have the variable
            return 0
        except (OSError, ValueError):
            self.unread.append(path)
            return 0

    def interfaces(self, family: Family) -> list[str]:
        try:
            return sorted(set(os.listdir(f"{_FOLDER}/{family}/conf")) - _NO_INTERFACES)
        except OSError:
            self.unread.append(f"{_FOLDER}/{family}/conf")
            return []
