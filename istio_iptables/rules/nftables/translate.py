"""translate: a Ruleset as nftables tables, with the same verdict for every packet of a family that is on.

Differences between iptables and nftables, and what is done about them:

- A table of family inet sees both families. Rules that are the same for both appear once; others, and the
  rules of base chains if only one family is on, match the family.
- Lists become sets (see lists.py).
- The owner match of iptables, negated, holds for packets that belong to no socket (xt_owner.c); `meta skuid
  !=` does not (nft_meta.c). A negated owner is therefore never written: see the end of this file.
- TPROXY drops a packet if no socket listens (xt_TPROXY.c); tproxy goes on to the next rule
  (nft_tproxy.c), so it is followed by a rule that drops.
"""

from __future__ import annotations

from .. import model
from ..edit import common_subsequence
from ..istio import NATIVE_TABLES, TAG
from ..lists import join, union
from ..model import PortRange, Rule
from . import model as nftables
from .model import Hook, NativeChain, NativeTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ..lists import Join
    from ..model import Family, Match, Protocol, Ruleset, TableName
    from .model import Direction

#: The base chains: where iptables has its built-in chains of the same name (nft(8), standard priorities).
HOOKS: Mapping[tuple[TableName, str], Hook] = {
    ("raw", "PREROUTING"): Hook("filter", "prerouting", -300),
    ("raw", "OUTPUT"): Hook("filter", "output", -300),
    ("mangle", "PREROUTING"): Hook("filter", "prerouting", -150),
    # As in iptables, a packet whose mark has been changed here is routed again.
    ("mangle", "OUTPUT"): Hook("route", "output", -150),
    ("nat", "PREROUTING"): Hook("nat", "prerouting", -100),
    ("nat", "OUTPUT"): Hook("nat", "output", -100),
}

#: Longest comment that nftables keeps, in bytes (NFTNL_UDATA_COMMENT_MAXLEN).
_LONGEST_COMMENT = 127


def translate(ruleset: Ruleset) -> tuple[NativeTable, ...]:
    """Return the tables that mean the same as a Ruleset; those without a rule are left out."""
    tables = [NativeTable(NATIVE_TABLES[name], _chains(ruleset, name)) for name in model.TABLES]
    return tuple(table for table in tables if table.chains)


def _chains(ruleset: Ruleset, table: TableName) -> tuple[NativeChain, ...]:
    families = ruleset.families()
    of_family = {family: ruleset.table(family, table) for family in families}
    names = dict.fromkeys(chain.name for each in of_family.values() for chain in each.chains)
    chains: list[NativeChain] = []
    for name in names:
        hook = HOOKS.get((table, name))
        lists = [
            (family, _native_rules(of_family[family].chain(name).in_order, family)) for family in families
        ]
        # A packet in a chain without a hook has passed a base chain, and so belongs to a family that is on.
        rules = _both_families(lists, model.FAMILIES if hook else families)
        chains += _without_negated_owners(NativeChain(chain_name(name), hook, rules))
    return tuple(chains)


def chain_name(name: str) -> str:
    """Return the name that a chain of iptables has here: ISTIO_OUTPUT is istio-output."""
    return name.lower().replace("_", "-")


# --- both families in one chain ---------------------------------------------------------------


def _both_families(
    lists: Sequence[tuple[Family, Sequence[Rule]]], seen: Sequence[Family]
) -> tuple[Rule, ...]:
    """Merge the rules of the families that are on into one list, each family's order kept.

    `seen` are the families whose packets reach the chain.
    """
    if len(lists) == 1:
        [(family, rules)] = lists
        return tuple(rules) if tuple(seen) == (family,) else tuple(_only(rule, family) for rule in rules)
    (one, ones), (other, others) = lists
    merged: list[Rule] = []
    i = j = 0
    for common_i, common_j in (*common_subsequence(ones, others), (len(ones), len(others))):
        merged += [_only(rule, one) for rule in ones[i:common_i]]
        merged += [_only(rule, other) for rule in others[j:common_j]]
        merged += ones[common_i : common_i + 1]
        i, j = common_i + 1, common_j + 1
    return tuple(merged)


def _only(rule: Rule, family: Family) -> Rule:
    """Return the rule for packets of one family; a match of addresses implies the family."""
    if any(isinstance(match, nftables.Addresses) for match in rule.matches):
        return rule
    return rule.replace(matches=(nftables.NfProto(family), *rule.matches))


# --- rules ------------------------------------------------------------------------------------


def _native_rules(rules: Sequence[Rule], family: Family) -> list[Rule]:
    native: list[Rule] = []
    for rule in join(rules, _JOINS):
        target = rule.target
        if isinstance(target, model.Jump):
            target = model.Jump(chain_name(target.chain), target.goto)
        if isinstance(target, model.TProxy):
            target = nftables.FamilyTProxy(target.port, target.mark, family)
        native.append(Rule(_native_matches(rule.matches, family), target, rule.reason))
        if isinstance(target, model.TProxy):
            native.append(_drop_after(native[-1]))
    return _without_needless_owners(native)


def _drop_after(rule: Rule) -> Rule:
    """Return the rule that drops what a rule with tproxy has not taken."""
    reason = "no process listens there: nothing goes past the proxy"
    matches = tuple(
        model.Comment(reason) if isinstance(match, model.Comment) else match for match in rule.matches
    )
    return Rule(matches, model.DROP, reason)


