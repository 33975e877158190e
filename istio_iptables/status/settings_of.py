"""settings_of: the settings that rules mean, read back from the rules alone.

Every setting that decides which rules there are leaves its trace in them, so the rules can be read backwards
(reading.py). What was read is then made into rules again, by the policy: the settings are those of the rules
if and only if these are the same. Where several values make the same rules, any is right: untold.py has them.
"""

from __future__ import annotations

from .. import policy
from ..errors import SettingsError
from ..rules.forms import left_by_istio, may_be_istios
from ..rules.istio import TAG
from ..rules.model import (
    BUILTIN_CHAINS,
    FAMILIES,
    IPV6,
    Chain,
    Comment,
    LocalAddress,
    Ruleset,
)
from ..rules.nftables.translate import translate
from ..rules.ownership import is_tagged, owned
from ..settings.declared import BY_NAME
from ..settings.facts import Facts
from ..settings.parsers import BadValue
from ..settings.resolve import parse, resolve
from ..settings.texts import Given
from ..startup.record import Record
from .distance import distance, native_distance
from .from_native import as_iptables
from .reading import read
from .untold import UNKNOWN_SERVER, Untold, untold
from .written import captures_everything, settings_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..rules.model import Rule, Table
    from ..rules.nftables.model import NativeTable
    from ..settings.config import Config
    from .reading import Reading


class ReadBack(Record):
    """The settings that rules mean.

    `settings` are texts by long flag name, as in a --config file: those that differ from their defaults, and
    the proxy's users, whose default depends on the machine. `facts` is what the machine has to have besides,
    so that these settings make these rules: its families and DNS servers. `exact`: they make these rules and
    no others; if not, no settings do, and these are the nearest. `ruleset` has the rules that they make, with
    reasons, and `config` is what the settings become. `untagged`: rules of Istio's own tool, which writes the
    same without the comment that tells those of this one.
    """

    settings: Mapping[str, str]
    facts: Facts
    exact: bool
    ruleset: Ruleset
    config: Config
    native: bool = False
    untagged: bool = False

    @property
    def untold(self) -> tuple[Untold, ...]:
        """The settings that could have other values and make the same rules."""
        return untold(self.config, native=self.native)

    @property
    def arguments(self) -> list[str]:
        """The settings that have flags, as arguments of a command line."""
        return [f"--{name}={text}" for name, text in self.settings.items() if BY_NAME[name].has_flag]

    @property
    def variables(self) -> dict[str, str]:
        """The settings that are variables only."""
        return {name: text for name, text in self.settings.items() if not BY_NAME[name].has_flag}


def settings_of(found: Ruleset, native: Sequence[NativeTable] = ()) -> ReadBack | None:
    """Return the settings that rules mean, None if none of the rules is owned by istio-iptables.

    `found` has tables of iptables and the routing besides them; the rules that other programs have in them do
    not count. With `native` the rules are those native tables, and only the routing of `found` counts.
    """
    if native:
        return _native_settings_of(native, found)
    flat = tuple(map(_flat, found.tables))
    rules = found.replace(tables=tuple(map(owned, flat)))
    if all(table.is_empty for table in rules.tables):
        return None
    best = _nearest(rules, rules, ())
    for of_anyone in () if best.exact else (False, True):
        tagged = rules.replace(tables=tuple(owned(_tagged(table, of_anyone)) for table in flat))
        if tagged != rules and (of_istio := _nearest(tagged, tagged, ())).exact:
            return of_istio.replace(untagged=True)
    return best


def _native_settings_of(native: Sequence[NativeTable], found: Ruleset) -> ReadBack | None:
    if all(table.is_left_over for table in native):
        return None
    return _nearest(as_iptables(native, found.routing), found, native)


def _flat(table: Table) -> Table:
    """Return a table as the kernel has it: what belongs at the head of a chain is its first rules."""
    return table.replace(chains=tuple(Chain(chain.name, chain.in_order) for chain in table.chains))


