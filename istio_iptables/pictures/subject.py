"""subject: what a picture is of: the rules that settings mean, or those in the kernel; and ways through."""

from __future__ import annotations

from ..interpreter.routing import LOOPBACK, assumed_network
from ..rules.model import FAMILIES, IPV4, Cidr
from ..startup.record import Record
from ..trace.answer import answer
from ..trace.follow import follow
from ..trace.packet import complete
from ..trace.world import of_settings, proxy_of
from .make import picture, shown
from .model import Outcome
from .way import way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy
    from ..rules.model import Family
    from ..settings.config import Config
    from ..trace.answer import Answer
    from ..trace.follow import Choices, Hop
    from ..trace.packet import Question
    from .model import Picture, Way

TITLE = "How packets travel through a pod with a sidecar"
#: A pod's own addresses where none are known: from the networks for documentation (RFC 5737, RFC 3849).
EXAMPLE_OWN = (Cidr(4, 0xC0000202, 32), Cidr(6, 0x20010DB8000000000000000000000002, 128))

_NAT = (
    "nat is asked for the first packet of a connection; what it decides holds for the whole connection, so "
    "its counters count connections."
)


class Subject(Record):
    """A namespace with its proxy, as pictures and reports show it.

    `families` are those that the rules are for. `facts` and `notes` are those of the picture. `live`: the
    rules are those in the kernel.
    """

    world: World
    proxy: Proxy
    families: tuple[Family, ...]
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    live: bool = False

    def picture(self) -> Picture:
        """Return the picture of it."""
        return picture(
            self.world,
            self.proxy,
            self.families,
            title=TITLE,
            facts=self.facts,
            notes=self.notes,
            counted=self.live,
        )


def of_config(
    config: Config, *, native: bool = False, own: Sequence[Cidr] = (), settings: str = ""
) -> Subject:
    """Return what settings mean. `own` are the pod's own addresses, `settings` the arguments, to be shown."""
    network = assumed_network(_addresses(config, tuple(own) or EXAMPLE_OWN), why="addresses are examples")
    facts = [
        ("mode", config.interception_mode),
        ("rules of", "nftables" if native else "iptables"),
        ("for", shown(config.families)),
    ]
    if settings:
        facts.append(("settings", settings))
    notes = [_NAT]
    if not config.ipv6:
        notes.append("IPv6 is off: its packets meet none of these rules.")
    return Subject(
        of_settings(config, network, native=native),
        proxy_of(config),
        config.families,
        tuple(facts),
        tuple(notes),
    )


def _addresses(config: Config, own: Sequence[Cidr]) -> Iterator[tuple[str, Cidr]]:
    """Yield own addresses with their interfaces; those that settings name have one too."""
    for cidr in own:
        yield "eth0", cidr
    names = dict.fromkeys(map(interface_of, (*config.rerouted_interfaces, *config.interfaces_excluded)))
    for at, name in enumerate((name for name in names if name not in ("eth0", LOOPBACK)), 64):
        for cidr in EXAMPLE_OWN:
            yield name, cidr.replace(address=cidr.address + at)


def interface_of(pattern: str) -> str:
    """Return the name of an interface that a pattern of the settings stands for."""
    return f"{pattern[:-1] or 'eth'}1"[:15] if pattern.endswith("+") else pattern


def of_world(
    world: World, proxy: Proxy, facts: Iterable[tuple[str, str]] = (), notes: Iterable[str] = ()
) -> Subject:
    """Return what is in the kernel."""
    families: tuple[Family, ...] = tuple(
        family for family in FAMILIES if any(family in table.families for table in world.program.tables)
    )
    facts = (*facts, ("for", shown(families))) if families else facts
    return Subject(world, proxy, families or (IPV4,), tuple(facts), (_NAT, *notes), live=True)


class Followed(Record):
    """The hops of a connection, what becomes of it in plain words, and the verdict about its first packet."""

    hops: tuple[Hop, ...]
    conclusion: str

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answer to each hop."""
        return tuple(hop.answer for hop in self.hops)

    @property
    def verdict(self) -> str:
        """The verdict about the first packet."""
        return str(self.hops[0].answer.verdict)


def followed(
    subject: Subject, question: Question, *, further: bool = True, choices: Choices | None = None
) -> Followed:
    """Follow a connection; `further`: through the proxy, hop by hop. Raises SettingsError."""
    asked = complete(question, subject.world.network, subject.proxy)
    if further:
        found = follow(subject.world, asked, subject.proxy, choices)
        conclusion = found.hops[0].answer.conclusion
        if len(found.hops) > 1:
            conclusion = f"{conclusion} {found.conclusion}"
        return Followed(found.hops, conclusion)
    from ..trace.follow import Hop

    only = answer(subject.world, asked, subject.proxy)
    return Followed((Hop("", only),), only.conclusion)


def outcome(title: str, found: Followed) -> Outcome:
    """Return what becomes of a connection, for a picture."""
    verdict = found.hops[0].answer.verdict
    if verdict.code in ("redirected", "tproxied"):
        return Outcome(title, f"to port {verdict.to}", f"p{verdict.to}")
    return Outcome(title, "as it is" if verdict.code == "direct" else str(verdict))


def way_of(subject: Subject, of: Picture, found: Followed, title: str) -> Way:
    """Return the way of a connection in a picture."""
    return way(of, found.answers, subject.proxy, title=title, conclusion=found.conclusion)
