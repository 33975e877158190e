"""trace_handler: what the command `trace` does: it follows a packet through rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, SettingsError
from ..interpreter.surroundings import World
from ..rules.model import IPV4, IPV6
from ..settings.parsers import host_cidr
from ..settings.resolve import resolve
from ..trace import document, dumps, here, text
from ..trace.answer import answer
from ..trace.follow import Choices, follow
from ..trace.packet import complete, mistakes_in, question_of
from ..trace.reasons import explained
from ..trace.world import network_of, of_settings, proxy_of
from . import streams
from .collect import text_of_file
from .log import log
from .trace_watch import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.routing import Network
    from ..interpreter.verdict import Verdict
    from ..settings.config import Config
    from ..settings.environment import Environment
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
        _print(
            _with(rules, document.followed(followed)) if options["json"] else text.followed(followed), rules
        )
        return FOUND if _is_unexpected(followed.verdict, options["expect"]) else 0
    found = answer(world, asked, proxy)
    _print(_with(rules, document.document(found)) if options["json"] else text.text(found), rules)
    return FOUND if _is_unexpected(found.verdict, options["expect"]) else 0


def _check(question: Question, context: Context) -> None:
    """Refuse options that go with others, or with none, before anything is read."""
    options, more = context.options, context.invocation.operands[1:]
    mistakes = mistakes_in(question)
    if more and not options["file"]:
        mistakes.append(f"{more[0]!r}: unexpected argument after the command trace")
    if options["file"] and (options["live"] or options["watch"]):
        mistakes.append("--file: the rules are those of dumps or those in the kernel: give one of both")
    endpoint = options["endpoint"]
    if (endpoint.address or endpoint.port) and not (endpoint.address and endpoint.port):
        mistakes.append("--endpoint: needs an address and a port, such as --endpoint 10.0.0.2:8080")
    if mistakes:
        raise SettingsError(mistakes)
    given = {"endpoint": bool(endpoint.address), "proxy-runs-as": options["proxy-runs-as"] is not None}
    for name in given:
        if given[name] and not options["follow"]:
            log.warn(f"--{name} has no effect without --follow")


class _Pod:
    """An Environment: a pod whose addresses are given, all else is as on this machine."""

    def __init__(self, machine: Environment, network: Network) -> None:
        self._families = bool(network.own(IPV4)), bool(network.own(IPV6))
        self.dns_servers = machine.dns_servers
        self.user_id = machine.user_id
        self.group_id = machine.group_id

    def usable_families(self) -> tuple[bool, bool]:
        return self._families


def _choices(context: Context) -> Choices:
    """Return what --follow needs to know besides the rules."""
    options = context.options
    servers = (host_cidr(text) for text in context.facts.dns_servers())
    return Choices(options["endpoint"], options["proxy-runs-as"], tuple(filter(None, servers)))


def _is_unexpected(found: Verdict, expected: str) -> bool:
    """Tell whether a verdict is expected, by its code alone or with its port, and is not this one."""
    return bool(expected) and expected not in (found.code, str(found))


def _world(context: Context, question: Question) -> tuple[Config, World, Rules | None]:
    """Return the namespace of the settings, of dumps or of the kernel, and what was read of the latter."""
    options = context.options
    given = network_of(options["own"], question)
    files = (*options["file"], *context.invocation.operands[1:])
    if files:
        config, _ = resolve(context.parsed, context.facts)  # nothing here has to do with this machine
        rules = dumps.read([dumps.Source(_name(file), text_of_file(file, "--file")) for file in files])
        return config, _explained(World(rules.program, rules.network or given), config), rules
    network = given if options["own"] else here.network() or given
    config = context.config(_Pod(context.facts, network) if options["own"] else None)
    if options["live"] or options["watch"]:
        rules = here.rules()
        return config, _explained(here.world(rules, network), config), rules
    return config, of_settings(config, network, native=context.operation.native_nftables), None


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


def _explained(world: World, config: Config) -> World:
    """Give rules that were read the reasons that equal ones of the settings have."""
    return world.replace(program=explained(world.program, config, world.network))


def _with(rules: Rules | None, found: dict[str, object]) -> dict[str, object]:
    return {"read": list(rules.read), "unread": list(rules.unread), **found} if rules else found


def _print(found: str | dict[str, object], rules: Rules | None) -> None:
    if isinstance(found, str):
        streams.write(text.read(rules.read, rules.unread) + found if rules else found)
        return
    import json

    streams.write(json.dumps(found, indent=2) + "\n")
