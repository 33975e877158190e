"""example: one packet of a region, the plainest that it has, to be traced and to be sent."""

from __future__ import annotations

from ..interpreter.many import asked_about
from ..interpreter.packet import TCP, UDP
from ..interpreter.valuesets import a_mark
from ..rules.model import IPV4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..interpreter.packet import Packet
    from ..interpreter.regions import Region
    from .space import Packets

#: Values that are taken if a region has them, the plainest first.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "protocol": (TCP, UDP),
    "source_port": (40000,),
    "destination_port": (80, 8080, 53),
    "uid": (1000, 1001, 0),
    "gid": (1000, 1001, 0),
    "received_on": ("eth0",),
}
_ADDRESSES = {
    "ipv4": {"source": (0x0A000002, 0xC6336401), "destination": (0xC6336407, 0x0A000002)},
    "ipv6": {
        "source": (0xFD << 120 | 2, 0x20010DB8 << 96 | 1),
        "destination": (0x20010DB8 << 96 | 7, 0xFD << 120 | 2),
    },
}


def example(region: Region, packets: Packets, own: int | None = None) -> Packet:
    """Return a packet of a region. `own` is an address of the namespace, which is plain, too."""
    boxes = sorted(region.boxes, key=len)[:_MOST_BOXES]
    found = [_of_box(dict(box), packets, own) for box in boxes]
    return max(found, key=lambda each: _plainness(each, own))


#: The plainest packet is looked for in as many boxes.
_MOST_BOXES = 50


def _plainness(packet: Packet, own: int | None) -> int:
    """Return how many fields of a packet have plain values."""
    addresses = _ADDRESSES[packet.family]
    plain = {**_PLAIN, **addresses, "source": (*addresses["source"], own)}
    return sum(getattr(packet, field) in values for field, values in plain.items())


def _of_box(box: dict[str, Any], packets: Packets, own: int | None) -> Packet:
    family = packets.space.family
    fields: dict[str, Any] = {}
    for field in packets.free:
        if asked_about(field):
            continue
        values = box.get(field, packets.space.everything(field))
        plain = _PLAIN.get(field, _ADDRESSES[family].get(field, ()))
        if own is not None and field == ("source" if packets.direction == "out" else "destination"):
            plain = (own, *plain)
        fields[field] = _one(values, plain)
    packet = packets.fixed.replace(**fields)
    return packet.replace(
        original_source=packet.source,
        original_source_port=packet.source_port,
        original_destination=packet.destination,
        original_port=packet.destination_port,
    )


def _one(values: Any, plain: tuple[Any, ...]) -> Any:
    """Return one value of a set: a plain one, else a name that exists, else the first that is not 0."""
    if isinstance(values, tuple):
        for value in plain:
            if any(first <= value <= last for first, last in values):
                return value
        first, last = values[0]
        return first or min(1, last)
    if all(isinstance(value, str) for value in values):
        named = [value for value in plain if value in values] + sorted(v for v in values if "/" not in v)
        return named[0] if named else min(values).replace("/", "")[:15]
    return 0 if any(value == 0 for value, _ in values) else a_mark(values)


def questions(region: Region) -> tuple[str, ...]:
    """Return what a region depends on that is not modelled, in the words of the rule."""
    about = (asked_about(name) for box in region.boxes for name, _ in box)
    return tuple(dict.fromkeys(each for each in about if each))


def is_ipv4(packets: Packets) -> bool:
    """Tell whether packets are of IPv4."""
    return packets.space.family == IPV4
