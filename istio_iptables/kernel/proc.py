"""proc: what /proc tells about the kernel's netfilter and this process; reading it creates nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..rules.model import Family

_TABLE_NAMES = {"ipv4": "/proc/self/net/ip_tables_names", "ipv6": "/proc/self/net/ip6_tables_names"}


def has_legacy(family: Family) -> bool:
    """Tell whether the kernel has the legacy interface of a family loaded."""
    import os

    return os.path.exists(_TABLE_NAMES[family])


def existing_legacy_tables(family: Family) -> frozenset[str]:
    """Return the legacy tables that this network namespace has.

    A table is made by the first program that opens it, so a table that is not listed must not be
    opened for reading. Raises KernelError for a user other than root, who may not read the list.
    """
    try:
        with open(_TABLE_NAMES[family], encoding="utf-8") as file:
            return frozenset(file.read().split())
    except FileNotFoundError:
        return frozenset()
    except PermissionError as error:
        from ..remedies import only_root_reads

        raise only_root_reads(_TABLE_NAMES[family]) from error


def refusals_sent() -> int:
    """Return how many connections and datagrams this network namespace has refused: a number that only grows.

    RSTs, and ICMP's and ICMPv6's "unreachable" (proc(5), /proc/net/snmp). 0 where the kernel does not count.
    """
    total = 0
    try:
        with open("/proc/self/net/snmp", encoding="ascii") as file:
            lines = [line.split() for line in file]
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            counts = dict(zip(names, values, strict=False))
            total += sum(int(counts.get(name, 0)) for name in ("OutRsts", "OutDestUnreachs"))
        with open("/proc/self/net/snmp6", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Icmp6OutDestUnreachs"))
    except (OSError, ValueError):
        pass
    return total


#: Capabilities that something here needs, and their bits (linux/capability.h).
CAPABILITIES = {"SETGID": 6, "SETUID": 7, "NET_ADMIN": 12, "NET_RAW": 13}


def missing_capabilities(*names: str) -> tuple[str, ...]:
    """Return those of some capabilities that are not effective in this process (capabilities(7))."""
    held = 0
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
    return tuple(name for name in names if not held >> CAPABILITIES[name] & 1)


def root_remedy(*capabilities: str) -> str:
    """Return the remedy for what only root with some capabilities may do."""
    plural = "ies" if len(capabilities) > 1 else "y"
    return (
        f"run as root with the capabilit{plural} {' and '.join(capabilities)} "
        "(securityContext.capabilities.add)"
    )
