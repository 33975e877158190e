"""trace_handler: what the command `trace` does: it follows a packet through rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, DumpError, SettingsError
from ..interpreter.surroundings import World
from ..policy import build
from ..rules.model import FAMILIES, NO_ID
from ..settings.parsers import host_cidr
from ..settings.resolve import resolve
from ..trace import document, dumps, here, text
from ..trace.answer import answer
from ..trace.follow import Choices, follow
from ..trace.packet import complete, mistakes_in, mistakes_in_endpoint, mistakes_in_way, question_of
from ..trace.world import examples, network_of, of_settings, proxy_of, with_objects
from . import streams
from .collect import text_of_file
from .live import PodOf, own_of, understood
from .log import log
from .trace_watch import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..interpreter.routing import Network
    from ..interpreter.verdict import Verdict
    from ..rules.model import Cidr
    from ..settings.config import Config
    from ..trace.dumps import Rules
    from ..trace.packet import Question
    from .context import Context


def follow_packet(context: Context) -> int:
    """trace: print the way of a packet. Exit code 3 if the verdict is not the expected one."""
    options = context.options
    direction = context.invocation.operands[0]
    question = question_of(direction, options)  # type: ignore[arg-type]  # checked with the command line
    _check(question, context)
    config, world, rules = _world(context, question)
    proxy = proxy_of(config)
    asked = complete(question, world.network, proxy)
    if options["watch"]:
        return watch(context, asked, question, world, rules.handles if rules else {})
    if options["follow"]:
        followed = follow(world, asked, proxy, _choices(context))
        followed = followed.replace(conclusion=followed.conclusion + dumps.caveat(rules))
        _print(
            _with(rules, document.followed(followed)) if options["json"] else text.followed(followed), rules
        )
        return _exit_code(followed.verdict, options["expect"], rules)
    found = answer(world, asked, proxy)
    found = found.replace(conclusion=found.conclusion + dumps.caveat(rules))
    _print(_with(rules, document.document(found)) if options["json"] else text.text(found), rules)
    return _exit_code(found.verdict, options["expect"], rules)


def _check(question: Question, context: Context) -> None:
    """Refuse options that go with others, or with none, before anything is read."""
    options = context.options
    mistakes = mistakes_in(question)
    if options["file"] and (options["live"] or options["watch"]):
        mistakes.append("--file: the rules are those of dumps or those in the kernel: give one of both")
    if options["watch"] and options["iface"]:
        from ..formats.nft import interface_name

        try:
            interface_name(options["iface"])
        except SettingsError as error:
            mistakes += [
                f"--iface: --watch describes packets to nft: {mistake}" for mistake in error.mistakes
            ]
    if not options["watch"]:  # which shows real packets, also where they come in by lo
        mistakes += mistakes_in_way(question)
    mistakes += mistakes_in_endpoint(options["endpoint"])
    if mistakes:
        raise SettingsError(mistakes)
    for warning in _without_effect(context):
        log.warn(warning)


#: Options that have an effect with another one only, and those that have none with --watch.
_ONLY_WITH = {"endpoint": "follow", "proxy-runs-as": "follow", "count": "watch"}
_NOT_WITH_WATCH = ("follow", "endpoint", "proxy-runs-as", "expect", "ctstate", "zone")


def _without_effect(context: Context) -> list[str]:
    """Return warnings about options that were given and do nothing here."""
    options = context.options
    warnings = []
    given = [option.setting.name for option in context.invocation.options]
    for name in dict.fromkeys(name for name in given if options[name] is not False):
        if options["watch"] and name in _NOT_WITH_WATCH:
            warnings.append(f"--{name} has no effect with --watch, which shows what packets really do")
        elif name in _ONLY_WITH and not options[_ONLY_WITH[name]]:
            warnings.append(f"--{name} has no effect without --{_ONLY_WITH[name]}")
    if options["watch"] and options["live"]:
        warnings.append("--live has no effect with --watch, which always shows the rules in the kernel")
    if options["watch"] and options["uid"] == NO_ID:
        warnings.append("--uid none has no effect with --watch: packets of all users are shown")
    return warnings


def _choices(context: Context) -> Choices:
    """Return what --follow needs to know besides the rules."""
    options = context.options
    servers = (host_cidr(text) for text in context.facts.dns_servers())
    return Choices(options["endpoint"], options["proxy-runs-as"], tuple(filter(None, servers)))


def _exit_code(found: Verdict, expected: str, rules: Rules | None) -> int:
    """Return 0 for the verdict that is expected, by its code alone or with its port, or if none is.

    Where not all of the rules were read, no verdict is certain enough to be the expected one.
    """
    if not expected or (expected in (found.code, str(found)) and not dumps.caveat(rules)):
        return 0
    return FOUND


def _world(context: Context, question: Question) -> tuple[Config, World, Rules | None]:
    """Return the namespace of the settings, of dumps or of the kernel, and what was read of the latter."""
    options = context.options
    given = network_of(options["own"], question)
    if options["file"]:
        rules = _with_own(options["own"], _rules_of(options["file"]), given)
        network = rules.network or given
        # Nothing here has to do with this machine.
        pod = PodOf(context.facts, options["own"] or own_of(rules.network) or examples(FAMILIES))
        found = understood(context, rules, lambda: resolve(context.parsed, pod)[0])
        if not rules.network:  # as it must be for the rules to work
            network = with_objects(network, build(found.config).routing)
        return found.config, World(found.rules.program, network), found.rules
    network = given if options["own"] else here.network() or given
    of_pod = PodOf(context.facts, options["own"]) if options["own"] else None
    if options["live"] or options["watch"]:
        found = understood(
            context, here.rules(network, with_handles=options["watch"]), lambda: context.config(of_pod)
        )
        return found.config, here.world(found.rules, network), found.rules
    config = context.config(of_pod)
    return config, of_settings(config, network, native=context.operation.native_nftables), None


def _with_own(own: Sequence[Cidr], rules: Rules, given: Network) -> Rules:
    """Return the rules of dumps with the network of --own, if they tell of one but of no address in it."""
    if not rules.network or not own:
        return rules
    if own_of(rules.network):
        log.warn("--own has no effect: --file tells the pod's own addresses")
        return rules
    network = rules.network.replace(
        addresses=(*rules.network.addresses, *given.addresses),
        interfaces=tuple(dict.fromkeys((*rules.network.interfaces, *given.interfaces))),
        routes=tuple(dict.fromkeys((*rules.network.routes, *given.routes))),
    )
    return rules.replace(network=network)


def _rules_of(files: Iterable[str]) -> Rules:
    """Return the rules of dumps."""
    sources = [dumps.Source(_name(file), text_of_file(file, "--file")) for file in files]
    try:
        return dumps.read(sources)
    except DumpError as error:
        raise SettingsError(f"--file: {line}" for line in str(error).splitlines()) from error


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _with(rules: Rules | None, found: dict[str, object]) -> dict[str, object]:
    if not rules:
        return found
    names = ("read", "unread", "assumed", "settings")
    return {**{name: list(getattr(rules, name)) for name in names}, **found}


def _print(found: str | dict[str, object], rules: Rules | None) -> None:
    if isinstance(found, str):
        streams.write(text.read(rules) + found if rules else found)
        return
    import json

    streams.write(json.dumps(found, indent=2) + "\n")
