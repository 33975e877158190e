"""status_handler: what the command `status` does. It changes nothing."""

from __future__ import annotations

from ..api import build, prepare
from ..errors import FOUND
from ..rules.model import Ruleset
from ..status.report import Memory, report
from . import streams
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..change.actions import Live
    from ..change.neighbours import Interference
    from ..kernel.machine import Machine
    from ..kernel.prepared import Prepared
    from ..status.report import Compared, Status
    from .context import Context


def status(context: Context) -> int:
    """Show what is in place. Exit code 3 unless it is what it should be: see `_exit_code`."""
    wanted = _wanted(context)
    memory = Memory()
    if context.options["watch"]:
        from .status_watch import watch

        seconds, as_json = context.options["interval"], context.options["json"]
        return watch(lambda: _look(context, wanted, memory), seconds, as_json=as_json)
    if any(option.setting.name == "interval" for option in context.invocation.options):
        log.warn("--interval has no effect without --watch")
    found = _look(context, wanted, memory)
    if context.options["json"]:
        from ..formats import json
        from ..status.document import document

        streams.write(json.text(document(found)))
    else:
        from ..status.text import text

        streams.write(text(found, colour=streams.is_styled()))
    return _exit_code(found)


def _wanted(context: Context) -> Ruleset | None:
    """Return the rules of the settings that were given, None if none about rules were given.

    A pod that captures nothing is to have no rules.
    """
    if not context.describes_rules:
        context.log_settings()
        return None
    if context.parsed.no_capture:
        context.log_settings()
        return Ruleset()
    return build(context.config())


def _look(context: Context, wanted: Ruleset | None, memory: Memory) -> Status:
    with context.machine(writing=False) as machine:
        if wanted is None:
            live = machine.read(Ruleset())
            found = report(live, memory)
            return found.replace(before=_before(machine, live, found))
        prepared = prepare(machine, wanted)
        found = report(prepared.live, memory)
        before = prepared.neighbours if wanted.tables else _before(machine, prepared.live, found)
    return found.replace(before=before, compared=_compared(prepared, found), plan=prepared.plan)


def _before(machine: Machine, live: Live, found: Status) -> tuple[Interference, ...]:
    """Return what foreign rules keep from the proxy, which the rules in place mean it to have."""
    return tuple(
        finding
        for place in found.places
        for finding in machine.neighbours(live, place.settings.ruleset, place.location)
    )


def _compared(prepared: Prepared, found: Status) -> Compared:
    if not prepared.differences:
        return "equal"
    return "differs" if found.places else "absent"


def _exit_code(found: Status) -> int:
    """Return 0 if the rules are those of the settings given or, without settings, of any settings at all."""
    right = found.compared == "equal" if found.compared else found.state == "in-place"
    return 0 if right else FOUND
