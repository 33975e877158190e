"""admin_iptables: Hypothesis strategies for any rules of iptables that an administrator may write by hand.

They are made of the matches and targets that the interpreter knows, wherever the kernel allows these, and a
few that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .admin_values import (
    IDS,
    INTERFACES,
    MARKS,
    MASKS,
    NETWORKS,
    PORTS,
    SOURCES,
    TARGETS,
    seldom,
    some,
    with_port,
)
from .testbed import lines

#: The chains that packets of one kind meet, by table.
_CHAINS: Mapping[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
_FINAL = "-j REJECT"


@st.composite
def by_iptables(draw: DrawFn, family: str) -> str:
    """Rules in two to four tables, some of them in a chain of their own."""
    script = []
    tables = draw(st.lists(st.sampled_from(sorted(_CHAINS)), min_size=2, max_size=4, unique=True))
    for table in tables:
        own: dict[str, list[str]] = {}
        rules = []
        for chain in draw(st.lists(st.sampled_from(_CHAINS[table]), min_size=1, max_size=3, unique=True)):
            for _ in range(draw(st.integers(2, 5))):
                matches = draw(iptables_matches(family, table, chain))
                if table != "raw" and draw(st.integers(0, 3)) == 0:
                    name = f"ADMIN_{chain}"
                    if name not in own:
                        inner = st.lists(iptables_rules(family, table, chain), min_size=1, max_size=3)
                        own[name] = [f"-A {name} {rule}" for rule in draw(inner)]
                    target = f"{draw(st.sampled_from(['-j', '-j', '-g']))} {name}"
                else:
                    target = draw(iptables_targets(family, table, chain, matches))
                where = draw(st.sampled_from(["-A", "-A", "-I"]))
                rules.append(f"{where} {chain} {matches} {target}")
        policies = [f":{draw(st.sampled_from(_CHAINS[table]))} DROP [0:0]"] * (draw(st.integers(0, 9)) == 9)
        chains = [f":{name} - [0:0]" for name in own]
        inner_rules = [rule for found in own.values() for rule in found]
        if table == "nat":
            policies = []
        script += [f"*{table}", *policies, *chains, *inner_rules, *rules, "COMMIT"]
    return lines(script)


@st.composite
def iptables_rules(draw: DrawFn, family: str, table: str, chain: str) -> str:
    """A rule without the name of its chain."""
    matches = draw(iptables_matches(family, table, chain))
    return f"{matches} {draw(iptables_targets(family, table, chain, matches))}"


@st.composite
def iptables_matches(draw: DrawFn, family: str, table: str, chain: str) -> str:
    """None to three matches that the kernel allows in a chain."""
    protocol = draw(st.sampled_from(["", "", "-p tcp", "-p tcp", "-p udp", "! -p tcp"]))
    parts = [protocol]
    if protocol.startswith("-p"):
        parts.append(draw(st.just("") | _port_matches(protocol[3:])))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        parts.append(draw(_other_matches(family, table, chain)))
    found: dict[str, str] = {}
    for part in parts:  # -s, -d, -i and -o may be there once
        words = part.removeprefix("! ").split()
        found.setdefault(words[0] if words and words[0] != "-m" else part, part)
    return " ".join(part for part in found.values() if part)


@st.composite
def _port_matches(draw: DrawFn, protocol: str) -> str:
    negation = draw(st.sampled_from(["", "", "! "]))
    port, other = draw(some(PORTS)), draw(some(PORTS))
    both = sorted((int(port), int(other)))
    what = draw(st.integers(0, 6))
    if what == 0:
        return f"-m multiport {negation}--dports {port},{both[0]}:{both[1] + 1}"
    if what == 1:
        return f"-m multiport {negation}--ports {port},{other}"
    if what == 2:
        return f"-m {protocol} {negation}--sport {draw(some(('53', '40000', '40000:65535', ':1024')))}"
    if what == 3 and protocol == "tcp":
        return draw(
            some(
                (
                    f"-m tcp {negation}--syn",
                    "-m tcp --tcp-flags SYN,ACK SYN,ACK",
                    "-m tcp --tcp-flags FIN FIN",
                )
            )
        )
    if what == 4:
        return f"-m {protocol} {negation}--dport {both[0]}:{both[1]}"
    return f"-m {protocol} {negation}--dport {port}"


@st.composite
def _other_matches(draw: DrawFn, family: str, table: str, chain: str) -> str:
    negation = draw(st.sampled_from(["", "", "! "]))
    kinds = [
        "-s",
        "-d",
        "mark",
        "mark",
        "connmark",
        "state",
        "state",
        "addrtype",
        "iprange",
        "ct",
        "limit",
        "set",
    ]
    if chain in ("PREROUTING", "INPUT", "FORWARD"):
        kinds += ["-i", "-i"]
    if chain in ("POSTROUTING", "OUTPUT", "FORWARD"):
        kinds += ["-o", "-o"]
    if chain in ("POSTROUTING", "OUTPUT"):
        kinds += ["owner"] * 3
    kind = draw(st.sampled_from(kinds))
    if kind in ("-s", "-d"):
        return f"{negation}{kind} {draw(some(NETWORKS[family]))}"
    if kind in ("-i", "-o"):
        return f"{negation}{kind} {draw(some(INTERFACES))}"
    if kind in ("mark", "connmark"):
        return f"-m {kind} {negation}--mark {draw(some(MARKS))}{draw(some(MASKS))}"
    if kind == "state":
        states = draw(st.lists(some(_STATES), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()) and not {"SNAT", "DNAT"} & set(states):
            return f"-m state {negation}--state {','.join(states)}"
        return f"-m conntrack {negation}--ctstate {','.join(states)}"
    if kind == "addrtype":
        return draw(_addrtype(family, negation, chain))
    if kind == "iprange":
        first = draw(some(TARGETS[family]))
        return f"-m iprange {negation}--{draw(some(('src', 'dst')))}-range {first}-{_last(first)}"
    if kind == "ct":
        return draw(_conntrack(family, negation))
    if kind == "set":
        name, directions = draw(some(_SET_USES))
        return f"-m set {negation}--match-set {name}{'6' * (family == 'ipv6')} {directions}"
    if kind == "limit":
        return draw(st.sampled_from(["", "", "", "", "", "-m limit --limit 1/hour --limit-burst 3"]))
    return draw(_owner(negation))


#: Sets of ipset(8), by family; they are in the pod whether rules use them or not.
SETS = """\
create admin-nets hash:net
add admin-nets 10.88.0.0/24
add admin-nets 10.88.0.1 nomatch
add admin-nets 198.18.0.0/16
create admin-pairs hash:ip,port
add admin-pairs 10.88.0.2,tcp:80
add admin-pairs 10.244.1.5,udp:53
add admin-pairs 127.0.0.1,tcp:443
create admin-ports bitmap:port range 0-65535
add admin-ports 80
add admin-ports 8000-8010
create admin-nets6 hash:net family inet6
add admin-nets6 fd88::/64
add admin-nets6 fd88::1 nomatch
add admin-nets6 2001:db8::/32
create admin-pairs6 hash:ip,port family inet6
add admin-pairs6 fd88::2,tcp:80
add admin-pairs6 fd00:244::5,udp:53
create admin-ports6 bitmap:port range 0-65535
add admin-ports6 443
"""
_SET_USES = (
    *[("admin-nets", direction) for direction in ("src", "dst")],
    *[("admin-pairs", direction) for direction in ("dst,dst", "src,src", "src,dst")],
    *[("admin-ports", direction) for direction in ("dst", "src")],
)
_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "DNAT", "SNAT")


def _last(first: str) -> str:
    head, separator, _ = first.rpartition(":" if ":" in first else ".")
    return f"{head}{separator}{'ffff' if ':' in first else '255'}"


@st.composite
def _addrtype(draw: DrawFn, family: str, negation: str, chain: str) -> str:
    which = draw(some(("--src-type", "--dst-type")))
    special = "BROADCAST" if family == "ipv4" else "ANYCAST"
    kind = draw(some(("LOCAL", "LOCAL", "UNICAST", special, "MULTICAST,LOCAL", "UNREACHABLE")))
    limits = {
        "PREROUTING": "--limit-iface-in",
        "INPUT": "--limit-iface-in",
        "POSTROUTING": "--limit-iface-out",
    }
    limit = draw(seldom(limits.get(chain, "--limit-iface-out" if chain == "OUTPUT" else "")))
    return f"-m addrtype {negation}{which} {kind} {limit}".rstrip()


@st.composite
def _conntrack(draw: DrawFn, family: str, negation: str) -> str:
    network, port = draw(some(NETWORKS[family])), draw(some(PORTS))
    options = (
        f"{negation}--ctorigdst {network}",
        f"{negation}--ctorigsrc {network}",
        f"{negation}--ctorigdstport {port}",
        f"{negation}--ctreplsrc {network}",
        f"{negation}--ctrepldst {network}",
        f"{negation}--ctreplsrcport {port}",
        f"{negation}--ctrepldstport {port}",
        "--ctdir ORIGINAL",
        "--ctdir REPLY",
        f"{negation}--ctproto tcp",
        f"--ctstate NEW {negation}--ctorigdst {network}",
    )
    return f"-m conntrack {draw(some(options))}"


@st.composite
def _owner(draw: DrawFn, negation: str) -> str:
    ids = draw(some(IDS))
    return "-m owner " + draw(
        some(
            (
                f"{negation}--uid-owner {ids}",
                f"{negation}--uid-owner {ids}",
                f"{negation}--gid-owner {ids}",
                f"{negation}--gid-owner {ids} --suppl-groups",
                f"{negation}--uid-owner {ids} --gid-owner {draw(some(IDS))}",
                f"{negation}--socket-exists",
            )
        )
    )


@st.composite
def iptables_targets(draw: DrawFn, family: str, table: str, chain: str, matches: str) -> str:
    """A target that the kernel allows in a chain, after some matches."""
    transport = matches.startswith(("-p tcp", "-p udp"))
    found = ["-j RETURN"] if draw(st.booleans()) else ["-j ACCEPT"]
    if table == "nat":
        found += draw(_nat_targets(family, chain, transport))
    else:
        found.append("-j DROP")
        found += [draw(_mark_target()), draw(_mark_target())]
    if table == "filter":
        found += [_FINAL, "-j REJECT --reject-with tcp-reset" if matches.startswith("-p tcp") else _FINAL]
    if table == "raw":
        found += ["-j CT --notrack", "-j CT --zone 5", "-j CT --zone 7", "-j CT --zone-orig 3"]
        found.append("-j CT --zone-reply 3")
    if table == "mangle":
        found += [draw(_mark_target()) for _ in range(4)]
        if chain == "PREROUTING" and transport:
            mark = draw(some(MARKS)) + draw(some(MASKS))
            found += [f"-j TPROXY --on-port {draw(some(('15006', '16006')))} --tproxy-mark {mark}"]
    return draw(st.sampled_from(found))


@st.composite
def _mark_target(draw: DrawFn) -> str:
    mark, mask, other = draw(some(MARKS)), draw(some(MASKS)), draw(some(MASKS[1:]))
    return draw(
        some(
            (
                f"-j MARK --set-mark {mark}{mask}",
                f"-j MARK --set-xmark {mark}{mask}",
                f"-j MARK --or-mark {mark}",
                f"-j MARK --and-mark {mark}",
                f"-j MARK --xor-mark {mark}",
                "-j CONNMARK --save-mark",
                "-j CONNMARK --restore-mark",
                f"-j CONNMARK --save-mark --nfmask {other[1:]} --ctmask {draw(some(MASKS[1:]))[1:]}",
                f"-j CONNMARK --restore-mark --nfmask {other[1:]} --ctmask {draw(some(MASKS[1:]))[1:]}",
                f"-j CONNMARK --set-mark {mark}{mask}",
                f"-j CONNMARK --set-xmark {mark}{mask}",
            )
        )
    )


@st.composite
def _nat_targets(draw: DrawFn, family: str, chain: str, transport: bool) -> list[str]:
    target, port = draw(some(TARGETS[family])), draw(some(PORTS))
    netmap = {"ipv4": "198.18.5.0/24", "ipv6": "2001:db8:5::/64"}[family]
    if chain in ("PREROUTING", "OUTPUT"):
        found = [f"-j DNAT --to-destination {target}", "-j REDIRECT", f"-j NETMAP --to {netmap}"]
        if transport:
            found += [
                f"-j DNAT --to-destination {with_port(target, port)}",
                f"-j DNAT --to-destination {with_port(target, port)}",
                f"-j DNAT --to-destination :{port}",
                f"-j REDIRECT --to-ports {port}",
                f"-j REDIRECT --to-ports {port}",
                "-j REDIRECT --to-ports 8000-8010",
                f"-j DNAT --to-destination {with_port(target, '9000-9010/8000')}",
                f"-j DNAT --to-destination {with_port(target, '8000-8005')}",
                f"-j DNAT --to-destination {with_port(target, '8000-8002')}{draw(seldom(' --random'))}",
            ]
        return found
    source = draw(some(SOURCES[family]))
    found = [f"-j SNAT --to-source {source}", f"-j NETMAP --to {netmap}"]
    if transport:
        found.append(f"-j SNAT --to-source {with_port(source, port)}")
        found.append("-j SNAT --to-source :8001")
    return [*found, "-j MASQUERADE", "-j MASQUERADE"] if chain == "POSTROUTING" else found
