"""connection: what conntrack and nat keep of a first packet, and what that means for the packets after it.

Source: nf_conntrack_core.c (resolve_normal_ct), nf_nat_core.c (nf_nat_packet).
"""

from __future__ import annotations

from ..startup.record import Record
from .packet import ACK, SYN, TCP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .packet import Packet

    #: Source address and port, destination address and port. None: not known.
    Tuple: TypeAlias = tuple[int | None, int | None, int | None, int | None]


class Connection(Record):
    """A connection: the tuple that its first packet was sent with, that of answers, and what rules noted.

    `replied`: there was an answer, so the connection is ESTABLISHED. `redirected`: see Packet.
    """

    original: Tuple
    reply: Tuple
    zone: int = 0
    mark: int = 0
    replied: bool = False
    translated: bool = False
    source_translated: bool = False
    redirected: int = 0

    def is_from_originator(self, packet: Packet) -> bool:
        """Tell whether a packet goes the way of the first one; if not, it is an answer.

        Where both ends are the same, conntrack finds the answer's entry first (__nf_conntrack_hash_insert).
        """
        return _tuple(packet) == self.original != self.reply


def connection_of(sent: Packet, end: Packet) -> Connection | None:
    """Return the connection that a first packet has made, from what was sent and its end, if there is one.

    There is one if it got through input or postrouting, also if it was dropped after coming back by lo.
    """
    if not end.confirmed or end.state in ("INVALID", "UNTRACKED"):
        return None
    source, source_port, destination, destination_port = _tuple(end)
    return Connection(
        _tuple(sent),
        (destination, destination_port, source, source_port),
        end.zone,
        end.connection_mark,
        translated=end.translated,
        source_translated=end.source_translated,
        redirected=end.redirected,
    )


def later(connection: Connection, packet: Packet) -> Packet:
    """Return a packet as one of a connection: nat is not asked, and does with it what it did before."""
    original = connection.is_from_originator(packet)
    there = connection.original if original else connection.reply
    back = connection.reply if original else connection.original
    if _tuple(packet) != there:
        raise ValueError("the packet does not belong to the connection")
    return packet.replace(
        first=False,
        direction="original" if original else "reply",
        state="ESTABLISHED" if connection.replied or not original else "NEW",
        connection_mark=connection.mark,
        translated=connection.translated,
        source_translated=connection.source_translated,
        redirected=connection.redirected if original else 0,
        original_source=connection.original[0],
        original_source_port=connection.original[1],
        original_destination=connection.original[2],
        original_port=connection.original[3],
        kept_destination=back[:2],
        kept_source=back[2:],
    )


def first_of_another(packet: Packet) -> Packet:
    """Return a packet as the first of a connection of its own; an answer of TCP begins none (tcp_new)."""
    is_answer = packet.protocol == TCP and packet.flags & (SYN | ACK) == SYN | ACK
    return packet.replace(
        state="INVALID" if is_answer else packet.state,
        first=not is_answer and packet.first,
        original_source=packet.source,
        original_source_port=packet.source_port,
        original_destination=packet.destination,
        original_port=packet.destination_port,
    )


def _tuple(packet: Packet) -> Tuple:
    return packet.source, packet.source_port, packet.destination, packet.destination_port
