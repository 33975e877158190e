"""found: what proving has found, each packet with the command line of `trace` that shows it.

The tracer follows a packet before it is shown: a packet of which it says something else is no refutation.
"""

from __future__ import annotations

from ..startup.record import Record
from ..trace.world import proxy_of
from .traced import traced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.packet import Packet
    from ..interpreter.verdict import Proxy, Verdict
    from ..settings.config import Config
    from ..trace.packet import Direction
    from .dead import Dead
    from .proof import Counterexample, Property, Status
    from .same import Differing
    from .subject import Subject
    from .traced import Traced


class Refutation(Record):
    """A packet, the verdict that was promised, the one that the rules give, and what `trace` says.

    `refutes` are the names of the properties that it refutes; with `depends_on`, which names what is not
    modelled, it may. `traced` is None if the options of `trace` cannot describe the packet.
    """

    direction: Direction
    packet: Packet
    wanted: Verdict
    found: Verdict
    refutes: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    traced: Traced | None = None


class Judged(Record):
    """A named property: what it says, and whether it holds."""

    name: str
    says: tuple[str, ...]
    status: Status


class Judgement(Record):
    """All properties of the rules of a subject, and the packets that refute some."""

    subject: Subject
    properties: tuple[Judged, ...]
    refutations: tuple[Refutation, ...] = ()

    @property
    def is_proved(self) -> bool:
        """True if every property is proved."""
        return all(each.status == "PROVED" for each in self.properties)

    @property
    def refuted(self) -> tuple[Judged, ...]:
        """The properties that are refuted."""
        return tuple(each for each in self.properties if each.status == "REFUTED")


class Shown(Record):
    """A packet that two rule sets treat differently, and what `trace` says with each; see Refutation."""

    direction: Direction
    packet: Packet
    one: Verdict
    other: Verdict
    depends_on: tuple[str, ...] = ()
    traced: tuple[Traced, ...] = ()


class Comparison(Record):
    """Two subjects, and the packets that they treat differently."""

    one: Subject
    other: Subject
    packets: tuple[Shown, ...]

    @property
    def is_whole(self) -> bool:
        """True if all rules of both were read."""
        return self.one.is_whole and self.other.is_whole

    @property
    def is_same(self) -> bool:
        """True if every packet has the same verdict."""
        return self.is_whole and not self.packets


class DeadRules(Record):
    """The rules of a subject that no packet reaches, of `count` rules."""

    subject: Subject
    count: int
    rules: tuple[Dead, ...]


def judgement(subject: Subject, properties: Sequence[Property], config: Config) -> Judgement:
    """Return what was found about properties, with what `trace` says of each packet, once."""
    refuting: dict[tuple[object, ...], tuple[Counterexample, list[str]]] = {}
    for each in properties:
        for found in each.counterexamples:
            key = (found.packets.direction, found.packet, found.wanted, found.found, found.depends_on)
            refuting.setdefault(key, (found, []))[1].append(each.name)
    proxy = proxy_of(config)
    refutations = tuple(_refutation(subject, *each, proxy) for each in refuting.values())
    return Judgement(subject, tuple(_judged(subject, each, refutations) for each in properties), refutations)


def _judged(subject: Subject, found: Property, refutations: Sequence[Refutation]) -> Judged:
    status: Status = "PROVED" if subject.is_whole else "DEPENDS"
    against = [each for each in refutations if found.name in each.refutes]
    if against:
        status = "DEPENDS" if all(each.depends_on for each in against) else "REFUTED"
    return Judged(found.name, found.says, status)


def _refutation(subject: Subject, found: Counterexample, names: Sequence[str], proxy: Proxy) -> Refutation:
    direction = found.packets.direction
    refutes = tuple(dict.fromkeys(names))
    depends_on = found.depends_on or (() if subject.is_whole else _UNREAD)
    made = Refutation(direction, found.packet, found.wanted, found.found, refutes, depends_on)
    answers = traced((subject,), found.packet, direction, proxy)
    if not answers:
        return made
    [answer] = answers
    if answer.verdict != found.found and not depends_on:
        made = made.replace(depends_on=(_disagreement(answer.verdict),))
    return made.replace(traced=answer)


#: What a packet depends on, if not all rules were read.
_UNREAD = ("what could not be read",)


def _disagreement(verdict: Verdict) -> str:
    return f"what trace says of this packet, which is {verdict}: one of both is a bug of istio-iptables"


def comparison(one: Subject, other: Subject, found: Iterable[Differing], proxy: Proxy) -> Comparison:
    """Return where two subjects differ, with what `trace` says of each packet."""
    return Comparison(one, other, tuple(_shown((one, other), found, proxy)))


def _shown(subjects: Sequence[Subject], found: Iterable[Differing], proxy: Proxy) -> Iterator[Shown]:
    for each in found:
        direction = each.packets.direction
        answers = traced(subjects, each.packet, direction, proxy)
        depends_on = each.depends_on or (() if all(s.is_whole for s in subjects) else _UNREAD)
        if not depends_on:
            wrong = [
                answer.verdict
                for answer, verdict in zip(answers, (each.one, each.other), strict=False)
                if answer.verdict != verdict
            ]
            depends_on = tuple(_disagreement(verdict) for verdict in wrong[:1])
        yield Shown(direction, each.packet, each.one, each.other, depends_on, answers)
