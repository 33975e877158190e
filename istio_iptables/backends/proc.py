"""proc: what /proc says about the kernel's netfilter, read without creating anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..ruleset import Family

_TABLE_NAMES = {"ipv4": "/proc/self/net/ip_tables_names", "ipv6": "/proc/self/net/ip6_tables_names"}


def has_legacy(family: Family) -> bool:
    """Tell whether the kernel has the legacy interface of a family loaded."""
    import os

    return os.path.exists(_TABLE_NAMES[family])


def existing_legacy_tables(family: Family) -> frozenset[str]:
    """Return the legacy tables that this network namespace has.

    A table is made by the first program that opens it, so a table that is not listed must not be
    opened for reading. The list may be read by root alone: nobody else can read the tables either.
    """
    try:
        with open(_TABLE_NAMES[family], encoding="ascii") as file:
            return frozenset(file.read().split())
    except FileNotFoundError:
        return frozenset()


def capabilities() -> int:
    """Return the effective capabilities of this process as a bit set (capabilities(7))."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
