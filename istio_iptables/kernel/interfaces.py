"""interfaces: the interfaces of this network namespace, and settings that name none of them."""

from __future__ import annotations

from ..settings.texts import nearest
from ..startup.c_modules import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..settings.resolve import Parsed

#: The fields of the settings whose values are interfaces.
FIELDS = ("interfaces_excluded", "rerouted_interfaces")
#: If no name is similar, the warning lists all interfaces, up to this number.
_MOST_LISTED = 8


def missing(parsed: Parsed) -> list[str]:
    """Return a warning for each interface of the settings that does not exist in this network namespace.

    A trailing `+` stands for any ending, as in iptables(8). Alternative names (ip-link(8), altname) do not
    count: netfilter compares the name alone.
    """
    try:
        there = [name for _, name in socket.if_nameindex()]
    except OSError:
        return []
    warnings = []
    for given in parsed.changed:
        if given.setting.field not in FIELDS:
            continue
        for name in parsed.values[given.setting.field]:
            if not _matches(name, there):
                what = _described(name, there)
                warnings.append(
                    f"{given.origin}: no interface here {what}: until there is one, its rules match no packet"
                )
    return warnings


def _matches(name: str, there: Sequence[str]) -> bool:
    if name.endswith("+"):
        return any(other.startswith(name[:-1]) for other in there)
    return name in there


def _described(name: str, there: Sequence[str]) -> str:
    """Return what no interface is like, with the nearest name, or all names, as a hint."""
    verb, name = ("begins with", name[:-1]) if name.endswith("+") else ("is called", name)
    hint = nearest(name, there) or f" (interfaces: {', '.join(there[:_MOST_LISTED])})"
    return f"{verb} {name!r}{hint}"
