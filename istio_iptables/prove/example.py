"""example: one packet of a region, the plainest that it has, to be traced and to be sent."""

from __future__ import annotations

from ..interpreter.many import asked_about
from ..interpreter.packet import ICMP, ICMPV6, TCP, UDP
from ..interpreter.valuesets import a_mark, common
from ..rules.model import NO_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.packet import Packet
    from ..interpreter.regions import Region
    from ..interpreter.routing import Network
    from ..interpreter.valuesets import Ranges
    from ..rules.model import Family
    from .space import Packets

#: Values that are taken if a region has them, the plainest first.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "protocol": (TCP, UDP, ICMP, ICMPV6),
    "source_port": (40000,),
    "destination_port": (80, 8080, 53),
    "uid": (1000, 1001, 0),
    "gid": (1000, 1001, 0),
    "received_on": ("eth0",),
    "bound": ("",),
    "mark": (0,),
    "connection_mark": (0,),
    "state": ("NEW",),
}
_ADDRESSES: dict[str, dict[str, tuple[int, ...]]] = {
    "ipv4": {"source": (0x0A000002, 0xC6336401), "destination": (0xC6336407, 0x0A000002)},
    "ipv6": {
        "source": (0xFD << 120 | 2, 0x20010DB8 << 96 | 1),
        "destination": (0x20010DB8 << 96 | 7, 0xFD << 120 | 2),
    },
}
#: Values that people meet, where a region has no plain one. Of addresses: unicast that hosts may have.
_USUAL: dict[str, Ranges] = {
    "protocol": ((1, 255),),
    "source_port": ((1024, 65535),),
    "destination_port": ((1, 65535),),
    "uid": ((1, NO_ID - 1),),
    "gid": ((1, NO_ID - 1),),
}
_HOSTS: dict[str, Ranges] = {
    "ipv4": ((0x01000001, 0x7EFFFFFE), (0x80000001, 0xA9FDFFFE), (0xA9FF0001, 0xDFFFFFFE)),
    "ipv6": ((0x2000 << 112 | 1, (0x4000 << 112) - 1), (0xFC << 120 | 1, (0xFE << 120) - 1)),
}


def own_address(network: Network, family: Family) -> int | None:
    """Return an address of a namespace for examples, if it has one."""
    return next((each.address for each in network.own(family)), None)


def example(region: Region, packets: Packets, own: int | None = None) -> Packet:
    """Return a packet of a region. `own` is an address of the namespace, which is plain, too."""
    boxes = sorted(region.boxes, key=len)[:_MOST_BOXES]
    found = [_of_box(dict(box), packets, own) for box in boxes]
    return min(found, key=lambda each: strangeness(each, own))


#: The plainest packet is looked for in as many boxes.
_MOST_BOXES = 50


def strangeness(packet: Packet, own: int | None = None) -> int:
    """Return how far the fields of a packet are from plain ones: 1 for what is usual, 3 for what is not."""
    found = 0
    for field, plain in (*_PLAIN.items(), *_ADDRESSES[packet.family].items()):
        value = getattr(packet, field)
        if value in plain or (value == own and field in ("source", "destination")):
            continue
        if field == "received_on" and not value:  # it is sent here
            continue
        usual = _usual(field, packet.family)
        found += 1 if any(first <= value <= last for first, last in usual) else 3
    return found


def _usual(field: str, family: Family) -> Ranges:
    return _HOSTS[family] if field in ("source", "destination") else _USUAL.get(field, ())


def _of_box(box: dict[str, Any], packets: Packets, own: int | None) -> Packet:
    family = packets.space.family
    fields: dict[str, Any] = {}
    for field in sorted(packets.free):
        if asked_about(field):
            continue
        values = box.get(field, packets.space.everything(field))
        plain = _PLAIN.get(field, _ADDRESSES[family].get(field, ()))
        if own is not None and field == ("source" if packets.direction == "out" else "destination"):
            plain = (own, *plain)
        fields[field] = _one(values, plain, _usual(field, family))
    packet = packets.fixed.replace(**fields)
    return packet.replace(
        original_source=packet.source,
        original_source_port=packet.source_port,
        original_destination=packet.destination,
        original_port=packet.destination_port,
    )


def _one(values: Any, plain: tuple[Any, ...], usual: Ranges) -> Any:
    """Return one value of a set: a plain one, else a usual one or a name that exists, else the first."""
    if isinstance(values, tuple):
        for value in plain:
            if any(first <= value <= last for first, last in values):
                return value
        first, last = (common(values, usual) or values)[0]
        begins = usual in _HOSTS.values() and not first & 0xFF  # such as a network, which has no host there
        return first + 1 if begins and first < last else first
    if all(isinstance(value, str) for value in values):
        named = [value for value in plain if value in values] + sorted(v for v in values if "/" not in v)
        return named[0] if named else min(values).replace("/", "")[:15]
    return 0 if any(value == 0 for value, _ in values) else a_mark(values)


def questions(region: Region) -> tuple[str, ...]:
    """Return what a region depends on that is not modelled, in the words of the rule."""
    about = (asked_about(name) for box in region.boxes for name, _ in box)
    return tuple(dict.fromkeys(each for each in about if each))
