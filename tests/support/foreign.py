"""foreign: rules of another program, which have to keep their places and counters."""

from __future__ import annotations

from ..support.scratch import (
    Family,
)


def foreign_rules(family: Family) -> str:
    """Rules of another program, with counters, in all tables and with names like those of istio-iptables."""
    network = "10.3.0.0/16" if family == "ipv4" else "fd03::/16"
    return f"""\
*raw
[1:100] -A PREROUTING -d {network} -j CT --notrack
COMMIT
*mangle
:ISTIOLIKE - [0:0]
[2:200] -A PREROUTING -i eth1 -j RETURN
[3:300] -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
[4:400] -A ISTIOLIKE -m comment --comment "ISTIO_OUTPUT -j ISTIO_OUTPUT" -j RETURN
[5:500] -A OUTPUT -j ISTIOLIKE
COMMIT
*nat
:ISTIOLIKE - [0:0]
:KUBE-SERVICES - [0:0]
[6:600] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[7:700] -A OUTPUT -m comment --comment "about istio-iptables and more" -j ISTIOLIKE
[8:800] -A OUTPUT -p tcp -m tcp --dport 1:1023 -m limit --limit 5/sec -j RETURN
[9:900] -A POSTROUTING -s {network} -j MASQUERADE
[10:1000] -A ISTIOLIKE -m comment --comment "quote \\" and \\\\" -j RETURN
[11:1100] -A KUBE-SERVICES -d {network} -j ISTIOLIKE
COMMIT
*filter
:ISTIO_OUTPUT - [0:0]
[12:1200] -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
[13:1300] -A FORWARD -m comment --comment istio-iptables -j DROP
[14:1400] -A OUTPUT -j ISTIO_OUTPUT
[15:1500] -A ISTIO_OUTPUT -j RETURN
COMMIT
"""


#: The same as nftables tables, some with names like those of istio-iptables.
FOREIGN = """\
table inet mine {
	set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }
	chain istio-output { counter packets 3 bytes 300 comment "istio-proxy-nat"; }
	chain output { type filter hook output priority -150; ip daddr @s counter jump istio-output; }
}
table ip istio-proxy-nat { chain istio-output { counter packets 5 bytes 500; }; }
table inet istio-proxy { chain prerouting { type nat hook prerouting priority -100; counter; }; }
table inet istio-proxy-nat-2 { chain istio-inbound { counter packets 7 bytes 700; }; }
"""
