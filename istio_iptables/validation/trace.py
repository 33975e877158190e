"""fate: where the nat rules send a connection that a process of this machine makes."""

from __future__ import annotations

from ..rules import istio
from ..rules.model import (
    RETURN,
    Comment,
    Destination,
    DestinationPort,
    DestinationPorts,
    GidOwner,
    Jump,
    OutInterface,
    Redirect,
    Source,
    Transport,
    UidOwner,
    Verdict,
)
from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..rules.model import Cidr, Family, Match, PortRange, Ruleset, Table
    from .model import Identity


class Packet(Record):
    """The first packet of a TCP connection made here. Addresses are integers."""

    family: Family
    source: int
    destination: int
    port: int
    interface: str
    identity: Identity


class Outcome(Record):
    """The local port that a packet is redirected to, None if it goes where it wants, and why."""

    port: int | None
    reason: str


#: Chains with nothing but a REDIRECT.
_WAYS_TO_THE_PROXY = (istio.REDIRECT, istio.IN_REDIRECT)
_STRAIGHT_ON = Outcome(None, "no rule captures it")


def trace(ruleset: Ruleset, packet: Packet) -> Outcome:
    """Follow a packet through the chain OUTPUT of nat and return what its rules decide.

    Raises ValueError for a match or target that has no place there.
    """
    _, found = _through(ruleset.table(packet.family, "nat"), "OUTPUT", packet)
    return found or _STRAIGHT_ON


def _through(table: Table, chain: str, packet: Packet) -> tuple[bool, Outcome | None]:
    """Return whether a chain decides on a packet, and what; otherwise its caller goes on.

    What a RETURN says is the reason as long as nothing later decides.
    """
    returned: Outcome | None = None
    for rule in table.chain(chain).in_order:
        if not all(_holds(match, packet) for match in rule.matches):
            continue
        target = rule.target
        if isinstance(target, Redirect):
            return True, Outcome(target.port, rule.reason)
        if isinstance(target, Verdict):
            return target != RETURN, Outcome(None, rule.reason)
        if not isinstance(target, Jump):
            raise ValueError(f"{target} in the chain {chain} of nat")
        decided, found = _through(table, target.chain, packet)
        if decided and found and found.port and target.chain in _WAYS_TO_THE_PROXY:
            found = found.replace(reason=rule.reason)  # why it is sent there says more than where to
        if decided:
            return True, found
        returned = found or returned
    return False, returned


def _holds(match: Match, packet: Packet) -> bool:
    if isinstance(match, Comment):
        return True
    if isinstance(match, Transport):
        holds = match.protocol == "tcp"
    elif isinstance(match, Destination):
        holds = _contains(match.cidr, packet.destination)
    elif isinstance(match, Source):
        holds = _contains(match.cidr, packet.source)
    elif isinstance(match, DestinationPort):
        holds = _within((match.ports,), packet.port)
    elif isinstance(match, DestinationPorts):
        holds = _within(match.ports, packet.port)
    elif isinstance(match, OutInterface):
        holds = _names(match.name, packet.interface)
    elif isinstance(match, UidOwner):
        holds = match.uid == packet.identity.uid
    elif isinstance(match, GidOwner):
        holds = match.gid == packet.identity.gid
    else:
        raise ValueError(f"{match} in nat")
    return holds != match.negated


def _contains(network: Cidr, address: int) -> bool:
    return network.address <= address <= network.last


def _within(ranges: Iterable[PortRange], port: int) -> bool:
    return any(ports.first <= port <= ports.last for ports in ranges)


def _names(pattern: str, interface: str) -> bool:
    """Tell whether an interface is meant; a trailing `+` stands for any ending (iptables(8), -o)."""
    return interface.startswith(pattern[:-1]) if pattern.endswith("+") else interface == pattern
