"""live: rules that were read, in the kernel or from dumps, and the settings by which they are understood.

Those are the settings that were given. If none about rules were, they are read back from the rules, as
`status` does: so each rule has its reason, and the proxy has the ports that the rules send to, and the users
that they leave alone.
"""

from __future__ import annotations

from ..interpreter.routing import Address
from ..rules.model import FAMILIES, IPV4, IPV6, Cidr
from ..startup.record import Record
from ..trace.owned import places
from ..trace.reasons import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..interpreter.routing import Network
    from ..settings.config import Config
    from ..settings.environment import Environment
    from ..status.settings_of import ReadBack
    from ..trace.dumps import Rules
    from ..trace.owned import Place
    from .context import Context

_READ_BACK = "read back from the rules: {}"
_NEAREST = "none mean exactly these rules: reasons, and the proxy's ports and users, are of the nearest: {}"
_UNKNOWN = (
    "not known: no rule is one of istio-iptables, so the proxy is taken to have the default ports and users, "
    "and no rule has a reason"
)


class PodOf:
    """An Environment: a pod whose addresses are given, all else is as on this machine."""

    def __init__(self, machine: Environment, own: Iterable[Cidr]) -> None:
        addresses = [Address("", cidr.family, cidr.address, cidr.prefix) for cidr in own]
        families = {each.family for each in addresses if not (each.is_loopback or each.is_link_local)}
        self._families = IPV4 in families, IPV6 in families
        self.dns_servers = machine.dns_servers
        self.user_id = machine.user_id
        self.group_id = machine.group_id

    def usable_families(self) -> tuple[bool, bool]:
        """Return whether the pod has addresses of IPv4 and of IPv6."""
        return self._families


def own_of(network: Network | None) -> tuple[Cidr, ...]:
    """Return the own addresses of a network, none if it is not known."""
    own = [each for family in FAMILIES for each in network.own(family)] if network else []
    return tuple(Cidr(4 if each.family == IPV4 else 6, each.address, each.prefix) for each in own)


class Understood(Record):
    """Rules with reasons, and the Config that they were understood by.

    `read_back` is what was read back, if that was. `doubt` is what cannot be told of the settings, in words.
    """

    rules: Rules
    config: Config
    read_back: ReadBack | None = None
    doubt: str = ""


def understood(context: Context, rules: Rules, given: Callable[[], Config]) -> Understood:
    """Return rules with their reasons. `given` returns the Config of the settings that were given."""
    found = tuple(places(rules))
    if context.describes_rules:
        from .. import policy

        config = given()
        wanted = policy.build(config)
        program = explained(rules.program, [(place, wanted) for place in found])
        return Understood(rules.replace(program=program), config)
    pairs = ((place, _read_back(place)) for place in found)
    read = sorted(((place, back) for place, back in pairs if back), key=lambda pair: not pair[1].exact)
    if not read:
        return Understood(rules.replace(settings=(_UNKNOWN,)), given(), doubt=f"settings {_UNKNOWN}")
    context.log_settings()
    from ..status.written import command_line

    told = tuple((_READ_BACK if b.exact else _NEAREST).format(command_line(b)) for _, b in read)
    program = explained(rules.program, [(place, back.ruleset) for place, back in read])
    _, first = read[0]
    doubt = "" if first.exact else f"settings: {told[0]}"
    return Understood(rules.replace(program=program, settings=told), first.config, first, doubt)


def _read_back(place: Place) -> ReadBack | None:
    """Return the settings that the rules in a place mean. Routing does not matter here."""
    from ..status.settings_of import settings_of

    ruleset = place.ruleset
    found = settings_of(ruleset, place.native)
    if found and not found.exact and found.ruleset.routing:
        return settings_of(ruleset.replace(routing=found.ruleset.routing), place.native)
    return found
