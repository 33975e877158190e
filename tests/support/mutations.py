"""mutations: small changes of rule sets, as a hand or a bug makes them, which iptables and nft still take.

One rule is dropped, swapped with the next one, made wider or narrower, or given another target. The change
may make no difference to any packet: who asks has to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from istio_iptables.rules import model
from istio_iptables.rules.model import BUILTIN_CHAINS, Cidr, PortRange, Rule, Ruleset
from istio_iptables.rules.nftables.translate import translate


class Change(NamedTuple):
    """A rule set with a change, and what was changed, in words."""

    kind: str
    family: model.Family
    about: str
    ruleset: Ruleset


def change(random: Random, ruleset: Ruleset, kind: str = "") -> Change | None:
    """Return a rule set with a random change, of one kind if given; None if none is possible."""
    kinds = [kind] if kind else random.sample(KINDS, len(KINDS))
    places = [
        (table, chain, at)
        for table in ruleset.tables
        for chain in table.chains
        for at in range(len(chain.in_order))
    ]
    random.shuffle(places)
    for each in kinds:
        for table, chain, at in places:
            found = _MAKERS[each](random, table, chain, at)
            if found is not None and found != chain.in_order:
                about = f"{each}: {table.family} {table.name} {chain.name} {at + 1}"
                return Change(each, table.family, about, _with(ruleset, table, chain, found))
    return None


def has_native_form(ruleset: Ruleset) -> bool:
    """Tell whether rules can be written for nftables: a negated owner cannot be, everywhere."""
    try:
        translate(ruleset)
    except ValueError:
        return False
    return True


def _with(ruleset: Ruleset, table: model.Table, chain: model.Chain, rules: tuple[Rule, ...]) -> Ruleset:
    # What was changed is no list of the policy's any more, whose members a native set may join.
    rules = tuple(rule.replace(listed=None) for rule in rules)
    changed = table.replace(
        chains=tuple(
            each.replace(rules=rules, head=()) if each.name == chain.name else each for each in table.chains
        )
    )
    return ruleset.replace(tables=tuple(changed if each is table else each for each in ruleset.tables))


# --- what can be done to a rule ---------------------------------------------------------------

Maker = Callable[[Random, model.Table, model.Chain, int], "tuple[Rule, ...] | None"]


def _dropped(random: Random, table: model.Table, chain: model.Chain, at: int) -> tuple[Rule, ...] | None:
    rules = chain.in_order
    return (*rules[:at], *rules[at + 1 :])


def _swapped(random: Random, table: model.Table, chain: model.Chain, at: int) -> tuple[Rule, ...] | None:
    rules = chain.in_order
    if at + 1 == len(rules):
        return None
    return (*rules[:at], rules[at + 1], rules[at], *rules[at + 2 :])


def _one_of(options: Callable[[Random, model.Table, model.Chain, Rule], Iterator[Rule]]) -> Maker:
    def make(random: Random, table: model.Table, chain: model.Chain, at: int) -> tuple[Rule, ...] | None:
        rules = chain.in_order
        found = list(options(random, table, chain, rules[at]))
        if not found:
            return None
        return (*rules[:at], random.choice(found), *rules[at + 1 :])

    return make


def _wider(random: Random, table: model.Table, chain: model.Chain, rule: Rule) -> Iterator[Rule]:
    for match in rule.matches:
        others = tuple(each for each in rule.matches if each is not match)
        if not isinstance(match, model.Transport) or not _needs_transport(rule):
            yield rule.replace(matches=others)
        for other in _of_match(random, match, wider=True):
            yield rule.replace(matches=(*others, other))


def _narrower(random: Random, table: model.Table, chain: model.Chain, rule: Rule) -> Iterator[Rule]:
    for match in rule.matches:
        others = tuple(each for each in rule.matches if each is not match)
        for other in _of_match(random, match, wider=False):
            yield rule.replace(matches=(*others, other))
    for match in _more(random, table, rule):
        if not any(isinstance(each, type(match)) for each in rule.matches):
            yield rule.replace(matches=(*rule.matches, match))


def _retargeted(random: Random, table: model.Table, chain: model.Chain, rule: Rule) -> Iterator[Rule]:
    for target in _other_targets(random, table, chain, rule):
        if target != rule.target:
            yield rule.replace(target=target)


KINDS = ("dropped", "swapped", "widened", "narrowed", "retargeted")
_MAKERS: Mapping[str, Maker] = {
    "dropped": _dropped,
    "swapped": _swapped,
    "widened": _one_of(_wider),
    "narrowed": _one_of(_narrower),
    "retargeted": _one_of(_retargeted),
}

# --- matches ----------------------------------------------------------------------------------

_PORTS = (model.SourcePort, model.DestinationPort, model.DestinationPorts)


def _needs_transport(rule: Rule) -> bool:
    return isinstance(rule.target, (model.Redirect, model.TProxy)) or any(
        isinstance(each, _PORTS) for each in rule.matches
    )


def _of_match(random: Random, match: model.Match, *, wider: bool) -> Iterator[model.Match]:
    """Yield a match that is for more packets, or for fewer."""
    more = wider != getattr(match, "negated", False)
    if isinstance(match, (model.Source, model.Destination)):
        cidr = _wider_cidr(random, match.cidr) if more else _narrower_cidr(random, match.cidr)
        if cidr:
            yield match.replace(cidr=cidr)
    elif isinstance(match, (model.SourcePort, model.DestinationPort)):
        ports = _wider_ports(match.ports) if more else _narrower_ports(match.ports)
        if ports:
            yield match.replace(ports=ports)
    elif isinstance(match, model.DestinationPorts) and not more and len(match.ports) > 1:
        yield match.replace(ports=match.ports[1:])
    elif isinstance(match, (model.Mark, model.ConnectionMark)) and more:
        mask = match.mask & ~(1 << random.randrange(12))
        yield match.replace(value=match.value & mask, mask=mask)
    elif isinstance(match, model.ConntrackState):
        states = match.states | {"NEW"} if more else match.states - {"ESTABLISHED"}
        if states:
            yield match.replace(states=states)


def _wider_cidr(random: Random, cidr: Cidr) -> Cidr | None:
    prefix = cidr.prefix - random.randint(1, 8)
    if prefix < 1:
        return None
    return Cidr(cidr.version, _masked(cidr.address, cidr.bits, prefix), prefix)


def _narrower_cidr(random: Random, cidr: Cidr) -> Cidr | None:
    prefix = cidr.prefix + random.randint(1, 8)
    if prefix > cidr.bits:
        return None
    address = cidr.address | random.getrandbits(prefix - cidr.prefix) << (cidr.bits - prefix)
    return Cidr(cidr.version, address, prefix)


def _masked(address: int, bits: int, prefix: int) -> int:
    return address >> (bits - prefix) << (bits - prefix)


def _wider_ports(ports: PortRange) -> PortRange | None:
    wider = PortRange(max(ports.first - 1, 0), min(ports.last + 1, 65535))
    return wider if wider != ports else None


def _narrower_ports(ports: PortRange) -> PortRange | None:
    return PortRange(ports.first, ports.last - 1) if ports.first < ports.last else None


_PLACES = {
    "ipv4": ("10.0.0.0/8", "198.18.0.0/15", "127.0.0.0/8"),
    "ipv6": ("fd00::/8", "2001:db8::/32", "::/1"),
}


def _more(random: Random, table: model.Table, rule: Rule) -> Iterator[model.Match]:
    yield model.Source(Cidr.from_ipaddress(random.choice(_PLACES[table.family])))
    yield model.Destination(Cidr.from_ipaddress(random.choice(_PLACES[table.family])))
    yield model.Mark(random.choice((1, 1337, 1338)))
    if table.name != "raw":
        yield model.ConntrackState(frozenset({random.choice(("NEW", "ESTABLISHED"))}))
    transports = [each for each in rule.matches if isinstance(each, model.Transport)]
    if not transports:
        yield model.Transport(random.choice(("tcp", "udp")))
    elif not transports[0].negated and not any(isinstance(each, _PORTS) for each in rule.matches):
        yield model.DestinationPort(random.choice((PortRange(80, 80), PortRange(1, 1023))))


# --- targets ----------------------------------------------------------------------------------


def _other_targets(
    random: Random, table: model.Table, chain: model.Chain, rule: Rule
) -> Iterator[model.Target]:
    target = rule.target
    if isinstance(target, (model.Verdict, model.Jump)):
        yield model.RETURN
        yield model.ACCEPT
        if table.name != "nat":
            yield model.DROP
        for name in _may_follow(table, chain.name):
            yield model.Jump(name)
    elif isinstance(target, model.Redirect):
        yield model.RETURN
        yield model.Redirect(random.choice((15001, 15006, 15053, 80)))
    elif isinstance(target, model.TProxy):
        yield model.ACCEPT
        yield target.replace(port=random.choice((15001, 15006)))
        yield target.replace(mark=target.mark ^ 1)
    elif isinstance(target, model.SetMark):
        yield target.replace(value=target.value ^ 1)
        yield model.RETURN
    elif isinstance(target, model.ConntrackZone):
        yield target.replace(zone=3 - target.zone)
        yield model.RETURN
    else:
        yield model.RestoreMark() if isinstance(target, model.SaveMark) else model.SaveMark()


def _may_follow(table: model.Table, name: str) -> Iterator[str]:
    """Yield the chains to which a chain may jump: no loop comes of it, and no hook that they did not have."""
    jumps = {chain.name: _targets(chain) for chain in table.chains}
    before = {each: {root for root in jumps if each in _reached(jumps, root)} for each in jumps}
    hooks = BUILTIN_CHAINS & (before[name] | {name})
    for other in jumps:
        if other in BUILTIN_CHAINS or name == other or name in _reached(jumps, other):
            continue
        if hooks <= before[other]:
            yield other


def _targets(chain: model.Chain) -> set[str]:
    return {rule.target.chain for rule in chain.in_order if isinstance(rule.target, model.Jump)}


def _reached(jumps: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    pending = set(jumps.get(start, ()))
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending |= jumps.get(name, set())
    return found
