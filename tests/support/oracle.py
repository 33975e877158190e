"""oracle: what the rules must be, written down a second time: SPEC section 3 as plain text, line by line.

This file is deliberately not built like the product and shares nothing with it. Read it side by side with
SPEC section 3: the step numbers in the comments are SPEC's. A rule is a string in the form in which
`iptables-save` / `ip6tables-save` of iptables 1.8.9 prints it (every kind of rule here was loaded into a
kernel and read back; tests/kernel/test_oracle.py does it again). That printed form is:

* `[!] -s`, `[!] -d`, `-i`, `-o`, `-p`, then the matches in the order in which they were given, then `-j`;
* `--dport` and `--sport` are preceded by `-m tcp` / `-m udp`; a range is `8000:8100`, `80-80` is `80`;
* an address always has its mask, with the host bits cleared; a `/0` network is not printed at all;
  IPv6 addresses are in glibc's compressed form (`::ffff:10.0.0.0/104`, `::0.1.0.0/112`);
* interface `+` (any) is not printed at all; other wildcards are printed as given;
* marks are hexadecimal; `--set-mark M` is `--set-xmark 0xM/0xffffffff`; `--save-mark` and `--restore-mark`
  have `--nfmask 0xffffffff --ctmask 0xffffffff`;
* TPROXY is `--on-port`, `--on-ip` (`0.0.0.0` or `::`), `--tproxy-mark`;
* `--comment istio-iptables` is without quotes.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# SPEC section 2, the settings that decide which rules there are, and their defaults.
DEFAULTS: dict[str, str] = {
    "envoy-port": "15001",
    "inbound-capture-port": "15006",
    "inbound-tunnel-port": "15008",
    "proxy-uid": "1337",
    # "proxy-gid": the same as proxy-uid, see _read()
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

# "Rules that sit in a built-in chain and do not jump to an ISTIO_ chain": the last match of the rule.
COMMENT = "-m comment --comment istio-iptables"


def expected(
    settings: Mapping[str, str], *, ipv4: bool = True, ipv6: bool, dns_servers: Sequence[str] = ()
) -> dict[tuple[str, str], list[str]]:
    """The rules for `settings`: (family, table) -> lines of iptables-save, chains sorted by name.

    A table without a rule has no entry.
    """
    result: dict[tuple[str, str], list[str]] = {}
    for family, is_on in (("ipv4", ipv4), ("ipv6", ipv6)):
        if is_on:
            values = _read(settings, family, dns_servers)
            for name, table in (("nat", _nat(values)), ("mangle", _mangle(values)), ("raw", _raw(values))):
                if lines := table.lines():
                    result[family, name] = lines
    return result


def commands(settings: Mapping[str, str], *, ipv4: bool = True, ipv6: bool) -> list[str]:
    """SPEC section 3, "Beside the rules": the `ip` commands, in the order of SPEC's sentence, IPv4 first."""
    found: list[str] = []
    mark = int(settings.get("istio-inbound-tproxy-mark") or "1337", base=0)
    table = int(settings.get("istio-inbound-tproxy-route-table") or "133", base=0)
    for option, family, is_on in (("", "ipv4", ipv4), (" -6", "ipv6", ipv6)):
        values = _read(settings, family, ())
        # "TPROXY with -b not empty needs ... per family that is on"
        if is_on and values.tproxy and values.b_ports:
            found.append(f"ip{option} rule add fwmark {mark} lookup {table}")
            found.append(f"ip{option} route add local default dev lo table {table}")
    # "IPv6 on needs", whatever else is set
    if ipv6:
        found.append("ip -6 addr add ::6/128 dev lo nodad")
    return found


def ipv6_is_on(settings: Mapping[str, str], *, has_ipv4: bool, has_ipv6: bool) -> bool:
    """SPEC section 2, "Facts read from the pod". `has_ipv4`, `has_ipv6`: a usable address of that family.

    "IPv6 is on if there is a usable IPv6 address and no usable IPv4 one, or with --dual-stack if any usable
    address is IPv6; IPv4 rules are always made."
    """
    return has_ipv6 and (not has_ipv4 or _boolean(settings.get("dual-stack") or "false"))


