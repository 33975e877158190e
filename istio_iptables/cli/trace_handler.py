"""trace_handler: what the command `trace` does: it follows a packet through rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND
from ..trace import document, text
from ..trace.answer import answer
from ..trace.follow import Choices, follow
from ..trace.packet import Question, complete
from ..trace.world import network_of, of_settings, proxy_of
from . import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.verdict import Verdict
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
    config = context.config()
    network = network_of(options["own"], options["iface"])
    world = of_settings(config, network, native=context.operation.native_nftables)
    proxy = proxy_of(config)
    asked = complete(question, world.network, proxy)
    if options["follow"]:
        choices = Choices(options["endpoint"], options["proxy-runs-as"], config.dns_servers)
        followed = follow(world, asked, proxy, choices)
        _print(document.followed(followed) if options["json"] else text.followed(followed))
        return FOUND if _is_unexpected(followed.verdict, options["expect"]) else 0
    found = answer(world, asked, proxy)
    _print(document.document(found) if options["json"] else text.text(found))
    return FOUND if _is_unexpected(found.verdict, options["expect"]) else 0


def _is_unexpected(found: Verdict, expected: str) -> bool:
    """Tell whether a verdict is expected, by its code alone or with its port, and is not this one."""
    return bool(expected) and expected not in (found.code, str(found))


def _print(found: str | dict[str, object]) -> None:
    if isinstance(found, str):
        streams.write(found)
        return
    import json

    streams.write(json.dumps(found, indent=2) + "\n")
