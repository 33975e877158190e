"""neighbours: foreign rules that take a packet before the rules of istio-iptables do, and what that means.

The kernel asks the nat chains of one hook and priority, legacy tables and nf_tables alike, in the order of their
registration, the last one first (nf_hook_entries_grow in net/netfilter/core.c; seen with Linux 6.18 in all
combinations), and the first one that translates a connection decides. Nothing tells that order afterwards. In one
chain the order is that of the rules. `findings` compares what foreign rules take with what the wanted rules capture.

Rules of all tools come as Steps: `of_iptables` makes them of a table, formats/nft_foreign.py of what nft prints.
"""

from __future__ import annotations

from ..rules import istio, model
from ..rules.forms import may_be_istios
from ..rules.ownership import is_owned, owned_rules
from ..rules.traffic import Captured, Traffic, captured, everything
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal, TypeAlias

    from ..rules.model import Family, Match, Rule, Ruleset, Table, TableName
    from ..rules.nftables.model import Ranges
    from .actions import Live, Location

    #: jump: to chains, as it may be of a map; translate: DNAT and REDIRECT; source: SNAT and MASQUERADE; accept and
    #: return: as iptables has them; untrack: no conntrack, and so no nat; other: it goes on.
    Kind: TypeAlias = Literal["jump", "translate", "source", "accept", "return", "untrack", "other"]

PREROUTING, OUTPUT, POSTROUTING = "PREROUTING", "OUTPUT", "POSTROUTING"
#: The priority of iptables' nat chains, and of istio-iptables' own, before routing (NF_IP_PRI_NAT_DST).
NAT_PRIORITY = -100


class Step(Record):
    """A rule of any tool. `words` are the tool's; `to` is the destination that it translates to.

    `local`: it is only for addresses of this machine. `vague`: it has matches that are not understood here.
    """

    words: str | Rule
    kind: Kind
    matches: tuple[Match, ...] = ()
    to: str = ""
    chains: tuple[str, ...] = ()
    local: bool = False
    vague: bool = False


class Base(Record):
    """A chain that the kernel calls: its hook, and `before`: its rules come before istio-iptables' own.

    `before` is None if that is not known.
    """

    name: str
    hook: str
    before: bool | None
    steps: tuple[Step, ...]
    same: bool = False  #: it is the chain that istio-iptables has its rules in


class Neighbour(Record):
    """What is foreign in one table: `where` names the table in the words of its tool."""

    where: str
    family: Family
    table: TableName
    bases: tuple[Base, ...]
    chains: tuple[tuple[str, tuple[Step, ...]], ...] = ()

    def steps(self, name: str) -> tuple[Step, ...]:
        """Return the rules of a chain that is called by others."""
        return dict(self.chains).get(name, ())


class Finding(Record):
    """A foreign rule, and the traffic that does not go where the settings want it because of it.

    `effect`: `bypass`, past the proxy; `address`, to the proxy, which is told another destination than was dialled
    (TPROXY); `answers`, forwarded DNS, and `agent`, that of the agent itself, get no answers (conntrack zones).
    `certain` is False if it depends on the order of registration, `vague` is True if it depends on matches that
    are not understood here. `same`: it is in a table in which istio-iptables has its rules, too.
    """

    where: str
    chain: str
    rule: str | Rule
    effect: Literal["bypass", "address", "answers", "agent"]
    traffic: tuple[str, ...]
    certain: bool = True
    same: bool = False
    vague: bool = False


# --- iptables ---------------------------------------------------------------------------------


def of_iptables(live: Live, location: Location) -> Iterator[Neighbour]:
    """Yield the tables of iptables that have foreign rules; `location` is where the wanted rules are."""
    for place, tables in live.tables.items():
        for table in tables:
            bases = tuple(_bases(table, same=place == location))
            if bases:
                called = tuple((c.name, _steps(c.rules)) for c in table.chains if not is_owned(c))
                where = f"{table.family} {table.name} ({place})"
                yield Neighbour(where, table.family, table.name, bases, called)


def _bases(table: Table, *, same: bool) -> Iterator[Base]:
    spared = frozenset(rule for _, rule in may_be_istios(table))  # there is a warning about them already
    for chain in table.chains:
        if chain.name not in (PREROUTING, OUTPUT, POSTROUTING):
            continue
        ours = owned_rules(table, chain)
        jumps = [position for position in ours if isinstance(chain.rules[position].target, model.Jump)]
        end = jumps[0] if jumps and same and chain.name != POSTROUTING else len(chain.rules)
        ahead = [r for i, r in enumerate(chain.rules[:end]) if i not in ours and r not in spared]
        # Rules of raw come before all of nat.
        before = True if same or table.name != "nat" else None
        if ahead and (same or table.name != "mangle"):
            yield Base(chain.name, chain.name, before, _steps(ahead), same)
        behind = [r for i, r in enumerate(chain.rules) if i >= end and i not in ours]
        if behind:
            yield Base(chain.name, chain.name, False, _steps(behind), same)


