"""same: whether two rule sets do the same with every packet, and if not, the fewest packets that show it."""

from __future__ import annotations

from ..startup.record import Record
from .compare import differences
from .example import example, questions
from .outcomes import outcomes, simplified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..interpreter.packet import Packet
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy, Verdict
    from .space import Packets


class Differing(Record):
    """A packet that has one verdict by one rule set and another by the other.

    `depends_on` names what is not modelled: then the verdicts may be equal.
    """

    packets: Packets
    packet: Packet
    one: Verdict
    other: Verdict
    depends_on: tuple[str, ...] = ()


def differing(one: World, other: World, kinds: Iterable[Packets], proxy: Proxy) -> tuple[Differing, ...]:
    """Return a packet for each pair of verdicts that some packets have; none if there is no difference.

    Both worlds have the same addresses, or the packets would not be the same. One that depends on something
    is returned only if there is none of that pair which does not.
    """
    found: dict[tuple[Verdict, Verdict], Differing] = {}
    one, other = simplified(one), simplified(other)
    for packets in kinds:
        by_one = outcomes(one, packets, proxy)
        for each in differences(by_one, outcomes(other, packets, proxy)):
            pair = each.one.verdict, each.other.verdict
            known = found.get(pair)
            if known and not known.depends_on:
                continue
            about = dict.fromkeys(
                (
                    *questions(each.region),
                    *(what for outcome in (each.one, each.other) for what, _ in outcome.if_),
                )
            )
            depends = "depends" in (pair[0].code, pair[1].code)
            if depends and not about:
                about = dict.fromkeys(filter(None, (each.one.note, each.other.note)))
            if known and about:
                continue
            network = one.network.own(packets.space.family)
            packet = example(each.region, packets, network[0].address if network else None)
            found[pair] = Differing(packets, packet, *pair, tuple(about))
    return tuple(found.values())
