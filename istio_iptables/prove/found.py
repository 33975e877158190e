"""found: what proving has found, each packet with the command line of `trace` that shows it.

The tracer follows a packet before it is shown: a packet of which it says something else is no refutation.
"""

from __future__ import annotations

from ..startup.record import Record
from .traced import traced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.packet import Packet
    from ..interpreter.verdict import Proxy, Verdict
    from ..trace.packet import Direction
    from .dead import Dead
    from .proof import Counterexample, Property, Status
    from .same import Differing
    from .subject import Subject
    from .traced import Traced


class Refutation(Record):
    """A packet, the verdict that was promised, the one that the rules give, and what `trace` says.

    `traced` is None if the options of `trace` cannot describe the packet. `at` is the rule that does it, in
    words, `foreign` whether that is a rule of another program. `depends_on` names what is not modelled.
    """

    direction: Direction
    packet: Packet
    wanted: Verdict
    found: Verdict
    depends_on: tuple[str, ...] = ()
    at: str = ""
    foreign: bool = False
    traced: Traced | None = None


class Judged(Record):
    """A named property: what it says, whether it holds, and the packets that refute it."""

    name: str
    says: tuple[str, ...]
    status: Status
    refutations: tuple[Refutation, ...] = ()


class Judgement(Record):
    """All properties of the rules of a subject."""

    subject: Subject
    properties: tuple[Judged, ...]

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
    def is_same(self) -> bool:
        """True if every packet has the same verdict."""
        return not self.packets


class DeadRules(Record):
    """The rules of a subject that no packet reaches, of `count` rules."""

    subject: Subject
    count: int
    rules: tuple[Dead, ...]


def judgement(subject: Subject, properties: Iterable[Property], proxy: Proxy) -> Judgement:
    """Return what was found about properties, with what `trace` says of each packet."""
    return Judgement(subject, tuple(_judged(subject, each, proxy) for each in properties))


def _judged(subject: Subject, found: Property, proxy: Proxy) -> Judged:
    refutations = tuple(_refutation(subject, each, proxy) for each in found.counterexamples)
    status: Status = found.status
    if status == "REFUTED" and all(each.depends_on for each in refutations):
        status = "DEPENDS"
    if status == "PROVED" and subject.unread:
        status = "DEPENDS"
    return Judged(found.name, found.says, status, refutations)


def _refutation(subject: Subject, found: Counterexample, proxy: Proxy) -> Refutation:
    direction = found.packets.direction
    made = Refutation(direction, found.packet, found.wanted, found.found, found.depends_on, found.at)
    answers = traced((subject,), found.packet, direction, proxy)
    if not answers:
        return made
    [answer] = answers
    if answer.verdict != found.found and not found.depends_on:
        return made.replace(depends_on=(_disagreement(answer.verdict),), traced=answer)
    rule = answer.decided
    at = f"rule {rule.number} of {rule.chain} in {rule.table}: {rule.text}" if rule else found.at
    return made.replace(at=at, foreign=bool(rule and not rule.reason), traced=answer)


def _disagreement(verdict: Verdict) -> str:
    return f"what trace says of this packet, which is {verdict}: one of both is a bug of istio-iptables"


def comparison(one: Subject, other: Subject, found: Iterable[Differing], proxy: Proxy) -> Comparison:
    """Return where two subjects differ, with what `trace` says of each packet."""
    return Comparison(one, other, tuple(_shown((one, other), found, proxy)))


def _shown(subjects: Sequence[Subject], found: Iterable[Differing], proxy: Proxy) -> Iterator[Shown]:
    for each in found:
        direction = each.packets.direction
        answers = traced(subjects, each.packet, direction, proxy)
        depends_on = each.depends_on
        if not depends_on:
            wrong = [
                answer.verdict
                for answer, verdict in zip(answers, (each.one, each.other), strict=False)
                if answer.verdict != verdict
            ]
            depends_on = tuple(_disagreement(verdict) for verdict in wrong[:1])
        yield Shown(direction, each.packet, each.one, each.other, depends_on, answers)
