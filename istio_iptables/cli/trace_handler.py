"""trace_handler: what the command `trace` does: it follows a packet through rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, SettingsError
from ..interpreter.surroundings import World
from ..settings.resolve import resolve
from ..trace import document, dumps, here, text
from ..trace.answer import answer
from ..trace.follow import Choices, follow
from ..trace.packet import Question, complete
from ..trace.reasons import explained
from ..trace.world import network_of, of_settings, proxy_of
from . import streams
from .collect import text_of_file
from .trace_watch import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.verdict import Verdict
    from ..settings.config import Config
    from ..trace.dumps import Rules
    from .context import Context


def follow_packet(context: Context) -> int:
    """trace: print the way of a packet. Exit code 3 if the verdict is not the expected one."""
    options = context.options
    question = Question(
        context.invocation.operands[0],  # type: ignore[arg-type]  # checked with the command line
        options["to"],
        options["from"],
        options["uid"],
        options["gid"],
        options["udp"],
        options["iface"],
        options["mark"],
        options["ctstate"],
        options["zone"],
    )
    config, world, rules = _world(context)
    proxy = proxy_of(config)
    asked = complete(question, world.network, proxy)
    if options["watch"]:
        return watch(context, asked, question, world)
    if options["follow"]:
        choices = Choices(options["endpoint"], options["proxy-runs-as"], config.dns_servers)
        followed = follow(world, asked, proxy, choices)
        _print(
            _with(rules, document.followed(followed)) if options["json"] else text.followed(followed), rules
        )
        return FOUND if _is_unexpected(followed.verdict, options["expect"]) else 0
    found = answer(world, asked, proxy)
    _print(_with(rules, document.document(found)) if options["json"] else text.text(found), rules)
    return FOUND if _is_unexpected(found.verdict, options["expect"]) else 0


def _is_unexpected(found: Verdict, expected: str) -> bool:
    """Tell whether a verdict is expected, by its code alone or with its port, and is not this one."""
    return bool(expected) and expected not in (found.code, str(found))


def _world(context: Context) -> tuple[Config, World, Rules | None]:
    """Return the namespace of the settings, of dumps or of the kernel, and what was read of the latter."""
    options = context.options
    own, files = options["own"], (*options["file"], *context.invocation.operands[1:])
    if files and not options["file"]:
        raise SettingsError([f"{files[0]!r}: unexpected argument after the command trace"])
    if files and (options["live"] or options["watch"]):
        raise SettingsError(["--file: the rules are those of dumps or those in the kernel: give one of both"])
    if files:
        config, _ = resolve(context.parsed, context.facts)  # nothing here has to do with this machine
        rules = dumps.read([dumps.Source(_name(file), text_of_file(file, "--file")) for file in files])
        network = rules.network or network_of(own, options["iface"])
        world = World(rules.program, network)
        return config, _explained(world, config), rules
    config = context.config()
    network = (None if own else here.network()) or network_of(own, options["iface"])
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
