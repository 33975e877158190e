"""environment: what the settings need to know about a machine, as a protocol.

It imports typing, so nothing on the way of a plain call imports it.
"""

from __future__ import annotations

from typing import Protocol


class Environment(Protocol):
    """What the settings need to know about a machine. ThisMachine and Facts are two of them."""

    def usable_families(self) -> tuple[bool, bool]:
        """Tell whether there is an IPv4, and an IPv6, address that traffic could use."""

    def dns_servers(self) -> tuple[str, ...]:
        """Return the DNS servers' addresses as /etc/resolv.conf has them."""

    def user_id(self, name: str) -> int | None:
        """Return the UID of a user, None if there is none of that name."""

    def group_id(self, name: str) -> int | None:
        """Return the GID of a group, None if there is none of that name."""
