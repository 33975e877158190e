"""many_routes: a network namespace with routing rules and routes of many kinds, of both families.

`make` gives it to a namespace with `lo` up. What `ip` prints of it is in tests/fixtures/ip, written by

    python -m tests.support.many_routes   # as root
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.support.netns import Namespace

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ip"

#: Batches of ip(8) for each family option; the first is for both.
LINKS = (
    "link add eth0 address 02:00:00:00:00:10 type veth peer name p0 address 02:00:00:00:00:11",
    "link add eth1 address 02:00:00:00:00:20 type veth peer name p1 address 02:00:00:00:00:21",
    *(f"link set {name} up" for name in ("p0", "eth0", "p1", "eth1")),
    "address add 10.88.0.2/24 dev eth0",
    "address add 10.88.0.3/24 dev eth0",
    "address add 10.89.0.2/24 dev eth1",
    "address add 10.1.1.1 peer 10.1.1.2/32 dev eth1",
    "address add 169.254.7.7/16 dev eth1 scope link",
    "address add fd88::2/64 dev eth0 nodad",
    "address add fd88::99/64 dev eth0 nodad preferred_lft 0",
    "address add fd89::2/64 dev eth1 nodad",
    "address add 2001:db8:5::2/64 dev eth1 nodad",
    "address add fd66::2 peer fd66::1/128 dev eth1 nodad",
    "nexthop add id 5 via 10.88.0.1 dev eth0",
    "nexthop add id 6 via 10.89.0.1 dev eth1",
    "nexthop add id 7 group 5/6",
    "nexthop add id 8 blackhole",
)
ROUTES: Mapping[str, tuple[str, ...]] = {
    "-4": (
        "default via 10.88.0.1",
        "20.0.0.0/8 nexthop via 10.88.0.1 dev eth0 weight 1 nexthop via 10.89.0.1 dev eth1 weight 2",
        "21.0.0.0/8 nexthop via 10.88.0.1 dev eth0 nexthop via 10.88.0.9 dev eth0",
        "unreachable 22.0.0.0/8",
        "blackhole 23.0.0.0/8",
        "prohibit 24.0.0.0/8 metric 5",
        "24.0.0.0/8 via 10.89.0.1 metric 6",
        "throw 25.0.0.0/8 table 100",
        "26.0.0.0/8 via inet6 fe80::1 dev eth0",
        "27.0.0.0/8 via 10.88.0.1 src 10.89.0.2 mtu 1400 advmss 1300 onlink dev eth0",
        "27.5.0.0/16 dev eth1",
        "29.0.0.0/8 via 10.88.0.9 metric 20",
        "29.0.0.0/8 via 10.89.0.9 metric 10",
        "30.0.0.0/8 nhid 5",
        "31.0.0.0/8 nhid 7",
        "32.0.0.0/8 nhid 8",
        "33.0.0.0/8 tos 0x10 via 10.89.0.1",
        "33.0.0.0/8 via 10.88.0.1",
        "multicast 239.0.0.0/8 dev eth0",
        "broadcast 28.255.255.255 dev eth1",
        "local 198.18.0.0/15 dev lo",
        "198.18.1.0/24 dev eth1",
        "default via 10.89.0.1 table 100 realm 5",
        "local default dev lo table 133",
        "default via 10.89.0.1 table 200",
        "34.0.0.0/8 via 10.89.0.1 table 200",
        "prohibit default table 300",
    ),
    "-6": (
        "default via fd88::1",
        "2001:db8:20::/48 nexthop via fd88::1 dev eth0 nexthop via fd89::1 dev eth1",
        "2001:db8:21::/48 nexthop via fd88::1 dev eth0 nexthop via fd88::9 dev eth0 weight 3",
        "unreachable 2001:db8:22::/48",
        "blackhole 2001:db8:23::/48",
        "prohibit 2001:db8:24::/48",
        "throw 2001:db8:25::/48 table 100",
        "2001:db8:27::/48 via fd88::1 src fd89::2 metric 77",
        "2001:db8:27:5::/64 via fd89::1 pref high",
        "2001:db8:28::/48 via fd89::1 metric 20",
        "2001:db8:28::/48 via fd88::1 metric 10",
        "2001:db8:29::/48 from fd88::/64 via fd89::1 dev eth1",
        "default from fd89::/64 via fd89::1 dev eth1 metric 5",
        "local 2001:db8:30::/48 dev lo",
        "default via fd89::1 table 100",
        "local default dev lo table 133",
        "default via fd89::1 table 200",
        "2001:db8:34::/48 via fd89::1 table 200",
        "prohibit default table 300",
    ),
}
#: Rules that `ip route get` can be asked about, and those about what it cannot be told.
RULES: Mapping[str, tuple[str, ...]] = {
    "-4": (
        "pref 100 fwmark 0x539 lookup 133",
        "pref 101 from 10.89.0.2 to 40.0.0.0/8 iif lo uidrange 77-78 fwmark 0x80/0xf0 lookup 200",
        "pref 102 from 10.89.0.2 lookup 100",
        "pref 103 not to 128.0.0.0/1 iif eth1 goto 110",
        "pref 104 to 41.0.0.0/8 unreachable",
        "pref 105 to 42.0.0.0/8 blackhole",
        "pref 106 uidrange 0-4 fwmark 0x7 prohibit",
        "pref 107 fwmark 0x5 goto 109",
        "pref 108 fwmark 0x5 lookup 300",
        "pref 109 nop",
        "pref 110 fwmark 0x6 lookup main suppress_prefixlength 0",
        "pref 111 fwmark 0x6 lookup 200",
        "pref 112 not iif lo fwmark 0x8 lookup 200 realms 3/4",
        "pref 113 iif nothere lookup 300",
        "pref 114 fwmark 0/0x10 uidrange 9-9 lookup 200",
    ),
    "-6": (
        "pref 100 fwmark 0x539 lookup 133",
        "pref 101 from fd89::2 to 2001:db8:40::/48 iif lo uidrange 77-78 fwmark 0x80/0xf0 lookup 200",
        "pref 102 from 2001:db8:5::/64 lookup 100",
        "pref 103 not to 8000::/1 iif eth1 goto 110",
        "pref 104 to 2001:db8:41::/48 unreachable",
        "pref 105 to 2001:db8:42::/48 blackhole",
        "pref 106 uidrange 0-4 fwmark 0x7 prohibit",
        "pref 107 fwmark 0x5 goto 109",
        "pref 108 fwmark 0x5 lookup 300",
        "pref 109 nop",
        "pref 110 fwmark 0x6 lookup main suppress_prefixlength 0",
        "pref 111 fwmark 0x6 lookup 200",
        "pref 112 not iif lo fwmark 0x8 lookup 200",
        "pref 113 iif nothere lookup 300",
        "pref 114 fwmark 0/0x10 uidrange 9-9 lookup 200",
    ),
}
#: They take no packet of a test, as long as nothing has the mark 0xf000.
ODD_RULES = (
    "pref 200 fwmark 0xf000 oif eth1 lookup 200",
    "pref 201 fwmark 0xf000 tos 0x10 lookup 200",
    "pref 202 fwmark 0xf000 ipproto tcp sport 1000-2000 dport 80 lookup 200",
    "pref 203 fwmark 0xf000 ipproto 99 lookup 200",
    "pref 204 fwmark 0xf000 tun_id 7 lookup 200",
    "pref 205 fwmark 0xf000 lookup 200 suppress_ifgroup 5",
    "pref 206 fwmark 0xf000 goto 5000",
    "pref 207 fwmark 0xf000 l3mdev",
    "pref 208 fwmark 0xf000 type nat lookup 200",
)

#: What is printed, and by which arguments of ip(8).
PRINTED: Mapping[str, str] = {
    "rule": "rule show",
    "rule-6": "-6 rule show",
    "route": "route show table all",
    "route-6": "-6 route show table all",
    "addr": "address show",
}


def make(namespace: Namespace) -> None:
    """Give all of this to a namespace that has nothing but lo."""
    namespace.ip(*LINKS)
    for family in ("-4", "-6"):
        lines = [f"route add {route}" for route in ROUTES[family]]
        # So that goto finds its target.
        rules = sorted(itertools.chain(RULES[family], ODD_RULES), key=lambda rule: "goto" in rule)
        lines += [f"rule add {rule}" for rule in rules]
        namespace.run(["ip", family, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))


def printed(namespace: Namespace, *options: str, names: Iterable[str] = PRINTED) -> list[str]:
    """Return what ip(8) prints with some options, one text for each of PRINTED."""
    return [namespace.run(["ip", *options, *PRINTED[name].split()]).stdout for name in names]


def _write(directory: Path = FIXTURES, namespace: Callable[[], Namespace] = Namespace) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with namespace() as made:
        make(made)
        for suffix, options in (("txt", ()), ("json", ("-j", "-p"))):
            for name, text in zip(PRINTED, printed(made, *options), strict=True):
                (directory / f"{name}.{suffix}").write_text(text)


if __name__ == "__main__":
    _write()
