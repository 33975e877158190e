"""Environment: the facts that are read from the machine before rules are made.

Addresses of the network namespace, DNS servers, users and groups. Reading changes nothing. Tests
and programs that make rules for another machine give their own facts instead.
"""

from __future__ import annotations

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    class Environment(Protocol):
        """What the settings need to know about a machine."""

        def usable_families(self) -> tuple[bool, bool]:
            """Tell whether there is an IPv4, and an IPv6, address that traffic could use."""

        def dns_servers(self) -> tuple[str, ...]:
            """Return the DNS servers' addresses as they are written."""

        def user_id(self, name: str) -> int | None:
            """Return the UID of a user, None if there is none of that name."""

        def group_id(self, name: str) -> int | None:
            """Return the GID of a group, None if there is none of that name."""


class Facts(Record):
    """An environment made of given facts: for tests, and for making rules for another machine."""

    ipv4: bool = True
    ipv6: bool = False
    servers: tuple[str, ...] = ()
    users: Mapping[str, int] = {}
    groups: Mapping[str, int] = {}

    def usable_families(self) -> tuple[bool, bool]:
        """Tell whether there is an IPv4, and an IPv6, address that traffic could use."""
        return self.ipv4, self.ipv6

    def dns_servers(self) -> tuple[str, ...]:
        """Return the DNS servers' addresses."""
        return self.servers

    def user_id(self, name: str) -> int | None:
        """Return the UID of a user, None if there is none of that name."""
        return self.users.get(name)

    def group_id(self, name: str) -> int | None:
        """Return the GID of a group, None if there is none of that name."""
        return self.groups.get(name)


class ThisMachine:
    """The machine, and the network namespace, that the process is in."""

    def __init__(self, resolv_conf: str = "/etc/resolv.conf") -> None:
        self._resolv_conf = resolv_conf

    def usable_families(self) -> tuple[bool, bool]:
        """Tell whether there is an IPv4, and an IPv6, address that traffic could use.

        Loopback and link-local addresses do not count, nor does the address that this tool itself
        adds. On a system without rtnetlink(7) both are taken to be there: rules for a Linux
        machine are what is being made, and --dual-stack then decides.
        """
        import sys

        if sys.platform != "linux":
            return True, True
        from . import netlink

        usable = {a.family for a in netlink.addresses() if not _is_local(a.family, a.address)}
        return "ipv4" in usable, "ipv6" in usable

    def dns_servers(self) -> tuple[str, ...]:
        """Return the addresses of the `nameserver` lines of /etc/resolv.conf (resolv.conf(5))."""
        try:
            with open(self._resolv_conf, encoding="utf-8", errors="replace") as file:
                lines = [line.split() for line in file]
        except OSError:
            return ()
        return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")

    def user_id(self, name: str) -> int | None:
        """Return the UID of a user, None if there is none of that name."""
        try:
            import pwd

            return pwd.getpwnam(name).pw_uid
        except (ImportError, KeyError, ValueError):
            return None

    def group_id(self, name: str) -> int | None:
        """Return the GID of a group, None if there is none of that name."""
        try:
            import grp

            return grp.getgrnam(name).gr_gid
        except (ImportError, KeyError, ValueError):
            return None


def _is_local(family: str, address: str) -> bool:
    """Tell whether an address, as inet_ntop writes it, is a loopback or link-local one, or ::6."""
    if family == "ipv4":
        return address.startswith(("127.", "169.254."))
    first_group = address.partition(":")[0]
    link_local = len(first_group) == 4 and 0xFE80 <= int(first_group, 16) <= 0xFEBF
    return address in ("::1", "::6") or link_local
