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
    from ..doctor.model import Result
    from .context import Context


def examine_here(context: Context) -> int:
    """doctor: print the checks. Exit code 3 if one of them failed."""
    not_entered = _enter(context)
    context.log_settings(())
    results = examine(Here(context.parsed, context.operation, PatientMachine(), not_entered))
    results += _of_node(context)
    if context.options["json"]:
        streams.write(report.json_text(results))
    else:
        streams.write(report.text(results, colour=streams.is_styled()))
    return FOUND if report.failed(results) else 0


def _of_node(context: Context) -> tuple[Result, ...]:
    """Make the checks of a node, if one of its folders is given."""
    given = {name: context.options[name] for name in ("conf-dir", "bin-dir")}
    if not any(given.values()):
        return ()
    from ..cni.node import checks
    from ..settings.node_commands import NODE_FOLDERS

    conf_dir, bin_dir = (given[option.name] or option.default for option in NODE_FOLDERS)
    return checks.examine(conf_dir, bin_dir)


def _enter(context: Context) -> KernelError | None:
    """Enter the network namespace of the settings, or return why that cannot be done."""
    try:
        context.enter_namespace()
    except SettingsError as error:
        return KernelError(str(error), "`ip netns list` and `lsns --type net` list those that exist")
    except KernelError as error:
        return error
    return None