def _tagged(table: Table, of_anyone: bool) -> Table:
    """Return a table with the comment of this tool on the rules that Istio's own tool writes without it.

    With `of_anyone` also on those that any program could have written. Whether they are Istio's, only the
    others can tell: they are if all together are the rules of some settings.
    """
    tag = Comment(TAG)
    anyones = frozenset(may_be_istios(table)) if of_anyone else frozenset()

    def rule(chain: Chain, left: frozenset[Rule], rule: Rule) -> Rule:
        is_istios = (rule in left and not is_tagged(rule)) or (chain.name, rule) in anyones
        return rule.replace(matches=(*rule.matches, tag)) if is_istios else rule

    def tagged(chain: Chain) -> Chain:
        left = left_by_istio(table.name, chain.name, chain.rules)
        return chain.replace(rules=tuple(rule(chain, left, each) for each in chain.rules))

    return table.replace(chains=tuple(tagged(c) if c.name in BUILTIN_CHAINS else c for c in table.chains))


# --- candidates -------------------------------------------------------------------------------


def _nearest(rules: Ruleset, found: Ruleset, native: Sequence[NativeTable]) -> ReadBack:
    """Return the first settings whose rules are those found, else those whose rules differ in the fewest.

    `rules` is what settings are read from: `found`, or `native` in the form of iptables.
    """
    address = any(isinstance(item, LocalAddress) for item in found.routing)
    ipv6 = address or any(table.family == IPV6 for table in rules.tables)
    readings = [read(rules, family) for family in FAMILIES if family != IPV6 or ipv6]
    facts = Facts(ipv4=True, ipv6=ipv6, servers=_servers(readings))
    best: tuple[Mapping[str, str], Config, Ruleset] | None = None
    fewest = 0
    for settings in _candidates(readings, rules, native=bool(native)):
        config = _config(settings, facts)
        made = policy.build(config)
        if native:
            away = native_distance(native, translate(made), (found.routing, made.routing))
        else:
            away = distance(found, made)
        if best is None or away < fewest:
            best, fewest = (settings, config, made), away
        if not away:
            break
    assert best is not None
    read_back, config, made = best
    return ReadBack(read_back, facts, not fewest, made, config, bool(native))


def _servers(readings: Sequence[Reading]) -> tuple[str, ...]:
    """Return the DNS servers that /etc/resolv.conf has to name."""
    servers = tuple(str(s).partition("/")[0] for reading in readings for s in reading.dns_servers)
    [ipv4, *ipv6] = readings
    unseen = ipv4.redirect_dns and not ipv4.capture_all_dns and not ipv6
    return servers or ((UNKNOWN_SERVER,) if unseen else ())


def _candidates(readings: Sequence[Reading], rules: Ruleset, *, native: bool) -> Iterator[dict[str, str]]:
    """Yield the settings that the rules may mean, the likeliest first.

    More than one, since no single rule tells these: whether lists are compact, whether `*` or a CIDR captures
    every destination, and, if rules were changed since, which family has the right ones.
    """
    several = any(reading.several_ports for reading in readings)
    for ordered in _orders(readings):
        for compact in (False,) if native else (several, not several):
            for wildcard in (True, False) if captures_everything(readings) else (False,):
                found = settings_text(
                    ordered, rules.routing, native=native, compact=compact, wildcard=wildcard
                )
                yield {name: text for name, text in found.items() if _is_valid(name, text)}


def _orders(readings: Sequence[Reading]) -> Iterator[Sequence[Reading]]:
    """Yield the readings, and in the other order if they do not agree."""
    yield readings
    if len(readings) > 1 and not _agree(*readings):
        yield readings[::-1]


#: What differs between families whatever the settings are.
_OF_ONE_FAMILY = ("family", "destinations", "destinations_excluded", "dns_servers", "loopback")


def _agree(one: Reading, other: Reading) -> bool:
    nothing = dict.fromkeys(_OF_ONE_FAMILY)
    return one.replace(**nothing) == other.replace(**nothing)


def _is_valid(name: str, text: str) -> bool:
    """Tell whether a user could have written a value: rules that were changed since may have any."""
    try:
        BY_NAME[name].parse(text, Facts())
    except BadValue:
        return False
    return True


def _config(settings: Mapping[str, str], facts: Facts) -> Config:
    try:
        return _resolved(settings, facts)
    except SettingsError:  # a name that nft could not write, in native tables that were changed since
        return _resolved({}, facts)


def _resolved(settings: Mapping[str, str], facts: Facts) -> Config:
    given = [Given(BY_NAME[name], text, name) for name, text in settings.items()]
    return resolve(parse(given, facts), facts)[0]
