"""live: rules that were read, in the kernel or from dumps, and the settings by which they are understood.

Those are the settings that were given. If none about rules were, they are read back from the rules, as
`status` does: so each rule has its reason, and the proxy has the ports that the rules send to, and the users
that they leave alone.
"""

from __future__ import annotations

from ..interpreter.routing import Address
from ..rules.model import FAMILIES, IPV4, IPV6, Cidr
from ..startup.record import Record
from ..trace.owned import rulesets
from ..trace.packet import SOME_OWN
from ..trace.reasons import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..interpreter.routing import Network
    from ..rules.model import Family
    from ..settings.config import Config
    from ..settings.environment import Environment
    from ..status.settings_of import ReadBack
    from ..trace.dumps import Rules
    from .context import Context

_DEFAULTS = (
    "settings: no rule is known as one of istio-iptables, so the proxy is taken to have the default ports "
    "and users, and no rule has a reason: give the settings"
)
_NEAREST = (
    "settings: no settings mean exactly these rules: the reasons, and the proxy's ports and users, are those "
    "of the nearest: {}"
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


def examples(families: Sequence[Family]) -> tuple[Cidr, ...]:
    """Return addresses for documentation as those of a pod that has some families, IPv4 if none."""
    made = {IPV4: Cidr(4, SOME_OWN[IPV4], 32), IPV6: Cidr(6, SOME_OWN[IPV6], 128)}
    return tuple(made[family] for family in families or (IPV4,))


class Understood(Record):
    """Rules with reasons, the Config that they were understood by, and what was read back, if it was."""

    rules: Rules
    config: Config
    read_back: ReadBack | None = None


def understood(context: Context, rules: Rules, network: Network, given: Callable[[], Config]) -> Understood:
    """Return rules with their reasons. `given` returns the Config of the settings that were given."""
    if context.describes_rules:
        from .. import policy

        config = given()
        program = explained(rules.program, (policy.build(config),), network)
        return Understood(rules.replace(program=program), config)
    found = sorted(_read_back(rules), key=lambda each: not each.exact)
    if not found:
        return Understood(rules.replace(unread=(*rules.unread, _DEFAULTS)), given())
    context.log_settings()
    from ..status.written import command_line

    told = tuple(f"settings: read back from the rules: {command_line(e)}" for e in found if e.exact)
    untold = tuple(_NEAREST.format(command_line(each)) for each in found if not each.exact)
    program = explained(rules.program, [each.ruleset for each in found], network)
    rules = rules.replace(program=program, read=(*rules.read, *told), unread=(*rules.unread, *untold))
    return Understood(rules, found[0].config, found[0])


def _read_back(rules: Rules) -> list[ReadBack]:
    """Return the settings that the rules in each place mean. Routing does not matter here."""
    from ..status.settings_of import settings_of

    read = []
    for ruleset, native in rulesets(rules):
        found = settings_of(ruleset, native)
        if found and not found.exact and found.ruleset.routing:
            found = settings_of(ruleset.replace(routing=found.ruleset.routing), native)
        if found:
            read.append(found)
    return read
