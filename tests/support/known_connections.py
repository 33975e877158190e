"""known_connections: connections that conntrack knows, made by netlink as ctnetlink's users make them.

A later packet of a connection can then be sent without a first one, which rules might have changed.
"""

from __future__ import annotations

import struct

from istio_iptables.interpreter.connection import Connection
from istio_iptables.interpreter.packet import TCP, UDP, Packet
from istio_iptables.kernel.netlink.messages import pack_attribute
from istio_iptables.rules.model import IPV4

# linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_INFO, _TIMEOUT, _MARK, _ZONE = 1, 2, 3, 4, 7, 8, 18
_TUPLE_IP, _TUPLE_PROTOCOL, _TUPLE_ZONE = 1, 2, 3
_NESTED = 0x8000
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_ESTABLISHED, _LIBERAL = 3, 8
_SECONDS = 600


def connection_of_later(packet: Packet, zone: int, reply_zone: int) -> Connection:
    """Return the connection, as it was sent and not translated, that a later packet belongs to."""
    there = (packet.source, packet.source_port, packet.destination, packet.destination_port)
    return Connection(there, (*there[2:], *there[:2]), zone, reply_zone, packet.connection_mark, replied=True)


def message(packet: Packet, connection: Connection) -> bytes:
    """Return the attributes of a connection, of the family and protocol of one of its packets."""
    zones = (connection.zone, connection.reply_zone)
    both = zones[0] == zones[1]
    parts = [
        _nested(_ORIGINAL, *_tuple(packet, connection.original, 0 if both else zones[0])),
        _nested(_REPLY, *_tuple(packet, connection.reply, 0 if both else zones[1])),
        *([pack_attribute(_ZONE, struct.pack("!H", zones[0]))] if both and zones[0] else []),
        pack_attribute(_STATUS, struct.pack("!I", _SEEN_REPLY | _ASSURED | _CONFIRMED)),
        pack_attribute(_TIMEOUT, struct.pack("!I", _SECONDS)),
        pack_attribute(_MARK, struct.pack("!I", connection.mark)),
    ]
    if packet.protocol == TCP:
        # Liberal: the numbers of its segments do not count.
        flags = [pack_attribute(kind, bytes((_LIBERAL, _LIBERAL))) for kind in (4, 5)]
        state = _nested(1, pack_attribute(1, bytes((_ESTABLISHED,))), *flags)
        parts.append(_nested(_PROTOCOL_INFO, state))
    return b"".join(parts)


def _nested(kind: int, *parts: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, b"".join(parts))


def _tuple(
    packet: Packet, ends: tuple[int | None, int | None, int | None, int | None], zone: int
) -> list[bytes]:
    assert packet.protocol in (TCP, UDP)
    first, size = (1, 4) if packet.family == IPV4 else (3, 16)
    source, source_port, destination, destination_port = (each or 0 for each in ends)
    addresses = [
        pack_attribute(kind, address.to_bytes(size, "big"))
        for kind, address in ((first, source), (first + 1, destination))
    ]
    ports = [
        pack_attribute(kind, struct.pack("!H", port))
        for kind, port in ((2, source_port), (3, destination_port))
    ]
    protocol = pack_attribute(1, bytes((packet.protocol,)))
    parts = [_nested(_TUPLE_IP, *addresses), _nested(_TUPLE_PROTOCOL, protocol, *ports)]
    return [*parts, pack_attribute(_TUPLE_ZONE, struct.pack("!H", zone))] if zone else parts
