"""facts: what the settings need to know about a machine: addresses, DNS servers, users and groups.

kernel/this_machine.py reads them from the machine that the process runs on. Tests, and programs that make
rules for another machine, pass their own.
"""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Facts(Record):
    """An Environment with fixed facts: for tests, and for making rules for another machine."""

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
