"""admin_nft: Hypothesis strategies for any rules of nft that an administrator may write by hand.

As those of iptables (admin_iptables.py): mostly of what the interpreter knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .admin_values import MARKS, MASKS, NETWORKS, PORTS, SOURCES, TARGETS, seldom, some, with_port
from .testbed import Step, lines

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
    networks = ", ".join(NETWORKS[family][1:5] + NETWORKS[family][-3:-2])
    pairs = ", ".join(f"{address} . {port}" for address in TARGETS[family][:4] for port in ("80", "443"))
    near, far = TARGETS[family][1:3]
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
    ports = sorted(draw(st.lists(some(PORTS), min_size=1, max_size=3, unique=True)), key=int)
    network, (_, near, _, far, *_) = draw(some(NETWORKS[_KEYS[key]])), TARGETS[_KEYS[key]]
    ids = draw(st.lists(some(("0", "1000", "1337", "2000")), min_size=1, max_size=2, unique=True))
    mark, mask = draw(some(MARKS)), draw(some(MASKS[1:-1]))[1:]
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
        f"ct reply {key} {draw(some(('saddr', 'daddr')))} {operator}{network}",
        f"meta l4proto {protocol} ct original proto-dst {operator}{ports[0]}",
        f"ct {draw(some(('', 'original ', 'reply ')))}zone {operator}{draw(some((0, 3, 5)))}",
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
    mark, other, mask = draw(some(MARKS)), draw(some(MARKS)), draw(some(MASKS[1:-1]))[1:]
    first, second, near = draw(some(PORTS[:3])), draw(some(PORTS[3:])), TARGETS[_KEYS[rule.key]][1]
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
        found += [
            "notrack",
            "ct zone set 5",
            "ct zone set 7",
            "ct original zone set 3",
            "ct reply zone set 5",
        ]
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
    target, port, protocol = draw(some(TARGETS[family])), draw(some(PORTS)), rule.protocol
    if rule.hook in ("prerouting", "output"):
        several = f"{with_port(target, '8000-8002')}{draw(seldom(' random'))}"
        mapped = f"{rule.key} daddr map {{ {draw(some(TARGETS[family]))} : {target} }}"
        return [
            f"dnat{rule.of} to {target}",
            f"meta l4proto {protocol} dnat{rule.of} to {with_port(target, port)}",
            f"meta l4proto {protocol} redirect to :{port}",
            f"meta l4proto {protocol} redirect to :{port}",
            "redirect",
            f"dnat{rule.of} to {mapped}",
            f"meta l4proto {protocol} dnat{rule.of} to {several}",
            f"dnat{rule.of} to {protocol} dport map @{rule.key}_ends",
            f"meta l4proto {protocol} redirect to :{protocol} dport map {{ 80 : 8000, 443 : {port} }}",
        ]
    source = draw(some(SOURCES[family]))
    found = [
        f"snat{rule.of} to {source}",
        f"meta l4proto {protocol} snat{rule.of} to {with_port(source, port)}",
    ]
    return [*found, "masquerade", "masquerade"] if rule.hook == "postrouting" else found
