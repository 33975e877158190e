"""judging: random settings and several networks, for which rules are held against what settings promise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from istio_iptables import Facts, configure, policy
from istio_iptables.errors import SettingsError
from istio_iptables.formats import iptables_compiled, iptables_dump
from istio_iptables.formats.iptables_restore import script
from istio_iptables.interpreter.completed import completed
from istio_iptables.interpreter.condition import ALWAYS
from istio_iptables.interpreter.ip_names import SCOPES
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import endpoint_text
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.routing import (
    Address,
    Network,
    Route,
    RoutingRule,
    default_rules,
    from_interface,
    mark_rule,
)
from istio_iptables.prove.proof import Counterexample, Property
from istio_iptables.prove.ways import assumed
from istio_iptables.rules.model import FAMILIES, IPV4, IPV6, Cidr
from istio_iptables.settings.config import Config
from istio_iptables.trace.packet import Question
from istio_iptables.trace.world import network_of, with_objects

from . import strategies

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

_LOOPBACK = (Address("lo", IPV4, 0x7F000001, 8), Address("lo", IPV6, 1, 128))


def configs() -> SearchStrategy[Config]:
    """Random settings for pods with one family or both, and DNS servers of either family or none."""
    chosen = strategies.settings() | strategies.colliding_settings()
    return st.builds(_config, chosen, _OFTEN, strategies.environments())


#: What makes the most difference, and would be seldom together otherwise.
_DESTINATIONS = ["*", "127.0.0.0/8,10.0.0.0/8,fd00::/8", "::1,fd00::/8,10.0.0.2"]
_OFTEN = st.fixed_dictionaries(
    {},
    optional={
        "istio-inbound-interception-mode": st.just("TPROXY"),
        "dual-stack": st.just("true"),
        "redirect-dns": st.just("true"),
        "istio-service-cidr": st.sampled_from(
            ["*", "127.0.0.0/8,10.0.0.0/8,fd00::/8", "::1,fd00::/8,10.0.0.2"]
        ),
    },
)


def _config(
    chosen: dict[str, str], often: dict[str, str], environment: tuple[bool, bool, list[str]]
) -> Config:
    ipv4, ipv6, servers = environment
    chosen = {**chosen, **often}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return configure(chosen, environment=Facts(ipv4, ipv6, tuple(servers)))
        except SettingsError:
            reject()


def _one_address(_config: Config) -> Network:
    return network_of((Cidr(4, 0x0A000002, 32), Cidr(6, (0xFD << 120) | 2, 128)), Question("out"))


def _ipv4_only(_config: Config) -> Network:
    return completed(Network(addresses=(*_LOOPBACK, Address("eth0", IPV4, 0x0A000002, 24))))


def _many_interfaces(_config: Config) -> Network:
    """Several addresses of all scopes; interfaces without an address; one that is named by patterns alone."""
    link = SCOPES["link"]
    addresses = (
        *_LOOPBACK,
        Address("eth0", IPV4, 0x0A000002, 16),
        Address("eth0", IPV4, 0x0A000003, 16),
        Address("eth0", IPV6, 0xFD << 120 | 2, 64),
        Address("eth0", IPV6, 0xFE80 << 112 | 2, 64, link),
        Address("eth1", IPV4, 0xA9FE0505, 16, link),
        Address("eth1", IPV6, 0xFE80 << 112 | 3, 64, link),
        Address("vm0", IPV6, 0xFEC0 << 112 | 3, 64),
        Address("net1", IPV4, 0xC0A80001, 24),
        Address("net1", IPV6, 0xFD01 << 112 | 1, 64),
        Address("lo", IPV4, 0x0A630001, 32),
        Address("lo", IPV6, 0xFD63 << 112 | 1, 128),
    )
    return completed(
        Network(addresses=addresses, interfaces=("lo", "eth0", "eth1", "vm0", "net1", "bond0.100"))
    )


def _policy_routing(config: Config) -> Network:
    """Routing rules by mark, interface and source, routes that lead nowhere, no default route of IPv6."""
    base = _many_interfaces(config)
    ipv6_default = [r for r in base.routes if r.family == IPV6 and not r.first and r.prefix == 0]
    routes = [route for route in base.routes if route not in ipv6_default]
    for family, network, bits in ((IPV4, 0xCB007100, 24), (IPV6, 0x20010DB8 << 96, 64)):
        last = network | (1 << ((32 if family == IPV4 else 128) - bits)) - 1
        routes += [
            Route(family, "100", "unicast", 0, (1 << (32 if family == IPV4 else 128)) - 1, "net1"),
            Route(family, "main", "blackhole", network, network | 0xF),
            Route(family, "main", "unreachable", network | 0x10, network | 0x1F),
            Route(family, "main", "unicast", network | 0x20, last, "vm0"),
        ]
    rules = [*default_rules()]
    for family in FAMILIES:
        rules += [
            mark_rule(family, 0x20, "100", 1000),
            RoutingRule(family, 1001, from_interface("vm0"), "100", text="from all iif vm0 lookup 100"),
            RoutingRule(family, 1002, ALWAYS, "200", text="from all lookup 200"),
        ]
    rules.sort(key=lambda rule: rule.priority)
    return base.replace(routes=tuple(routes), rules=tuple(rules))


#: The networks in which settings are judged.
NETWORKS: Mapping[str, Callable[[Config], Network]] = {
    "one address": _one_address,
    "assumed": assumed,
    "ipv4 only": _ipv4_only,
    "many interfaces": _many_interfaces,
    "policy routing": _policy_routing,
}


def wrong(properties: Iterable[Property]) -> list[str]:
    """Return what does not hold, with packets, for people who read a failed test."""
    return [
        f"{each.name}: {found.packets.direction} {found.packets.phase} {_text(found)}: "
        f"{found.wanted}, not {found.found} {found.at} {found.depends_on}"
        for each in properties
        if each.status != "PROVED"
        for found in each.counterexamples
    ]


def _text(found: Counterexample) -> str:
    """Return a packet without the fields in which packets of its kind do not differ."""
    packet, free = found.packet, found.packets.free
    ends = [
        f"{end} {endpoint_text(packet.family, getattr(packet, end), getattr(packet, f'{end}_port'))}"
        for end in ("source", "destination")
    ]
    rest = sorted(free - {"source", "destination", "source_port", "destination_port"})
    return ", ".join([*ends, *(f"{field} {getattr(packet, field)}" for field in rest)])


# --- rules that were changed --------------------------------------------------------------------


#: A change of a script of iptables-restore, of which the lines are given.
Edit: TypeAlias = Callable[[list[str]], None]


def _at(lines: list[str], find: str) -> int:
    if find in lines:
        return lines.index(find)
    [at] = [number for number, line in enumerate(lines) if line.startswith("-A ") and find in line]
    return at


def drop(find: str) -> Edit:
    """Take away the one rule that has a text."""
    return lambda lines: lines.__delitem__(_at(lines, find))


def swap(find: str) -> Edit:
    """Exchange the one rule that has a text, and the next one."""

    def edit(lines: list[str]) -> None:
        at = _at(lines, find)
        lines[at : at + 2] = reversed(lines[at : at + 2])

    return edit


def change(find: str, put: str) -> Edit:
    """Put another text into the one rule that has a text."""

    def edit(lines: list[str]) -> None:
        at = _at(lines, find)
        lines[at] = lines[at].replace(find, put)

    return edit


def before(find: str, rule: str) -> Edit:
    """Put a rule before the one that has a text."""
    return lambda lines: lines.insert(_at(lines, find), rule)


def nothing(_lines: list[str]) -> None:
    """Change no rule."""


def world_of_scripts(
    config: Config, network: Network, edit: Edit = nothing, edited: Family = IPV4, foreign: str = ""
) -> World:
    """Return the namespace of settings, with the rules of one family changed, and foreign tables."""
    ruleset = policy.build(config)
    network = with_objects(network, ruleset.routing)
    others = iptables_dump.read(foreign)
    assert not others.unread, others.unread
    tables = [*iptables_compiled.compiled(others, Known(network), IPV4)]
    for family in FAMILIES:
        lines = script(ruleset, family).splitlines()
        if family == edited:
            edit(lines)
        dump = iptables_dump.read(_with_built_in_chains(lines))
        assert not dump.unread, dump.unread
        tables += iptables_compiled.compiled(dump, Known(network), family)
    return World(Program(tuple(tables)), network)


def _with_built_in_chains(script: Iterable[str]) -> str:
    """Return a script for iptables-restore as a dump, which has the chains that are always there."""
    lines: list[str] = []
    for line in script:
        lines.append(line)
        if line.startswith("*"):
            lines += [f":{chain} ACCEPT [0:0]" for chain in ("PREROUTING", "OUTPUT")]
    return "\n".join(lines)
