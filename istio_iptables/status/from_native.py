"""from_native: native nftables tables in the form of iptables, so that one reader reads the settings of both.

It undoes what rules/nftables/translate.py does, as far as settings can be read from it: a set becomes a rule
for each CIDR or a match of several ports, a chain for the rules after a negated owner goes back to where it
came from. What comes out is for reading alone: nothing adds the tags, and an owner that the translation left
out stays left out.
"""

from __future__ import annotations

from itertools import product

from ..rules import model
from ..rules.istio import NATIVE_TABLES
from ..rules.model import FAMILIES, Chain, Cidr, PortRange, Ruleset, Table
from ..rules.nftables import model as nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..rules.model import Family, Match, RoutingObject, Rule, TableName, Target
    from ..rules.nftables.model import NativeChain, NativeTable, Ranges

#: As many owners as one set of this tool can have: no list of groups has more (settings/parsers.py).
_MOST_OWNERS = 64
#: How many base chains, and chains below each other, are followed at most; the translation makes two.
_DEEPEST = 16


def as_iptables(native: Iterable[NativeTable], routing: tuple[RoutingObject, ...] = ()) -> Ruleset:
    """Return native tables as tables of iptables, for each family whose packets they look at."""
    by_name = {table.name: table for table in native}
    names: list[TableName] = [name for name in model.TABLES if NATIVE_TABLES[name] in by_name]
    families = [family for family in FAMILIES if any(_sees(table, family) for table in by_name.values())]
    tables = [
        Table(family, name, _chains(by_name[NATIVE_TABLES[name]], family))
        for family in families
        for name in names
    ]
    return Ruleset(tuple(table for table in tables if not table.is_empty), routing)


def _sees(table: NativeTable, family: Family) -> bool:
    """Tell whether a base chain has a rule for packets of a family: a family that is off has none."""
    return any(_is_for(rule, family) for chain in table.chains if chain.hook for rule in chain.rules)


def _is_for(rule: Rule, family: Family) -> bool:
    """Tell whether a rule can match packets of a family."""
    return all(
        match.family == family
        for match in rule.matches
        if isinstance(match, (nftables.NfProto, nftables.Addresses))
    )


def _chains(table: NativeTable, family: Family) -> tuple[Chain, ...]:
    """Return the chains of one family; those that the translation split off are back in their chain."""
    by_name = {chain.name: chain for chain in table.chains}
    whole = [chain for chain in table.chains if "-of-" not in chain.name]
    return tuple(
        Chain(_name(chain), tuple(_rules(chain, family, by_name, _DEEPEST))) for chain in whole if chain.rules
    )


def _name(chain: NativeChain) -> str:
    """Return the name that a chain has in iptables; base chains have those of the built-in chains."""
    return chain.name.upper().replace("-", "_")


def _rules(
    chain: NativeChain, family: Family, by_name: dict[str, NativeChain], deepest: int
) -> Iterator[Rule]:
    for rule in chain.rules:
        if not _is_for(rule, family) or _is_drop_after_tproxy(rule, chain):
            continue
        split_off = by_name.get(rule.target.chain) if isinstance(rule.target, model.Jump) else None
        if split_off and split_off.name.startswith(f"{chain.name}-of-") and deepest:
            yield from _return_of_others(rule, family)
            yield from _rules(split_off, family, by_name, deepest - 1)
        else:
            yield from _as_rules(rule, family)


def _is_drop_after_tproxy(rule: Rule, chain: NativeChain) -> bool:
    """Tell whether a rule is the one that drops what tproxy has not taken: iptables needs none."""
    return rule.target == model.DROP and any(isinstance(r.target, nftables.FamilyTProxy) for r in chain.rules)


def _return_of_others(rule: Rule, family: Family) -> Iterator[Rule]:
    """Yield `not the owners: return` for `the owners: go to`."""
    for made in _as_rules(rule, family, several_owners=True):
        matches = tuple(
            match.replace(negated=True) if isinstance(match, (model.UidOwner, model.GidOwner)) else match
            for match in made.matches
        )
        yield made.replace(matches=matches, target=model.RETURN)


