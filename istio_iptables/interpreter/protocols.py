"""protocols: the names and numbers of the protocols over IP, and of the types of ICMP messages.

iptables-save prints the names of protocols(5), and its own (xtables_chain_protos in libxtables/xtables.c).
"""

from __future__ import annotations

from ..rules.values import MOST_8, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def _table(text: str) -> Mapping[str, int]:
    """Read pairs of names and numbers."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


#: Source: Debian's /etc/protocols, which is IANA's list.
PROTOCOLS = _table(
    """
    icmp 1 igmp 2 ggp 3 ipencap 4 st 5 tcp 6 egp 8 igp 9 pup 12 udp 17 hmp 20 xns-idp 22 rdp 27 iso-tp4 29
    dccp 33 xtp 36 ddp 37 idpr-cmtp 38 ipv6 41 ipv6-route 43 ipv6-frag 44 idrp 45 rsvp 46 gre 47 esp 50 ah 51
    skip 57 ipv6-icmp 58 icmpv6 58 icmp6 58 ipv6-nonxt 59 ipv6-opts 60 rspf 73 vmtp 81 eigrp 88 ospf 89
    ospfigp 89 ax.25 93 ipip 94 etherip 97 encap 98 pim 103 ipcomp 108 vrrp 112 l2tp 115 isis 124 sctp 132
    fc 133 mh 135 ipv6-mh 135 mobility-header 135 udplite 136 mpls-in-ip 137 manet 138 hip 139 shim6 140
    wesp 141 rohc 142 ethernet 143
    """
)

#: Types of ICMP messages by the names of `iptables -p icmp -h`, those without a code.
ICMP_TYPES = _table(
    """
    echo-reply 0 pong 0 destination-unreachable 3 source-quench 4 redirect 5 echo-request 8 ping 8
    router-advertisement 9 router-solicitation 10 time-exceeded 11 ttl-exceeded 11 parameter-problem 12
    timestamp-request 13 timestamp-reply 14 address-mask-request 17 address-mask-reply 18
    """
)

#: The same for `ip6tables -p icmpv6 -h`.
ICMPV6_TYPES = _table(
    """
    destination-unreachable 1 packet-too-big 2 time-exceeded 3 ttl-exceeded 3 parameter-problem 4
    echo-request 128 ping 128 echo-reply 129 pong 129 router-solicitation 133 router-advertisement 134
    neighbour-solicitation 135 neighbor-solicitation 135 neighbour-advertisement 136
    neighbor-advertisement 136 redirect 137
    """
)


def protocol_number(text: str) -> int:
    """Return the number of a protocol, from its name or number. Raises ValueError if it is not known.

    >>> protocol_number("icmpv6"), protocol_number("47")
    (58, 47)
    """
    found = PROTOCOLS.get(text.lower())
    return number(text, MOST_8) if found is None else found
