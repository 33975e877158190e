"""handlers: what each command does, by the library's own functions.

Output goes to standard output and log lines to standard error. A handler returns the exit code; those of
errors are in errors.py.
"""

from __future__ import annotations

import os
import sys

from ..api import build, prepare, render
from ..errors import FOUND, INTERRUPTED, Differs, DumpError, KernelError, NotValidated, SettingsError
from ..rules.model import FAMILIES, Ruleset
from ..settings.commands import COMMAND_BY_NAME, DEFAULT_COMMAND, PICTURES
from ..settings.texts import quoted
from ..startup.record import Record
from . import streams
from .context import Context
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..kernel.machine import Machine
    from ..kernel.prepared import Prepared
    from ..settings.config import Config
    from ..settings.go_flags import Invocation


def handle(invocation: Invocation, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command of a command line. Return the exit code; errors are reported here."""
    try:
        return _handle(invocation, environ)
    except KeyboardInterrupt:
        log.error("interrupted: nothing was left half done")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone. Without this the interpreter complains when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _handle(invocation: Invocation, environ: Mapping[str, str]) -> int:
    try:
        if invocation.command == "completion" and not invocation.mistakes:
            from .completion import script

            streams.write(script(invocation.operands[0]))
            return 0
        context = Context(invocation, environ)
        log.configure(context.operation.log_levels, as_json=context.operation.log_as_json)
        handler = _handler(context)
        if handler is not nothing_to_do and not context.command.without_namespace:
            context.enter_namespace()
        return handler(context)
    except BrokenPipeError:
        raise
    except SettingsError as error:
        log.mistakes(error.mistakes)
        return error.exit_code
    except (DumpError, KernelError, Differs) as error:
        log.error(str(error))
        return error.exit_code
    except OSError as error:
        from ..remedies import system_refused

        log.error(str(system_refused(error)))
        return 1
    except (ImportError, MemoryError) as error:
        from ..remedies import program_not_loaded

        log.error(str(program_not_loaded(error)))
        return 1
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """Report an exception that no code expects. The traceback, at level debug, is for its developers."""
    what = " ".join(f"{type(error).__name__} {error}".split())
    log.error(
        f"unexpected {what}: bug in istio-iptables: please report it with the output of "
        "--log_output_level=default:debug"
    )
    if log.enabled("debug"):
        import traceback

        log.debug("".join(traceback.format_exception(error)))
    return 1


def _handler(context: Context) -> Callable[[Context], int]:
    command = context.command
    if command.name == DEFAULT_COMMAND and context.operation.cleanup_only:
        command = COMMAND_BY_NAME["cleanup"]
    if context.parsed.no_capture and not command.without_capture:
        return nothing_to_do
    module, dot, name = command.handler.rpartition(".")
    functions = globals()
    if dot:  # imported when needed: few runs need it, and most of them import much
        from importlib import import_module

        functions = vars(import_module(f".{module}", __package__))
    handler: Callable[[Context], int] = functions[name]
    return handler


# --- the commands ---------------------------------------------------------------------------


def nothing_to_do(context: Context) -> int:
    """What a pod with interceptionMode NONE needs: no rules, no arguments and no init container.

    Rules in place stay. A script is empty, and so is a container; JSON says so in each command's own form.
    """
    mode = context.parsed.no_capture
    assert mode is not None
    log.info(f"{mode.origin}: {quoted(mode.text)} captures nothing: nothing to do")
    command, options = context.command.name, context.options
    if command == "render":
        streams.write(render(Ruleset(), options["format"] or context.style))
    elif command == DEFAULT_COMMAND and context.operation.dry_run:
        return _print_script(context, "")
    elif options.get("json") or options.get("format") == "json":
        streams.write(f"{_NO_CAPTURE_AS_JSON[command]}\n")
    return 0


#: What `nothing_to_do` prints for a command with JSON output.
_NO_CAPTURE_AS_JSON = {
    "diff": '{"differs": false, "parts": []}',
    "validate": '{"succeeded": true, "probes": [], "notes": []}',
    "doctor": '{"failed": false, "checks": []}',
    "prove": '{"proved": true, "properties": [], "refutations": []}',
    "pod args": '{"args": null, "env": {}, "origins": []}',
    "pod init-container": "null",
}


def print_rules(context: Context) -> int:
    """render: print the rules."""
    options = context.options
    families = [family for family in FAMILIES if options["family"] in ("", family)]
    if options["format"] in PICTURES or options["trace"] or options["live"]:
        from .picture_handlers import draw

        return draw(context, families)
    ruleset = build(context.config())
    style = options["format"] or context.style
    if options["explain"] and style == "json":
        log.warn("--explain has no effect with --format json, which has the reason for each rule anyway")
    streams.write(render(ruleset, style, families, explain=options["explain"]))
    return 0


def apply(context: Context) -> int:
    """Put the rules in place; with --dry-run print them. With --run-validation prove that they work."""
    operation = context.operation
    if operation.skip_rule_apply:
        log.info("--skip-rule-apply: no rules are changed")
        if operation.run_validation:
            return _validate(context, context.config())
        context.log_settings()
        return 0
    config = context.config()
    wanted = build(config)
    if operation.dry_run:
        status = _print_script(context, render(wanted, context.style))
    elif _is_declined(context, config, wanted):
        log.error("not applied: nothing was changed; --yes applies without asking")
        return 1
    else:
        status = _put_in_place(context, config, wanted)
    return _validate(context, config) if operation.run_validation else status


def _is_declined(context: Context, config: Config, wanted: Ruleset) -> bool:
    """Tell whether a person who had to be asked said no (see confirm.py).

    Rules of istio-iptables that are in place show that it was decided before. No lock is held meanwhile.
    """
    if context.yes or context.operation.network_namespace or not sys.stdin or not sys.stdin.isatty():
        return False  # most runs: nothing is imported for them
    from ..kernel.own_network import is_machines_own
    from . import confirm

    if not confirm.is_at_a_terminal() or not is_machines_own():
        return False
    with context.machine(writing=False) as machine:
        prepared = prepare(machine, wanted)
    return not prepared.live.locations and bool(prepared.plan.actions) and not confirm.ask(config)


def _put_in_place(context: Context, config: Config, wanted: Ruleset) -> int:
    with context.machine(writing=True) as machine:
        prepared = prepare(machine, wanted, rewrite=context.operation.force_apply)
        _log_state("before", prepared)
        prepared.require_no_conflict()
        _warn_of_unclaimed(prepared)
        if not prepared.plan.actions:
            _log_choice(prepared)
            _warn_of_neighbours(prepared)
            _require_proved(context, config, prepared)
            log.info("the rules are in place already: nothing to do")
            return 0
        if prepared.plan.replaces and not context.operation.reconcile and prepared.differences:
            from ..formats import difference

            _log_choice(prepared)
            streams.write(difference.text(prepared.plan, colour=streams.is_styled()))
            raise Differs(
                "the rules of istio-iptables in place differ from the wanted ones (- in place, + wanted): "
                "nothing was changed; --reconcile replaces them"
            )
        _require_proved(context, config, prepared)
        chosen = prepared.choice.location
        prepared.confirm_backend()
        prepared.require_loadable()
        if prepared.choice.location != chosen:
            _require_proved(context, config, prepared)
        _log_choice(prepared)
        _warn_of_neighbours(prepared)
        _apply(machine, prepared)
    return 0


def _require_proved(context: Context, config: Config, prepared: Prepared) -> None:
    """With --prove, refuse a plan after which some packet gets another verdict than the settings promise."""
    if context.operation.prove:
        from .prove_handler import require_proved

        require_proved(config, prepared)


def validate(context: Context) -> int:
    """Prove with real connections that redirection works. Exit code 126 if it cannot be proven."""
    return _validate(context, context.config(), as_json=context.options["json"])


def _validate(context: Context, config: Config, *, as_json: bool = False) -> int:
    if context.operation.dry_run:
        log.info("--dry-run: nothing is validated, since no connections are made")
        return 0
    from .. import api
    from ..validation import report as validation
    from ..validation.model import succeeded
    from ..validation.verdict import coverage

    operation = context.operation
    in_place = _rules_in_place(context, config)
    results = api.validate(
        config, port=operation.probe_port, seconds=operation.probe_timeout, in_place=in_place.equal
    )
    success = succeeded(results)
    broken = any(result.status == "fail" for result in results)
    notes = coverage(config)
    if broken or in_place.differ:
        notes = (in_place.note, *notes)
    if as_json:
        streams.write(validation.json_text(results, notes, succeeded=success))
    else:
        streams.write(validation.text(results, notes, colour=streams.is_styled()))
    if success:
        log.info("validated: connections are redirected as they should be, as far as this could be tested")
        return 0
    verdict = "redirection does not work" if broken else "redirection could not be proven to work"
    log.error(f"{verdict}: the report on standard output says what was tried and what to do")
    return NotValidated.exit_code


class _InPlace(Record):
    """How the rules in place compare with the settings. If they cannot be read, both flags are false."""

    note: str
    equal: bool = False
    differ: bool = False


def _rules_in_place(context: Context, config: Config) -> _InPlace:
    """Compare the rules in place with the settings, if this process may read them."""
    try:
        with context.machine(writing=False) as machine:
            prepared = prepare(machine, build(config))
            _warn_of_neighbours(prepared)
    except (KernelError, OSError) as error:
        cause = error.cause if isinstance(error, KernelError) else str(error)
        return _InPlace(f"the rules in place could not be read: {cause}")
    if refused := _conflict(prepared):
        return _InPlace(f"{refused} (`apply` says what to do)", differ=True)
    locations = prepared.live.locations
    if not locations:
        return _InPlace(
            "no rules of istio-iptables are in place in any backend: apply them first", differ=True
        )
    ports = ", ".join(map(str, prepared.live.redirects_to()))
    where = (
        f"rules of istio-iptables are in place ({', '.join(locations)}), which redirect to the ports {ports}"
    )
    if prepared.differences:
        differ = f"{where}: they differ from those of the settings (`diff` with the same settings shows how)"
        return _InPlace(differ, differ=True)
    equal = (
        f"{where}: they are those of the settings, so something else keeps them from working, such as "
        "foreign rules or a table that is switched off (`nft list ruleset` shows everything)"
    )
    return _InPlace(equal, equal=True)


def cleanup(context: Context) -> int:
    """Remove everything that istio-iptables has set up; with --dry-run print what that is."""
    context.log_settings()
    if context.operation.run_validation:
        log.warn("--run-validation has no effect: rules are removed, so there is nothing to prove")
    wanted = Ruleset()
    with context.machine(writing=not context.operation.dry_run) as machine:
        prepared = prepare(machine, wanted)
        _log_state("before", prepared)
        prepared.require_no_conflict()
        _warn_of_unclaimed(prepared)
        if context.operation.dry_run:
            from ..formats import difference

            return _print_script(
                context, "".join(difference.script(action) for action in prepared.plan.actions)
            )
        if not prepared.plan.actions:
            log.info("nothing of istio-iptables is in place: nothing to do")
            return 0
        _apply(machine, prepared)
    return 0


def diff(context: Context) -> int:
    """Show how the rules in place differ from the wanted ones. Exit code 3 if they do."""
    from ..formats import difference

    config = context.config()
    with context.machine(writing=False) as machine:
        prepared = prepare(machine, build(config))
    _log_state("in place", prepared)
    _log_choice(prepared)
    _warn_of_unclaimed(prepared)
    _warn_of_neighbours(prepared)
    refused = _conflict(prepared)
    if refused:
        log.warn(f"{refused}: apply, --reconcile and cleanup refuse to change anything")
    differs = bool(prepared.differences)
    verdicts = None
    if differs and context.options["verdicts"]:
        from .prove_handler import changed_verdicts

        verdicts = changed_verdicts(context, config, prepared)
    if context.options["json"]:
        streams.write(difference.json_text(prepared.plan, refused, verdicts.document if verdicts else None))
    elif differs:
        streams.write(difference.text(prepared.plan, colour=streams.is_styled()))
        streams.write(verdicts.text if verdicts else "")
    else:
        log.info("the rules are in place: no difference")
    return FOUND if differs else 0


def _conflict(prepared: Prepared) -> str:
    """Return what is foreign under Istio's names, nothing if nothing is."""
    if not prepared.conflicts:
        return ""
    from ..formats import notices

    return notices.conflict(prepared.conflicts)[0]


def _warn_of_unclaimed(prepared: Prepared) -> None:
    """Name the rules that Istio's own tool may have left and that are never taken over."""
    from ..change.conflicts import unclaimed

    found = tuple(unclaimed(prepared.live))
    if found:
        from ..formats import notices

        for each in found:
            log.warn(notices.unclaimed(*each))


def _warn_of_neighbours(prepared: Prepared) -> None:
    """Name the foreign rules that keep something from the proxy."""
    found = prepared.neighbours
    if found:
        from ..formats import notices

        for text in notices.neighbours(found):
            log.warn(text)


def _log_choice(prepared: Prepared) -> None:
    log.info(f"backend {prepared.choice.backend}: {prepared.choice.why}")


def _apply(machine: Machine, prepared: Prepared) -> None:
    for action in prepared.plan.actions:
        log.info(f"planned: {action}")
    for line in prepared.taken_over:
        log.info(line)
    prepared.apply()
    log.info("done: the rules are as planned")
    for left in prepared.plan.left_behind:
        log.warn(left)
    if log.enabled("debug"):
        _log_state("after", prepare(machine, prepared.wanted))


def _log_state(when: str, prepared: Prepared) -> None:
    if log.enabled("debug"):
        from ..formats import difference

        for line in difference.state_lines(prepared.live):
            log.debug(f"{when}: {line}")


def _print_script(context: Context, text: str) -> int:
    """Print the script of a dry run, and write it to DRY_RUN_FILE_PATH too."""
    streams.write(text)
    path = context.operation.dry_run_file
    if path:
        try:
            from ..kernel.files import open_file

            file = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            with open(file, "w", encoding="utf-8") as opened:
                opened.write(text)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else error
            from ..remedies import dry_run_file_not_written

            raise dry_run_file_not_written(path, why) from error
    return 0
