"""admin_rules: Hypothesis strategies for any rules that somebody may write by hand, with iptables or nft.

They are made of the matches and targets that the interpreter knows, wherever the kernel allows these, and a
few that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from .pod_settings import OTHERS, OWN
from .testbed import Step, lines

T = TypeVar("T")
_PORTS = ("53", "80", "443", "8000", "8001", "9002", "15006", "16006", "15053")
_NETWORKS = {
    "ipv4": (
        *(f"{text}/32" for text in (*OWN[4], *OTHERS[4], "10.96.0.1", "10.244.1.5")),
        "10.88.0.0/24",
        "192.168.50.0/24",
        "198.18.0.0/15",
        "198.18.0.0/24",
        "127.0.0.0/8",
        "10.0.0.0/8",
        "0.0.0.0/1",
    ),
    "ipv6": (
        *(f"{text}/128" for text in (*OWN[6], *OTHERS[6], "fd00:96::1", "::6")),
        "fd88::/64",
        "fd50::/64",
        "2001:db8::/32",
        "2001:db8:53::/48",
        "fd00::/8",
        "::/1",
    ),
}
#: Where nat may send something: here, to neighbours, and far away.
_TARGETS = {
    "ipv4": (
        "127.0.0.1",
        "10.88.0.2",
        "10.99.0.1",
        "192.168.50.2",
        "10.244.1.5",
        "198.19.0.1",
        "203.0.113.1",
    ),
    "ipv6": ("::1", "fd88::2", "fd50::2", "fd00:244::5", "2001:db8:19::1", "2001:db8:bad:1::1"),
}
_SOURCES = {
    "ipv4": ("10.88.0.2", "10.89.0.2", "10.99.0.1", "10.7.7.7"),
    "ipv6": ("fd88::2", "fd89::2", "fd77::7"),
}
_INTERFACES = ("eth0", "lo1", "lo", "vm0", "vm+", "lo+", "eth+", "vm1")
_IDS = ("0", "1000", "1337", "1338", "999-1337", "2000")
_MARKS = ("0x0", "0x1", "0x10", "0x539", "0x53a", "0x2000", "0x4000", "0x4d")
_MASKS = ("", "/0xff", "/0x4000", "/0xf0f", "/0xffffffff")


def some(values: Sequence[T]) -> SearchStrategy[T]:
    return st.sampled_from(values)


def seldom(text: str) -> SearchStrategy[str]:
    return st.sampled_from(["", "", "", text])


# --- iptables -----------------------------------------------------------------------------------

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
    port, other = draw(some(_PORTS)), draw(some(_PORTS))
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
        return f"{negation}{kind} {draw(some(_NETWORKS[family]))}"
    if kind in ("-i", "-o"):
        return f"{negation}{kind} {draw(some(_INTERFACES))}"
    if kind in ("mark", "connmark"):
        return f"-m {kind} {negation}--mark {draw(some(_MARKS))}{draw(some(_MASKS))}"
    if kind == "state":
        states = draw(st.lists(some(_STATES), min_size=1, max_size=2, unique=True))
        if draw(st.booleans()) and not {"SNAT", "DNAT"} & set(states):
            return f"-m state {negation}--state {','.join(states)}"
        return f"-m conntrack {negation}--ctstate {','.join(states)}"
    if kind == "addrtype":
        return draw(_addrtype(family, negation, chain))
    if kind == "iprange":
        first = draw(some(_TARGETS[family]))
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
    network, port = draw(some(_NETWORKS[family])), draw(some(_PORTS))
    options = (
        f"{negation}--ctorigdst {network}",
        f"{negation}--ctorigsrc {network}",
        f"{negation}--ctorigdstport {port}",
        f"{negation}--ctreplsrc {network}",
        f"{negation}--ctrepldst {network}",
        "--ctdir ORIGINAL",
        "--ctdir REPLY",
        f"{negation}--ctproto tcp",
        f"--ctstate NEW {negation}--ctorigdst {network}",
    )
    return f"-m conntrack {draw(some(options))}"


@st.composite
def _owner(draw: DrawFn, negation: str) -> str:
    ids = draw(some(_IDS))
    return "-m owner " + draw(
        some(
            (
                f"{negation}--uid-owner {ids}",
                f"{negation}--uid-owner {ids}",
                f"{negation}--gid-owner {ids}",
                f"{negation}--gid-owner {ids} --suppl-groups",
                f"{negation}--uid-owner {ids} --gid-owner {draw(some(_IDS))}",
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
    if table == "mangle":
        found += [draw(_mark_target()) for _ in range(4)]
        if chain == "PREROUTING" and transport:
            mark = draw(some(_MARKS)) + draw(some(_MASKS))
            found += [f"-j TPROXY --on-port {draw(some(('15006', '16006')))} --tproxy-mark {mark}"]
    return draw(st.sampled_from(found))


@st.composite
def _mark_target(draw: DrawFn) -> str:
    mark, mask, other = draw(some(_MARKS)), draw(some(_MASKS)), draw(some(_MASKS[1:]))
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
                f"-j CONNMARK --save-mark --nfmask {other[1:]} --ctmask {draw(some(_MASKS[1:]))[1:]}",
                f"-j CONNMARK --restore-mark --nfmask {other[1:]} --ctmask {draw(some(_MASKS[1:]))[1:]}",
                f"-j CONNMARK --set-mark {mark}{mask}",
                f"-j CONNMARK --set-xmark {mark}{mask}",
            )
        )
    )


@st.composite
def _nat_targets(draw: DrawFn, family: str, chain: str, transport: bool) -> list[str]:
    target, port = draw(some(_TARGETS[family])), draw(some(_PORTS))
    netmap = {"ipv4": "198.18.5.0/24", "ipv6": "2001:db8:5::/64"}[family]
    if chain in ("PREROUTING", "OUTPUT"):
        found = [f"-j DNAT --to-destination {target}", "-j REDIRECT", f"-j NETMAP --to {netmap}"]
        if transport:
            found += [
                f"-j DNAT --to-destination {_with_port(target, port)}",
                f"-j DNAT --to-destination {_with_port(target, port)}",
                f"-j DNAT --to-destination :{port}",
                f"-j REDIRECT --to-ports {port}",
                f"-j REDIRECT --to-ports {port}",
                "-j REDIRECT --to-ports 8000-8010",
                f"-j DNAT --to-destination {_with_port(target, '9000-9010/8000')}",
                f"-j DNAT --to-destination {_with_port(target, '8000-8005')}",
            ]
        return found
    source = draw(some(_SOURCES[family]))
    found = [f"-j SNAT --to-source {source}", f"-j NETMAP --to {netmap}"]
    if transport:
        found.append(f"-j SNAT --to-source {_with_port(source, port)}")
        found.append("-j SNAT --to-source :8001")
    return [*found, "-j MASQUERADE", "-j MASQUERADE"] if chain == "POSTROUTING" else found


def _with_port(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# --- nft ----------------------------------------------------------------------------------------

_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_KEYS = {"ip": "ipv4", "ip6": "ipv6"}


@st.composite
def by_nft(draw: DrawFn, name: str) -> Step:
    """A table with two to five base chains at any priorities, chains that they call, sets and maps."""
    family = draw(st.sampled_from(["inet", "inet", "inet", "ip", "ip6"]))
    chains = []
    for number in range(draw(st.integers(2, 5))):
        kind = draw(st.sampled_from(["filter", "filter", "filter", "nat", "nat", "route"]))
        hook = draw(st.sampled_from(_HOOKS))
        if kind == "route":
            hook = "output"
        if kind == "nat" and hook == "forward":
            hook = "postrouting"
        chains.append(draw(_nft_chain(family, kind, hook, number)))
    sets = "".join(_nft_sets(key) for key in _KEYS if family in ("inet", key))
    return Step("nft", f"table {family} {name} {{\n{sets}{''.join(chains)}}}\n")


def _nft_sets(key: str) -> str:
    family = _KEYS[key]
    networks = ", ".join(_NETWORKS[family][1:5] + _NETWORKS[family][-3:-2])
    pairs = ", ".join(f"{address} . {port}" for address in _TARGETS[family][:4] for port in ("80", "443"))
    near, far = _TARGETS[family][1:3]
    return f"""\
    set {key}_networks {{
        type {family}_addr; flags interval; auto-merge; elements = {{ {networks} }}
    }}
    set {key}_pairs {{
        type {family}_addr . inet_service; elements = {{ {pairs} }}
    }}
    map {key}_verdicts {{
        type {family}_addr : verdict; elements = {{ {near} : accept, {far} : drop }}
    }}
    map {key}_marks {{
        type inet_service : mark; elements = {{ 80 : 0x4000, 443 : 0x10, 53 : 0x0 }}
    }}
    map {key}_ends {{
        type inet_service : {family}_addr; elements = {{ 80 : {near}, 443 : {far} }}
    }}
