"""prove_handler: what the command `prove` does: it judges rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, KernelError, SettingsError
from ..prove import document, text
from ..prove.found import DeadRules, comparison, judgement
from ..prove.space import every_kind
from ..startup.record import Record
from ..trace.world import proxy_of
from . import streams
from .log import log
from .subjects import Subjects, arguments_of, in_kernel, of_plan, subjects_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..kernel.prepared import Prepared
    from ..prove.found import Comparison, Judgement
    from ..prove.subject import Subject
    from ..settings.config import Config
    from .context import Context


def prove(context: Context) -> int:
    """prove: print what is proved and what is not. Exit code 3 if something is not."""
    _check(context)
    options = context.options
    if options["dead"]:
        found = _dead(Subjects(context).asked)
        _print(context, document.dead_rules(found), text.dead_rules(found))
        return FOUND if found.rules else 0
    if options["same-as"]:
        compared = _compared(Subjects(context))
        _print(context, document.comparison(compared), text.comparison(compared))
        return 0 if compared.is_same else FOUND
    subjects = Subjects(context)
    judged = _judged(subjects.asked, subjects.config)
    _print(context, document.judgement(judged), text.judgement(judged))
    return 0 if judged.is_proved else FOUND


def _check(context: Context) -> None:
    """Refuse options that do not go together, before anything is read."""
    options = context.options
    mistakes = []
    if options["file"] and options["live"]:
        mistakes.append("--file: the rules are those of dumps or those in the kernel: give one of both")
    if options["dead"] and options["same-as"]:
        mistakes.append("--dead: rules that no packet reaches are found in one rule set: leave --same-as out")
    if options["own"] and (options["live"] or "live" in options["same-as"]):
        mistakes.append("--own: the addresses are those of this network namespace: leave it out")
    if "live" in options["same-as"] and (options["live"] or len(options["same-as"]) > 1):
        mistakes.append("--same-as: live: the rules in the kernel are compared with others, alone")
    if mistakes:
        raise SettingsError(mistakes)


def _print(context: Context, found: dict[str, Any], shown: str) -> None:
    if context.options["json"]:
        import json

        shown = json.dumps(found, indent=2) + "\n"
    streams.write(shown)


# --- what other commands prove --------------------------------------------------------------


def require_proved(config: Config, prepared: Prepared) -> None:
    """Raise KernelError if the rules that a plan leads to do not do what settings promise.

    The report is on standard output then. What depends on something that is not modelled is a warning.
    """
    [present] = subjects_of((in_kernel(),))
    judged = _judged(of_plan(present, prepared.plan), config)
    if judged.refuted:
        streams.write(text.judgement(judged))
        raise KernelError(
            f"--prove: {text.conclusion(judged).rstrip('.')}: nothing was changed",
            "the report on standard output names packets, and the rules that are the cause: change these or "
            "the settings, or leave --prove out",
        )
    for note in judged.subject.notes:
        log.warn(f"--prove: {note}")
    if judged.is_proved:
        log.info(f"--prove: {text.conclusion(judged)}")
        return
    log.warn(f"--prove: {text.conclusion(judged)}")
    for about in dict.fromkeys(about for each in judged.refutations for about in each.depends_on):
        log.warn(f"--prove: it depends on {about}")
    for unread in judged.subject.rules.unread if judged.subject.rules else ():
        log.warn(f"--prove: not read: {unread}")


class Verdicts(Record):
    """Which packets a difference makes a difference for, as text and for programs."""

    text: str
    document: dict[str, Any]


def changed_verdicts(context: Context, config: Config, prepared: Prepared) -> Verdicts:
    """Return the packets that get other verdicts by a plan, one for each pair of verdicts."""
    from ..prove.same import differing

    [present] = subjects_of((in_kernel(arguments_of(context.invocation)),))
    planned = of_plan(present, prepared.plan)
    proxy = proxy_of(config)
    kinds = every_kind((present.world, planned.world))
    found = comparison(present, planned, differing(present.world, planned.world, kinds, proxy), proxy)
    return Verdicts(text.changed(found), document.comparison(found))


def _judged(subject: Subject, config: Config) -> Judgement:
    from ..prove.ways import judged

    return judgement(subject, judged(config, subject.world), config)


def _compared(subjects: Subjects) -> Comparison:
    from ..prove.same import differing

    one, other = subjects.pair()
    proxy = proxy_of(subjects.config)
    kinds = every_kind((one.world, other.world))
    return comparison(one, other, differing(one.world, other.world, kinds, proxy), proxy)


def _dead(subject: Subject) -> DeadRules:
    from ..prove.dead import dead_rules

    world = subject.world
    count = sum(len(rules) for table in world.program.tables for rules in table.chains.values())
    return DeadRules(subject, count, dead_rules(world, every_kind((world,))))
