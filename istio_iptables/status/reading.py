"""reading: what the rules of one family say of the settings, chain by chain: the policy read backwards.

A rule is told by the kinds of its matches and by its target. What is not of a known kind is passed over:
whether the settings that were read are those of the rules, settings_of.py finds out by making their rules.
"""

from __future__ import annotations

from ..rules import istio, model
from ..rules.model import RETURN, Cidr, Comment, Jump, PortRange
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from ..rules.model import Chain, Family, Match, Rule, Ruleset, Table

    M = TypeVar("M", bound=Match)


class Listing(Record):
    """The members of a list, and the comments on the rules that they were read from, if there are any."""

    members: tuple[Any, ...] = ()
    comments: tuple[str, ...] = ()


class Reading(Record):
    """What the rules of a family say. None is for what no rule says."""

    family: Family
    outbound_port: int | None
    inbound_port: int | None
    tunnel_port: int | None
    proxy_uids: tuple[int, ...]
    proxy_gids: tuple[int, ...]
    tproxy: bool
    captures_all_inbound: bool
    inbound_ports: Listing
    inbound_ports_excluded: Listing
    interfaces_excluded: tuple[str, ...]
    rerouted_interfaces: tuple[str, ...]
    destinations: Listing
    destinations_excluded: Listing
    outbound_ports: Listing
    outbound_ports_excluded: Listing
    #: Traffic of the proxy itself over the loopback interface is captured, too.
    names_loopback: bool
    tproxy_mark: int | None
    redirect_dns: bool
    capture_all_dns: bool
    dns_single_zone: bool
    dns_servers: tuple[Cidr, ...]
    drop_invalid: bool
    #: None if every group is captured.
    owner_groups: tuple[int, ...] | None
    owner_groups_excluded: tuple[int, ...]
    loopback: Cidr | None
    rule_comments: bool
    #: A rule matches several ports: only --compact writes that, outside of native nftables.
    several_ports: bool


def read(found: Ruleset, family: Family) -> Reading:
    """Return what the rules of one family say; `found` has owned rules alone."""
    nat, mangle, raw = (found.table(family, name) for name in ("nat", "mangle", "raw"))
    output = _Output(nat.chain(istio.OUTPUT), family)
    excluded = _names(_returns(nat.chain("OUTPUT"), model.OutInterface), model.OutInterface)
    tproxy = _captures_by_tproxy(mangle)
    inbound = (mangle if tproxy else nat).chain(istio.INBOUND)
    to_proxy = Jump(istio.TPROXY if tproxy else istio.IN_REDIRECT)
    tunnel_port = _tunnel_port(nat) or output.tunnel_port
    ports_excluded = [rule for rule in _listing_ports(inbound) if rule.target == RETURN]
    if not tproxy:
        ports_excluded = _without_first(ports_excluded, tunnel_port)
    return Reading(
        family,
        outbound_port=_redirect_port(nat.chain(istio.REDIRECT)),
        inbound_port=_redirect_port(nat.chain(istio.IN_REDIRECT)),
        tunnel_port=tunnel_port,
        proxy_uids=output.proxy_uids,
        proxy_gids=output.proxy_gids,
        tproxy=tproxy,
        captures_all_inbound=any(
            _kinds(rule) == {model.Transport} and rule.target == to_proxy for rule in inbound.rules
        ),
        inbound_ports=_ports(rule for rule in _listing_ports(inbound) if rule.target == to_proxy),
        inbound_ports_excluded=_ports(ports_excluded),
        interfaces_excluded=excluded,
        rerouted_interfaces=_rerouted(nat.chain("PREROUTING"), excluded),
        destinations=output.destinations,
        destinations_excluded=output.destinations_excluded,
        outbound_ports=output.outbound_ports,
        outbound_ports_excluded=output.outbound_ports_excluded,
        names_loopback=output.names_loopback,
        tproxy_mark=_tproxy_mark(mangle),
        redirect_dns=output.redirect_dns or not raw.is_empty,
        capture_all_dns=_captures_all_dns(raw),
        dns_single_zone=_has_single_zone(raw),
        dns_servers=_dns_servers(raw),
        drop_invalid=bool(mangle.chain(istio.DROP).rules),
        owner_groups=output.owner_groups,
        owner_groups_excluded=output.owner_groups_excluded,
        loopback=output.loopback,
        rule_comments=_has_comments(nat, mangle, raw),
        several_ports=any(
            isinstance(match, model.DestinationPorts) and not match.negated
            for table in (nat, mangle)
            for chain in table.chains
            for rule in chain.rules
            for match in rule.matches
        ),
    )


# --- rules ------------------------------------------------------------------------------------


def _kinds(rule: Rule) -> set[type[Match]]:
    """Return the kinds of the matches of a rule, comments left out."""
    return {type(match) for match in rule.matches if not isinstance(match, Comment)}


def _match(rule: Rule, kind: type[M]) -> M | None:
    return next((match for match in rule.matches if isinstance(match, kind)), None)