def _steps(rules: Iterable[Rule]) -> tuple[Step, ...]:
    return tuple(map(_step, rules))


def _step(rule: Rule) -> Step:
    matches, local, vague = _understood(rule.matches)
    kind, to, chains = _effect(rule)
    return Step(rule, kind, matches, to, chains, local, vague)


def _effect(rule: Rule) -> tuple[Kind, str, tuple[str, ...]]:
    target = rule.target
    if isinstance(target, model.Jump):
        return "jump", "", (target.chain,)
    if isinstance(target, model.Redirect):
        return "translate", f"port {target.port}", ()
    if target in (model.ACCEPT, model.RETURN):
        return ("accept" if target == model.ACCEPT else "return"), "", ()
    args = target.args if isinstance(target, model.ForeignTarget) else ()
    name = args[1] if len(args) > 1 else ""
    if name in ("DNAT", "REDIRECT", "NETMAP"):
        return "translate", args[3] if len(args) > 3 else "", ()
    if name in ("SNAT", "MASQUERADE"):
        return "source", "", ()
    if name == "NOTRACK" or "--notrack" in args:
        return "untrack", "", ()
    return "other", "", ()


def _understood(matches: Iterable[Match]) -> tuple[tuple[Match, ...], bool, bool]:
    """Return the matches that this tool knows, and what else a Step says of them: `local`, `vague`.

    A rule with one foreign match is kept as arguments altogether: they are read here without that match.
    """
    found: list[Match] = []
    local = vague = False
    for match in matches:
        if isinstance(match, model.ForeignMatch):
            known, is_local, is_vague = _of_args(match.args)
            found += known
            local, vague = local or is_local, vague or is_vague
        else:
            found.append(match)
    return tuple(found), local, vague


def _of_args(args: Sequence[str]) -> tuple[list[Match], bool, bool]:
    """Read what is known among arguments of iptables-save, and `--dst-type LOCAL` of addrtype."""
    found: list[Match] = []
    local = vague = negated = False
    at = 0
    while at < len(args):
        arg, value = args[at], args[at + 1] if at + 1 < len(args) else ""
        if arg == "!":
            negated, at = True, at + 1
            continue
        try:
            if (arg, value, negated) == ("--dst-type", "LOCAL", False):
                local = True
            elif arg in _ARGS:
                found += _ARGS[arg](value, negated)
            elif arg != "-m":
                vague = True
        except ValueError:
            vague = True
        negated, at = False, at + 2
    return found, local, vague


def _cidr(text: str) -> model.Cidr:
    return model.Cidr.from_ipaddress(text)


def _range(text: str) -> model.PortRange:
    first, colon, last = text.partition(":")
    return model.PortRange(int(first or 0), int((last or 65535) if colon else first))


def _transport(text: str, negated: bool) -> list[Match]:
    # A protocol that is neither TCP nor UDP: no traffic that is captured.
    known: tuple[model.Protocol, ...] = ("tcp", "udp")
    if text in known:
        return [model.Transport(name, negated) for name in known if name == text]
    return [] if negated or text == "all" else [model.Transport("tcp"), model.Transport("udp")]


_ARGS = {
    "-p": _transport,
    "-i": lambda text, negated: [model.InInterface(text, negated)],
    "-o": lambda text, negated: [model.OutInterface(text, negated)],
    "-s": lambda text, negated: [model.Source(_cidr(text), negated)],
    "-d": lambda text, negated: [model.Destination(_cidr(text), negated)],
    "--dport": lambda text, negated: [model.DestinationPort(_range(text), negated)],
    "--sport": lambda text, negated: [model.SourcePort(_range(text), negated)],
    "--dports": lambda text, negated: [model.DestinationPorts(tuple(map(_range, text.split(","))), negated)],
    "--uid-owner": lambda text, negated: [model.UidOwner(int(text), negated)],
    "--gid-owner": lambda text, negated: [model.GidOwner(int(text), negated)],
}


# --- what they take ---------------------------------------------------------------------------


class _Taken(Record):
    """Traffic that a foreign rule takes, the rule, and how it got there."""

    neighbour: Neighbour
    base: Base
    chain: str
    step: Step
    traffic: Traffic


#: As many chains as are gone through below each other; nf_tables allows 16 (NFT_JUMP_STACK_SIZE).
_DEEPEST = 16
#: The longest path of rules that is looked at: services of a cluster may be ten thousand.
_MOST = 20_000


def _taken(neighbour: Neighbour, base: Base) -> Iterator[_Taken]:
    """Yield what the rules of a base chain, and of the chains that it calls, take, and source translations."""
    work = [(base.name, base.steps, everything(neighbour.family), 0)]
    looked = 0
    while work:
        chain, steps, traffic, depth = work.pop()
        for step in steps:
            looked += 1
            hit = traffic.narrowed(step.matches)
            if hit is None or looked > _MOST:
                continue
            hit = hit.replace(local=hit.local or step.local)
            if step.kind == "jump" and depth < _DEEPEST:
                work += [(name, neighbour.steps(name), hit, depth + 1) for name in step.chains]
            elif step.kind == "return" and depth:
                left = traffic if step.local or step.vague else traffic.without(hit)
                if left is None:
                    break
                traffic = left
            elif step.kind not in ("other", "jump"):
                yield _Taken(neighbour, base, chain, step, hit)


