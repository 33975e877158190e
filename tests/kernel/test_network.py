"""The network of a namespace: read by netlink, and from what `ip` prints, it is the same; and it has the
kernel's own routes for packets of all kinds.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from istio_iptables.formats import ip_dump
from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.routing import Network
from istio_iptables.kernel.netlink.network import read_network
from istio_iptables.rules import model

from ..support import many_routes
from ..support.netns import Namespace
from ..support.route_choice import Asked, by_kernel, by_network
from ..support.scratch import Fork, entered, wait_until

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

_NOBODY = 65534


@pytest.fixture(scope="module")
def crossing() -> Iterator[Namespace]:
    """A namespace with rules and routes of many kinds."""
    with Namespace() as made:
        many_routes.make(made)
        yield made


def read_live(namespace: Namespace) -> Network:
    with entered(f"/run/netns/{namespace.name}"):
        return read_network()


def read_printed(namespace: Namespace, *options: str) -> Network:
    texts = many_routes.printed(namespace, *options)
    return ip_dump.joined([ip_dump.read(text) for text in texts])


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", ["-j", "-j -d", "-j -p", "-j -N", "", "-d", "-N", "-o"], ids=lambda options: options or "plain"
)
def test_netlink_and_ip_tell_the_same(crossing: Namespace, options: str) -> None:
    live, printed = read_live(crossing), read_printed(crossing, *options.split())
    assert printed.interfaces == live.interfaces == ("lo", "p0", "eth0", "p1", "eth1")
    assert printed.addresses == live.addresses
    assert printed.rules == live.rules
    assert set(printed.routes) == set(live.routes)
    assert printed.routes == live.routes
    assert printed.unread == live.unread == ()
    # The rules of IPv6 do have addresses, so nothing had to be guessed.
    assert printed.assumed == live.assumed == ()


def test_all_texts_in_one(crossing: Namespace) -> None:
    for option in ("-j", ""):
        text = "".join(many_routes.printed(crossing, *option.split()))
        assert ip_dump.joined([ip_dump.read(text)]) == read_live(crossing)


def test_a_user_without_rights_reads_the_same(crossing: Namespace) -> None:
    def as_nobody() -> int:
        os.setgroups([])
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        return 0 if read_network() == expected else 1

    expected = read_live(crossing)
    with entered(f"/run/netns/{crossing.name}"), Fork(as_nobody) as child:
        assert child.wait() == 0


def test_a_kernel_without_ipv6(crossing: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 was DECnet: no kernel of today has it, and so answers as it would without IPv6."""
    expected = read_live(crossing)
    monkeypatch.setitem(model.ADDRESS_FAMILIES, "ipv6", 12)
    found = read_live(crossing)
    for part in ("addresses", "routes", "rules"):
        assert getattr(found, part) == tuple(
            each for each in getattr(expected, part) if each.family == "ipv4"
        )


def test_a_new_namespace() -> None:
    with Namespace() as namespace:
        live = read_live(namespace)
        assert live == read_printed(namespace, "-j").replace(assumed=())
        assert [(rule.family, rule.priority, rule.text) for rule in live.rules] == [
            ("ipv4", 0, "from all lookup local"),
            ("ipv4", 32766, "from all lookup main"),
            ("ipv4", 32767, "from all lookup default"),
            ("ipv6", 0, "from all lookup local"),
            ("ipv6", 32766, "from all lookup main"),
        ]
        namespace.ip("link set lo down")
        assert read_live(namespace).routes == read_printed(namespace, "-j").routes


def test_ways_that_are_dead_are_not_used(namespace: Namespace) -> None:
    namespace.ip(
        *many_routes.LINKS,
        "route add 20.0.0.0/8 nexthop via 10.88.0.1 dev eth0 nexthop via 10.89.0.1 dev eth1",
        "link set p1 down",
    )
    wait_until(lambda: any(note.startswith("linkdown") for note in read_live(namespace).unread))
    live = read_live(namespace)
    assert by_network(live, Asked("ipv4", "20.0.0.1", uid=5)).keys() == {
        *by_network(live, Asked("ipv4", "10.88.0.9", uid=5)),
        *by_network(live, Asked("ipv4", "10.89.0.9", uid=5)),
    }
    namespace.ip("link set eth1 down")
    live = read_live(namespace)
    assert "dead: the way by eth1 is not used: ip route 20.0.0.0/8 via 10.88.0.1 dev eth0" in live.unread
    asked = Asked("ipv4", "20.0.0.1")
    assert [*by_network(live, asked)] == by_kernel(namespace, [asked])
    for options in ((), ("-j",)):
        printed = read_printed(namespace, *options)
        assert (printed.routes, printed.rules, printed.addresses) == (
            live.routes,
            live.rules,
            live.addresses,
        )
        assert len(printed.unread) == len(live.unread)


