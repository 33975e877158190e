"""pod_settings: Hypothesis strategies for settings that concern the packets of a pod (see netns.Pod).

Ports and addresses are few and next to each other, so that what is drawn for packets meets both sides of what
is drawn for settings. For settings of every kind see strategies.py.
"""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .netns import SIDE_LINK, UPLINK, VM_LINKS, WORLD

Settings = dict[str, str]

# --- what there is in a pod -------------------------------------------------------------------

#: In groups of neighbours, so that both sides of a limit are there.
PORTS = (1, 2, 22, 52, 53, 54, 79, 80, 81, 443, 444, *range(7999, 8006), *range(9000, 9020, 2), 65534, 65535)
PROXY_PORTS = (15001, 15006, 15008, 16001, 16006, 16008)
AGENT_PORT = 15053
DIALLED_PORTS = (*PORTS, *PROXY_PORTS, AGENT_PORT)
SERVERS = ("198.18.53.1", "198.18.53.2", "127.0.0.53", "2001:db8:53::1", "2001:db8:53::2")

#: By version: the addresses of the pod, all and those that the client has a way to, and others' addresses.
OWN = {
    4: (UPLINK.ipv4[0], SIDE_LINK.ipv4[0], VM_LINKS[0].ipv4[0]),
    6: (UPLINK.ipv6[0], SIDE_LINK.ipv6[0], VM_LINKS[0].ipv6[0]),
}
FOR_CLIENT = {version: addresses[:2] for version, addresses in OWN.items()}
CLIENT = {4: UPLINK.ipv4[1], 6: UPLINK.ipv6[1]}
OTHERS = {
    4: ["127.0.0.1", "127.9.9.9", "127.0.0.6", "198.18.0.1", "198.18.53.1", "198.18.53.3", "198.19.0.1"],
    6: ["::1", "2001:db8::1", "2001:db8:53::1", "2001:db8:53::3", "2001:db8:19::1"],
}
PLACES = {version: [*OWN[version], CLIENT[version], *OTHERS[version]] for version in (4, 6)}
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}
REACHED = [ipaddress.ip_network(text) for text in (*WORLD, "127.0.0.0/8")]

# --- settings ---------------------------------------------------------------------------------


def lists(members: SearchStrategy[str], most: int = 4) -> SearchStrategy[str]:
    """Members, seldom none: that would switch off what the others are about."""
    several = st.lists(members, min_size=1, max_size=most)
    return st.sampled_from([several, several, several, several, st.just([])]).flatmap(
        lambda of: of.map(",".join)
    )


def ports() -> SearchStrategy[str]:
    """Ports and ranges of PORTS; at times more than one multiport rule takes."""
    pairs = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS))
    ranges = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    single = st.sampled_from(DIALLED_PORTS).map(str)
    return lists(single | single | ranges) | lists(single, 40)


@st.composite
def cidrs(draw: DrawFn) -> str:
    """A CIDR around some address, or all addresses."""
    address = ipaddress.ip_address(draw(st.sampled_from([*PLACES[4], *PLACES[6]])))
    bits = address.max_prefixlen
    prefix = draw(
        st.sampled_from([0, 1, 8, 15, 16, 17, 24, 31, 32, 48, 64, 127, 128]).filter(lambda n: n <= bits)
    )
    return str(ipaddress.ip_interface(f"{address}/{prefix}").network)


def ids() -> SearchStrategy[str]:
    return st.sampled_from(["0", "1000", "1337", "1338", "2000"])


def interfaces() -> SearchStrategy[str]:
    return lists(st.sampled_from(["eth0", "lo1", "vm0", "vm+", "lo", "lo+", "net9", "net+"]), 2)


def switched_on() -> SearchStrategy[str]:
    return st.just("true")


SETTINGS: dict[str, SearchStrategy[str]] = {
    "envoy-port": st.just("16001"),
    "inbound-capture-port": st.just("16006"),
    "inbound-tunnel-port": st.sampled_from(["16008", "53", "80"]),
    "proxy-uid": lists(ids(), 2),
    "proxy-gid": lists(ids(), 2),
    "istio-inbound-interception-mode": st.just("TPROXY"),
    "istio-inbound-ports": ports(),
    "istio-local-exclude-ports": ports(),
    "istio-exclude-interfaces": interfaces() | st.just("+"),
    "istio-service-cidr": lists(cidrs()),
    "istio-service-exclude-cidr": lists(cidrs()),
    "istio-outbound-ports": ports(),
    "istio-local-outbound-ports-exclude": ports(),
    "kube-virt-interfaces": interfaces(),
    "istio-inbound-tproxy-mark": st.sampled_from(["77", "1338"]),
    "istio-inbound-tproxy-route-table": st.just("200"),
    "redirect-dns": switched_on(),
    "capture-all-dns": switched_on(),
    "drop-invalid": switched_on(),
    "ISTIO_OUTBOUND_OWNER_GROUPS": lists(ids(), 3),
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": lists(ids(), 3),
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": st.sampled_from(["127.0.0.0/8", "127.9.0.0/16"]),
}


#: These are about most packets.
OFTEN = (
    "istio-inbound-ports",
    "istio-local-exclude-ports",
    "istio-service-cidr",
    "istio-service-exclude-cidr",
    "istio-outbound-ports",
    "istio-local-outbound-ports-exclude",
    "redirect-dns",
)


@st.composite
def settings(draw: DrawFn) -> Settings:
    """Some settings: with all of them at once nearly nothing would be captured."""
    often, seldom = st.sampled_from([False, True]), st.sampled_from([False, False, False, False, True])
    some = [name for name in sorted(SETTINGS) if draw(often if name in OFTEN else seldom)]
    both = draw(st.sampled_from([{"dual-stack": "true"}, {"dual-stack": "true"}, {}]))
    return {**{name: draw(SETTINGS[name]) for name in some}, **both}