def _each(rules: Iterable[Rule], kind: type[M]) -> list[M]:
    """Return the first match of a kind of every rule that has one."""
    return [match for rule in rules if (match := _match(rule, kind))]


def _comments(rule: Rule) -> list[str]:
    return [match.text for match in rule.matches if isinstance(match, Comment)]


def _first(chain: Chain, holds: Callable[[Rule], bool]) -> Rule | None:
    return next((rule for rule in chain.rules if holds(rule)), None)


_PORT_KINDS = (
    {model.Transport, model.DestinationPort},
    {model.Transport, model.DestinationPorts},
)


def _is_about_ports(rule: Rule) -> bool:
    """Tell whether a rule is for TCP to some ports, whatever else the packets are."""
    return _kinds(rule) in _PORT_KINDS and not _negated(rule) and _protocol(rule) == "tcp"


def _protocol(rule: Rule) -> str:
    transport = _match(rule, model.Transport)
    return transport.protocol if transport else ""


def _negated(rule: Rule) -> bool:
    return any(getattr(match, "negated", False) for match in rule.matches)


def _listing_ports(chain: Chain) -> list[Rule]:
    return [rule for rule in chain.rules if _is_about_ports(rule)]


def _ports_of(rule: Rule) -> tuple[PortRange, ...]:
    one = _match(rule, model.DestinationPort)
    several = _match(rule, model.DestinationPorts)
    return (one.ports,) if one else several.ports if several else ()


def _ports(rules: Iterable[Rule]) -> Listing:
    rules = list(rules)
    return Listing(
        tuple(ports for rule in rules for ports in _ports_of(rule)),
        tuple(text for rule in rules for text in _comments(rule)),
    )


def _without_first(rules: list[Rule], port: int | None) -> list[Rule]:
    """Leave out the rule for the tunnel port, which comes before those of the list."""
    at = next((i for i, r in enumerate(rules) if port and _ports_of(r) == (PortRange(port, port),)), None)
    return rules if at is None else [*rules[:at], *rules[at + 1 :]]


def _redirect_port(chain: Chain) -> int | None:
    return next((rule.target.port for rule in chain.rules if isinstance(rule.target, model.Redirect)), None)


def _tunnel_port(nat: Table) -> int | None:
    rule = _first(nat.chain(istio.INBOUND), lambda rule: rule.target == RETURN and _is_about_ports(rule))
    ports = _ports_of(rule) if rule else ()
    return ports[0].first if ports else None


def _has_comments(*tables: Table) -> bool:
    """Tell whether rules have other comments than the tag, which says whose a rule is."""
    return any(
        text != istio.TAG
        for table in tables
        for chain in table.chains
        for rule in chain.rules
        for text in _comments(rule)
    )


# --- interfaces -------------------------------------------------------------------------------


def _returns(chain: Chain, kind: type[Match]) -> list[Rule]:
    """Return the rules of a built-in chain that leave traffic of an interface, or of any, alone."""
    return [rule for rule in chain.rules if rule.target == RETURN and _kinds(rule) <= {kind}]


def _names(
    rules: Iterable[Rule], kind: type[model.InInterface] | type[model.OutInterface]
) -> tuple[str, ...]:
    """Return the interfaces of rules; without a match it is every interface."""
    found = [_match(rule, kind) for rule in rules]
    return tuple(match.name if match else "+" for match in found)


def _rerouted(prerouting: Chain, excluded: tuple[str, ...]) -> tuple[str, ...]:
    """Return the interfaces of -k: those that PREROUTING leaves alone before those of -c.

    -c has a rule for each interface in OUTPUT, too, so it is known how many of the last ones are its own.
    """
    names = _names(_returns(prerouting, model.InInterface), model.InInterface)
    rerouted = names[: max(len(names) - len(excluded), 0)]
    if not names:  # they were removed
        jumps = [rule for rule in prerouting.rules if rule.target == Jump(istio.REDIRECT)]
        rerouted = tuple(dict.fromkeys(_names(jumps, model.InInterface)))
    return rerouted[::-1]


# --- ISTIO_OUTPUT of nat ------------------------------------------------------------------------


