"""route_choice: the route of a packet, as the kernel has it (`ip route get`), and as a Network has it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from istio_iptables.interpreter.algebra import One
from istio_iptables.interpreter.packet import UDP, Packet, address_text
from istio_iptables.interpreter.routing import Network, Routed
from istio_iptables.interpreter.source_address import source_by
from istio_iptables.rules.model import NO_ID
from tests.support.netns import Namespace

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

_FAILED = re.compile(r"Command failed -:(\d+)")


class Asked(NamedTuple):
    """A packet: sent from here if it has come in by no interface; without a source the kernel chooses one."""

    family: Family
    destination: str
    source: str = ""
    mark: int = 0
    uid: int = 0
    interface: str = ""

    @property
    def words(self) -> str:
        """The arguments of `ip route get`. What has come in counts as root's, which IPv6 has to be told."""
        uid = "" if self.family == "ipv4" and self.interface else f"uid {0 if self.interface else self.uid}"
        parts = [("from", self.source), ("iif", self.interface), ("mark", self.mark)]
        return " ".join([self.destination, *(f"{name} {value}" for name, value in parts if value), uid])

    @property
    def packet(self) -> Packet:
        """The packet itself."""
        source = int(ip_address(self.source)) if self.source else 0
        return Packet(
            self.family,
            UDP,
            source,
            int(ip_address(self.destination)),
            received_on=self.interface,
            mark=self.mark,
            uid=NO_ID if self.interface else self.uid,
        )


class Chosen(NamedTuple):
    """A route: its kind (`nowhere`: there is none), the interface that a packet leaves by, and its source."""

    kind: str
    interface: str = ""
    source: str = ""


def by_kernel(namespace: Namespace, asked: Sequence[Asked]) -> list[Chosen]:
    """Ask the kernel, with one process for all packets of one family."""
    [option] = {"-4" if each.family == "ipv4" else "-6" for each in asked}
    lines = "".join(f"route get {each.words}\n" for each in asked)
    done = namespace.run(["ip", "-j", option, "-force", "-batch", "-"], stdin=lines, check=False)
    failed = {int(number) for number in _FAILED.findall(done.stderr)}
    found = _documents(done.stdout)
    answers = [
        Chosen("nowhere") if number in failed else _chosen(each, next(found)[0])
        for number, each in enumerate(asked, 1)
    ]
    assert next(found, None) is None, done.stderr
    return answers


def _documents(text: str) -> Any:
    decoder = json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        text = text[end:]
        if document != [{}] and document:
            yield document


def _chosen(asked: Asked, found: dict[str, Any]) -> Chosen:
    kind = found.get("type", "unicast")
    return _comparable(asked, kind, found.get("dev", ""), found.get("prefsrc", ""))


def _comparable(asked: Asked, kind: str, interface: str, source: str) -> Chosen:
    """For what comes in and is for this machine, and for what has a source, there is less to tell."""
    stays = asked.interface and kind != "unicast"
    return Chosen(kind, "" if stays else interface, "" if asked.source else source)


def by_network(network: Network, asked: Asked) -> dict[Chosen, tuple[str, ...]]:
    """Return every route that a Network holds for possible, with what it then depends on."""
    algebra = One()
    first = _routed(network, asked, algebra)
    found: dict[Chosen, tuple[str, ...]] = {_of_network(network, asked, first): ()}
    questions = algebra.questions
    for answers in itertools.product(*(range(question.options) for question in questions)):
        keys = [question.key for question in questions]
        routed = _routed(network, asked, One(dict(zip(keys, answers, strict=True))))
        found.setdefault(_of_network(network, asked, routed), tuple(str(each.about) for each in questions))
    return found


def _routed(network: Network, asked: Asked, algebra: One) -> Routed:
    [routed] = [
        routed for part, routed in network.route(algebra, asked.packet, asked.family) if part is not None
    ]
    return routed


def _of_network(network: Network, asked: Asked, routed: Routed) -> Chosen:
    if routed.error:
        return Chosen("nowhere")
    source = ""
    if not asked.source and not asked.interface:
        address = source_by(network, asked.packet, routed)[0]
        source = "" if address is None else address_text(asked.family, address)
    return _comparable(asked, routed.kind, routed.leaves_by, source)
