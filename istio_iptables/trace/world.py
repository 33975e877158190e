"""world: the network namespace that a packet goes through: its rules, addresses, routes, and its proxy."""

from __future__ import annotations

from .. import policy
from ..formats.iptables_args import rule_args
from ..formats.iptables_restore import joined
from ..interpreter import iptables
from ..interpreter.condition import AllOf, OneOf, Unmodelled, any_of, named, negated
from ..interpreter.ip_names import LOCAL_TABLE, MAIN_TABLE
from ..interpreter.journey import World
from ..interpreter.known import Known
from ..interpreter.origins import SourceCheck
from ..interpreter.program import Program
from ..interpreter.routing import LOOPBACK, Address, Network, Route, assumed_network, local_default, mark_rule
from ..interpreter.verdict import Proxy
from ..rules import model
from ..rules.model import IPV4, IPV6, Cidr
from .packet import SOME_OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.condition import Condition
    from ..interpreter.program import Table
    from ..interpreter.routing import RoutingRule
    from ..kernel.sysctls import Sysctls
    from ..rules.model import Family, RoutingObject, Rule, Ruleset
    from ..settings.config import Config
    from .packet import Question


def proxy_of(config: Config) -> Proxy:
    """Return the proxy that settings describe."""
    return Proxy(
        config.proxy_uids,
        config.proxy_gids,
        config.outbound_port,
        config.inbound_port,
        config.tunnel_port,
        config.tproxy,
        config.tproxy_mark,
    )


def of_settings(config: Config, network: Network, *, native: bool) -> World:
    """Return a namespace that has the rules that settings mean, and no others."""
    ruleset = policy.build(config)
    network = with_objects(network, ruleset.routing)
    return World(Program(tuple(of_ruleset(ruleset, Known(network), native=native))), network)


def with_sysctls(world: World, said: Sysctls, *, ever_routed: bool | None = None) -> World:
    """Return a namespace in which the kernel's variables are as they say; `ever_routed`: see SourceCheck."""
    filters = dict.fromkeys(world.network.interfaces) if said.rp_filter is None else said.rp_filter
    names = {*filters, *said.accept_local, *said.src_valid_mark}
    return world.replace(
        forwards=any_of(_forwards(said)),
        localnet=said.route_localnet,
        sources={
            name: SourceCheck(
                filters.get(name, 0), name in said.accept_local, name in said.src_valid_mark, ever_routed
            )
            for name in sorted(names)
        },
        other_sources=SourceCheck(ever_routed=ever_routed),
    )


def _forwards(said: Sysctls) -> Iterator[Condition]:
    """Yield the packets of each family that are forwarded."""
    for family, usual in said.forwards.items():
        others = named("received_on", [name for of, name in said.forwarding if of == family])
        unknown = Unmodelled(f"whether {family} packets are forwarded")
        by_interface = unknown if usual is None else negated(others, usual)
        yield AllOf((OneOf("family", frozenset({family})), by_interface))


def of_ruleset(ruleset: Ruleset, known: Known, *, native: bool = False) -> Iterable[Table]:
    """Yield the tables of a rule set, with iptables or native."""
    if native:
        from ..interpreter import nft_rules
        from ..rules.nftables.translate import translate

        for table in translate(ruleset):
            yield nft_rules.compiled(table, native_text)
        return
    for each in ruleset.tables:
        yield iptables.compiled(each, "iptables", text_of, known)


def text_of(rule: Rule, chain: str) -> str:
    """Return a rule as iptables-save prints it."""
    return joined(["-A", chain, *rule_args(rule)])


def native_text(rule: Rule) -> str:
    """Return a rule of a native table as nft prints it."""
    from ..formats.nft import rule_lines

    return " ".join(line.strip() for line in rule_lines(rule, counted=False))