def findings(
    neighbours: Iterable[Neighbour], wanted: Ruleset, own: Sequence[model.Cidr] | None = None, *, forwards: bool = True
) -> tuple[Finding, ...]:
    """Return what foreign rules keep from the proxy, or from getting its answers.

    `own` are the addresses of this machine, None if they are not known; `forwards`: it forwards packets.
    """
    found: dict[tuple[object, ...], Finding] = {}
    for neighbour in neighbours:
        for base in neighbour.bases:
            for taken in _taken(neighbour, base):
                for finding in _findings(taken, wanted, own, forwards):
                    # A rule that several chains lead to is one finding.
                    key = (finding.where, finding.chain, str(finding.rule), finding.effect)
                    known = found.get(key)
                    if known:
                        traffic = tuple(dict.fromkeys((*known.traffic, *finding.traffic)))
                        finding = finding.replace(traffic=traffic, certain=known.certain and finding.certain)
                    found[key] = finding
    return tuple(found.values())


def _findings(
    taken: _Taken, wanted: Ruleset, own: Sequence[model.Cidr] | None, forwards: bool
) -> Iterator[Finding]:
    base, step, family = taken.base, taken.step, taken.neighbour.family

    def finding(effect: Literal["bypass", "address", "answers", "agent"], traffic: Iterable[str]) -> Finding:
        certain = base.before is True or effect != "bypass"
        return Finding(
            taken.neighbour.where,
            taken.chain,
            step.words,
            effect,
            tuple(traffic),
            certain,
            base.same,
            step.vague,
        )

    if base.hook == POSTROUTING:
        if step.kind == "source" and forwards and _loses_forwarded_dns(taken.traffic, wanted):
            yield finding("answers", ("DNS over UDP that is forwarded",))
        return
    traffic = _at(base.hook, taken.traffic, own)
    if traffic is None:
        return
    tproxy = [c for c in captured(wanted.table(family, "mangle"), base.hook, traffic)]
    if step.kind == "translate" and tproxy:
        yield finding("address", dict.fromkeys(map(_inbound, tproxy)))
    takes_here = base.before is not False and (
        step.kind in ("translate", "untrack")
        or (base.same and taken.neighbour.table != "raw" and step.kind in ("accept", "return"))
    )
    if takes_here:
        table: TableName = "mangle" if taken.neighbour.table == "mangle" else "nat"
        captures = tproxy if table == "mangle" else captured(wanted.table(family, "nat"), base.hook, traffic)
        texts = dict.fromkeys(_text(base.hook, each) for each in captures if _matters(each))
        if texts:
            yield finding("bypass", texts)
    if step.kind == "translate" and base.hook == OUTPUT and _loses_agents_dns(traffic, wanted):
        yield finding("agent", (f"DNS over UDP to {_addresses(traffic)}",))


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
    if traffic.local or all(loopback.address <= f and last <= loopback.last for f, last in traffic.destinations):
        return traffic.narrowed((model.OutInterface("lo"),))
    if own is not None and not reaches_own:
        return traffic.narrowed((model.OutInterface("lo", negated=True),))
    return traffic


#: How the interfaces begin that container engines and virtual machines make for what is behind this machine.
_OF_CONTAINERS = ("docker", "br-", "veth", "cni", "podman", "virbr", "lxcbr", "lxdbr", "cali", "flannel")


def _loopback(family: Family) -> model.Cidr:
    return model.Cidr(4, 0x7F000000, 8) if family == model.IPV4 else model.Cidr(6, 1, 128)


def _matters(found: Captured) -> bool:
    """Tell whether traffic is to be captured: what the proxy sends to a loopback address is only by accident."""
    loopback = model.Destination(_loopback(found.traffic.family), negated=True)
    return found.chain != istio.IN_REDIRECT or found.traffic.with_match(loopback) is not None


def _loses_forwarded_dns(traffic: Traffic, wanted: Ruleset) -> bool:
    """Tell whether the raw rules put the answers to such DNS, once its source is translated, into another zone."""
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
    return f"outbound TCP to {_addresses(found.traffic)}{ports}"


def _inbound(found: Captured) -> str:
    by = "".join(f" by {name}" for name in sorted(found.traffic.received_on.names))
    return f"inbound TCP{_ports(found.traffic)}{by}"


def _protocols(traffic: Traffic) -> str:
    numbers = {n for first, last in traffic.protocols for n in range(first, last + 1)}
    return " and ".join(
        name.upper() for name, number in model.PROTOCOL_NUMBERS.items() if number in numbers
    )


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