def _native_matches(matches: Sequence[Match], family: Family) -> tuple[Match, ...]:
    """Return the matches of a rule in nftables' terms."""
    protocol: Protocol = next(
        (match.protocol for match in matches if isinstance(match, model.Transport)), "tcp"
    )
    native: list[Match] = []
    for match in matches:
        found = _NATIVE_MATCH[type(match)](match, family, protocol)
        last = native[-1] if native else None
        if (
            isinstance(found, nftables.Owners)
            and isinstance(last, nftables.Owners)
            and found.negated
            and last.negated
        ):
            native[-1] = last.replace(ids=union((*last.ids, *found.ids)))  # none of them
        elif found is not None:
            native.append(found)
    if any(isinstance(match, nftables.Ports) for match in native):
        native = [match for match in native if not isinstance(match, model.Transport)]
    return tuple(native)


def _cidrs(direction: Direction) -> Callable[[Sequence[model.Source | model.Destination]], list[Match]]:
    def joined(members: Sequence[model.Source | model.Destination]) -> list[Match]:
        ranges = union((member.cidr.address, member.cidr.last) for member in members)
        return [nftables.Addresses(direction, members[0].cidr.family, ranges)]

    return joined


def _ports(members: Sequence[model.DestinationPort]) -> list[Match]:
    ranges = union((member.ports.first, member.ports.last) for member in members)
    return [model.DestinationPorts(tuple(PortRange(*both) for both in ranges))]


def _groups(members: Sequence[model.GidOwner]) -> list[Match]:
    return [nftables.Owners("group", union((member.gid, member.gid) for member in members))]


_JOINS: Mapping[type[Match], Join] = {
    model.Source: _cidrs("source"),
    model.Destination: _cidrs("destination"),
    model.DestinationPort: _ports,
    model.GidOwner: _groups,
}


def _as_it_is(match: Match, _family: Family, _protocol: Protocol) -> Match:
    return match


def _cidr(direction: Direction) -> Callable[[Any, Family, Protocol], Match]:
    def native(match: model.Source | model.Destination, family: Family, _: Protocol) -> Match:
        cidr = match.cidr
        return nftables.Addresses(direction, family, ((cidr.address, cidr.last),), match.negated)

    return native


def _port(direction: Direction) -> Callable[[Any, Family, Protocol], Match]:
    def native(match: model.SourcePort | model.DestinationPort, _: Family, protocol: Protocol) -> Match:
        return nftables.Ports(direction, protocol, ((match.ports.first, match.ports.last),), match.negated)

    return native


def _several_ports(match: model.DestinationPorts, _: Family, protocol: Protocol) -> Match:
    ranges = union((ports.first, ports.last) for ports in match.ports)
    return nftables.Ports("destination", protocol, ranges, match.negated)


def _comment(match: model.Comment, _family: Family, _protocol: Protocol) -> Match | None:
    """Return the comment without the tag, which an owned table does not need, as far as it fits.

    Double quotes become single ones: nft has no way to write them.
    """
    written = match.text.removeprefix(TAG).removeprefix(": ").replace('"', "'")
    text = written.encode()[:_LONGEST_COMMENT]
    return model.Comment(text.decode(errors="ignore")) if text else None


#: The nftables form of each kind of match that the policy writes.
_NATIVE_MATCH: Mapping[type[Match], Callable[[Any, Family, Protocol], Match | None]] = {
    model.Source: _cidr("source"),
    model.Destination: _cidr("destination"),
    model.SourcePort: _port("source"),
    model.DestinationPort: _port("destination"),
    model.DestinationPorts: _several_ports,
    model.UidOwner: lambda match, _, __: nftables.Owners("user", ((match.uid, match.uid),), match.negated),
    model.GidOwner: lambda match, _, __: nftables.Owners("group", ((match.gid, match.gid),), match.negated),
    model.Comment: _comment,
    **dict.fromkeys(
        (
            model.Transport,
            model.InInterface,
            model.OutInterface,
            model.Mark,
            model.ConnectionMark,
            model.ConntrackState,
            nftables.Addresses,
            nftables.Owners,
        ),
        _as_it_is,
    ),
}


# --- negated owners ---------------------------------------------------------------------------


def _without_needless_owners(rules: Sequence[Rule]) -> list[Rule]:
    """Drop a negated owner where the next rule does the same for the owner itself.

    `lo and not 1337: return` before `1337: return` is `lo: return` before it.
    """
    following = (*rules[1:], None)
    return [
        rule.replace(matches=tuple(match for match in rule.matches if match != _negated_owner(rule)))
        if after is not None and _does_the_rest(after, rule)
        else rule
        for rule, after in zip(rules, following, strict=False)
    ]


def _does_the_rest(after: Rule, rule: Rule) -> bool:
    negated = _negated_owner(rule)
    conditions = tuple(match for match in after.matches if not isinstance(match, model.Comment))
    return (
        negated is not None
        and conditions == (negated.replace(negated=False),)
        and after.target == rule.target
        and isinstance(rule.target, model.Verdict)
    )


def _negated_owner(rule: Rule) -> nftables.Owners | None:
    return next(
        (match for match in rule.matches if isinstance(match, nftables.Owners) and match.negated), None
    )


def _without_negated_owners(chain: NativeChain) -> list[NativeChain]:
    """Turn `not the owners: return` and rules into `the owners: go to` a chain of those rules."""
    for number, rule in enumerate(chain.rules):
        negated = _negated_owner(rule)
        if negated is None:
            continue
        others = tuple(match for match in rule.matches if isinstance(match, model.Comment))
        if rule.target != model.RETURN or rule.matches != (negated, *others) or chain.hook:
            raise ValueError(f"no way to write this for nftables: {rule}")
        name = f"{chain.name}-of-{negated.kind}s"
        go_on = Rule((negated.replace(negated=False), *others), model.Jump(name, goto=True), rule.reason)
        rest = NativeChain(name, None, chain.rules[number + 1 :])
        return [chain.replace(rules=(*chain.rules[:number], go_on)), *_without_negated_owners(rest)]
    return [chain]