def _nat(v: _Values) -> _Table:
    t = _Table()

    # 1. per -c interface (the same pair in mangle: see there)
    for name in v.c_interfaces:
        t.append("PREROUTING", f"{_in(name)} {COMMENT} -j RETURN")
        t.append("OUTPUT", f"{_out(name)} {COMMENT} -j RETURN")

    # 2. per -k interface: insert at the head of PREROUTING
    for name in v.k_interfaces:
        t.insert("PREROUTING", f"{_in(name)} {COMMENT} -j RETURN")

    # 3.
    t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {v.E} -j RETURN")

    # 4.
    t.append("ISTIO_REDIRECT", f"-p tcp -j REDIRECT --to-ports {v.P}")

    # 5.
    t.append("ISTIO_IN_REDIRECT", f"-p tcp -j REDIRECT --to-ports {v.Z}")

    # 6. -b not empty, REDIRECT mode
    if v.b_ports and not v.tproxy:
        t.append("PREROUTING", "-p tcp -j ISTIO_INBOUND")
        if v.b_ports == ["*"]:
            for port in v.d_ports:
                t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {port} -j RETURN")
            t.append("ISTIO_INBOUND", "-p tcp -j ISTIO_IN_REDIRECT")
        else:
            for port in v.b_ports:
                t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {port} -j ISTIO_IN_REDIRECT")

    # 7.
    t.append("OUTPUT", "-j ISTIO_OUTPUT")

    # 8. per -o port
    for port in v.o_ports:
        t.append("ISTIO_OUTPUT", f"-p tcp -m tcp --dport {port} -j RETURN")
        t.append("ISTIO_OUTPUT", f"-p udp -m udp --dport {port} -j RETURN")

    # 9.
    t.append("ISTIO_OUTPUT", f"-s {v.S} -o lo -j RETURN")

    # 10. per U, three rules ("with DNS redirection": on in both families, whichever has servers)
    for uid in v.U:
        # a.
        ports = f"-m multiport ! --dports 53,{v.E}" if v.dns_is_captured else f"-m tcp ! --dport {v.E}"
        owner = f"-m owner --uid-owner {uid}"
        t.append("ISTIO_OUTPUT", f"! -d {v.L} -o lo -p tcp {ports} {owner} -j ISTIO_IN_REDIRECT")
        # b. unless -i names a CIDR that is a loopback address
        if not v.i_names_loopback:
            not_dns = "-p tcp -m tcp ! --dport 53" if v.dns_is_captured else ""
            t.append("ISTIO_OUTPUT", f"-o lo {not_dns} -m owner ! --uid-owner {uid} -j RETURN")
        # c.
        t.append("ISTIO_OUTPUT", f"{owner} -j RETURN")
    # 10. per G, the same three with --gid-owner
    for gid in v.G:
        # a. ("with DNS redirection, for UIDs only": never multiport here)
        ports = f"-m tcp ! --dport {v.E}"
        owner = f"-m owner --gid-owner {gid}"
        t.append("ISTIO_OUTPUT", f"! -d {v.L} -o lo -p tcp {ports} {owner} -j ISTIO_IN_REDIRECT")
        # b.
        if not v.i_names_loopback:
            not_dns = "-p tcp -m tcp ! --dport 53" if v.dns_is_captured else ""
            t.append("ISTIO_OUTPUT", f"-o lo {not_dns} -m owner ! --gid-owner {gid} -j RETURN")
        # c.
        t.append("ISTIO_OUTPUT", f"{owner} -j RETURN")

    # 11. owner groups (a list without members: one rule without a match)
    if v.owner_groups == ["*"]:
        for group in v.owner_groups_exclude:
            t.append("ISTIO_OUTPUT", f"-m owner --gid-owner {group} -j RETURN")
    else:
        matches = " ".join(f"-m owner ! --gid-owner {group}" for group in v.owner_groups)
        t.append("ISTIO_OUTPUT", f"{matches} -j RETURN")

    # 12. DNS redirection (per family; only if all DNS is captured or that family has servers)
    if v.dns_is_captured and (v.capture_all_dns or v.dns_servers):
        t.append("ISTIO_OUTPUT", "-j ISTIO_OUTPUT_DNS")
        for proto in ("tcp", "udp"):
            to_agent = f"-p {proto} -m {proto} --dport 53 -j REDIRECT --to-ports 15053"
            if v.capture_all_dns:
                t.append("ISTIO_OUTPUT_DNS", to_agent)
            else:
                for server in v.dns_servers:
                    t.append("ISTIO_OUTPUT_DNS", f"-d {server} {to_agent}")

    # 13.
    t.append("ISTIO_OUTPUT", f"-d {v.L} -j RETURN")
    for cidr in v.x_cidrs:
        t.append("ISTIO_OUTPUT", f"{_to(cidr)} -j RETURN")
    for port in v.q_ports:
        t.append("ISTIO_OUTPUT", f"-p tcp -m tcp --dport {port} -j ISTIO_REDIRECT")

    # 14.
    if v.i_is_all:
        t.append("ISTIO_OUTPUT", "-j ISTIO_REDIRECT")
        for name in v.k_interfaces:
            t.insert("PREROUTING", f"{_in(name)} -j ISTIO_REDIRECT")
    else:
        for cidr in v.i_cidrs:
            for name in v.k_interfaces:
                t.insert("PREROUTING", f"{_to(cidr)} {_in(name)} -j ISTIO_REDIRECT")
            t.append("ISTIO_OUTPUT", f"{_to(cidr)} -j ISTIO_REDIRECT")

    return t


