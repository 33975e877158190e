"""forms: which rules Istio's tools write, chain by chain, and what the earlier ones left in built-in chains.

A form says which matches a rule has and what its target is; values that settings decide are left open. A rule
of another form in a chain that has one of Istio's names is foreign: the name alone proves nothing.

The one table here is read from what the policy writes and from the rules that Istio's own
istio-iptables has written since 1.4; `versions` names those that this tool no longer writes.
"""

from __future__ import annotations

from ..startup.record import Record
from . import istio
from .model import (
    ACCEPT,
    DROP,
    RETURN,
    Cidr,
    Comment,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
    Destination,
    DestinationPort,
    DestinationPorts,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    InInterface,
    Jump,
    Mark,
    OutInterface,
    PortRange,
    Redirect,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Source,
    SourcePort,
    TProxy,
    Transport,
    UidOwner,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeAlias

    from .model import Match, Table, TableName, Target

    #: A match as it is; or whether it is negated, and the kinds that it may be of; or any other question.
    Pattern: TypeAlias = Match | tuple[bool, tuple[type[Match], ...]] | Callable[[Match], bool]


class Form(Record):
    """What a rule has to have, what it may have, and the targets of which it has one.

    A target is given as it is, or as its kind if settings decide the rest. `with_dns`: the form counts only
    where the same chain sends DNS to the agent, since other programs write rules like it.
    """

    required: tuple[Pattern, ...]
    optional: tuple[Pattern, ...]
    targets: tuple[Target | type[Target], ...]
    versions: str = ""
    with_dns: bool = False

    def fits(self, rule: Rule) -> bool:
        """Tell whether a rule is of this form. Comments do not count."""
        if not any(_is(rule.target, target) for target in self.targets):
            return False
        left = [match for match in rule.matches if not isinstance(match, Comment)]
        for pattern in self.required:
            found = next((match for match in left if _fits(match, pattern)), None)
            if found is None:
                return False
            left.remove(found)
        return all(any(_fits(match, pattern) for pattern in self.optional) for match in left)


def _is(target: Target, wanted: Target | type[Target]) -> bool:
    return type(target) is wanted if isinstance(wanted, type) else target == wanted


def _fits(match: Match, pattern: Pattern) -> bool:
    if callable(pattern):
        return pattern(match)
    if not isinstance(pattern, tuple):
        return match == pattern
    negated, kinds = pattern
    return isinstance(match, kinds) and getattr(match, "negated", False) == negated


def _a(*kinds: type[Match]) -> Pattern:
    return False, kinds


def _not(*kinds: type[Match]) -> Pattern:
    return True, kinds


def _form(*required: Pattern, to: Any, may: tuple[Pattern, ...] = (), **more: Any) -> Form:
    return Form(required, may, to if isinstance(to, tuple) else (to,), **more)


def _of_a_socket(match: Match) -> bool:
    """Tell whether a match is `-p tcp [-m tcp --dport PORT] -m socket`."""
    args = match.args if isinstance(match, ForeignMatch) else ()
    return args[:2] == ("-p", "tcp") and args[-2:] == ("-m", "socket")


_TCP, _UDP = Transport("tcp"), Transport("udp")
_TO_LO, _FROM_LO = OutInterface("lo"), InInterface("lo")
_ANY_PROTOCOL, _ANY_OWNER = _a(Transport), _a(UidOwner, GidOwner)
_ANY_PORT = _a(DestinationPort, DestinationPorts)
_TO_DNS = DestinationPort(PortRange(istio.DNS_PORT, istio.DNS_PORT))
_FROM_DNS = SourcePort(PortRange(istio.DNS_PORT, istio.DNS_PORT))
_FROM_AGENT = SourcePort(PortRange(istio.DNS_AGENT_PORT, istio.DNS_AGENT_PORT))
_TO_AGENT = DestinationPort(PortRange(istio.DNS_AGENT_PORT, istio.DNS_AGENT_PORT))
_NOT_INVALID = ConntrackState(frozenset({"RELATED", "ESTABLISHED"}))
_PASSTHROUGH = (Source(istio.PASSTHROUGH_IPV4), Source(istio.PASSTHROUGH_IPV6))
_LOCALHOST = Destination(Cidr(4, 0x7F000001, 32))
_DNS_TARGETS = (
    Redirect(istio.DNS_AGENT_PORT),
    ForeignTarget(("-j", "DNAT", "--to-destination", f"127.0.0.1:{istio.DNS_AGENT_PORT}")),
)
_DNS = _form(_ANY_PROTOCOL, _TO_DNS, may=(_a(Destination),), to=_DNS_TARGETS, versions="1.8 to 1.23")
_ZONES = (ConntrackZone(1), ConntrackZone(2))

#: The forms of the rules in each chain that has one of Istio's names.
OWN: Mapping[tuple[TableName, str], tuple[Form, ...]] = {
    ("nat", istio.INBOUND): (
        _form(_TCP, _ANY_PORT, to=RETURN),
        _form(_TCP, may=(_ANY_PORT,), to=Jump(istio.IN_REDIRECT)),
    ),
    ("nat", istio.REDIRECT): (_form(_TCP, to=Redirect),),
    ("nat", istio.IN_REDIRECT): (_form(_TCP, to=Redirect),),
    ("nat", istio.OUTPUT): (
        _form(to=(RETURN, Jump(istio.REDIRECT))),
        _form(_a(Destination), to=(RETURN, Jump(istio.REDIRECT))),
        _form(_ANY_PROTOCOL, _ANY_PORT, to=RETURN),
        _form(_TCP, _ANY_PORT, to=Jump(istio.REDIRECT)),
        *(_form(_TO_LO, source, to=RETURN) for source in _PASSTHROUGH),
        _form(
            _TO_LO,
            _not(Destination),
            may=(_TCP, _ANY_OWNER, _not(DestinationPort, DestinationPorts)),
            to=(Jump(istio.IN_REDIRECT), Jump(istio.REDIRECT)),
        ),
        _form(_TO_LO, _not(UidOwner, GidOwner), may=(_TCP, _not(DestinationPort)), to=RETURN),
        _form(_ANY_OWNER, to=RETURN),
        _form(_not(GidOwner), may=(_not(GidOwner),), to=RETURN),
        _form(to=Jump(istio.OUTPUT_DNS)),
        _DNS,
    ),
    ("nat", istio.OUTPUT_DNS): (_DNS.replace(versions=""),),
    ("mangle", istio.INBOUND): (
        _form(_TCP, _a(Mark), to=RETURN),
        *(_form(_TCP, _FROM_LO, source, to=RETURN) for source in _PASSTHROUGH),
        _form(_TCP, _FROM_LO, _not(Mark), to=RETURN),
        _form(_TCP, _ANY_PORT, to=RETURN),
        _form(_TCP, _NOT_INVALID, may=(_ANY_PORT,), to=Jump(istio.DIVERT)),
        _form(_TCP, may=(_ANY_PORT,), to=Jump(istio.TPROXY)),
        _form(_of_a_socket, to=Jump(istio.DIVERT), versions="1.4 to 1.7"),
    ),
    ("mangle", istio.DIVERT): (_form(to=SetMark), _form(to=ACCEPT)),
    ("mangle", istio.TPROXY): (_form(_TCP, _not(Destination), to=TProxy),),
    ("mangle", istio.DROP): (_form(to=DROP),),
    ("raw", istio.INBOUND): (_form(_UDP, _FROM_DNS, may=(_a(Source),), to=_ZONES),),
    ("raw", istio.OUTPUT_DNS): (
        _form(_UDP, _TO_DNS, may=(_ANY_OWNER, _a(Destination)), to=_ZONES),
        _form(_UDP, _TO_DNS, _ANY_OWNER, to=RETURN),
        _form(_UDP, _FROM_AGENT, _ANY_OWNER, to=_ZONES),
    ),
}

_OUR_MARK = Mark(istio.TPROXY_MARK)

#: What Istio's tools write into built-in chains without a comment that would tell whose it is.
LEFT: Mapping[tuple[TableName, str], tuple[Form, ...]] = {
    ("mangle", "PREROUTING"): (_form(_TCP, _OUR_MARK, to=SaveMark(), versions="1.4 to today"),),
    ("mangle", "OUTPUT"): (
        _form(_TCP, _TO_LO, _OUR_MARK, to=RETURN, versions="1.9 to today"),
        _form(
            _TCP,
            _TO_LO,
            _not(Destination),
            _ANY_OWNER,
            to=SetMark(istio.PROXY_TO_OWN_POD_MARK),
            versions="1.9 to today",
        ),
        _form(_TCP, ConnectionMark(istio.TPROXY_MARK), to=RestoreMark(), versions="1.4 to today"),
    ),
    ("raw", "OUTPUT"): (
        _form(_UDP, _TO_DNS, may=(_ANY_OWNER, _a(Destination)), to=_ZONES, versions="1.8 to 1.23"),
        _form(_UDP, _FROM_AGENT, _ANY_OWNER, to=_ZONES, versions="1.8 to 1.23"),
    ),
    ("raw", "PREROUTING"): (
        _form(_UDP, _FROM_DNS, may=(_a(Source, Destination),), to=_ZONES, versions="1.8 to 1.23"),
    ),
    ("nat", "OUTPUT"): (
        _DNS,
        _form(_UDP, _TO_DNS, _ANY_OWNER, to=RETURN, versions="1.8 to 1.23", with_dns=True),
    ),
    ("nat", "POSTROUTING"): (
        _form(
            _UDP,
            _TO_AGENT,
            may=(_LOCALHOST,),
            to=ForeignTarget(("-j", "SNAT", "--to-source", "127.0.0.1")),
            versions="1.8 to 1.9",
        ),
    ),
}


def is_own_form(table: TableName, chain: str, rule: Rule) -> bool:
    """Tell whether one of Istio's tools, or this one, writes such a rule into a chain of that name."""
    return any(form.fits(rule) for form in OWN.get((table, chain), ()))


def left_by_istio(table: TableName, chain: str, rules: Iterable[Rule]) -> frozenset[Rule]:
    """Return the rules of a built-in chain that Istio's tools have left there, told by their exact form."""
    forms = LEFT.get((table, chain), ())
    if not forms:
        return frozenset()
    rules = tuple(rules)
    dns = any(_DNS.fits(rule) for rule in rules)
    usable = [form for form in forms if dns or not form.with_dns]
    return frozenset(rule for rule in rules if any(form.fits(rule) for form in usable))


def versions_of(table: TableName, chain: str, rule: Rule) -> str:
    """Return the versions of Istio's tool that wrote a rule of this form into a built-in chain."""
    return next((form.versions for form in LEFT.get((table, chain), ()) if form.fits(rule)), "unknown")


def may_be_istios(table: Table) -> Iterable[tuple[str, Rule]]:
    """Yield rules, with their chain, that Istio's -c or -k may have left: `-i IF -j RETURN`."""
    if table.name not in ("nat", "mangle"):
        return
    for chain, kind in (("PREROUTING", InInterface), ("OUTPUT", OutInterface)):
        for rule in table.chain(chain).rules:
            if rule.target == RETURN and [type(match) for match in rule.matches] == [kind]:
                yield chain, rule