def _as_rules(rule: Rule, family: Family, *, several_owners: bool = False) -> Iterator[Rule]:
    """Yield the rules that mean a native rule: several if it has a set that iptables has no match for.

    `several_owners`: owners are alternatives of which none may hold, and so stay in one rule.
    """
    target = _target(rule.target)
    choices: list[Sequence[tuple[Match, ...]]] = []
    for match in rule.matches:
        if isinstance(match, nftables.NfProto):
            continue
        if isinstance(match, nftables.Addresses):
            choices.append([(made,) for made in _addresses(match)])
        elif isinstance(match, nftables.Ports):
            choices.append([_ports(match)])
        elif isinstance(match, nftables.Owners):
            owners = _owners(match)
            together = several_owners or match.negated or owners is None
            choices.append([owners or (_unknown(match),)] if together else [(one,) for one in owners or ()])
        else:
            choices.append([(match,)])
    for chosen in product(*choices):
        matches = tuple(match for part in chosen for match in part)
        yield rule.replace(matches=matches, target=target)


def _target(target: Target) -> Target:
    if isinstance(target, model.Jump):
        return model.Jump(target.chain.upper().replace("-", "_"), target.goto)
    if isinstance(target, nftables.FamilyTProxy):
        return model.TProxy(target.port, target.mark)
    return target


def _addresses(match: nftables.Addresses) -> Iterator[Match]:
    kind = model.Source if match.direction == "source" else model.Destination
    version = 4 if match.family == model.IPV4 else 6
    for cidr in cidrs_of(version, match.ranges):
        if cidr.is_everything:  # no match is how iptables says that, and a rule without one is another rule
            for half in halves(cidr):
                yield kind(half, match.negated)
        else:
            yield kind(cidr, match.negated)


def cidrs_of(version: int, ranges: Ranges) -> Iterator[Cidr]:
    """Yield the fewest CIDRs that are ranges of addresses, in order.

    >>> [str(cidr) for cidr in cidrs_of(4, ((0x0A000000, 0x0A000002),))]
    ['10.0.0.0/31', '10.0.0.2/32']
    """
    bits = 32 if version == 4 else 128
    for first, last in ranges:
        at = first
        while at <= last:
            # As long as a CIDR can be that begins here, and does not go beyond the end.
            size = at & -at or 1 << bits
            while size > last - at + 1:
                size >>= 1
            yield Cidr(version, at, bits - size.bit_length() + 1)
            at += size


def halves(cidr: Cidr) -> tuple[Cidr, Cidr]:
    """Return the two halves of a CIDR that is no host route."""
    prefix = cidr.prefix + 1
    return cidr.replace(prefix=prefix), Cidr(cidr.version, cidr.address | 1 << (cidr.bits - prefix), prefix)


def _ports(match: nftables.Ports) -> tuple[Match, ...]:
    ranges = tuple(PortRange(*both) for both in match.ranges)
    transport = model.Transport(match.protocol)
    if match.direction == "source":
        return (
            (transport, model.SourcePort(ranges[0], match.negated))
            if len(ranges) == 1
            else (_unknown(match),)
        )
    if len(ranges) == 1:
        return transport, model.DestinationPort(ranges[0], match.negated)
    return transport, model.DestinationPorts(ranges, match.negated)


def _owners(match: nftables.Owners) -> tuple[model.UidOwner, ...] | tuple[model.GidOwner, ...] | None:
    """Return a match for each owner, None for more than this tool puts into a set."""
    if sum(last - first + 1 for first, last in match.ids) > _MOST_OWNERS:
        return None
    ids = [number for first, last in match.ids for number in range(first, last + 1)]
    if match.kind == "user":
        return tuple(model.UidOwner(number, match.negated) for number in ids)
    return tuple(model.GidOwner(number, match.negated) for number in ids)


def _unknown(match: Match) -> Match:
    """Return a match that no reader knows."""
    return model.ForeignMatch((repr(match),))
