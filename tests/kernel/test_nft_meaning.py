"""What rules of nftables mean is what the kernel does: loaded by nft, listed as JSON, met by real packets.

The rule sets are chosen: what other programs write, and what is easily taken for something else.
test_interpreter_truth.py draws whole pods. Below, this tool's native rules are read from JSON, and mean what
they were written to mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from istio_iptables.formats import nft, nft_dump
from istio_iptables.interpreter import nft_expressions, nft_rules
from istio_iptables.interpreter.packet import Packet
from istio_iptables.rules.nftables.translate import translate

from ..support import strategies
from ..support.drawn_packets import packets, values_of
from ..support.interpreter import outcome
from ..support.interpreter import packets as single_packets
from ..support.scratch import KERNEL, Scratch
from ..support.testbed import Setup, Step, Testbed
from ..support.truth import compare
from ..unit.test_translate import ruleset_for

pytestmark = KERNEL

Settings = dict[str, str]

#: Packets of a rule set; some have two more, the answer and a later one.
_PACKETS = 25

#: Rule sets by what they are about, each a script for nft.
RULES: dict[str, str] = {
    "verdict maps": """
        table inet t {
          map named { type inet_service : verdict
            elements = { 80 : drop, 443 : jump marked, 53 : goto marked, 8000 : return, 9000 : continue } }
          chain marked { meta mark set 7; }
          chain out { type filter hook output priority 5
            meta l4proto { tcp, udp } th dport vmap @named
            meta mark set meta mark | 0x100
          }
          chain in { type filter hook prerouting priority -150; policy drop
            ip saddr vmap { 10.0.0.0/8 : accept, 127.0.0.0-127.9.9.9 : accept,
                            198.18.0.0-198.19.0.5 : return }
            meta nfproto ipv6 tcp dport vmap { 80-443 : drop, 444 : accept }
            meta l4proto . th dport vmap { tcp . 22 : accept, udp . 53 : accept }
            meta nfproto ipv6 accept
          }
        }""",
    "concatenations, sets and intervals": """
        table inet t {
          set pairs { type ipv4_addr . inet_proto . inet_service; flags interval
            elements = { 198.18.0.0/16 . tcp . 80-443, 127.0.0.1 . udp . 53, 10.0.0.0/8 . tcp . 22 } }
          set six { type ipv6_addr; flags interval; elements = { 2001:db8::/48, ::1, fd89::2-fd89::9 } }
          set ports { type inet_service; flags interval; elements = { 1-22, 79-81, 8000-8005 } }
          set none { type ipv4_addr; }
          chain out { type filter hook output priority 1
            ip daddr . meta l4proto . th dport @pairs meta mark set meta mark ^ 1
            ip6 daddr @six meta mark set meta mark ^ 2
            ip6 daddr != @six meta mark set meta mark ^ 4
            tcp dport @ports meta mark set meta mark ^ 8
            udp dport != @ports meta mark set meta mark ^ 16
            ip daddr != @none meta mark set meta mark ^ 32
            ip daddr @none drop
            oifname . ip daddr { "eth0" . 198.18.0.1, "lo" . 127.0.0.1 } meta mark set meta mark ^ 64
          }
        }""",
    "translation by maps": """
        table ip t {
          map hosts { type inet_service : ipv4_addr; elements = { 80 : 198.18.0.1, 443 : 127.0.0.1 } }
          map both { type ipv4_addr . inet_service : ipv4_addr . inet_service
            elements = { 198.18.53.1 . 53 : 10.89.0.2 . 8000, 198.19.0.1 . 22 : 198.18.0.1 . 2 } }
          chain out { type nat hook output priority -100
            dnat ip to ip daddr . tcp dport map @both
            meta l4proto udp dnat to udp dport map @hosts
            tcp dport 8000-8005 redirect to :8003-8010
            tcp dport { 9000, 9002 } redirect to :tcp dport map { 9000 : 80, 9002 : 443 }
            udp dport 9004 redirect
          }
          chain in { type nat hook prerouting priority -100
            iifname != "lo" tcp dport vmap { 80 : jump there, 443 : accept }
            tcp dport 53 dnat to :8000
          }
          chain there { ip saddr 198.18.0.0/15 return; tcp dport 80 dnat to 10.89.0.2:8001; }
          chain post { type nat hook postrouting priority 100
            oifname "eth0" ip daddr 198.18.0.0/16 meta l4proto tcp masquerade to :2000
            oifname "eth0" masquerade
            oifname "lo1" ip saddr 127.0.0.0-127.9.9.9 accept
            oifname "lo1" tcp dport 80-443 snat to 10.89.0.9:3000
            oifname "lo1" snat to ip protocol map { udp : 10.89.0.7, icmp : 10.89.0.8 }
            oifname "vm*" snat ip prefix to ip saddr map { 10.0.0.0/8 : 11.0.0.0/8 }
            oifname "lo" meta l4proto udp snat to 10.99.0.1
          }
        }""",
    "marks": """
        table inet t {
          chain out { type route hook output priority -150
            meta mark & 0xff == 0x39 ct mark set meta mark & 0xff | 0x500
            meta mark 1-1337 meta mark set meta mark & 0xffffff0f ^ 0x20
            ct mark & 0xf00 == 0x500 meta mark set ct mark ^ 0x1
            tcp dport 80-443 meta mark set tcp dport map { 80 : 5, 443 : 6 } ct mark set ct mark | 0x1000
            meta mark < 6 ct mark set 9
            ct mark != 9 meta mark != { 5, 6 } ct mark set meta mark
          }
          chain in { type filter hook prerouting priority -150
            ct mark != 0 meta mark set ct mark | 0x10000
            meta mark & 0x10001 == 0x10001 meta mark set meta mark | 0x80000000
          }
        }""",
    "users and what has none": """
        table inet t {
          chain out { type filter hook output priority 0
            meta skuid != 1337 meta mark set meta mark | 1
            meta skuid { 0-999, 1337 } meta mark set meta mark | 2
            meta skgid > 1000 meta mark set meta mark | 4
            skgid 0 skuid 1000 drop
          }
          chain in { type filter hook prerouting priority 0
            meta skuid != 1337 drop
            meta skuid >= 0 drop
          }
        }""",
    "conntrack": """
        table inet t {
          chain raw { type filter hook output priority -300
            ct state invalid meta mark set meta mark | 1
            ct state new,established,related meta mark set meta mark | 2
            udp dport 53 notrack
            ct state untracked meta mark set meta mark | 4
            udp dport 443 ct zone set 7
            ct mark != 5 meta mark set meta mark | 8
          }
          chain out { type filter hook output priority 0
            ct state untracked meta mark set meta mark | 16
            ct state { new, established } ct mark set 3
            ct zone 7 meta mark set meta mark | 32
            ct mark != 4 meta mark set meta mark | 64
            ct direction original meta l4proto tcp ct original proto-dst 80 meta mark set meta mark | 128
            ct state & (new | invalid) == new meta mark set meta mark | 256
            ct original ip daddr 127.0.0.0-127.9.9.9 meta mark set meta mark | 512
            ct protocol tcp ct l3proto ipv4 meta mark set meta mark | 1024
          }
          chain in { type filter hook prerouting priority -160
            ct state invalid drop
            ct state vmap { established : accept, related : accept, new : goto fresh }
          }
          chain fresh { ct direction reply drop; meta mark set meta mark | 0x10000; }
        }""",
    "interfaces, families and types": """
        table inet t {
          chain out { type filter hook output priority 0
            iifname != "lo" meta mark set meta mark | 1
            iif lo drop
            oifname "eth*" meta mark set meta mark | 4
            oif lo meta mark set meta mark | 8
            meta oiftype loopback meta mark set meta mark | 16
            meta protocol ip6 meta mark set meta mark | 32
            fib daddr type local meta mark set meta mark | 64
            fib daddr type != { local, broadcast, multicast } meta mark set meta mark | 128
            fib saddr type local meta mark set meta mark | 256
            ip protocol tcp meta mark set meta mark | 512
            ip6 nexthdr udp meta mark set meta mark | 1024
            meta l4proto { icmp, icmpv6 } meta mark set meta mark | 2048
            icmp type echo-request meta mark set meta mark | 4096
            tcp flags & (fin | syn | rst | ack) == syn meta mark set meta mark | 8192
            ip frag-off & 0x1fff != 0 drop
          }
          chain in { type filter hook prerouting priority 0
            iifname { "eth0", "vm*" } meta mark set meta mark | 1
            fib saddr . iif oif missing meta mark set meta mark | 2
            fib daddr . iif type local meta mark set meta mark | 4
            meta iiftype != loopback meta pkttype host meta mark set meta mark | 8
            iifname . ip saddr { "lo" . 127.0.0.1 } meta mark set meta mark | 16
          }
        }
        table ip t { chain out { type filter hook output priority 1
            @nh,96,32 0x7f000001 meta mark set meta mark | 32768
            @th,16,16 80-443 meta mark set meta mark | 65536
          }
        }""",
    "chains, policies and priorities": """
        table inet late { chain out { type filter hook output priority 10; policy drop
            meta mark & 3 == 3 accept
            tcp dport 80 return
            udp dport 53 goto away
            meta mark set meta mark | 0x40
            accept
          }
          chain away { udp sport 53 accept; }
        }
        table inet soon { chain out { type filter hook output priority 5
            jump deep
            meta mark set meta mark | 1
          }
          chain deep { tcp dport 443 accept; tcp dport 22 return; goto deeper; }
          chain deeper {
            ip saddr 10.88.0.2 tcp dport 8000 reject with tcp reset
            ip saddr 10.88.0.2 udp dport 8000 reject
            meta mark set meta mark | 2
          }
        }
        """,
    "a table that is dormant, which nft 1.0.6 does not say": """
        table inet off { flags dormant
          chain out { type filter hook output priority 0; policy drop; }
        }""",
}


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed() as made:
        yield made


def properties(share: float) -> hypothesis_settings:
    return hypothesis_settings(
        max_examples=max(1, round(share * hypothesis_settings().max_examples)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


def _is_for_one(packet: Packet) -> bool:
    """Tell whether no broadcast address is at either end: the kernel takes them for special, or not."""
    return packet.family != "ipv4" or 0xFF not in (packet.source & 0xFF, packet.destination & 0xFF)


def _has_two_ends(packet: Packet) -> bool:
    """conntrack cannot tell what somebody says to itself."""
    return (packet.source, packet.source_port) != (packet.destination, packet.destination_port)


@properties(0.04)
@given(st.data())
@pytest.mark.parametrize("about", RULES)
def test_packets_go_where_the_rules_say(bed: Testbed, about: str, data: st.DataObject) -> None:
    setup = Setup((Step("nft", RULES[about]), Step("ip", "rule add fwmark 1337 lookup 300\n")))
    try:
        bed.load(setup)
        world = bed.world()
        values = values_of(world)
        for _ in range(_PACKETS):
            packet = data.draw(packets(values).filter(_is_for_one)).replace(packet_type="unicast")
            is_talk = packet.state == "NEW" and packet.has_ports and _has_two_ends(packet)
            talk = is_talk and data.draw(st.booleans())
            for found in compare(bed, world, packet, talk):
                if found.differences:
                    note(bed.saved())
                    pytest.fail(str(found), pytrace=False)
                assert not found.is_unknown or "dormant" in about, str(found)
    finally:
        bed.unload()


# --- this tool's own rules --------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    with Scratch() as made:
        yield made


@properties(0.3)
@given(st.data(), strategies.settings(), strategies.environments())
def test_native_rules_mean_the_same_as_nft_prints_them(
    scratch: Scratch, data: st.DataObject, values: Settings, pod: tuple[bool, bool, list[str]]
) -> None:
    """What nft prints of the tables is read back to mean what they were made of."""
    ipv4, ipv6, servers = pod
    ruleset = ruleset_for(values, ipv4=ipv4, ipv6=ipv6, servers=tuple(servers))
    native = translate(ruleset)
    try:
        scratch.nft(script=nft.script(native))
        dump = nft_dump.parse(scratch.nft("-j", "list", "ruleset"))
        texts = nft_dump.rule_texts(scratch.nft("-a", "list", "ruleset"))
    finally:
        scratch.nft("flush", "ruleset")
    assert not nft_expressions.unread(dump.objects)
    read = {table.name: table for table in nft_expressions.compiled(dump.objects)}
    named = {table.name: table for table in nft_expressions.compiled(dump.objects, texts=texts)}
    assert [*read] == [table.name for table in native]
    for table in native:
        made = nft_rules.compiled(table)
        assert read[table.name].bases == made.bases
        for chain in made.chains:
            own = [rule.text for rule in read[table.name].rules(chain)]
            nfts = [rule.text for rule in named[table.name].rules(chain)]
            # JSON does not show whether `@x` is an interface, which nft quotes, or a set.
            assert own == [re.sub(r'"(@[^"]*)"', r"\1", text) for text in nfts]
        for packet in data.draw(st.lists(single_packets(ruleset), min_size=1, max_size=8)):
            assert outcome([read[table.name]], packet) == outcome([made], packet)
