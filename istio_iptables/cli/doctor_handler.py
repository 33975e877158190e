"""doctor_handler: what the command `doctor` does: it looks for what makes a run fail, and changes nothing."""

from __future__ import annotations

from ..doctor import report
from ..doctor.examination import examine
from ..doctor.live.here import Here
from ..doctor.live.names import PatientMachine
from ..errors import FOUND, KernelError, SettingsError
from . import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .context import Context


def examine_here(context: Context) -> int:
    """doctor: print the checks. Exit code 3 if one of them failed."""
    not_entered = _enter(context)
    context.log_settings(())
    results = examine(Here(context.parsed, context.operation, PatientMachine(), not_entered))
    if context.options["json"]:
        streams.write(report.json_text(results))
    else:
        streams.write(report.text(results, colour=streams.is_styled()))
    return FOUND if report.failed(results) else 0


def _enter(context: Context) -> KernelError | None:
    """Enter the network namespace of the settings, or return why that cannot be done."""
    try:
        context.enter_namespace()
    except SettingsError as error:
        return KernelError(str(error), "`ip netns list` and `lsns --type net` list those that exist")
    except KernelError as error:
        return error
    return None
