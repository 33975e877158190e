"""istio: the facts about Istio's sidecar that rules depend on, each of them once.

Ports, marks, the proxy's user, names of chains and tables. The settings take their defaults from here, the
policy its rules, and the readers of live rules tell by them what is owned.
"""

from __future__ import annotations

from . import PROGRAM as PROGRAM
from .model import Cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import TableName

#: The program in the proxy's image that sets up rules as a subcommand, with the same arguments.
AGENT_PROGRAM = "pilot-agent"
#: The comment on rules that could not be told from foreign ones without it.
TAG = PROGRAM

# --- the proxy (istio.io: Ports used by Istio) -----------------------------------------------

#: The user and the group that the sidecar runs as.
PROXY_ID = 1337
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
#: HBONE tunnels.
TUNNEL_PORT = 15008
#: The agent's DNS server.
DNS_AGENT_PORT = 15053
DNS_PORT = 53
#: The port that the validation connects to, on which nothing listens, and how long it may take, in seconds.
PROBE_PORT = 15002
PROBE_SECONDS = 5
ADMIN_PORT = 15000
DEBUG_PORT = 15004
METRICS_PORT = 15020
HEALTH_PORT = 15021
ENVOY_METRICS_PORT = 15090
#: The ports that the sidecar listens on in every pod, and what each is for.
LISTENERS: Mapping[int, str] = {
    ADMIN_PORT: "Envoy's administration",
    DEBUG_PORT: "the agent's debugging",
    METRICS_PORT: "merged metrics and health",
    HEALTH_PORT: "health checks",
    DNS_AGENT_PORT: "the agent's DNS",
    ENVOY_METRICS_PORT: "Envoy's metrics",
}
#: Those of them that Istio's injector always excludes: other pods call them.
SIDECAR_PORTS = (METRICS_PORT, HEALTH_PORT, ENVOY_METRICS_PORT)

#: The addresses that Envoy calls the application from (InboundPassthroughBindIpv4/6).
PASSTHROUGH_IPV4 = Cidr(4, 0x7F000006, 32)
PASSTHROUGH_IPV6 = Cidr(6, 6, 128)

# --- TPROXY ----------------------------------------------------------------------------------

TPROXY_MARK = 1337
TPROXY_ROUTE_TABLE = 133
#: Mark of packets that Envoy's outbound side sends to an address of its own pod.
PROXY_TO_OWN_POD_MARK = 1338

# --- chains and tables -----------------------------------------------------------------------

INBOUND = "ISTIO_INBOUND"
REDIRECT = "ISTIO_REDIRECT"
IN_REDIRECT = "ISTIO_IN_REDIRECT"
OUTPUT = "ISTIO_OUTPUT"
OUTPUT_DNS = "ISTIO_OUTPUT_DNS"
TPROXY = "ISTIO_TPROXY"
DIVERT = "ISTIO_DIVERT"
DROP = "ISTIO_DROP"
#: A chain that only Istio's ambient mode makes, beside an ISTIO_OUTPUT, and how its nftables tables begin.
AMBIENT_CHAIN = "ISTIO_PRERT"
AMBIENT_TABLES = "istio-ambient-"
#: The routing rule that ambient mode adds in a pod: mark, mask, priority and table.
AMBIENT_LOOKUP = (0x111, 0xFFF, 32764, 100)
CHAINS = frozenset({INBOUND, REDIRECT, IN_REDIRECT, OUTPUT, OUTPUT_DNS, TPROXY, DIVERT, DROP})

#: The family of the native nftables tables, and their names by those of the iptables tables that they
#: stand for, in the order in which a packet meets them.
NATIVE_FAMILY = "inet"
NATIVE_TABLES: Mapping[TableName, str] = {
    "raw": "istio-proxy-raw",
    "mangle": "istio-proxy-mangle",
    "nat": "istio-proxy-nat",
}
#: How the name of the table begins that `trace --watch` has for as long as it runs.
TRACE_TABLE = f"{PROGRAM}-trace"
