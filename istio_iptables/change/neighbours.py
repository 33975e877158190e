"""neighbours: what foreign rules keep from the proxy, since they take packets before its own rules do.

The kernel asks the nat chains of one hook and priority, legacy tables and nf_tables alike, in the order of
their registration, the last one first (nf_hook_entries_grow in net/netfilter/core.c; seen with Linux 6.18 in
all combinations). The first one that translates a connection decides. Nothing tells that order afterwards. In
one chain the order is that of the rules. `interferences` compares what foreign rules take with what the
wanted rules capture.
"""

from __future__ import annotations

from ..rules import istio, model
from ..rules.traffic import Captured, Traffic, captured, everything
from ..startup.record import Record
from .foreign import OUTPUT, POSTROUTING, PREROUTING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..rules.model import Family, Match, Rule, Ruleset, TableName
    from ..rules.nftables.model import Ranges
    from .foreign import Base, Neighbour, Step

    Effect: TypeAlias = Literal["bypass", "address", "answers", "agent"]


class Interference(Record):
    """A foreign rule, and the traffic that does not go where the settings want it because of it.

    `effect`: `bypass`, past the proxy; `address`, to the proxy, which is told another destination than was
    dialled (TPROXY); `answers`, forwarded DNS, and `agent`, that of the agent itself, get no answers
    (conntrack zones). `certain` is False if it depends on the order of registration, `vague` is True if it
    depends on matches that are not understood here. `same`: it is in a chain in which istio-iptables has its
    rules, too, and comes first by its position alone.
    """

    where: str
    chain: str
    rule: str | Rule
    effect: Effect
    traffic: tuple[str, ...]
    certain: bool = True
    same: bool = False
    vague: bool = False


# --- what they take ---------------------------------------------------------------------------


class _Taken(Record):
    """Traffic that a foreign rule takes, the rule, and how it got there."""

    neighbour: Neighbour
    base: Base
    chain: str
    step: Step
    traffic: Traffic
    vague: bool


#: As many chains as are gone through below each other; nf_tables allows 16 (NFT_JUMP_STACK_SIZE).
_DEEPEST = 16
#: As many rules as are looked at for one base chain: a cluster may have ten thousand services.
_MOST = 20_000


def _taken(neighbour: Neighbour, base: Base) -> Iterator[_Taken]:
    """Yield what the rules of a base chain, and of the chains that it calls, take or translate."""
    work = [(base.name, base.steps, everything(neighbour.family), 0, False)]
    looked = 0
    while work:
        chain, steps, traffic, depth, vague = work.pop()
        for step in steps:
            looked += 1
            hit = traffic.narrowed(step.matches)
            if hit is None or looked > _MOST:
                continue
            hit = hit.replace(local=hit.local or step.local)
            if step.kind == "jump" and depth < _DEEPEST:
                below = (hit, depth + 1, vague or step.vague)
                work += [(name, neighbour.steps(name), *below) for name in step.chains]
            elif step.kind == "return" and depth:
                left = traffic if step.local or step.vague else traffic.without(hit)
                if left is None:
                    break
                traffic = left
            elif step.kind not in ("other", "jump"):
                yield _Taken(neighbour, base, chain, step, hit, vague or step.vague)


def interferences(
    neighbours: Iterable[Neighbour],
    wanted: Ruleset,
    own: Sequence[model.Cidr] | None = None,
    *,
    forwards: bool = True,
) -> tuple[Interference, ...]:
    """Return what foreign rules keep from the proxy, or from getting its answers.

    `own` are the addresses of this machine, None if they are not known; `forwards`: it forwards packets.
    """
    found: dict[tuple[object, ...], Interference] = {}
    for neighbour in neighbours:
        for base in neighbour.bases:
            for taken in _taken(neighbour, base):
                for each in _interferences(taken, wanted, own, forwards):
                    # A rule that several chains lead to is said once.
                    key = (each.where, each.chain, str(each.rule), each.effect)
                    known = found.get(key)
                    if known:
                        traffic = tuple(dict.fromkeys((*known.traffic, *each.traffic)))
                        each = each.replace(traffic=traffic, certain=known.certain and each.certain)
                    found[key] = each
    return tuple(found.values())


def _interferences(
    taken: _Taken, wanted: Ruleset, own: Sequence[model.Cidr] | None, forwards: bool
) -> Iterator[Interference]:
    base, step, family = taken.base, taken.step, taken.neighbour.family

    def interference(effect: Effect, traffic: Iterable[str]) -> Interference:
        certain = base.before is True or effect != "bypass"
        return Interference(
            taken.neighbour.where,
            taken.chain,
            step.words,
            effect,
            tuple(traffic),
            certain,
            base.same and step.kind != "untrack",
            taken.vague,
        )

    if base.hook == POSTROUTING:
        if step.kind == "source" and forwards and _loses_forwarded_dns(taken.traffic, wanted):
            yield interference("answers", ("DNS over UDP that is forwarded",))
        return
    traffic = _at(base.hook, taken.traffic, own)
    if traffic is None:
        return
    tproxy = tuple(captured(wanted.table(family, "mangle"), base.hook, traffic))
    if step.kind == "translate" and tproxy:
        yield interference("address", dict.fromkeys(map(_inbound, tproxy)))
    takes_here = base.before is not False and (
        step.kind in ("translate", "untrack")
        or (base.same and taken.neighbour.table != "raw" and step.kind in ("accept", "return"))
    )
    if takes_here:
        table: TableName = "mangle" if taken.neighbour.table == "mangle" else "nat"
        captures = tproxy if table == "mangle" else captured(wanted.table(family, "nat"), base.hook, traffic)
        texts = dict.fromkeys(_text(base.hook, each) for each in captures if _matters(each))
        if texts:
            yield interference("bypass", texts)
    if step.kind == "translate" and base.hook == OUTPUT and _loses_agents_dns(traffic, wanted):
        yield interference("agent", (f"DNS over UDP to {_addresses(traffic)}",))


