"""trace: where the nat rules send a connection that a local process makes."""

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
    from .model import Identity, Protocol


class Packet(Record):
    """The first packet of a connection or UDP query from a local process. Addresses are integers."""

    family: Family
    source: int
    destination: int
    port: int
    interface: str
    identity: Identity
    protocol: Protocol = "tcp"


class Outcome(Record):
    """The local port that a packet is redirected to, None if it keeps its destination, and the reason."""

    port: int | None
    reason: str


#: Chains that contain only a REDIRECT.
_REDIRECT_CHAINS = (istio.REDIRECT, istio.IN_REDIRECT)
_NOT_CAPTURED = Outcome(None, "no rule captures it")


def trace(ruleset: Ruleset, packet: Packet) -> Outcome:
    """Follow a packet through the chain OUTPUT of nat and return what its rules decide.

    Raises ValueError for a match or target that cannot be in that chain.
    """
    _, found = _through(ruleset.table(packet.family, "nat"), "OUTPUT", packet)
    return found or _NOT_CAPTURED


def _through(table: Table, chain: str, packet: Packet) -> tuple[bool, Outcome | None]:
    """Return whether a chain decides about a packet, and its decision; if it does not, its caller goes on.

    The reason of a RETURN is the reason of the outcome, unless a later rule decides.
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
        if decided and found and found.port and target.chain in _REDIRECT_CHAINS:
            found = found.replace(reason=rule.reason)  # the jump's reason says more than the REDIRECT's
        if decided:
            return True, found
        returned = found or returned
    return False, returned


def _holds(match: Match, packet: Packet) -> bool:
    if isinstance(match, Comment):
        return True
    if isinstance(match, Transport):
        holds = match.protocol == packet.protocol
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


def _contains(cidr: Cidr, address: int) -> bool:
    return cidr.address <= address <= cidr.last


def _within(ranges: Iterable[PortRange], port: int) -> bool:
    return any(ports.first <= port <= ports.last for ports in ranges)


def _names(pattern: str, interface: str) -> bool:
    """Tell whether an interface matches a name; a trailing `+` stands for any ending (iptables(8), -o)."""
    return interface.startswith(pattern[:-1]) if pattern.endswith("+") else interface == pattern