def test_a_table_of_twenty_thousand_routes(namespace: Namespace) -> None:
    namespace.ip(*many_routes.LINKS)
    networks = [f"{45 + number // 65536}.{number // 256 % 256}.{number % 256}.0" for number in range(20_000)]
    namespace.ip(
        *(
            f"route add {network}/24 via {'10.88.0.1' if number % 2 else '10.89.0.1'}"
            for number, network in enumerate(networks)
        )
    )
    live = read_live(namespace)
    assert len([route for route in live.routes if route.gateway]) == 20_000
    asked = [Asked("ipv4", network) for network in networks[::1999]]
    answers = by_kernel(namespace, asked)
    assert [[*by_network(live, each)] for each in asked] == [[answer] for answer in answers]
    assert {answer.interface for answer in answers} == {"eth0", "eth1"}


# --- the choice of a route --------------------------------------------------------------------

_DESTINATIONS = {
    "ipv4": (
        *(
            "8.8.8.8",
            "10.88.0.2",
            "10.88.0.3",
            "10.88.0.9",
            "10.88.0.255",
            "10.89.0.7",
            "10.1.1.1",
            "10.1.1.2",
        ),
        *("20.0.0.1", "21.0.0.1", "22.0.0.1", "23.0.0.1", "24.0.0.1", "25.0.0.1", "26.0.0.1", "27.0.0.1"),
        *(
            "27.5.0.1",
            "28.255.255.255",
            "28.0.0.1",
            "29.0.0.1",
            "30.0.0.1",
            "31.0.0.1",
            "32.0.0.1",
            "10.1.1.2",
        ),
        *("34.0.0.1", "40.0.0.1", "41.0.0.1", "42.0.0.1", "169.254.1.1", "169.254.7.7", "198.18.1.1"),
        *("10.1.1.2", "198.18.2.2", "200.0.0.1", "255.255.255.255", "224.0.0.1"),
    ),
    "ipv6": (
        *("2001:db8::1", "fd88::2", "fd88::9", "fd89::5", "fd89::2", "2001:db8:5::9", "2001:db8:20::1"),
        *("2001:db8:21::1", "2001:db8:22::1", "2001:db8:23::1", "2001:db8:24::1", "2001:db8:25::1"),
        *("2001:db8:27::1", "2001:db8:27:5::1", "2001:db8:28::1", "2001:db8:29::1", "2001:db8:30::1"),
        *("2001:db8:34::1", "2001:db8:40::1", "2001:db8:41::1", "2001:db8:42::1", "fd66::1", "fd66::2"),
        *("2002::1", "::ffff:1.2.3.4", "2001:0:1::1", "fec0::1", "c000::1", "fe80::1", "fe80::ff:fe00:10"),
        *("fe80::ff:fe00:20", "3ffe::1", "2001:10::1", "::6"),
    ),
}
#: For packets of one's own only: from another interface they would be dropped, or depend on more than routes.
_OWN_DESTINATIONS = {"ipv4": ("127.0.0.1", "127.1.2.3", "239.1.1.1"), "ipv6": ("::1", "ff02::1", "ff0e::1")}
_SOURCES = {
    "ipv4": ("", "", "10.88.0.2", "10.88.0.3", "10.89.0.2", "10.1.1.1"),
    "ipv6": ("", "", "fd88::2", "fd89::2", "2001:db8:5::2", "fd66::2"),
}
_PEERS = {
    "ipv4": ("9.9.9.9", "10.88.0.77", "10.89.0.77", "200.1.1.1"),
    "ipv6": ("2001:db8:1::1", "fd88::77", "fd89::77", "c000::77"),
}
_MARKS = (0, 0, 1, 5, 6, 7, 8, 0x10, 0x81, 0x539)
_USERS = (0, 4, 9, 77, 1000)


def questions(family: Family, number: int) -> list[Asked]:
    draw = random.Random(f"{family} {number}")
    asked = []
    for _ in range(number):
        interface = draw.choice(("", "", "eth0", "eth1"))
        destinations = _DESTINATIONS[family] + (() if interface else _OWN_DESTINATIONS[family])
        asked.append(
            Asked(
                family,
                draw.choice(destinations),
                draw.choice(_PEERS[family] if interface else _SOURCES[family]),
                draw.choice(_MARKS),
                draw.choice(_USERS),
                interface,
            )
        )
    return asked


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_network_has_the_kernels_routes(crossing: Namespace, family: Family) -> None:
    for name in ("all", "default", "eth0", "eth1"):
        crossing.sysctl(f"net/{family}/conf/{name}/forwarding", 1)
        crossing.sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
    live = read_live(crossing)
    asked = questions(family, 800)
    answers = by_kernel(crossing, asked)
    found = [by_network(live, each) for each in asked]
    wrong = [
        (each, answer, possible)
        for each, answer, possible in zip(asked, answers, found, strict=True)
        if answer not in possible
    ]
    assert wrong == []
    open_ones = [possible for possible in found if len(possible) > 1]
    # Some depend on which of several ways is taken, most do not.
    assert 0 < len(open_ones) < len(asked) / 10
    assert all(
        "nexthop" in about for possible in open_ones for abouts in possible.values() for about in abouts
    )
    assert len({answer.kind for answer in answers}) >= 4


