"""neighbour_rules: Hypothesis strategies for the rules of a pod: ours, and those of others around them.

The rules of docker, kube-proxy, firewalld, ufw and the CNI plugin portmap are those that these programs
write, for the addresses and interfaces of a pod of testbed.py; those of an administrator are any
(admin_iptables.py, admin_nft.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .admin_iptables import by_iptables
from .admin_namespace import routing, sysctls
from .admin_nft import by_nft
from .our_rules import WRITERS, our_rules
from .pod_settings import SERVERS
from .pod_settings import settings as pod_settings
from .strategies import settings as any_settings
from .testbed import Setup, Step

_PORTS = ("80", "443", "8000", "9000", "53")
_POLICIES = st.sampled_from(["ACCEPT", "ACCEPT", "DROP"])


class Names(NamedTuple):
    """Addresses of a family that foreign rules are about."""

    own: str
    gateway: str
    near: str  #: the network of eth0
    bridge: str  #: the network of vm0, which stands for a bridge of containers
    container: str
    loopback: str
    cluster: str  #: the network of pods
    endpoint: str
    service: str
    resolver: str
    empty_service: str
    all_bits: int

    def to(self, address: str, port: str) -> str:
        """Return an address with a port as options of iptables have it."""
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    def one(self, address: str) -> str:
        """Return the network of one address."""
        return f"{address}/{self.all_bits}"


NAMES: Mapping[str, Names] = {
    "ipv4": Names(
        "10.88.0.2",
        "10.88.0.1",
        "10.88.0.0/24",
        "192.168.50.0/24",
        "192.168.50.2",
        "127.0.0.0/8",
        "10.244.0.0/16",
        "10.244.1.5",
        "10.96.0.1",
        "10.96.0.10",
        "10.96.7.7",
        32,
    ),
    "ipv6": Names(
        "fd88::2",
        "fd88::1",
        "fd88::/64",
        "fd50::/64",
        "fd50::2",
        "::1/128",
        "fd00:244::/32",
        "fd00:244::5",
        "fd00:96::1",
        "fd00:96::a",
        "fd00:96::7",
        128,
    ),
}


@st.composite
def docker(draw: DrawFn, of: Names) -> str:
    """dockerd with a published port; vm0 is its bridge."""
    port, inner = draw(st.sampled_from(_PORTS)), draw(st.sampled_from(_PORTS))
    container = of.one(of.container)
    return f"""\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d {of.loopback} -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {of.bridge} ! -o vm0 -j MASQUERADE
