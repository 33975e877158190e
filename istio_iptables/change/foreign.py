"""foreign: the rules of other programs beside those of istio-iptables, of all tools in one form.

`of_iptables` makes it of tables of iptables; formats/nft_foreign.py makes it of what nft prints.
"""

from __future__ import annotations

from ..rules import model
from ..rules.forms import may_be_istios
from ..rules.ownership import is_owned, owned_rules
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Literal, TypeAlias

    from ..rules.model import Family, Match, Rule, Table, TableName
    from .actions import Live, Location

    #: jump: to chains, as it may be of a map; translate: DNAT and REDIRECT; source: SNAT and MASQUERADE;
    #: accept and return: as iptables has them; untrack: no conntrack, and so no nat; other: it goes on.
    Kind: TypeAlias = Literal["jump", "translate", "source", "accept", "return", "untrack", "other"]

PREROUTING, OUTPUT, POSTROUTING = "PREROUTING", "OUTPUT", "POSTROUTING"
#: The priority of iptables' nat chains before routing, and of istio-iptables' own (NF_IP_PRI_NAT_DST).
NAT_PRIORITY = -100


class Step(Record):
    """A rule of any tool, in its `words`. `to` is the destination that it translates to.

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


_ARGS: Mapping[str, Callable[[str, bool], Iterable[Match]]] = {
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
