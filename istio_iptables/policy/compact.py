"""compact: fewer rules for long lists, as far as iptables can express them (--compact).

Ports become multiport rules, and adjacent CIDRs are merged.
"""

from __future__ import annotations

from ..rules.lists import join, union
from ..rules.model import Cidr, Destination, DestinationPort, DestinationPorts, PortRange, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TypeVar

    from ..rules.lists import Join
    from ..rules.model import Chain, Match

    _Address = TypeVar("_Address", Source, Destination)

#: What one multiport match takes, a range counting two (iptables-extensions(8)).
_MOST_PORTS = 15


def compacted(chain: Chain) -> Chain:
    """Return the chain with its lists in as few rules as iptables takes; no packet's verdict changes."""
    return chain.replace(head=join(chain.head, _JOINS), rules=join(chain.rules, _JOINS))


def _ports(members: Sequence[DestinationPort]) -> Iterator[Match]:
    taken: list[PortRange] = []
    free = _MOST_PORTS
    for first, last in union((match.ports.first, match.ports.last) for match in members):
        width = 1 if first == last else 2
        if width > free:
            yield _multiport(taken)
            taken, free = [], _MOST_PORTS
        taken.append(PortRange(first, last))
        free -= width
    yield _multiport(taken)


def _multiport(ports: Sequence[PortRange]) -> Match:
    return DestinationPorts(tuple(ports)) if len(ports) > 1 else DestinationPort(ports[0])


def _cidrs(kind: type[_Address]) -> Callable[[Sequence[_Address]], Iterator[Match | None]]:
    def merge(members: Sequence[_Address]) -> Iterator[Match | None]:
        cidrs = [member.cidr for member in members]
        version, bits = cidrs[0].version, cidrs[0].bits  # a chain has one family
        for first, last in union((cidr.address, cidr.last) for cidr in cidrs):
            for address, prefix in _blocks(first, last, bits):
                # /0 needs no match (terms.to_cidr): the kernel has none, and the rule would always differ.
                yield kind(Cidr(version, address, prefix)) if prefix else None

    return merge


def _blocks(first: int, last: int, bits: int) -> Iterator[tuple[int, int]]:
    """Return a range of addresses as the fewest blocks: the first address of each, and its prefix length.

    >>> list(_blocks(0x0A000001, 0x0A000004, 32)) == [(0x0A000001, 32), (0x0A000002, 31), (0x0A000004, 32)]
    True
    """
    while first <= last:
        # As large as the first address is aligned, and as fits.
        size = min((first & -first or 1 << bits).bit_length(), (last - first + 1).bit_length()) - 1
        yield first, bits - size
        first += 1 << size


_JOINS: Mapping[type[Match], Join] = {
    DestinationPort: _ports,
    Destination: _cidrs(Destination),
    Source: _cidrs(Source),
}