class _Output:
    """What the chain ISTIO_OUTPUT of nat says."""

    def __init__(self, chain: Chain, family: Family) -> None:
        calls = [rule for rule in chain.rules if rule.target == Jump(istio.IN_REDIRECT)]
        self.proxy_uids = tuple(match.uid for match in _each(calls, model.UidOwner))
        self.proxy_gids = tuple(match.gid for match in _each(calls, model.GidOwner))
        self.tunnel_port = next((m.ports.first for m in _each(calls, model.DestinationPort)), None)
        self.redirect_dns = bool(_each(calls, model.DestinationPorts))
        self.loopback = next((m.cidr for m in _each(calls, model.Destination) if m.negated), None)
        self.names_loopback = bool(calls) and not any(map(self._is_own_call, chain.rules))
        self._read_owners(chain)
        self._read_lists(chain, family)

    @staticmethod
    def _is_own_call(rule: Rule) -> bool:
        """Tell whether a rule leaves alone what an application sends over the loopback interface."""
        out = _match(rule, model.OutInterface)
        from_address = _match(rule, model.Source)
        return bool(out) and not from_address and rule.target == RETURN

    def _read_owners(self, chain: Chain) -> None:
        """Read the rules that decide by the owner alone: of the proxy, then of groups."""
        owners = [rule for rule in chain.rules if rule.target == RETURN and not _negated(rule)]
        uids = [m.uid for m in _each((r for r in owners if _kinds(r) == {model.UidOwner}), model.UidOwner)]
        gids = [m.gid for m in _each((r for r in owners if _kinds(r) == {model.GidOwner}), model.GidOwner)]
        if not self.proxy_uids and not self.proxy_gids:  # the rules that tell more were removed
            self.proxy_uids, self.proxy_gids = tuple(uids), ()
        self.owner_groups_excluded = tuple(gids[len(self.proxy_gids) :])
        listed = _first(chain, lambda r: r.target == RETURN and _kinds(r) == {model.GidOwner} and _negated(r))
        self.owner_groups: tuple[int, ...] | None = None
        if listed:
            self.owner_groups = tuple(m.gid for m in listed.matches if isinstance(m, model.GidOwner))

    def _read_lists(self, chain: Chain, family: Family) -> None:
        """Read the lists of ports and destinations, and which address is the loopback one."""
        local = self.loopback or (Cidr(4, 0x7F000001, 32) if family == model.IPV4 else Cidr(6, 1, 128))
        captured, excluded = [], []
        passed_loopback = False
        for rule in chain.rules:
            if not _kinds(rule) <= {model.Destination} or _negated(rule):
                continue
            if rule.target == Jump(istio.REDIRECT):
                captured.append(rule)
            elif rule.target == RETURN and not passed_loopback:
                passed_loopback = _destination(rule, family) == local
                if not _kinds(rule):  # for every packet, before destinations count: no group is captured
                    self.owner_groups = ()
            elif rule.target == RETURN:
                excluded.append(rule)
        self.destinations = _destinations(captured, family)
        self.destinations_excluded = _destinations(excluded, family)
        by_port = _listing_ports(chain)
        self.outbound_ports = _ports(rule for rule in by_port if rule.target == Jump(istio.REDIRECT))
        self.outbound_ports_excluded = _ports(rule for rule in by_port if rule.target == RETURN)


def _destination(rule: Rule, family: Family) -> Cidr:
    """Return the destination of a rule: a rule without one is for every address."""
    match = _match(rule, model.Destination)
    return match.cidr if match else Cidr(4 if family == model.IPV4 else 6, 0, 0)


def _destinations(rules: Iterable[Rule], family: Family) -> Listing:
    rules = list(rules)
    return Listing(
        tuple(_destination(rule, family) for rule in rules),
        tuple(text for rule in rules for text in _comments(rule)),
    )


# --- mangle and raw ---------------------------------------------------------------------------


def _captures_by_tproxy(mangle: Table) -> bool:
    saves = any(rule.target == model.SaveMark() for rule in mangle.chain("PREROUTING").rules)
    return saves or any(mangle.chain(name).rules for name in (istio.INBOUND, istio.TPROXY))


def _tproxy_mark(mangle: Table) -> int | None:
    rule = _first(mangle.chain("PREROUTING"), lambda rule: rule.target == model.SaveMark())
    mark = _match(rule, model.Mark) if rule else None
    if mark:
        return mark.value
    targets = [rule.target for rule in mangle.chain(istio.TPROXY).rules]
    return next((target.mark for target in targets if isinstance(target, model.TProxy)), None)


def _queries(raw: Table) -> Iterator[Rule]:
    """Yield the rules for queries of the application."""
    for rule in raw.chain(istio.OUTPUT_DNS).rules:
        if _match(rule, model.DestinationPort) and _kinds(rule).isdisjoint((model.UidOwner, model.GidOwner)):
            yield rule


def _captures_all_dns(raw: Table) -> bool:
    return any(_match(rule, model.Destination) is None for rule in _queries(raw))


def _dns_servers(raw: Table) -> tuple[Cidr, ...]:
    """Return the servers as host routes: --compact merges neighbours."""
    found = [match.cidr for rule in _queries(raw) if (match := _match(rule, model.Destination))]
    return tuple(host for cidr in found for host in _hosts(cidr))


#: As many servers as one rule may have: --compact merges those whose addresses follow each other.
_MOST_HOSTS = 256


def _hosts(cidr: Cidr) -> Iterator[Cidr]:
    for address in range(cidr.address, min(cidr.last + 1, cidr.address + _MOST_HOSTS)):
        yield Cidr(cidr.version, address, cidr.bits)


def _has_single_zone(raw: Table) -> bool:
    return any(rule.target == RETURN for rule in raw.chain(istio.OUTPUT_DNS).rules)