def _mangle(v: _Values) -> _Table:
    t = _Table()
    mark = f"{v.M:#x}"
    established = "-m conntrack --ctstate RELATED,ESTABLISHED"

    # 1. the -c pairs (TPROXY mode)
    if v.tproxy:
        for name in v.c_interfaces:
            t.append("PREROUTING", f"{_in(name)} {COMMENT} -j RETURN")
            t.append("OUTPUT", f"{_out(name)} {COMMENT} -j RETURN")

    # 2. --drop-invalid (any mode)
    if v.drop_invalid:
        t.append("PREROUTING", "-m conntrack --ctstate INVALID -j ISTIO_DROP")
        t.append("ISTIO_DROP", "-j DROP")

    if not v.tproxy:
        return t

    # 3 to 8, only if -b is not empty (but 6 always)
    if v.b_ports:
        # 3.
        t.append("ISTIO_DIVERT", f"-j MARK --set-xmark {mark}/0xffffffff")
        t.append("ISTIO_DIVERT", "-j ACCEPT")

        # 4.
        to_envoy = f"--on-port {v.Z} --on-ip {v.any_address} --tproxy-mark {mark}/0xffffffff"
        t.append("ISTIO_TPROXY", f"! -d {v.L} -p tcp -j TPROXY {to_envoy}")

        # 5.
        t.append("PREROUTING", "-p tcp -j ISTIO_INBOUND")

    # 6. ISTIO_INBOUND begins with (with -b empty the three rules are still there, nothing jumps to them)
    t.append("ISTIO_INBOUND", f"-p tcp -m mark --mark {mark} -j RETURN")
    t.append("ISTIO_INBOUND", f"-s {v.S} -i lo -p tcp -j RETURN")
    t.append("ISTIO_INBOUND", f"-i lo -p tcp -m mark ! --mark {1338:#x} -j RETURN")

    if v.b_ports == ["*"]:
        # 7. -b *
        for port in v.d_ports:
            t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {port} -j RETURN")
        t.append("ISTIO_INBOUND", f"-p tcp {established} -j ISTIO_DIVERT")
        t.append("ISTIO_INBOUND", "-p tcp -j ISTIO_TPROXY")
    else:
        # 8. -b list
        for port in v.b_ports:
            t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {port} {established} -j ISTIO_DIVERT")
            t.append("ISTIO_INBOUND", f"-p tcp -m tcp --dport {port} -j ISTIO_TPROXY")

    # 9. always in TPROXY mode
    whole = "--nfmask 0xffffffff --ctmask 0xffffffff"
    t.append("PREROUTING", f"-p tcp -m mark --mark {mark} {COMMENT} -j CONNMARK --save-mark {whole}")
    t.append("OUTPUT", f"-o lo -p tcp -m mark --mark {mark} {COMMENT} -j RETURN")
    set_1338 = f"MARK --set-xmark {1338:#x}/0xffffffff"
    for owner in [f"--uid-owner {uid}" for uid in v.U] + [f"--gid-owner {gid}" for gid in v.G]:
        t.append("OUTPUT", f"! -d {v.L} -o lo -p tcp -m owner {owner} {COMMENT} -j {set_1338}")
    t.append("OUTPUT", f"-p tcp -m connmark --mark {mark} {COMMENT} -j CONNMARK --restore-mark {whole}")

    return t


def _raw(v: _Values) -> _Table:
    t = _Table()

    # DNS redirection on, per family that is on
    if not v.dns_is_captured:
        return t

    # 1.
    t.append("OUTPUT", "-j ISTIO_OUTPUT_DNS")

    # 2. per U, then per G
    for owner in [f"--uid-owner {uid}" for uid in v.U] + [f"--gid-owner {gid}" for gid in v.G]:
        t.append("ISTIO_OUTPUT_DNS", f"-p udp -m udp --dport 53 -m owner {owner} -j CT --zone 1")
        t.append("ISTIO_OUTPUT_DNS", f"-p udp -m udp --sport 15053 -m owner {owner} -j CT --zone 2")

    # 3.
    if v.capture_all_dns:
        t.append("PREROUTING", "-j ISTIO_INBOUND")
        t.append("ISTIO_OUTPUT_DNS", "-p udp -m udp --dport 53 -j CT --zone 2")
        t.append("ISTIO_INBOUND", "-p udp -m udp --sport 53 -j CT --zone 1")
    elif v.dns_servers:
        t.append("PREROUTING", "-j ISTIO_INBOUND")
        for server in v.dns_servers:
            t.append("ISTIO_OUTPUT_DNS", f"-d {server} -p udp -m udp --dport 53 -j CT --zone 2")
            t.append("ISTIO_INBOUND", f"-s {server} -p udp -m udp --sport 53 -j CT --zone 1")

    return t