def _at(hook: str, traffic: Traffic, own: Sequence[model.Cidr] | None) -> Traffic | None:
    """Return what of some traffic can be the application's, None if nothing can.

    What comes from or goes to containers behind this machine is not, nor is what only passes through.
    """
    interfaces = traffic.received_on if hook == PREROUTING else traffic.sent_to
    if any(name.startswith(_OF_CONTAINERS) for name in interfaces.names):
        return None
    loopback = _loopback(traffic.family)
    mine = [loopback, *(own or ())]
    reaches_own = any(
        first <= cidr.last and cidr.address <= last
        for first, last in traffic.destinations
        for cidr in mine
        if cidr.family == traffic.family
    )
    if hook == PREROUTING:
        return traffic if traffic.local or own is None or reaches_own else None
    loops = all(loopback.address <= f and last <= loopback.last for f, last in traffic.destinations)
    if traffic.local or loops:
        return traffic.narrowed((model.OutInterface("lo"),))
    if own is not None and not reaches_own:
        return traffic.narrowed((model.OutInterface("lo", negated=True),))
    return traffic


#: How the names of interfaces begin that lead to containers and virtual machines behind this machine.
_OF_CONTAINERS = ("docker", "br-", "veth", "cni", "podman", "virbr", "lxcbr", "lxdbr", "cali", "flannel")


def _loopback(family: Family) -> model.Cidr:
    return model.Cidr(4, 0x7F000000, 8) if family == model.IPV4 else model.Cidr(6, 1, 128)


def _matters(found: Captured) -> bool:
    """Tell whether capturing it has a purpose: for what the proxy sends to a loopback address it has not."""
    loopback = model.Destination(_loopback(found.traffic.family), negated=True)
    return found.chain != istio.IN_REDIRECT or found.traffic.with_match(loopback) is not None


def _loses_forwarded_dns(traffic: Traffic, wanted: Ruleset) -> bool:
    """Tell whether the raw rules put the answers to such DNS, whose source is translated, into a zone."""
    raw = wanted.table(traffic.family, "raw")
    answers = any(isinstance(rule.target, model.ConntrackZone) for rule in raw.chain(istio.INBOUND).rules)
    query = traffic.narrowed((model.Transport("udp"), _to_dns()))
    loopback = _loopback(traffic.family)
    not_own = (model.Source(loopback, negated=True), model.Destination(loopback, negated=True))
    return answers and query is not None and query.narrowed(not_own) is not None


def _loses_agents_dns(traffic: Traffic, wanted: Ruleset) -> bool:
    """Tell whether the agent's queries are in a zone in which no answer of a local DNS server is."""
    raw = wanted.table(traffic.family, "raw").chain(istio.OUTPUT_DNS).rules
    query = traffic.narrowed((model.Transport("udp"), _to_dns()))
    zoned = any(rule.target == model.ConntrackZone(1) for rule in raw)
    return zoned and query is not None and traffic.sent_to.names == {"lo"}


def _to_dns() -> Match:
    return model.DestinationPort(model.PortRange(istio.DNS_PORT, istio.DNS_PORT))


# --- what it means ----------------------------------------------------------------------------


def _text(hook: str, found: Captured) -> str:
    if hook == PREROUTING:
        return _inbound(found)
    if found.chain == istio.OUTPUT_DNS:
        return f"DNS ({_protocols(found.traffic)}) to {_addresses(found.traffic)}"
    ports = _ports(found.traffic)
    if found.chain == istio.IN_REDIRECT:
        return f"TCP{ports} that the proxy sends to its own pod"
    addresses = _addresses(found.traffic)
    return f"outbound TCP{ports} of {addresses}" if ports else f"outbound TCP to {addresses}"


def _inbound(found: Captured) -> str:
    by = "".join(f" by {name}" for name in sorted(found.traffic.received_on.names))
    return f"inbound TCP{_ports(found.traffic)}{by}"


def _protocols(traffic: Traffic) -> str:
    numbers = {n for first, last in traffic.protocols for n in range(first, last + 1)}
    return " and ".join(name.upper() for name, number in model.PROTOCOL_NUMBERS.items() if number in numbers)


def _ports(traffic: Traffic) -> str:
    if traffic.ports == everything(traffic.family).ports:
        return ""
    several = len(traffic.ports) > 1 or traffic.ports[0][0] != traffic.ports[0][1]
    return f" to port{'s' if several else ''} {_numbers(traffic.ports)}"


#: As many members of a list as a text names.
_MOST_NAMED = 5


def _numbers(ranges: Ranges) -> str:
    named = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_MOST_NAMED]]
    return ", ".join(named) + (" and others" if len(ranges) > _MOST_NAMED else "")


def _addresses(traffic: Traffic) -> str:
    import ipaddress

    ranges = traffic.destinations
    if ranges == everything(traffic.family).destinations:
        return "any address"
    make = ipaddress.IPv4Address if traffic.family == model.IPV4 else ipaddress.IPv6Address
    named = [
        str(network) if network.num_addresses > 1 else str(network.network_address)
        for first, last in ranges[:_MOST_NAMED]
        for network in ipaddress.summarize_address_range(make(first), make(last))
    ]
    more = len(ranges) > _MOST_NAMED or len(named) > _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (" and others" if more else "")
