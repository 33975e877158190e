"""translated: what verdicts of nat say of single packets: one may keep its address, or its port."""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import AllOf, AnyOf, numbers
from ..interpreter.condition import number as is_number
from ..interpreter.ip_names import LOCAL_TABLE
from ..interpreter.many import Changed, Many
from ..interpreter.packet import TCP, endpoint_text
from ..interpreter.regions import Region
from ..interpreter.verdict import Verdict
from ..rules.model import IPV4
from ..startup.c_modules import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from ..interpreter.condition import Condition
    from ..interpreter.packet import Packet
    from ..interpreter.routing import Network
    from ..interpreter.verdict import Proxy
    from ..rules.model import Family

    #: Address and port; None: the packet keeps its own.
    End: TypeAlias = tuple[int | None, int | None]


def end_of(verdict: Verdict, family: Family) -> End:
    """Return where a verdict `translated` sends packets: `ADDRESS`, `ADDRESS:PORT` or `:PORT`.

    >>> end_of(Verdict("translated", ":53"), "ipv4"), end_of(Verdict("translated", "[::6]:80"), "ipv6")
    ((None, 53), (6, 80))
    """
    address, port = verdict.to, ""
    if address.startswith((":", "[")) if family != IPV4 else ":" in address:
        address, _, port = address.rpartition(":")
    if family != IPV4 and not address and not port.isdigit():  # :: alone
        address, port = verdict.to, ""
    return _number(family, address) if address else None, int(port) if port else None


def _number(family: Family, address: str) -> int:
    kind = socket.AF_INET if family == IPV4 else socket.AF_INET6
    return int.from_bytes(socket.inet_pton(kind, address.strip("[]")), "big")


def of_packet(verdict: Verdict, packet: Packet) -> Verdict:
    """Return the verdict for one of the packets that have it, with its own address and port filled in."""
    if verdict.code != "translated":
        return verdict
    address, port = end_of(verdict, packet.family)
    address = packet.destination if address is None else address
    if port is None and packet.has_ports:
        port = packet.destination_port
    if port is None:
        return verdict
    return Verdict("translated", endpoint_text(packet.family, address, port))


def without_same(region: Region, one: Verdict, other: Verdict) -> Region:
    """Return the packets of a region that two verdicts send to different ends."""
    if one.code != "translated" or other.code != "translated":
        return region
    family = region.space.family
    same, differing = region, [Region.nothing(region.space)]
    ends = zip(("destination", "destination_port"), end_of(one, family), end_of(other, family), strict=True)
    for field, ours, theirs in ends:
        if ours == theirs:
            continue
        if ours is not None and theirs is not None:
            return region
        value = theirs if ours is None else ours
        assert value is not None
        same, others = same.divide(field, ((value, value),))
        differing.append(others)
    return Region.together(differing)


def led_back(region: Region, verdict: Verdict, proxy: Proxy, network: Network) -> tuple[Region, Region]:
    """Divide packets that a socket sends and nat translates: those of the proxy that come to its own port.

    It listens for what is sent on the outbound port.
    """
    nothing = Region.nothing(region.space)
    if verdict.code != "translated":
        return nothing, region
    address, port = end_of(verdict, region.space.family)
    if port not in (None, proxy.outbound_port):
        return nothing, region
    family = region.space.family
    if address is not None and not network.is_local(family, address):
        return nothing, region
    conditions: list[Condition] = [is_number("protocol", TCP), sent_by(proxy)]
    if port is None:
        conditions.append(is_number("destination_port", proxy.outbound_port))
    if address is None:
        local = [each for each in network.routes if each.kind == "local" and each.table == LOCAL_TABLE]
        own = [(each.first, each.last) for each in local if each.family == family]
        conditions.append(numbers("destination", own))
    as_sent = Changed({})
    hit, miss = Many(region.space).split({as_sent: region}, AllOf(tuple(conditions)), NO_QUESTION)
    return hit.get(as_sent, nothing), miss.get(as_sent, nothing)


def sent_by(proxy: Proxy) -> Condition:
    """Return the condition that a user or a group of the proxy sends it."""
    users = numbers("uid", [(uid, uid) for uid in proxy.uids])
    groups = numbers("gid", [(gid, gid) for gid in proxy.gids])
    return AnyOf((users, groups))
