"""connection: what conntrack and nat keep of a first packet, and what that means for the packets after it.

Source: nf_conntrack_core.c (resolve_normal_ct), nf_nat_core.c (nf_nat_packet).
"""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .algebra import Side
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
    reply_zone: int = 0
    mark: int = 0
    replied: bool = False
    translated: bool = False
    source_translated: bool | None = False
    redirected: int = 0

    def is_from_originator(self, packet: Packet) -> bool:
        """Tell whether a packet goes the way of the first one; if not, it is an answer.

        What is sent from a port to the same port cannot be told apart; conntrack takes it for an answer, as
        that direction is the first in the list that it looks into (__nf_conntrack_hash_insert).
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
        end.reply_zone,
        end.connection_mark,
        translated=end.translated,
        source_translated=end.source_translated,
        redirected=end.redirected,
    )


def found(packet: Packet) -> Packet:
    """Return a packet as conntrack sees it. Without a connection it stays as it is.

    If rules have given it a zone in which its connection is not, it is the first packet of another one.
    Raises ValueError if it does not belong to the connection at all.
    """
    connection = packet.connection
    if connection is None:
        return packet
    original = connection.is_from_originator(packet)
    if _tuple(packet) != (connection.original if original else connection.reply):
        raise ValueError("the packet does not belong to the connection")
    zones = (packet.zone, connection.zone) if original else (packet.reply_zone, connection.reply_zone)
    if zones[0] != zones[1]:
        # At one that is invalid conntrack looks again if it comes back by lo.
        return packet if packet.state == "INVALID" else _first_of_another(packet)
    return packet.replace(
        first=False,
        direction="original" if original else "reply",
        state="ESTABLISHED" if connection.replied or not original else "NEW",
        connection_mark=connection.mark,
        zone=connection.zone,
        reply_zone=connection.reply_zone,
        translated=connection.translated,
        source_translated=connection.source_translated,
        redirected=connection.redirected if original else 0,
        **dict(zip(_ORIGINAL_FIELDS, connection.original, strict=True)),
        **dict(zip(_REPLY_FIELDS, connection.reply, strict=True)),
    )


def _first_of_another(packet: Packet) -> Packet:
    """Return a packet as the first of a connection of its own."""
    return packet.replace(
        connection=None,
        original_source=packet.source,
        original_source_port=packet.source_port,
        original_destination=packet.destination,
        original_port=packet.destination_port,
    )


_ORIGINAL_FIELDS = ("original_source", "original_source_port", "original_destination", "original_port")
_REPLY_FIELDS = ("reply_source", "reply_source_port", "reply_destination", "reply_port")


def translation(packet: Packet, side: Side) -> tuple[int | None, int | None] | None:
    """Return the address and port that nat gives a later packet at one side, None for one that is none.

    They are those of the other direction, turned round (nf_nat_manip_pkt). What conntrack leaves alone, nat
    does too.
    """
    connection = packet.connection
    if connection is None or packet.first or packet.state == "UNTRACKED":
        return None
    back = connection.reply if packet.direction == "original" else connection.original
    return back[:2] if side == "destination" else back[2:]


def _tuple(packet: Packet) -> Tuple:
    return packet.source, packet.source_port, packet.destination, packet.destination_port
