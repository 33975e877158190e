"""ip_names: what the numbers of rtnetlink(7) are called by `ip`: tables, scopes, kinds of routes.

Source: linux/rtnetlink.h, linux/fib_rules.h. Tables may have other names too (/etc/iproute2/rt_tables), which
only the machine knows that printed them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeAlias

    RouteKind: TypeAlias = Literal[
        "local",
        "unicast",
        "broadcast",
        "anycast",
        "multicast",
        "unreachable",
        "blackhole",
        "prohibit",
        "throw",
    ]

LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE = "local", "main", "default"
_TABLES: Mapping[str, str] = {"255": LOCAL_TABLE, "254": MAIN_TABLE, "253": DEFAULT_TABLE}

#: Scopes of addresses and routes (RT_SCOPE_*).
SCOPES: Mapping[str, int] = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}

#: Kinds of routes (RTN_*). Those that a rule has as its action have the same numbers (FR_ACT_*).
KINDS: Mapping[int, RouteKind] = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
}

#: The values of `pref` as signed numbers of two bits, as the kernel compares them (ICMPV6_ROUTER_PREF_*).
PREFERENCES: Mapping[str, int] = {"high": 1, "medium": 0, "low": -1}

#: What is said of a route whose link has no carrier.
LINKDOWN = "linkdown: used unless net.ipv4.conf.*.ignore_routes_with_linkdown is set"
#: What is said of a route that has no way left.
UNUSABLE = "no way of it is usable"


def table_name(table: str | int) -> str:
    """Return the name of a table from its number, or from its name.

    >>> table_name(255), table_name("254"), table_name("istio"), table_name(133)
    ('local', 'main', 'istio', '133')
    """
    return _TABLES.get(str(table), str(table))
