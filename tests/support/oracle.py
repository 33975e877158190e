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

from collections.abc import Mapping, Sequence

from tests.support.oracle_settings import Values, boolean, read

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
            values = read(settings, family, dns_servers)
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
        values = read(settings, family, ())
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
    return has_ipv6 and (not has_ipv4 or boolean(settings.get("dual-stack") or "false"))


def _nat(v: Values) -> _Table:
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


def _mangle(v: Values) -> _Table:
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


def _raw(v: Values) -> _Table:
    t = _Table()

    # DNS redirection on, per family that is on
    if not v.dns_is_captured:
        return t

    # 1.
    t.append("OUTPUT", "-j ISTIO_OUTPUT_DNS")

    # 2. per U, then per G
    for owner in [f"--uid-owner {uid}" for uid in v.U] + [f"--gid-owner {gid}" for gid in v.G]:
        # --dns-single-zone is not in SPEC: the agent's queries stay in zone 0, so nothing that comes in may
        # be in zone 1. The owner's rule remains, since the rules after it would put the agent into zone 2.
        zone = "RETURN" if v.dns_single_zone else "CT --zone 1"
        t.append("ISTIO_OUTPUT_DNS", f"-p udp -m udp --dport 53 -m owner {owner} -j {zone}")
        t.append("ISTIO_OUTPUT_DNS", f"-p udp -m udp --sport 15053 -m owner {owner} -j CT --zone 2")

    # 3.
    if v.capture_all_dns:
        t.append("ISTIO_OUTPUT_DNS", "-p udp -m udp --dport 53 -j CT --zone 2")
        if not v.dns_single_zone:
            t.append("PREROUTING", "-j ISTIO_INBOUND")
            t.append("ISTIO_INBOUND", "-p udp -m udp --sport 53 -j CT --zone 1")
    elif v.dns_servers:
        if not v.dns_single_zone:
            t.append("PREROUTING", "-j ISTIO_INBOUND")
        for server in v.dns_servers:
            t.append("ISTIO_OUTPUT_DNS", f"-d {server} -p udp -m udp --dport 53 -j CT --zone 2")
            if not v.dns_single_zone:
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
