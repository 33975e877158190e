"""same: whether two rule sets do the same with every packet, and if not, the fewest packets that show it."""

from __future__ import annotations

from ..startup.record import Record
from .compare import differences
from .example import example, own_address, questions, strangeness
from .outcomes import outcomes, simplified
from .translated import of_packet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..interpreter.packet import Packet
    from ..interpreter.surroundings import World
    from ..interpreter.verdict import Proxy, Verdict
    from .compare import Difference
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
    is returned only if there is none of that pair which does not. The plainest packets come first.
    """
    found: dict[tuple[Verdict, Verdict], Differing] = {}
    one, other = simplified(one), simplified(other)
    for packets in kinds:
        own = own_address(one.network, packets.space.family)
        by_one = outcomes(one, packets, proxy)
        for each in differences(by_one, outcomes(other, packets, proxy)):
            about = _depends_on(each)
            pair = each.one.verdict, each.other.verdict
            known = found.get(pair)
            if known and (about and not known.depends_on):
                continue
            packet = example(each.region, packets, own)
            certain = known is not None and bool(known.depends_on) and not about
            if known and not certain and strangeness(known.packet, own) <= strangeness(packet, own):
                continue
            ours, theirs = (of_packet(verdict, packet) for verdict in pair)
            found[pair] = Differing(packets, packet, ours, theirs, about)
    return tuple(sorted(found.values(), key=_strangeness))


def _strangeness(found: Differing) -> int:
    """Return how far a packet is from plain ones; its own address is plain in every kind."""
    sent = found.packets.direction == "out"
    return strangeness(found.packet, found.packet.source if sent else found.packet.destination)


def _depends_on(difference: Difference) -> tuple[str, ...]:
    """Return what a difference depends on that is not modelled."""
    both = (difference.one, difference.other)
    about = (*questions(difference.region), *(what for outcome in both for what, _ in outcome.if_))
    if not about and any(outcome.verdict.code == "depends" for outcome in both):
        about = tuple(outcome.note for outcome in both if outcome.note)
    return tuple(dict.fromkeys(about))