def with_objects(network: Network, objects: Iterable[RoutingObject]) -> Network:
    """Return a network with the addresses, rules and routes that TPROXY and IPv6 need, if it has them not."""
    addresses, rules, routes = list(network.addresses), list(network.rules), list(network.routes)
    for item in objects:
        if isinstance(item, model.LocalAddress):
            own = Address("lo", item.family, item.cidr.address, item.cidr.prefix)
            if not any((a.family, a.address) == (own.family, own.address) for a in addresses):
                addresses.append(own)
                routes += _routes_of(own)
        elif isinstance(item, model.MarkLookup):
            rule = mark_rule(item.family, item.mark, str(item.table), _next_priority(rules, item.family))
            if not any(
                (r.family, r.condition, r.table) == (rule.family, rule.condition, rule.table) for r in rules
            ):
                rules.append(rule)
        else:
            route = local_default(item.family, str(item.table))
            if not any((r.family, r.table, r.kind) == (route.family, route.table, "local") for r in routes):
                routes.append(route)
    rules.sort(key=lambda rule: rule.priority)
    return network.replace(addresses=tuple(addresses), rules=tuple(rules), routes=tuple(routes))


def _next_priority(rules: Iterable[RoutingRule], family: Family) -> int:
    """Return the number that the kernel gives a new rule: before the second one (fib_default_rule_pref)."""
    numbers = sorted(rule.priority for rule in rules if rule.family == family)
    return max(numbers[1] - 1, 0) if len(numbers) > 1 else 0


def _routes_of(own: Address) -> Iterator[Route]:
    """Yield the routes that the kernel makes for an address of lo (fib_add_ifaddr, inet6_addr_add)."""
    yield Route(own.family, LOCAL_TABLE, "local", own.address, own.address, LOOPBACK)
    if own.family == IPV6:
        yield Route(own.family, MAIN_TABLE, "unicast", own.address, own.address, LOOPBACK, metric=256)


def without_objects(network: Network, objects: Iterable[RoutingObject]) -> Network:
    """Return a network without some of the addresses, rules and routes that `with_objects` adds."""
    gone = with_objects(Network(), objects)
    addresses = {(a.family, a.address) for a in gone.addresses}
    rules = {(r.family, r.condition, r.table) for r in gone.rules}
    routes = {(r.family, r.table, r.kind, r.first, r.last) for r in gone.routes}
    return network.replace(
        addresses=tuple(a for a in network.addresses if (a.family, a.address) not in addresses),
        rules=tuple(r for r in network.rules if (r.family, r.condition, r.table) not in rules),
        routes=tuple(r for r in network.routes if (r.family, r.table, r.kind, r.first, r.last) not in routes),
    )


def network_of(own: tuple[Cidr, ...], question: Question) -> Network:
    """Return a network of which no more is known than its own addresses, and what a packet tells of it.

    Without own addresses the pod has the one that the packet comes to, or from, or one for documentation.
    """
    why = "own addresses are those given by --own" if own else "no own address is known"
    end = question.to.address if question.direction == "in" else question.source.address
    if not own:
        known = (end,) if end and not _is_loopback(end) else ()
        own = (*known, *(each for each in _examples(0) if each.family not in [cidr.family for cidr in known]))
    network = assumed_network([("eth0", cidr) for cidr in own], why=why)
    if question.interface in ("", *network.interfaces):
        return network
    return with_interface(network, question.interface)


def _examples(number: int) -> tuple[Cidr, Cidr]:
    """Return addresses for documentation as a pod's own."""
    return Cidr(4, SOME_OWN[IPV4] + number, 32), Cidr(6, SOME_OWN[IPV6] + number, 128)


def examples(families: Sequence[Family]) -> tuple[Cidr, ...]:
    """Return addresses for documentation as those of a pod that has some families, IPv4 if none."""
    return tuple(each for each in _examples(0) if each.family in (families or (IPV4,)))


def _is_loopback(cidr: Cidr) -> bool:
    return Address("", cidr.family, cidr.address, cidr.prefix).is_loopback


def with_interface(network: Network, name: str) -> Network:
    """Return a network with one more interface, with addresses and default routes, which come last."""
    other = assumed_network([(name, cidr) for cidr in _examples(1)], why="")
    routes = [route for route in other.routes if route.interface == name]
    return network.replace(
        addresses=(*network.addresses, *(each for each in other.addresses if each.interface == name)),
        routes=(*network.routes, *(route.replace(metric=route.metric + 1) for route in routes)),
        interfaces=(*network.interfaces, name),
        assumed=(*network.assumed, f"there is an interface {name}, with addresses and a default route"),
    )