-A POSTROUTING -s {container} -d {container} -p tcp -m tcp --dport {inner} -j MASQUERADE
-A DOCKER -i vm0 -j RETURN
-A DOCKER ! -i vm0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {of.to(of.container, inner)}
COMMIT
*filter
:FORWARD {draw(_POLICIES)} [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o vm0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o vm0 -j DOCKER
-A FORWARD -i vm0 ! -o vm0 -j ACCEPT
-A FORWARD -i vm0 -o vm0 -j ACCEPT
-A DOCKER -d {container} ! -i vm0 -o vm0 -p tcp -m tcp --dport {inner} -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i vm0 ! -o vm0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o vm1 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""


@st.composite
def embedded_dns(draw: DrawFn, of: Names) -> str:
    """The resolver that docker puts into a container's namespace."""
    if of.all_bits != 32:
        return ""
    resolver = draw(st.sampled_from(["127.0.0.11", "127.9.9.9"]))
    return f"""\
*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d {resolver}/32 -j DOCKER_OUTPUT
-A POSTROUTING -d {resolver}/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d {resolver}/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination {resolver}:9002
-A DOCKER_OUTPUT -d {resolver}/32 -p udp -m udp --dport 53 -j DNAT --to-destination {resolver}:9004
-A DOCKER_POSTROUTING -s {resolver}/32 -p tcp -m tcp --sport 9002 -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s {resolver}/32 -p udp -m udp --sport 9004 -j SNAT --to-source :53
COMMIT
"""


@st.composite
def kube_proxy(draw: DrawFn, of: Names) -> str:
    """kube-proxy: a service with a node port, a resolver, and a service without endpoints."""
    port, inner, node = (draw(st.sampled_from(_PORTS)) for _ in range(3))
    first = draw(st.sampled_from([of.endpoint, of.container, of.own]))
    balance = (
        "-A KUBE-SVC-WEB -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE\n"
        if draw(st.integers(0, 5)) == 0
        else ""
    )
    fully = draw(st.sampled_from(["", " --random-fully"]))
    return f"""\
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-ONE - [0:0]
:KUBE-SEP-TWO - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SVC-DNS - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE{fully}
-A KUBE-SEP-ONE -s {of.one(first)} -j KUBE-MARK-MASQ
-A KUBE-SEP-ONE -p tcp -m tcp -j DNAT --to-destination {of.to(first, inner)}
-A KUBE-SEP-TWO -s {of.one(of.endpoint)} -j KUBE-MARK-MASQ
-A KUBE-SEP-TWO -p tcp -m tcp -j DNAT --to-destination {of.to(of.endpoint, inner)}
-A KUBE-SERVICES -d {of.one(of.service)} -p tcp -m tcp --dport {port} -j KUBE-SVC-WEB
-A KUBE-SERVICES -d {of.one(of.resolver)} -p udp -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport {node} -j KUBE-SVC-WEB
-A KUBE-SVC-WEB ! -s {of.cluster} -d {of.one(of.service)} -p tcp -m tcp --dport {port} -j KUBE-MARK-MASQ
{balance}-A KUBE-SVC-WEB -j KUBE-SEP-{draw(st.sampled_from(["ONE", "TWO"]))}
-A KUBE-SVC-DNS -p udp -m udp -j DNAT --to-destination {of.to(of.endpoint, "53")}
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
-A KUBE-FIREWALL ! -s {of.loopback} -d {of.loopback} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d {of.one(of.empty_service)} -p tcp -m tcp --dport {port} -j REJECT
COMMIT
"""


@st.composite
def portmap(draw: DrawFn, of: Names) -> str:
    """The CNI plugin portmap with a host port."""
    port, inner = draw(st.sampled_from(_PORTS)), draw(st.sampled_from(_PORTS))
    container = draw(st.sampled_from([of.container, of.endpoint]))
    local = "127.0.0.1/32" if of.all_bits == 32 else "::1/128"
    return f"""\
*nat
:CNI-DN-2c6a8e4 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports {port} -j CNI-DN-2c6a8e4
-A CNI-DN-2c6a8e4 -s {of.bridge} -p tcp -m tcp --dport {port} -j CNI-HOSTPORT-SETMARK
-A CNI-DN-2c6a8e4 -s {local} -p tcp -m tcp --dport {port} -j CNI-HOSTPORT-SETMARK
-A CNI-DN-2c6a8e4 -p tcp -m tcp --dport {port} -j DNAT --to-destination {of.to(container, inner)}
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""


@st.composite
def ufw(draw: DrawFn, of: Names) -> str:
    """ufw: it drops what comes in but for some ports; one of them is limited."""
    port, limited = draw(st.sampled_from(_PORTS)), draw(st.sampled_from(_PORTS))
    limit = ""
    if draw(st.integers(0, 4)) == 0:
        limit = f"""\
-A ufw-user-input -p tcp -m tcp --dport {limited} -m conntrack --ctstate NEW -m recent --set --name DEFAULT
-A ufw-user-input -p tcp -m tcp --dport {limited} -m conntrack --ctstate NEW -m recent --update --seconds 30 \
--hitcount 6 --name DEFAULT -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport {limited} -j ufw-user-limit-accept
"""
    broadcast = "BROADCAST" if of.all_bits == 32 else "ANYCAST"
    icmp = "icmp -m icmp --icmp-type 8" if of.all_bits == 32 else "ipv6-icmp -m icmp6 --icmpv6-type 128"
    return f"""\
*filter
:INPUT DROP [0:0]
:FORWARD {draw(_POLICIES)} [0:0]
:ufw-after-input - [0:0]
:ufw-before-input - [0:0]
:ufw-before-output - [0:0]
:ufw-not-local - [0:0]
:ufw-skip-to-policy-input - [0:0]
:ufw-track-output - [0:0]
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-after-input
-A OUTPUT -j ufw-before-output
-A OUTPUT -j ufw-track-output
-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input
-A ufw-after-input -m addrtype --dst-type {broadcast} -j ufw-skip-to-policy-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p {icmp} -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-before-output -o lo -j ACCEPT
-A ufw-before-output -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-skip-to-policy-input -j DROP
-A ufw-track-output -p tcp -m conntrack --ctstate NEW -j ACCEPT
-A ufw-track-output -p udp -m conntrack --ctstate NEW -j ACCEPT
-A ufw-user-input -p tcp -m tcp --dport {port} -j ACCEPT
-A ufw-user-input -s {of.near} -p udp -m multiport --dports 53,{port} -j ACCEPT
{limit}-A ufw-user-limit -j REJECT
-A ufw-user-limit-accept -j ACCEPT
COMMIT
"""


@st.composite
def firewalld_iptables(draw: DrawFn, of: Names) -> str:
    """firewalld with its backend for iptables."""
    port = draw(st.sampled_from(_PORTS))
    prohibited = "icmp-host-prohibited" if of.all_bits == 32 else "icmp6-adm-prohibited"
    return f"""\
*mangle
:PREROUTING_ZONES - [0:0]
:PRE_public - [0:0]
-A PREROUTING -j PREROUTING_ZONES
-A PREROUTING_ZONES -i eth0 -g PRE_public
-A PREROUTING_ZONES -g PRE_public
COMMIT
*nat
:POSTROUTING_ZONES - [0:0]
:POST_public - [0:0]
-A POSTROUTING -j POSTROUTING_ZONES
-A POSTROUTING_ZONES -o eth0 -g POST_public
-A POSTROUTING_ZONES -g POST_public
COMMIT
*filter
:INPUT_ZONES - [0:0]
:IN_public - [0:0]
:IN_public_allow - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -j INPUT_ZONES
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -j REJECT --reject-with {prohibited}
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -i lo -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A OUTPUT -o lo -j ACCEPT
-A INPUT_ZONES -i eth0 -g IN_public
-A INPUT_ZONES -g IN_public
-A IN_public -j IN_public_allow
-A IN_public -p {"icmp" if of.all_bits == 32 else "ipv6-icmp"} -j ACCEPT
-A IN_public_allow -p tcp -m tcp --dport {port} -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT
COMMIT
"""


@st.composite
def firewalld(draw: DrawFn) -> Step:
    """firewalld with its backend for nftables."""
    port, forwarded = draw(st.sampled_from(_PORTS)), draw(st.sampled_from(_PORTS))
    accepted = draw(st.sampled_from(["mark 0x64", "tcp dport 443", "iifname vm0"]))
    return Step(
        "nft",
        f"""\
table inet firewalld {{
    chain mangle_PREROUTING {{
        type filter hook prerouting priority mangle + 10; policy accept;
        jump mangle_PREROUTING_ZONES
    }}
    chain mangle_PREROUTING_ZONES {{
        iifname "eth0" goto mangle_PRE_public
        goto mangle_PRE_public
    }}
    chain mangle_PRE_public {{
        tcp dport {forwarded} mark set 0x64
    }}
    chain nat_PREROUTING {{
        type nat hook prerouting priority dstnat + 10; policy accept;
        meta nfproto ipv4 meta l4proto tcp mark 0x64 dnat ip to 192.168.50.2:80
        meta nfproto ipv6 meta l4proto tcp mark 0x64 redirect to :80
    }}
    chain nat_OUTPUT {{
        type nat hook output priority -90; policy accept;
    }}
    chain nat_POSTROUTING {{
        type nat hook postrouting priority srcnat + 10; policy accept;
        meta nfproto ipv4 oifname "vm0" masquerade
    }}
    chain filter_INPUT {{
        type filter hook input priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        iifname vmap {{ "eth0" : goto filter_IN_public, "lo1" : goto filter_IN_trusted }}
        ct state invalid drop
        reject with icmpx type admin-prohibited
    }}
    chain filter_IN_public {{
        tcp dport {port} ct state {{ new, untracked }} accept
        meta l4proto {{ icmp, ipv6-icmp }} accept
        reject with icmpx type admin-prohibited
    }}
    chain filter_IN_trusted {{
        accept
    }}
    chain filter_FORWARD {{
        type filter hook forward priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ip6 daddr {{ ::/96, ::ffff:0.0.0.0/96, 2002::/24 }} reject with icmpv6 type addr-unreachable
        {accepted} accept
        ct state invalid drop
        reject with icmpx type admin-prohibited
    }}
    chain filter_OUTPUT {{
        type filter hook output priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        oifname "lo" accept
        ip6 daddr {{ ::/96, ::ffff:0.0.0.0/96, 2002::/24 }} reject with icmpv6 type addr-unreachable
    }}
}}
""",
    )


BY_IPTABLES: Mapping[str, Callable[[Names], SearchStrategy[str]]] = {
    "docker": docker,
    "embedded DNS": embedded_dns,
    "kube-proxy": kube_proxy,
    "portmap": portmap,
    "ufw": ufw,
    "firewalld": firewalld_iptables,
}


# --- altogether -------------------------------------------------------------------------------


#: Settings by which rule sets of ours differ most, and what these are called.
_OF_SETTINGS = {
    "redirect-dns": "DNS",
    "kube-virt-interfaces": "kube-virt",
    "istio-exclude-interfaces": "interfaces",
    "ISTIO_OUTBOUND_OWNER_GROUPS": "owner groups",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "owner groups",
    "compact": "compact",
}
#: All kinds of rules there are.
KINDS = (
    *("REDIRECT", "TPROXY", *WRITERS, *dict.fromkeys(_OF_SETTINGS.values())),
    *(*BY_IPTABLES, "firewalld by nft", "admin", "admin by nft", "routing", "sysctls"),
)


@st.composite
def ours(draw: DrawFn) -> tuple[str, list[Step], list[str]]:
    """The rules of this tool for some settings, who has written them, and what kinds they are of."""
    values = draw(st.sampled_from([pod_settings()] * 4 + [any_settings()]).flatmap(lambda of: of))
    writer = draw(st.sampled_from(WRITERS))
    if writer != "native" and draw(st.integers(0, 3)) == 0:
        values = {**values, "compact": "true"}
    mode = values.get("istio-inbound-interception-mode", "REDIRECT")
    kinds = [writer, mode or "REDIRECT", *(kind for name, kind in _OF_SETTINGS.items() if name in values)]
    return writer, our_rules(values, writer, SERVERS), kinds


@st.composite
def neighbours(draw: DrawFn, variant: str, when: str) -> tuple[str, list[Step]]:
    """The rules of a neighbour and their kind; by iptables mostly of the variant given."""
    kind = draw(st.sampled_from([*BY_IPTABLES, "firewalld by nft", *["admin"] * 6, *["admin by nft"] * 5]))
    if kind == "firewalld by nft":
        return kind, [draw(firewalld())]
    if kind == "admin by nft":
        return kind, [draw(by_nft(f"admin-{when}"))]
    if draw(st.integers(0, 9)) == 0:
        variant = "nft" if variant == "legacy" else "legacy"
    families = draw(st.sampled_from([["ipv4"], ["ipv4", "ipv6"], ["ipv6"]]))
    steps = []
    for family in families:
        text = draw(by_iptables(family) if kind == "admin" else BY_IPTABLES[kind](NAMES[family]))
        steps.append(Step(f"{variant} {family}", text))
    return kind, [step for step in steps if step.text]


@st.composite
def setups(draw: DrawFn) -> Setup:
    """A pod: ours with others before and after, ours alone, or others alone."""
    writer, own, of_own = draw(ours())
    variant = draw(st.sampled_from(["legacy", "nft"])) if writer == "native" else writer
    before, after = draw(st.sampled_from([(0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1)]))
    parts = [draw(neighbours(variant, "before")) for _ in range(before)]
    kinds = []
    if draw(st.integers(0, 7)) or not (before or after):
        parts.append(("", own))
        kinds += of_own
    parts += [draw(neighbours(variant, "after")) for _ in range(after)]
    steps = [step for _, found in parts for step in found]
    ways, variables = draw(routing()), draw(sysctls())
    kinds += [kind for kind, _ in parts if kind]
    kinds += ["routing"] * bool(ways) + ["sysctls"] * bool(variables)
    return Setup((*steps, *ways), draw(st.booleans()), variables, tuple(dict.fromkeys(kinds)))
