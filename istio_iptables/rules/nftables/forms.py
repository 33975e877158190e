"""forms: what belongs into the native tables of Istio's names, by chain: hooks, matches and targets."""

from __future__ import annotations

from .. import istio
from ..model import (
    ACCEPT,
    DROP,
    RETURN,
    ConntrackZone,
    ForeignMatch,
    Jump,
    Redirect,
    RestoreMark,
    SaveMark,
    SetMark,
    TProxy,
    Transport,
)
from .model import Addresses, NfProto, Ports
from .translate import HOOKS, chain_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..model import Match, Rule, Target
    from .model import NativeChain, NativeTable

_REDIRECT, _IN_REDIRECT = Jump(chain_name(istio.REDIRECT)), Jump(chain_name(istio.IN_REDIRECT))
_INBOUND, _OUTPUT = Jump(chain_name(istio.INBOUND)), Jump(chain_name(istio.OUTPUT))
_DNS, _DROP = Jump(chain_name(istio.OUTPUT_DNS)), Jump(chain_name(istio.DROP))

#: The targets, as they are or by kind, that rules have in the chains of each table. A chain that the
#: translation splits off has the first one's name and an ending, and is called by `goto`.
_TARGETS: Mapping[str, Mapping[str, tuple[Target | type[Target], ...]]] = {
    istio.NATIVE_TABLES["nat"]: {
        "prerouting": (RETURN, _INBOUND, _REDIRECT),
        "output": (RETURN, _OUTPUT),
        chain_name(istio.INBOUND): (RETURN, _IN_REDIRECT),
        chain_name(istio.REDIRECT): (Redirect,),
        chain_name(istio.IN_REDIRECT): (Redirect,),
        chain_name(istio.OUTPUT): (RETURN, _REDIRECT, _IN_REDIRECT, _DNS, Redirect),
        chain_name(istio.OUTPUT_DNS): (Redirect,),
    },
    istio.NATIVE_TABLES["mangle"]: {
        "prerouting": (RETURN, _INBOUND, _DROP, SaveMark),
        "output": (RETURN, SetMark, RestoreMark),
        chain_name(istio.INBOUND): (RETURN, Jump(chain_name(istio.DIVERT)), Jump(chain_name(istio.TPROXY))),
        chain_name(istio.DIVERT): (SetMark, ACCEPT),
        chain_name(istio.TPROXY): (TProxy, ACCEPT, DROP),
        chain_name(istio.DROP): (DROP,),
    },
    istio.NATIVE_TABLES["raw"]: {
        "prerouting": (_INBOUND, ConntrackZone),
        "output": (_DNS, ConntrackZone),
        chain_name(istio.INBOUND): (ConntrackZone,),
        chain_name(istio.OUTPUT_DNS): (ConntrackZone, RETURN),
    },
}
#: The matches that may be in the chains whose rules take what they get.
_ONLY_MATCHES: Mapping[str, tuple[type[Match], ...]] = {
    chain_name(istio.REDIRECT): (NfProto, Transport),
    chain_name(istio.IN_REDIRECT): (NfProto, Transport),
    chain_name(istio.DIVERT): (NfProto,),
    chain_name(istio.DROP): (NfProto,),
}
#: The only source addresses that rules outside of raw match.
_PASSTHROUGH = (
    Addresses("source", "ipv4", ((istio.PASSTHROUGH_IPV4.address,) * 2,)),
    Addresses("source", "ipv6", ((istio.PASSTHROUGH_IPV6.address,) * 2,)),
)
_SPLIT_OFF = "-of-"


def foreign_parts(table: NativeTable) -> Iterator[tuple[str, Rule | None]]:
    """Yield what no tool of Istio's puts into a table, and the rule if it is one: sets, flags, chains."""
    for extra in table.extras:
        yield extra, None
    known = _TARGETS[table.name]
    for chain in table.chains:
        name = chain.name.partition(_SPLIT_OFF)[0]
        if name not in known or not _hook_fits(table, chain):
            yield f"chain {chain.name}", None
            continue
        for number, rule in enumerate(chain.rules, 1):
            goes_on = isinstance(rule.target, Jump) and rule.target.chain.startswith(f"{name}{_SPLIT_OFF}")
            if not (goes_on or _target_fits(rule, known[name])) or not _matches_fit(table, name, rule):
                yield f"rule {number} of chain {chain.name}", rule


def _hook_fits(table: NativeTable, chain: NativeChain) -> bool:
    name = next(name for name, native in istio.NATIVE_TABLES.items() if native == table.name)
    return chain.hook == HOOKS.get((name, chain.name.upper()))


def _target_fits(rule: Rule, targets: tuple[Target | type[Target], ...]) -> bool:
    return any(
        isinstance(rule.target, target) if isinstance(target, type) else rule.target == target
        for target in targets
    )


def _matches_fit(table: NativeTable, chain: str, rule: Rule) -> bool:
    """Tell whether the matches of a rule are of a kind that rules of the chain have.

    The translation joins and splits rules, so their kinds are all that can be said of them one by one.
    """
    only = _ONLY_MATCHES.get(chain)
    for match in rule.matches:
        if isinstance(match, ForeignMatch) or (only and not isinstance(match, only)):
            return False
        of_source = isinstance(match, (Addresses, Ports)) and match.direction == "source"
        if of_source and table.name != istio.NATIVE_TABLES["raw"] and match not in _PASSTHROUGH:
            return False
    return True
