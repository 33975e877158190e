"""trace_handler: what the command `trace` does: it follows a packet through rules, and changes nothing."""

from __future__ import annotations

from ..errors import FOUND, SettingsError
from ..rules.model import IPV4, IPV6
from ..settings.parsers import host_cidr
from ..trace import document, text
from ..trace.answer import answer
from ..trace.follow import Choices, follow
from ..trace.packet import Question, complete, mistakes_in
from ..trace.world import network_of, of_settings, proxy_of
from . import streams
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.routing import Network
    from ..interpreter.verdict import Verdict
    from ..settings.environment import Environment
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
    _check(question, options)
    network = network_of(options["own"], question)
    config = context.config(_Pod(context.facts, network) if options["own"] else None)
    world = of_settings(config, network, native=context.operation.native_nftables)
    proxy = proxy_of(config)
    asked = complete(question, world.network, proxy)
    if options["follow"]:
        followed = follow(world, asked, proxy, _choices(context))
        _print(document.followed(followed) if options["json"] else text.followed(followed))
        return FOUND if _is_unexpected(followed.verdict, options["expect"]) else 0
    found = answer(world, asked, proxy)
    _print(document.document(found) if options["json"] else text.text(found))
    return FOUND if _is_unexpected(found.verdict, options["expect"]) else 0


def _check(question: Question, options: dict[str, Any]) -> None:
    """Refuse options that go with others, or with none, before anything is read."""
    mistakes = mistakes_in(question)
    mistakes += [
        f"--{name}: these rules cannot be followed yet: leave it out"
        for name in ("live", "file")
        if options[name]
    ]
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


def _print(found: str | dict[str, object]) -> None:
    if isinstance(found, str):
        streams.write(found)
        return
    import json

    streams.write(json.dumps(found, indent=2) + "\n")
