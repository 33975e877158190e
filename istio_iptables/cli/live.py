"""live: rules that were read, in the kernel or from dumps, and the settings by which they are understood.

Those are the settings that were given. If none about rules were, they are read back from the rules, as
`status` does: so each rule has its reason, and the proxy has the ports that the rules send to, and the users
that they leave alone.
"""

from __future__ import annotations

from ..startup.record import Record
from ..trace.owned import places
from ..trace.reasons import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..settings.config import Config
    from ..status.settings_of import ReadBack
    from ..trace.dumps import Rules
    from ..trace.owned import Place
    from .context import Context

_DEFAULTS = (
    "settings: no rule is known as one of istio-iptables, so the proxy is taken to have the default ports "
    "and users, and no rule has a reason: give the settings"
)
_NEAREST = (
    "settings: no settings mean exactly these rules: the reasons, and the proxy's ports and users, are those "
    "of the nearest: {}"
)


class Understood(Record):
    """Rules with reasons, the Config that they were understood by, and what was read back, if it was."""

    rules: Rules
    config: Config
    read_back: ReadBack | None = None


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
        return Understood(rules.replace(unread=(*rules.unread, _DEFAULTS)), given())
    context.log_settings()
    from ..status.written import command_line

    told = tuple(f"settings: read back from the rules: {command_line(b)}" for _, b in read if b.exact)
    untold = tuple(_NEAREST.format(command_line(back)) for _, back in read if not back.exact)
    program = explained(rules.program, [(place, back.ruleset) for place, back in read])
    rules = rules.replace(program=program, read=(*rules.read, *told), unread=(*rules.unread, *untold))
    _, first = read[0]
    return Understood(rules, first.config, first)


def _read_back(place: Place) -> ReadBack | None:
    """Return the settings that the rules in a place mean. Routing does not matter here."""
    from ..status.settings_of import settings_of

    ruleset = place.ruleset
    found = settings_of(ruleset, place.native)
    if found and not found.exact and found.ruleset.routing:
        return settings_of(ruleset.replace(routing=found.ruleset.routing), place.native)
    return found
