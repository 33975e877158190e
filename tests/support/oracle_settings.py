"""oracle_settings: from the texts that a user gives to the values in the oracle's rules: SPEC section 2.

Like the oracle, it shares nothing with the product.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# SPEC section 2, the settings that decide which rules there are, and their defaults.
DEFAULTS: dict[str, str] = {
    "envoy-port": "15001",
    "inbound-capture-port": "15006",
    "inbound-tunnel-port": "15008",
    "proxy-uid": "1337",
    # "proxy-gid": the same as proxy-uid, see read()
    "istio-inbound-interception-mode": "REDIRECT",
    "istio-inbound-ports": "*",
    "istio-local-exclude-ports": "",
    "istio-exclude-interfaces": "",
    "istio-service-cidr": "*",
    "istio-service-exclude-cidr": "",
    "istio-outbound-ports": "",
    "istio-local-outbound-ports-exclude": "",
    "kube-virt-interfaces": "",
    "istio-inbound-tproxy-mark": "1337",
    "redirect-dns": "false",
    "capture-all-dns": "false",
    "dns-single-zone": "false",
    "drop-invalid": "false",
    "ISTIO_OUTBOUND_OWNER_GROUPS": "*",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "",
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "127.0.0.1/32",
}

# SPEC section 2: "A list's variable that is set to the empty string is set [...]; an empty variable of any
# other kind (boolean, port, number, duration, mode) counts as not set". These are the other kinds.
NOT_LISTS: frozenset[str] = frozenset(
    {
        "envoy-port",
        "inbound-capture-port",
        "inbound-tunnel-port",
        "istio-inbound-interception-mode",
        "istio-inbound-tproxy-mark",
        "istio-inbound-tproxy-route-table",
        "redirect-dns",
        "capture-all-dns",
        "dns-single-zone",
        "drop-invalid",
        "dual-stack",
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
    }
)

# SPEC section 2, the settings that have no influence on the rules of a given set of families.
NOT_ABOUT_RULES: frozenset[str] = frozenset(
    {
        "istio-inbound-tproxy-route-table",  # routes, not rules: see commands()
        "dual-stack",  # decides whether IPv6 is on, and that is an argument of expected(): see ipv6_is_on()
        "dry-run",
        "skip-rule-apply",
        "prove",
        "run-validation",
        "iptables-probe-port",
        "probe-timeout",
        "network-namespace",
        "cni-mode",
        "reconcile",
        "force-apply",
        "force-iptables-binary",
        "log_output_level",
        "log_as_json",
        "log_target",
        "log_caller",
        "log_stacktrace_level",
        "DRY_RUN_FILE_PATH",
    }
)


@dataclass(frozen=True)
class Values:
    P: int
    Z: int
    E: int
    U: list[int]
    G: list[int]
    L: str
    S: str
    M: int
    any_address: str
    tproxy: bool
    b_ports: list[str]  # ["*"]: all
    d_ports: list[str]
    q_ports: list[str]
    o_ports: list[str]
    c_interfaces: list[str]
    k_interfaces: list[str]
    i_is_all: bool
    i_names_loopback: bool
    i_cidrs: list[str]  # of the family
    x_cidrs: list[str]  # of the family
    owner_groups: list[str]  # ["*"]: all
    owner_groups_exclude: list[str]
    dns_is_captured: bool  # in both families
    capture_all_dns: bool
    dns_single_zone: bool
    drop_invalid: bool
    dns_servers: list[str]  # of the family


def read(settings: Mapping[str, str], family: str, dns_servers: Sequence[str]) -> Values:
    unknown = set(settings) - set(DEFAULTS) - NOT_ABOUT_RULES - {"proxy-gid"}
    if unknown:
        raise KeyError(f"no such settings: {sorted(unknown)}")
    text = {**DEFAULTS, **{name: value for name, value in settings.items() if value or name not in NOT_LISTS}}
    # SPEC section 2, defaults of --proxy-uid and --proxy-gid: 1337, "same as -u". A list without members is
    # the default, as in the original: SPEC section 3 wants its rules, and a proxy that is not exempt loops.
    if not _members(text["proxy-uid"]):
        text["proxy-uid"] = DEFAULTS["proxy-uid"]
    if not _members(text.get("proxy-gid", "")):
        text["proxy-gid"] = text["proxy-uid"]

    all_i_members = _members(text["istio-service-cidr"])
    i_is_all = all_i_members == ["*"]
    i_members = [] if i_is_all else all_i_members

    # SPEC section 2: "`--redirect-dns` without any server of either family and without `--capture-all-dns`
    # captures no DNS [...]: the rules are then exactly those without `--redirect-dns`". "One server of one
    # family is enough for it to be on, in both families": so all servers count here, not those of `family`.
    capture_all_dns = boolean(text["capture-all-dns"])

    return Values(
        P=int(text["envoy-port"]),
        Z=int(text["inbound-capture-port"]),
        E=int(text["inbound-tunnel-port"]),
        U=[int(member) for member in _members(text["proxy-uid"])],
        G=[int(member) for member in _members(text["proxy-gid"])],
        L=_network(text["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"]) if family == "ipv4" else "::1/128",
        S="127.0.0.6/32" if family == "ipv4" else "::6/128",
        M=int(text["istio-inbound-tproxy-mark"], base=0),
        any_address="0.0.0.0" if family == "ipv4" else "::",
        tproxy=text["istio-inbound-interception-mode"].strip() == "TPROXY",
        b_ports=_ports(text["istio-inbound-ports"]),
        d_ports=_ports(text["istio-local-exclude-ports"]),
        q_ports=_ports(text["istio-outbound-ports"]),
        o_ports=_ports(text["istio-local-outbound-ports-exclude"]),
        c_interfaces=_members(text["istio-exclude-interfaces"]),
        k_interfaces=_members(text["kube-virt-interfaces"]),
        i_is_all=i_is_all,
        i_names_loopback=any(_is_loopback(member) for member in i_members),
        i_cidrs=_networks(i_members, family),
        x_cidrs=_networks(_members(text["istio-service-exclude-cidr"]), family),
        owner_groups=_groups(text["ISTIO_OUTBOUND_OWNER_GROUPS"]),
        owner_groups_exclude=_groups(text["ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"]),
        dns_is_captured=boolean(text["redirect-dns"]) and (capture_all_dns or bool(dns_servers)),
        capture_all_dns=capture_all_dns,
        dns_single_zone=boolean(text["dns-single-zone"]),
        drop_invalid=boolean(text["drop-invalid"]),
        dns_servers=_networks(dns_servers, family),
    )


def _members(text: str) -> list[str]:
    """Comma separated; blanks around members do not count, empty members are dropped, duplicates stay."""
    return [member.strip() for member in text.split(",") if member.strip()]


def boolean(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f"not a boolean: {text!r}")


def _ports(text: str) -> list[str]:
    return [member if member == "*" else _port(member) for member in _members(text)]


def _port(member: str) -> str:
    """`80`, `8000-8100` or `8000:8100`."""
    first, _, last = member.replace("-", ":").partition(":")
    if last and int(last) != int(first):
        return f"{int(first)}:{int(last)}"
    return f"{int(first)}"


def _groups(text: str) -> list[str]:
    return [member if member == "*" else f"{int(member)}" for member in _members(text)]


def _networks(members: Iterable[str], family: str) -> list[str]:
    version = 4 if family == "ipv4" else 6
    return [_network(member) for member in members if ipaddress.ip_interface(member).version == version]


def _network(member: str) -> str:
    """A bare address is its host route, host bits are cleared; printed as inet_ntop prints it."""
    network = ipaddress.ip_interface(member).network
    af = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(af, network.network_address.packed)}/{network.prefixlen}"


def _is_loopback(member: str) -> bool:
    """The address as written, before host bits are cleared: in 127.0.0.0/8, or ::1."""
    address = ipaddress.ip_interface(member).ip
    return address in ipaddress.ip_network("127.0.0.0/8") or address == ipaddress.ip_address("::1")
