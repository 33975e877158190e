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
    from collections.abc import Iterator, Mapping

    from ..rules.model import Family

_FOLDER = "/proc/sys/net"
#: Names below conf/ that are no interfaces.
_NO_INTERFACES = frozenset({"all", "default"})


class Sysctls(Record):
    """What the kernel's variables say, with what they are for all interfaces taken into account.

    `forwards` has whether packets of others are forwarded, for each family that there is, None if that could
    not be read, and `forwarding` the interfaces for which an own variable says something else.
    `route_localnet`: the interfaces by which 127.0.0.0/8 may come and go. `rp_filter`: 1 (strict) or 2
    (loose) for interfaces that drop packets from sources to which another route leads, or none, and None for
    those of which it could not be read; None if that is so for all. `accept_local`: the interfaces that take
    packets from own addresses. `src_valid_mark`: those for which the way back to a source is that of packets
    with the same mark. `unread` are variables that could not be read, by path.
    """

    forwards: Mapping[Family, bool | None]
    forwarding: frozenset[tuple[Family, str]] = frozenset()
    route_localnet: frozenset[str] = frozenset()
    rp_filter: Mapping[str, int | None] | None = {}
    accept_local: frozenset[str] = frozenset()
    src_valid_mark: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


def read_sysctls() -> Sysctls:
    """Return the variables; needs no privilege. A kernel without IPv6 has none of it."""
    reader = _Reader()
    forwards: dict[Family, bool | None] = {IPV4: reader.flag("ipv4/ip_forward")}
    if os.path.isdir(f"{_FOLDER}/ipv6/conf"):
        forwards[IPV6] = reader.flag("ipv6/conf/all/forwarding")
    return Sysctls(
        forwards=forwards,
        forwarding=frozenset(
            (family, name) for family, usual in forwards.items() for name in reader.others(family, usual)
        ),
        route_localnet=reader.switched_on("route_localnet"),
        rp_filter=reader.filters(),
        accept_local=reader.switched_on("accept_local"),
        src_valid_mark=reader.switched_on("src_valid_mark"),
        unread=tuple(reader.unread),
    )


class _Reader:
    """Reads variables, each a number; those that cannot be read are kept in `unread`."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def others(self, family: Family, usual: bool | None) -> Iterator[str]:
        """Yield the interfaces of which a packet is forwarded though others are not, or the other way round.

        IPv4 has a variable for each interface that comes with ip_forward (IN_DEV_FORWARD). For IPv6 it is
        that of `all` alone that counts (ip6_forward), and, since Linux 6.17, one that adds an interface.
        """
        if usual is None or (family == IPV6 and usual):
            return
        variable = "forwarding" if family == IPV4 else "force_forwarding"
        for name in self.interfaces(family):
            if bool(self.number(f"{family}/conf/{name}/{variable}")) != usual:
                yield name

    def switched_on(self, variable: str) -> frozenset[str]:
        """Return the interfaces for which the variable of IPv4 or that of `all` says so (IN_DEV_ORCONF)."""
        of_all = self.number(f"ipv4/conf/all/{variable}")
        return frozenset(
            name for name in self.interfaces(IPV4) if of_all or self.number(f"ipv4/conf/{name}/{variable}")
        )

    def filters(self) -> dict[str, int | None] | None:
        """Return rp_filter by interface: the greater value of its own and that of `all` (IN_DEV_MAXCONF)."""
        of_all = self.number("ipv4/conf/all/rp_filter")
        if of_all is None:
            return None
        found: dict[str, int | None] = {}
        for name in self.interfaces(IPV4):
            own = self.number(f"ipv4/conf/{name}/rp_filter")
            greater = None if own is None else max(own, of_all)
            if greater != 0:
                found[name] = greater
        return found

    def flag(self, name: str) -> bool | None:
        """Return whether a variable is not 0, None if it cannot be read."""
        found = self.number(name)
        return None if found is None else found != 0

    def number(self, name: str) -> int | None:
        """Return a variable, None if it cannot be read; 0 if it is not there."""
        path = f"{_FOLDER}/{name}"
        try:
            with open(path, encoding="ascii") as file:
                return int(file.read())
        except FileNotFoundError:  # the interface is gone, or this kernel does not have the variable
            return 0
        except (OSError, ValueError):
            if path not in self.unread:
                self.unread.append(path)
            return None

    def interfaces(self, family: Family) -> list[str]:
        """Return the names of interfaces that have variables."""
        path = f"{_FOLDER}/{family}/conf"
        try:
            return sorted(set(os.listdir(path)) - _NO_INTERFACES)
        except OSError:
            if path not in self.unread:
                self.unread.append(path)
            return []