# --- a table, and the printed form of a match that may be printed as nothing ---


class _Table:
    def __init__(self) -> None:
        self._chains: dict[str, list[str]] = {}

    def append(self, chain: str, rule: str) -> None:
        """`-A CHAIN`."""
        self._chains.setdefault(chain, []).append(_line(chain, rule))

    def insert(self, chain: str, rule: str) -> None:
        """`-I CHAIN 1`."""
        self._chains.setdefault(chain, []).insert(0, _line(chain, rule))

    def lines(self) -> list[str]:
        return [line for chain in sorted(self._chains) for line in self._chains[chain]]


def _line(chain: str, rule: str) -> str:
    return " ".join(f"-A {chain} {rule}".split())


def _in(interface: str) -> str:
    return "" if interface == "+" else f"-i {interface}"


def _out(interface: str) -> str:
    return "" if interface == "+" else f"-o {interface}"


def _to(cidr: str) -> str:
    return "" if cidr.endswith("/0") else f"-d {cidr}"


# --- from the texts that a user gives to values (SPEC section 2) ---


@dataclass(frozen=True)
class _Values:
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
    drop_invalid: bool
    dns_servers: list[str]  # of the family


def _read(settings: Mapping[str, str], family: str, dns_servers: Sequence[str]) -> _Values:
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
    capture_all_dns = _boolean(text["capture-all-dns"])

    return _Values(
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
        dns_is_captured=_boolean(text["redirect-dns"]) and (capture_all_dns or bool(dns_servers)),
        capture_all_dns=capture_all_dns,
        drop_invalid=_boolean(text["drop-invalid"]),
        dns_servers=_networks(dns_servers, family),
    )


def _members(text: str) -> list[str]:
    """Comma separated; blanks around members do not count, empty members are dropped, duplicates stay."""
    return [member.strip() for member in text.split(",") if member.strip()]


def _boolean(text: str) -> bool:
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


# --- reading what iptables-save printed ---


def by_chain(lines: Iterable[str]) -> dict[str, list[str]]:
    """Lines of one table (`-A CHAIN …`) by chain; chains sorted by name, order within a chain kept."""
    chains: dict[str, list[str]] = {}
    for line in lines:
        chains.setdefault(line.split()[1], []).append(line)
    return {chain: chains[chain] for chain in sorted(chains)}


def normalise_save(text: str) -> dict[str, list[str]]:
    """What iptables-save or ip6tables-save printed, legacy or nft: table -> lines, grouped as by expected().

    Counters, chain declarations, `#` lines and tables without rules are dropped; the order within one chain
    is kept. The rule lines of the legacy and the nft variant of 1.8.9 are the same to the letter for every
    rule of SPEC section 3, so no rule is rewritten here. Their outputs differ only in what plays no role here
    anyway: the header (`# Generated by iptables-save v1.8.9` / `# Generated by iptables-nft-save v1.8.9
    (nf_tables)`), the order of the tables, and empty tables (legacy prints every table that was ever touched
    in the namespace, if only by listing it; nft prints those that exist).
    """
    tables: dict[str, list[str]] = {}
    table = ""
    for raw_line in text.splitlines():
        line = re.sub(r"^\[\d+:\d+\] ", "", raw_line.strip())
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            tables.setdefault(table, []).append(line)
    return {table: _grouped(tables[table]) for table in sorted(tables)}


def _grouped(lines: Iterable[str]) -> list[str]:
    return [line for chain in by_chain(lines).values() for line in chain]


def declared_chains(text: str) -> dict[str, list[str]]:
    """User chains (`:NAME - [0:0]`) of an iptables-save output: table -> sorted names.

    A table without user chains has no entry.
    """
    tables: dict[str, list[str]] = {}
    table = ""
    for raw_line in text.splitlines():
        line = raw_line.strip()
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            if policy == "-":
                tables.setdefault(table, []).append(name)
    return {table: sorted(tables[table]) for table in sorted(tables)}
