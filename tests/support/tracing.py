"""Tracing: a packet described as on the command line, and the answer about it, without a machine."""

from __future__ import annotations

import shlex

from istio_iptables.formats import iptables_compiled, iptables_dump
from istio_iptables.interpreter.journey import World
from istio_iptables.interpreter.known import Known
from istio_iptables.interpreter.packet import Packet, address_text
from istio_iptables.interpreter.program import Program
from istio_iptables.interpreter.verdict import Proxy
from istio_iptables.pictures.asked import asked
from istio_iptables.settings.facts import Facts
from istio_iptables.settings.go_flags import read_arguments
from istio_iptables.settings.resolve import parse, resolve
from istio_iptables.trace.answer import Answer, answer
from istio_iptables.trace.follow import Choices, Followed, follow
from istio_iptables.trace.packet import Asked, complete
from istio_iptables.trace.world import network_of, of_settings, proxy_of

FACTS = Facts(
    True, True, ("10.96.0.10", "fd00::a"), users={"app": 1000, "proxy": 1337}, groups={"web": 33, "app": 1000}
)


class Case:
    """A packet in a pod that has the rules of some settings, and those of a dump of iptables-save."""

    def __init__(self, packet: str, settings: str = "", *, dump: str = "", native: bool = False) -> None:
        described = asked(packet, FACTS)
        read = read_arguments(shlex.split(settings))
        assert not read.mistakes, read.mistakes
        config, _ = resolve(parse(read.settings, FACTS), FACTS)
        network = network_of(described.own, described.question)
        world = of_settings(config, network, native=native)
        foreign = iptables_dump.read(dump)
        assert not foreign.unread, foreign.unread
        tables = (*iptables_compiled.compiled(foreign, Known(network)), *world.program.tables)
        self.world: World = world.replace(program=Program(tables))
        self.proxy: Proxy = proxy_of(config)
        self.asked: Asked = complete(described.question, world.network, self.proxy)

    @property
    def answer(self) -> Answer:
        """The answer to `trace`."""
        return answer(self.world, self.asked, self.proxy)

    def followed(self, choices: Choices | None = None) -> Followed:
        """The answer to `trace --follow`."""
        return follow(self.world, self.asked, self.proxy, choices)


def verdict(packet: str, settings: str = "", *, dump: str = "", native: bool = False) -> str:
    """Return the verdict on a packet."""
    return str(Case(packet, settings, dump=dump, native=native).answer.verdict)


def source(packet: Packet) -> str:
    """Return the source address of a packet as text."""
    return address_text(packet.family, packet.source)
