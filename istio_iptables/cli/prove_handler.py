"""prove_handler: what the command `prove` does: it judges rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, SettingsError
from ..prove import document, text
from ..prove.found import DeadRules, comparison, judgement
from ..prove.space import every_kind
from ..trace.world import proxy_of
from . import streams
from .subjects import Subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    if mistakes:
        raise SettingsError(mistakes)


def _print(context: Context, found: dict[str, Any], shown: str) -> None:
    if context.options["json"]:
        import json

        shown = json.dumps(found, indent=2) + "\n"
    streams.write(shown)


def _judged(subject: Subject, config: Config) -> Judgement:
    from ..prove.ways import judged

    return judgement(subject, judged(config, subject.world), proxy_of(config))


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
