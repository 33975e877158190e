"""refusals: edits of tables in memory, and what iptables or the kernel refuses of them.

Each refusal has its source: `iptables` if iptables(8) refuses it before the kernel sees it, else the kernel's
source file. A kind of match or target that is not in the table of checks is refused, too.
"""

from __future__ import annotations

from ..change.actions import IPTABLES_LEGACY, IPTABLES_NFT
from ..errors import KernelError
from ..rules import model
from ..rules.edit import CreateChain, Delete, Insert, RemoveChain, ReplaceRules, TableEdit, apply_to
from ..rules.model import BUILTIN_CHAINS, Chain, Jump, Rule, Table
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from ..change.actions import Location
    from ..rules.edit import Step
    from ..rules.model import Family, Match, TableName, Target


#: The built-in chains of each table (iptables(8), TABLES).
CHAINS_OF: Mapping[TableName, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
#: XT_EXTENSION_MAXNAMELEN less the closing NUL: a jump has no more space for a name.
_LONGEST_CHAIN_NAME = 28
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ
_LONGEST_COMMENT = 255  # XT_MAX_COMMENT_LEN less the closing NUL: iptables drops what is beyond
_MOST_PORTS = 15  # XT_MULTI_PORTS
#: Chains that a packet may be in at once: NFT_JUMP_STACK_SIZE. Legacy tables have no such limit.
_DEEPEST = 16
_LARGEST_16_BITS = 0xFFFF
_TARGET_NAMES = frozenset({"ACCEPT", "DROP", "QUEUE", "RETURN"})
_STATES = frozenset({"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT"})
_NO_IN, _NO_OUT = frozenset({"OUTPUT", "POSTROUTING"}), frozenset({"PREROUTING", "INPUT"})
#: The only table that a target works in (xt_REDIRECT.c, xt_TPROXY.c, xt_CT.c).
_TABLE_OF: Mapping[type[Target], TableName] = {
    model.Redirect: "nat",
    model.TProxy: "mangle",
    model.ConntrackZone: "raw",
}
#: The built-in chains that a packet may come from (`hooks` in xt_owner.c, xt_REDIRECT.c, xt_TPROXY.c).
_HOOKS_OF: Mapping[type[Record], frozenset[str]] = {
    model.UidOwner: frozenset({"OUTPUT", "POSTROUTING"}),
    model.GidOwner: frozenset({"OUTPUT", "POSTROUTING"}),
    model.Redirect: frozenset({"PREROUTING", "OUTPUT"}),
    model.TProxy: frozenset({"PREROUTING"}),
}
#: The options that a rule has once (iptables).
_ONCE: tuple[type[Match], ...] = (
    model.InInterface,
    model.OutInterface,
    model.Source,
    model.Destination,
    model.Transport,
    model.SourcePort,
    model.DestinationPort,
)


def edited(table: Table, steps: Iterable[Step], location: Location) -> Table:
    """Return a table after steps, done in order and all at once. Raises KernelError if one is refused."""
    for step in steps:
        why = next(_why_not_step(table, step), "")
        if why:
            raise refused(table, location, why)
        try:
            table = _done(table, step, location)
        except ValueError as error:
            raise refused(table, location, str(error)) from error
    why = next(_why_not_table(table, location), "")
    if why:
        raise refused(table, location, why)
    return table


def _done(table: Table, step: Step, location: Location) -> Table:
    """Return a table after one step. Raises ValueError if a chain is in use, or not as expected."""
    if isinstance(step, ReplaceRules):
        step = step.replace(after=tuple(as_kept(rule, location) for rule in step.after))
        if all(chain.name != step.chain for chain in table.chains):  # a base chain that is made when needed
            table = table.replace(chains=(*table.chains, Chain(step.chain)))
    elif isinstance(step, Insert):
        step = step.replace(rule=as_kept(step.rule, location))
    return apply_to(table, TableEdit(table.family, table.name, (step,)))


def _why_not_step(table: Table, step: Step) -> Iterator[str]:
    """Say why a step cannot be done; that a chain is in use, or not as expected, says apply_to."""
    name = step.chain
    there = {chain.name for chain in table.chains} | set(CHAINS_OF[table.name])
    if isinstance(step, CreateChain):
        if not 0 < len(name.encode()) <= _LONGEST_CHAIN_NAME:
            yield f"chain {name}: a name has 1 to {_LONGEST_CHAIN_NAME} bytes"
        if (
            name in BUILTIN_CHAINS | _TARGET_NAMES
            or name[:1] in "-!"
            or not name.isprintable()
            or " " in name
        ):
            yield f"chain {name}: a chain cannot have this name"
        return
    if name not in there:
        yield f"chain {name}: No chain/target/match by that name"
    if isinstance(step, RemoveChain) and name in BUILTIN_CHAINS:
        yield f"chain {name} is built in"
    if isinstance(step, (Insert, Delete)):
        length = len(table.chain(name).rules)
        last = step.position == length + isinstance(step, Insert)
        if not 1 <= step.position <= length + isinstance(step, Insert):
            yield f"chain {name}: Index of {type(step).__name__.lower()} too big"
        if step.last != last:
            yield f"rule {step.position} of chain {name} is not as expected"
    added: tuple[Rule, ...] = ()
    if isinstance(step, ReplaceRules):
        added = step.after
    elif isinstance(step, Insert):
        added = (step.rule,)
    place = _Place(table.family, table.name, name, there - BUILTIN_CHAINS)
    for rule in added:
        for why in _why_not_rule(rule, place):
            yield f"{why} (in chain {name})"


def _why_not_table(table: Table, location: Location) -> Iterator[str]:
    """Say what of a table the kernel refuses to have."""
    edges = {chain.name: _jumps(chain, location) for chain in table.chains}
    hooks: dict[str, set[str]] = {}
    for start in BUILTIN_CHAINS & edges.keys():
        depth, reached = _walk(start, edges)
        if depth is None:
            yield f"chain {start}: Too many levels of symbolic links: chains jump in a circle"
        elif depth > _DEEPEST and location == IPTABLES_NFT:
            yield f"chain {start}: Too many links: a packet can be in {_DEEPEST} chains at once"
        for name in reached:
            hooks.setdefault(name, set()).add(start)
    for chain in table.chains:
        for rule in chain.rules:
            for part in (*rule.matches, rule.target):
                allowed = _HOOKS_OF.get(type(part))
                if allowed and not hooks.get(chain.name, set()) <= allowed:
                    yield f"{part} works in {' and '.join(sorted(allowed))} only (in chain {chain.name})"


def _jumps(chain: Chain, location: Location) -> list[str]:
    """Return where a chain leads. In legacy tables what follows a rule for every packet is not looked at."""
    found = []
    for rule in chain.rules:
        if isinstance(rule.target, Jump):
            found.append(rule.target.chain)
        if location == IPTABLES_LEGACY and isinstance(rule.target, model.Verdict) and not rule.matches:
            break
    return found


def _walk(start: str, edges: Mapping[str, list[str]]) -> tuple[int | None, set[str]]:
    """Return how many chains deep a packet may get, None if in a circle, and the chains that it may reach."""
    depths: dict[str, int] = {}
    on_the_way = {start}
    stack = [(start, iter(edges[start]))]
    while stack:
        name, following = stack[-1]
        for jump in following:
            if jump in on_the_way:
                return None, set()
            if jump in edges and jump not in depths:
                on_the_way.add(jump)
                stack.append((jump, iter(edges[jump])))
                break
        else:
            stack.pop()
            on_the_way.discard(name)
            depths[name] = 1 + max((depths.get(jump, 0) for jump in edges[name]), default=0)
    return depths[start], set(depths)


def as_kept(rule: Rule, location: Location) -> Rule:
    """Return a rule as the kernel has it: no reason, no list that it came from, and a comment cut off.

    iptables-nft has other words for ports from 0 on that are negated: those above.
    """
    if any(isinstance(m, model.Comment) and len(m.text) > _LONGEST_COMMENT // 4 for m in rule.matches):
        rule = rule.replace(matches=tuple(map(_cut_off, rule.matches)))
    if location == IPTABLES_NFT and any(map(_is_all_from, rule.matches)):
        rule = rule.replace(matches=tuple(map(_all_above, rule.matches)))
    return rule.replace(reason="", listed=None) if rule.reason or rule.listed else rule


def _is_all_from(match: Match) -> bool:
    if not isinstance(match, (model.SourcePort, model.DestinationPort)):
        return False
    return match.negated and match.ports.first == 0 and 0 < match.ports.last < _LARGEST_16_BITS


def _all_above(match: Match) -> Match:
    if isinstance(match, (model.SourcePort, model.DestinationPort)) and _is_all_from(match):
        return type(match)(model.PortRange(match.ports.last + 1, _LARGEST_16_BITS))
    return match


def _cut_off(match: Match) -> Match:
    if isinstance(match, model.Comment):
        return model.Comment(match.text.encode()[:_LONGEST_COMMENT].decode(errors="ignore"))
    return match


def refused(table: Table, location: Location, why: str) -> KernelError:
    """Return the error for an edit of a table that is refused."""
    return KernelError(
        f"{table.family} {table.name} ({location}): {why}", "see the rule or chain that is named"
    )


class _Place(Record):
    """Where a rule is to go, and the chains that it may jump to there."""

    family: Family
    table: TableName
    chain: str
    chains: Container[str]


def _why_not_rule(rule: Rule, place: _Place) -> Iterator[str]:
    """Say why a rule cannot be added to a chain."""
    target = rule.target
    for kind in _ONCE:
        if sum(isinstance(match, kind) for match in rule.matches) > 1:
            yield f"{kind.__name__} may be there once"
    only = _TABLE_OF.get(type(target))
    if only and place.table != only:
        yield f"{target} works in the table {only} only"
    parts: tuple[Match | Target, ...] = (target, *rule.matches)
    for part in parts:
        check = _CHECKS.get(type(part))
        if check is None:
            yield f"{part}: an iptables table cannot have it, or FakeKernel does not know it"
        else:
            yield from check(part, rule, place)


def _transports(rule: Rule) -> list[model.Transport]:
    return [match for match in rule.matches if isinstance(match, model.Transport)]


def _lacks_protocol(rule: Rule) -> bool:
    """Tell whether a rule has no transport protocol, or only a negated one."""
    transports = _transports(rule)
    return not transports or transports[0].negated


def _nothing(*_: object) -> Iterator[str]:
    """Refuse nothing: every value of this kind can be used everywhere."""
    return iter(())


def _jump(target: Jump, _: Rule, place: _Place) -> Iterator[str]:
    if target.chain not in place.chains:
        yield f"{target.chain}: No chain/target/match by that name"


def _verdict(target: model.Verdict, _: Rule, place: _Place) -> Iterator[str]:
    if target.name == "DROP" and place.table == "nat":
        yield "the table nat is not intended for filtering: DROP cannot be used"


def _redirect(target: model.Redirect, rule: Rule, _: _Place) -> Iterator[str]:
    if not _transports(rule):
        yield f"{target} needs a protocol with ports"
    yield from _port(target.port)


def _tproxy(target: model.TProxy, rule: Rule, _: _Place) -> Iterator[str]:
    if _lacks_protocol(rule):
        yield f"{target} needs a protocol, which is not negated"
    yield from _port(target.port)


def _port(port: int) -> Iterator[str]:
    if not 0 <= port <= _LARGEST_16_BITS:
        yield f"{port} is not a port"


def _zone(target: model.ConntrackZone, *_: object) -> Iterator[str]:
    if not 0 <= target.zone <= _LARGEST_16_BITS:
        yield f"{target.zone} is not a conntrack zone"


def _interface(match: model.InInterface | model.OutInterface, _: Rule, place: _Place) -> Iterator[str]:
    if not 0 < len(match.name.encode()) <= _LONGEST_INTERFACE_NAME:
        yield f"interface {match.name}: a name has 1 to {_LONGEST_INTERFACE_NAME} bytes"
    if place.chain in (_NO_IN if isinstance(match, model.InInterface) else _NO_OUT):
        yield f"{match} cannot be used in {place.chain}"


def _address(match: model.Source | model.Destination, _: Rule, place: _Place) -> Iterator[str]:
    if match.cidr.family != place.family:
        yield f"{match.cidr} is not of {place.family}"


def _ports(
    match: model.SourcePort | model.DestinationPort | model.DestinationPorts, rule: Rule, _: _Place
) -> Iterator[str]:
    ranges = match.ports if isinstance(match, model.DestinationPorts) else (match.ports,)
    if _lacks_protocol(rule):
        yield f"{match} needs a protocol, which is not negated"
    if any(not 0 <= ports.first <= ports.last <= _LARGEST_16_BITS for ports in ranges):
        yield f"{match} has a port range that is not one"
    if not 1 <= sum(1 + (ports.first != ports.last) for ports in ranges) <= _MOST_PORTS:
        yield f"{match} has no port, or too many"


def _state(match: model.ConntrackState, *_: object) -> Iterator[str]:
    if not match.states or not match.states <= _STATES:
        yield f"{match}: no such state"


def _owner(match: model.UidOwner | model.GidOwner, *_: object) -> Iterator[str]:
    number, what = (match.uid, "UID") if isinstance(match, model.UidOwner) else (match.gid, "GID")
    if not 0 <= number < model.NO_ID:
        yield f"{number} is not a {what}"


#: What is refused of each kind of match or target. A kind does not stand for the kinds below it.
_CHECKS: Mapping[type[Match | Target], Callable[..., Iterator[str]]] = {
    model.InInterface: _interface,
    model.OutInterface: _interface,
    model.Source: _address,
    model.Destination: _address,
    model.Transport: _nothing,
    model.SourcePort: _ports,
    model.DestinationPort: _ports,
    model.DestinationPorts: _ports,
    model.UidOwner: _owner,
    model.GidOwner: _owner,
    model.Mark: _nothing,
    model.ConnectionMark: _nothing,
    model.ConntrackState: _state,
    model.Comment: _nothing,
    model.ForeignMatch: _nothing,
    Jump: _jump,
    model.Verdict: _verdict,
    model.Redirect: _redirect,
    model.SetMark: _nothing,
    model.SaveMark: _nothing,
    model.RestoreMark: _nothing,
    model.TProxy: _tproxy,
    model.ConntrackZone: _zone,
    model.ForeignTarget: _nothing,
}
