"""compact: fewer rules for long lists, as far as iptables can express them (--compact).

Ports become multiport rules, and adjacent CIDRs are merged.
"""

from __future__ import annotations

from ..rules.lists import join, union
from ..rules.model import Cidr, Destination, DestinationPort, DestinationPorts, PortRange, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Literal, TypeVar

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


def _cidrs(kind: type[_Address]) -> Callable[[Sequence[_Address]], list[Match | None]]:
    def merge(members: Sequence[_Address]) -> list[Match | None]:
        import netaddr  # only --compact needs it

        cidrs = [member.cidr for member in members]
        # Numbers, since netaddr takes five times as long to read text. A chain has one family.
        version: Literal[4, 6] = 4 if cidrs[0].version == 4 else 6
        given = [netaddr.IPNetwork((n.address, n.prefix), version=version) for n in cidrs]
        merged = [Cidr(n.version, n.first, n.prefixlen) for n in netaddr.cidr_merge(given)]
        # /0 needs no match, as in terms.to_cidr: the kernel has none, and the rule would always differ.
        return [None if cidr.is_everything else kind(cidr) for cidr in merged]

    return merge


_JOINS: Mapping[type[Match], Join] = {
    DestinationPort: _ports,
    Destination: _cidrs(Destination),
    Source: _cidrs(Source),
}