"""


_PRIORITIES = {
    "filter": ("-310", "-250", "-160", "-140", "-90", "0", "10", "110", "0"),
    "route": ("-310", "-160", "-140", "-90", "10"),
    "nat": ("-110", "-90", "-50", "90", "110"),
}


@st.composite
def _nft_chain(draw: DrawFn, family: str, kind: str, hook: str, number: int) -> str:
    priority = draw(some(_PRIORITIES[kind]))
    early = kind == "filter" and priority == "-310" and hook in ("prerouting", "output")
    rules = []
    own = ""
    for _ in range(draw(st.integers(1, 4))):
        rule = draw(_kinds_of_rules(family, hook, early))
        matches = draw(_nft_matches(rule))
        if draw(st.integers(0, 4)) == 0:
            if not own:
                inner = [draw(_nft_rule(family, kind, hook, early)) for _ in range(draw(st.integers(1, 3)))]
                own = f"    chain own{number} {{\n{lines(f'        {rule}' for rule in inner)}    }}\n"
            target = f"{draw(st.sampled_from(['jump', 'jump', 'goto']))} own{number}"
        else:
            target = draw(_nft_target(rule, kind))
        rules.append(f"{matches} {target}")
    policy = "drop" if draw(st.integers(0, 12)) == 12 and kind != "nat" else "accept"
    head = f"type {kind} hook {hook} priority {priority}; policy {policy};"
    body = lines(f"        {text}" for text in (head, *rules))
    return f"{own}    chain base{number} {{\n{body}    }}\n"


class _Rule(NamedTuple):
    """What the parts of a rule have in common: nft takes no rule that contradicts itself."""

    family: str  #: of the table
    key: str  #: ip or ip6
    protocol: str
    hook: str
    early: bool

    @property
    def of(self) -> str:
        """The family as statements need it in a table of both."""
        return f" {self.key}" if self.family == "inet" else ""


@st.composite
def _kinds_of_rules(draw: DrawFn, family: str, hook: str, early: bool) -> _Rule:
    key = draw(st.sampled_from(["ip", "ip6"])) if family == "inet" else family
    return _Rule(family, key, draw(some(("tcp", "tcp", "udp"))), hook, early)


@st.composite
def _nft_rule(draw: DrawFn, family: str, kind: str, hook: str, early: bool) -> str:
    rule = draw(_kinds_of_rules(family, hook, early))
    return f"{draw(_nft_matches(rule))} {draw(_nft_target(rule, kind))}"


@st.composite
def _nft_matches(draw: DrawFn, rule: _Rule) -> str:
    return " ".join(draw(_nft_match(rule)) for _ in range(draw(st.integers(0, 2))))


def _listed(values: Sequence[str]) -> str:
    return f"{{ {', '.join(values)} }}" if len(values) > 1 else values[0]


@st.composite
def _nft_match(draw: DrawFn, rule: _Rule) -> str:
    key, protocol = rule.key, rule.protocol
    operator = draw(st.sampled_from(["", "", "!= "]))
    ports = sorted(draw(st.lists(some(_PORTS), min_size=1, max_size=3, unique=True)), key=int)
    network, (_, near, _, far, *_) = draw(some(_NETWORKS[_KEYS[key]])), _TARGETS[_KEYS[key]]
    ids = draw(st.lists(some(("0", "1000", "1337", "2000")), min_size=1, max_size=2, unique=True))
    mark, mask = draw(some(_MARKS)), draw(some(_MASKS[1:-1]))[1:]
    states = draw(st.lists(some(_NFT_STATES), min_size=1, max_size=2, unique=True))
    found = [
        f"{key} saddr {operator}{network}",
        f"{key} daddr {operator}{network}",
        f"{protocol} dport {operator}{_listed(ports)}",
        f"{protocol} dport {operator}{_listed(ports)}",
        f"meta l4proto {protocol} th dport {operator}{_listed(ports)}",
        f"{protocol} dport {ports[0]}-{ports[-1] if len(ports) > 1 else '65535'}",
        f"{protocol} sport {operator}40000",
        f"meta l4proto {protocol}",
        f"meta mark {operator}{mark}",
        f"meta mark and {mask} {operator or '== '}{mark}",
        f"ct mark {operator}{mark}",
        f"ct state {operator}{_listed(states)}",
        f"ct direction {draw(some(('original', 'reply')))}",
        f"ct status {draw(some(('dnat', 'snat', 'seen-reply')))}",
        f"fib daddr type {operator}{draw(some(('local', 'unicast', 'broadcast')))}",
        f"ct original {key} daddr {network}",
        f"{key} daddr {operator}@{key}_networks",
        f"{key} saddr {operator}@{key}_networks",
        f"{key} daddr . {protocol} dport {operator}@{key}_pairs",
        f"{key} daddr . {protocol} dport {{ {near} . 80, {far} . 443-8001 }}",
        f"meta l4proto . {protocol} dport {{ {protocol} . {ports[0]}, {protocol} . 15053 }}",
        f"fib saddr type {operator}local",
        f"meta length {operator or '> '}20",
    ]
    if draw(st.integers(0, 30)) == 0:
        found = ["limit rate 1/hour", "numgen random mod 2 == 0"]
    if rule.family == "inet":
        found.append(f"meta nfproto {_KEYS[key]}")
    if protocol == "tcp":
        found += [f"tcp flags {draw(some(('syn', '& (syn | ack) == syn', '& fin == fin')))}"]
    device = draw(some(("eth0", "lo1", "lo", "vm*", "vm0")))
    if rule.hook in ("prerouting", "input", "forward"):
        found.append("fib saddr . iif oif missing")
        found += [f'iifname {operator}"{device}"'] * 2
    if rule.hook in ("output", "forward", "postrouting"):
        found += [f'oifname {operator}"{device}"'] * 2
    if rule.hook in ("output", "postrouting"):
        found += [f"meta skuid {operator}{_listed(ids)}", f"meta skgid {operator}{_listed(ids)}"] * 2
    return draw(st.sampled_from(found))


_NFT_STATES = ("new", "established", "related", "invalid", "untracked")


@st.composite
def _nft_target(draw: DrawFn, rule: _Rule, kind: str) -> str:
    found = ["return", "accept", "counter"]
    if kind == "nat":
        return draw(st.sampled_from(found + draw(_nft_nat(rule))))
    mark, other, mask = draw(some(_MARKS)), draw(some(_MARKS)), draw(some(_MASKS[1:-1]))[1:]
    first, second, near = draw(some(_PORTS[:3])), draw(some(_PORTS[3:])), _TARGETS[_KEYS[rule.key]][1]
    found += ["drop", "drop"]
    found += [
        f"meta mark set {mark}",
        f"meta mark set meta mark or {mark}",
        f"meta mark set meta mark and {mask} or {other}",
        f"meta mark set meta mark xor {mark}",
        "meta mark set ct mark",
        f"{rule.protocol} dport vmap {{ {first} : accept, {second} : drop }}",
        f"meta mark set {rule.protocol} dport map {{ {first} : {mark}, {second} : {other} }}",
        f"{rule.key} daddr vmap @{rule.key}_verdicts",
        f"meta mark set {rule.protocol} dport map @{rule.key}_marks",
        f"{rule.protocol} dport . {rule.key} daddr vmap {{ {first} . {near} : drop }}",
    ]
    if rule.early:
        found += ["notrack", "ct zone set 5", "ct zone set 7", "ct original zone set 3"]
    else:
        found += [f"ct mark set {mark}", "ct mark set meta mark", f"ct mark set ct mark or {mark}"]
    if kind == "filter" and rule.hook in ("input", "forward", "output"):
        found += ["reject", "reject"]
    if kind == "filter" and rule.hook == "prerouting" and not rule.early:
        port = draw(some(("15006", "16006")))
        ends = draw(st.sampled_from(["", f" meta mark set {mark}", f" meta mark set {mark} accept"]))
        found += [f"meta l4proto {rule.protocol} tproxy{rule.of} to :{port}{ends}"] * 2
    return draw(st.sampled_from(found))


@st.composite
def _nft_nat(draw: DrawFn, rule: _Rule) -> list[str]:
    family = _KEYS[rule.key]
    target, port, protocol = draw(some(_TARGETS[family])), draw(some(_PORTS)), rule.protocol
    if rule.hook in ("prerouting", "output"):
        mapped = f"{rule.key} daddr map {{ {draw(some(_TARGETS[family]))} : {target} }}"
        return [
            f"dnat{rule.of} to {target}",
            f"meta l4proto {protocol} dnat{rule.of} to {_with_port(target, port)}",
            f"meta l4proto {protocol} redirect to :{port}",
            f"meta l4proto {protocol} redirect to :{port}",
            "redirect",
            f"dnat{rule.of} to {mapped}",
            f"dnat{rule.of} to {protocol} dport map @{rule.key}_ends",
            f"meta l4proto {protocol} redirect to :{protocol} dport map {{ 80 : 8000, 443 : {port} }}",
        ]
    source = draw(some(_SOURCES[family]))
    found = [
        f"snat{rule.of} to {source}",
        f"meta l4proto {protocol} snat{rule.of} to {_with_port(source, port)}",
    ]
    return [*found, "masquerade", "masquerade"] if rule.hook == "postrouting" else found


# --- routing ------------------------------------------------------------------------------------


@st.composite
def routing(draw: DrawFn) -> list[Step]:
    """Seldom a routing rule, which leads to another way out."""
    if draw(st.integers(0, 4)):
        return []
    kinds: Sequence[Callable[[str], str]] = (
        lambda _: "fwmark 0x4000/0x4000 lookup 300",
        lambda _: "fwmark 0x1 lookup 300",
        lambda own: f"from {own} lookup 300",
        lambda _: "iif vm0 lookup 300",
        lambda _: "iif lo fwmark 0x10 lookup 300",
        lambda _: "fwmark 0x2000/0x2000 unreachable",
        lambda _: "not fwmark 0x0/0xff lookup 300",
    )
    kind = draw(st.sampled_from(kinds))
    priority = draw(st.sampled_from(["", "", " priority 100"]))
    steps = []
    for program, own in (("ip", OWN[4][1]), ("ip -6", OWN[6][1])):
        steps.append(Step(program, f"rule add {kind(own)}{priority}\n"))
    return steps
