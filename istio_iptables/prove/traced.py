"""traced: a packet that was found among all at once, as a command line of `trace`, and what that says."""

from __future__ import annotations

from ..errors import SettingsError
from ..interpreter.packet import has_ports
from ..rules.istio import CHAINS, NATIVE_TABLES, TAG
from ..rules.model import IPV4, Cidr
from ..settings.packet_parsers import Endpoint
from ..startup.record import Record
from ..trace.answer import answer
from ..trace.packet import Question, complete, words
from ..trace.steps import RuleStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpreter.packet import Packet
    from ..interpreter.verdict import Proxy, Verdict
    from ..rules.model import Family
    from ..trace.answer import Answer
    from ..trace.packet import Direction
    from .subject import Subject


class Traced(Record):
    """What `trace` says of a packet: its arguments, the verdict, how its ways end, and what rules did.

    `rules` are those that did more than to lead to another chain. `by_command`: the command line of `trace`
    gives this verdict, too; it knows the network by its options alone.
    """

    arguments: tuple[str, ...]
    verdict: Verdict
    ends: tuple[str, ...]
    rules: tuple[RuleStep, ...]
    by_command: bool

    @property
    def causes(self) -> tuple[RuleStep, ...]:
        """The rules that made the verdict: those of other programs, and the last of all."""
        last = len(self.rules) - 1
        return tuple(step for at, step in enumerate(self.rules) if at == last or is_foreign(step))


def is_foreign(step: RuleStep) -> bool:
    """Tell whether a rule is one of another program: it has no name of Istio's, and no reason of ours."""
    ours = step.chain in CHAINS or any(f" {name}" in step.table for name in NATIVE_TABLES.values())
    return not (ours or step.reason or TAG in step.text)


def question_of_packet(packet: Packet, direction: Direction) -> Question:
    """Return the question that asks for a packet, everything given."""
    ports = has_ports(packet.protocol)
    return Question(
        direction,
        _endpoint(packet.family, packet.destination, packet.destination_port if ports else 0),
        _endpoint(packet.family, packet.source, packet.source_port if ports else 0),
        packet.uid if direction == "out" else None,
        packet.gid if direction == "out" else None,
        packet.protocol,
        packet.bound if direction == "out" else packet.received_on,
        packet.mark,
        packet.connection_mark,
        packet.state,
        packet.zone,
    )


def _endpoint(family: Family, address: int, port: int) -> Endpoint:
    version, bits = (4, 32) if family == IPV4 else (6, 128)
    return Endpoint(Cidr(version, address, bits), port)


def traced(
    subjects: Sequence[Subject], packet: Packet, direction: Direction, proxy: Proxy
) -> tuple[Traced, ...]:
    """Follow a packet with the tracer through the rules of each subject, described in the same words.

    Returns nothing if the options of `trace` cannot describe it, such as one to port 0.
    """
    exact = question_of_packet(packet, direction)
    try:
        question = _shortened(exact, subjects, proxy)
        found = [
            answer(each.world, complete(question, each.world.network, proxy), proxy) for each in subjects
        ]
    except SettingsError:
        return ()
    if any(question_of_packet(each.asked.packet, direction) != exact for each in found):
        return ()
    return tuple(_traced(question, *each, proxy) for each in zip(subjects, found, strict=True))


def _traced(question: Question, subject: Subject, found: Answer, proxy: Proxy) -> Traced:
    ends = tuple(dict.fromkeys(path.end for path in found.paths))
    steps = [step for path in found.paths for step in path.steps if isinstance(step, RuleStep)]
    rules = [step for step in steps if not step.effect.startswith(("goes to ", "goes on in "))]
    by_command = subject.can_be_traced and _by_command(question, subject, found, proxy)
    return Traced(words(question), found.verdict, ends, tuple(rules), by_command)


def _by_command(question: Question, subject: Subject, found: Answer, proxy: Proxy) -> bool:
    """Tell whether `trace`, which may know less of the network, has the same packet and verdict."""
    world = subject.at(question)
    proxy = subject.proxy or proxy
    asked = complete(question, world.network, proxy)
    return asked.packet == found.asked.packet and answer(world, asked, proxy).verdict == found.verdict


def _shortened(exact: Question, subjects: Sequence[Subject], proxy: Proxy) -> Question:
    """Return a question that leaves out what `trace` fills in all the same."""

    def packets(question: Question) -> list[Packet]:
        networks = [each for s in subjects for each in (s.world.network, s.at(question).network)]
        return [complete(question, network, proxy).packet for network in networks]

    wanted = packets(exact)
    port = exact.source.port
    found = exact
    for field, value in (
        ("gid", None),
        ("source", Endpoint()),
        ("source", exact.source.replace(port=0)),
        ("source", Endpoint(None, port)),
        ("interface", ""),
    ):
        shorter = found.replace(**{field: value})
        if getattr(found, field) == getattr(exact, field) and packets(shorter) == wanted:
            found = shorter
    return found