def of_ipv4(network: Network) -> list[object]:
    """Return what does not change by itself, as an IPv6 address does that becomes usable."""
    return [
        *(address for address in network.addresses if address.family == "ipv4"),
        *(route for route in network.routes if route.family == "ipv4"),
        *(rule for rule in network.rules if rule.family == "ipv4"),
    ]


def test_tables_that_are_one_until_there_is_a_rule(namespace: Namespace) -> None:
    """A longer prefix in the table main beats the table local, as long as no rule was ever added."""
    namespace.ip(
        *many_routes.LINKS, "route add local 198.18.0.0/15 dev lo", "route add 198.18.1.0/24 dev eth1"
    )
    asked = Asked("ipv4", "198.18.1.1", "10.88.0.2")
    live = read_live(namespace)
    before = by_kernel(namespace, [asked])
    namespace.ip("rule add pref 5 lookup 50", "rule delete pref 5")
    after = by_kernel(namespace, [asked])
    assert before != after
    assert of_ipv4(read_live(namespace)) == of_ipv4(live)
    found = by_network(live, asked)
    assert found.keys() == {*before, *after}
    assert any("ever" in about for abouts in found.values() for about in abouts)
    # Addresses without such a conflict are certain, and so is all with another rule.
    assert [*by_network(live, asked._replace(destination="198.18.2.1"))] == by_kernel(
        namespace, [asked._replace(destination="198.18.2.1")]
    )
    namespace.ip("rule add pref 5 lookup 50")
    assert [*by_network(read_live(namespace), asked)] == after


_INTERFACES = ("eth0", "eth1")
_SEND = """
import os, socket
os.setgroups([]), os.setresuid(1000, 1000, 1000)
for address, family in (("198.18.0.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)):
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (address, 9))
"""


def test_whose_packets_are_routed_again(namespace: Namespace) -> None:
    """IPv4 routes what netfilter has marked as a packet of root's, IPv6 as one of its user's."""
    namespace.ip(*many_routes.LINKS)
    gateways = {"-4": ("10.88.0.1", "10.89.0.1", "iptables"), "-6": ("fd88::1", "fd89::1", "ip6tables")}
    for option, (near, far, program) in gateways.items():
        commands = (
            *(f"neigh add {at} lladdr 02:00:00:00:00:99 dev eth{n}" for n, at in enumerate((near, far))),
            f"route add default via {near}",
            f"route add default via {far} table 77",
            "rule add pref 50 uidrange 1000-1000 lookup 77",
        )
        namespace.run(["ip", option, "-batch", "-"], stdin="".join(f"{line}\n" for line in commands))
        for interface in _INTERFACES:
            _mangle(namespace, program, "-A POSTROUTING -p udp --dport 9 -o", interface)
    assert _sent(namespace) == {"ipv4": "eth1", "ipv6": "eth1"}
    for _, _, program in gateways.values():
        _mangle(namespace, program, "-A OUTPUT -p udp -j MARK --set-mark 5")
    assert _sent(namespace) == {"ipv4": "eth0", "ipv6": "eth1"}
    live = read_live(namespace)
    for family, destination, second in (("ipv4", "198.18.0.1", "eth0"), ("ipv6", "2001:db8::1", "eth1")):
        packet = Asked(family, destination, mark=5, uid=1000).packet  # type: ignore[arg-type]
        for again, expected in ((False, "eth1"), (True, second)):
            found = live.route(One(), packet, packet.family, again=again)
            assert [routed.interface for part, routed in found if part] == [expected]


def _mangle(namespace: Namespace, program: str, *words: str) -> str:
    return namespace.run([f"{program}-nft", "-t", "mangle", *" ".join(words).split()]).stdout


def _sent(namespace: Namespace) -> dict[str, str]:
    """Send a datagram of either family as user 1000, and return the interface by which each left."""
    namespace.run([sys.executable, "-c", _SEND])
    found = {}
    for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        listed = _mangle(namespace, program, "-v -n -L POSTROUTING -Z").splitlines()
        counted = [line.split() for line in listed if "dpt:9" in line]
        [found[family]] = [word for line in counted if line[0] == "1" for word in line if word in _INTERFACES]
    return found
