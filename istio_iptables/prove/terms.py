"""terms: the words of the contract as conditions on packets of one kind, as they set out.

What a namespace has of its own (addresses, routes) decides which packets are meant by "to its own pod" and
"by this interface": that is looked up in the routes, before any rule.
"""

from __future__ import annotations

from ..interpreter.algebra import NO_QUESTION
from ..interpreter.condition import ALWAYS, AllOf, AnyOf, In, Masked, Named, Not, OneOf, numbers
from ..interpreter.condition import number as is_number
from ..interpreter.many import Many
from ..interpreter.packet import TCP, UDP
from ..interpreter.regions import Region
from ..interpreter.routing import LOOPBACK
from ..rules.istio import DNS_PORT, PASSTHROUGH_IPV4, PASSTHROUGH_IPV6
from ..rules.model import IPV4, NO_ID
from ..settings.config import ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..interpreter.condition import Condition
    from ..interpreter.routing import Network, Routed
    from ..rules.model import Cidr, Family, PortRange
    from ..settings.config import Cidrs, Config
    from .space import Packets

TCP_ONLY = is_number("protocol", TCP)
UDP_ONLY = is_number("protocol", UDP)
NO_SOCKET = is_number("uid", NO_ID)
_IPV6_LOOPBACK = (1, 1)
_LOOPBACK_ADDRESS = 0x7F000001
#: The address that the proxy passes inbound traffic on from.
_PASSTHROUGH: Mapping[Family, Cidr] = {"ipv4": PASSTHROUGH_IPV4, "ipv6": PASSTHROUGH_IPV6}
#: Ranges of IPv6 of which REDIRECT takes an address of the interface only if it has one of the same range.
_IPV6_SCOPES = ((0xFE80 << 112, (0xFEC0 << 112) - 1), (0xFEC0 << 112, (0xFF00 << 112) - 1), (0, 0xFFFFFFFF))


class Terms:
    """The words of the contract for packets of one kind."""

    def __init__(self, config: Config, network: Network, packets: Packets) -> None:
        self.config = config
        self.network = network
        self.packets = packets
        self.family = packets.space.family
        self._ways: dict[str, Condition] = {}

    # --- who sends ---

    @property
    def proxy(self) -> Condition:
        """The proxy sends it, by one of its users or groups."""
        return AnyOf((self.proxy_users, ids("gid", self.config.proxy_gids)))

    @property
    def proxy_users(self) -> Condition:
        """A user of the proxy sends it."""
        return ids("uid", self.config.proxy_uids)

    @property
    def passed_on(self) -> Condition:
        """Its source is the address from which the proxy passes inbound traffic on."""
        return is_number("source", _PASSTHROUGH[self.family].address)

    @property
    def groups_captured(self) -> Condition:
        """The outbound traffic of its group is captured."""
        groups = self.config.owner_groups
        if groups == ALL:
            return Not(ids("gid", self.config.owner_groups_excluded))
        return ids("gid", groups)  # type: ignore[arg-type]  # not ALL

    # --- where to ---

    @property
    def loopback(self) -> Condition:
        """It is for the loopback network of the settings."""
        if self.family != IPV4:
            return is_number("destination", *_IPV6_LOOPBACK)
        return self.to((self.config.ipv4_loopback,))

    @property
    def loopback_has_usual_address(self) -> bool:
        """True if the address that REDIRECT gives what is sent here is in the loopback network."""
        first, last = _ends(self.config.ipv4_loopback, 32)
        return self.family != IPV4 or first <= _LOOPBACK_ADDRESS <= last

    def to(self, cidrs: Cidrs) -> Condition:
        """Its destination is in one of some networks."""
        if cidrs == ALL:
            return ALWAYS
        bits = 32 if self.family == IPV4 else 128
        own = [each for each in cidrs if each.family == self.family]  # type: ignore[union-attr]
        return numbers("destination", [_ends(each, bits) for each in own])

    @property
    def dns(self) -> Condition:
        """It is DNS that is captured: to port 53, of a server or of any."""
        config = self.config
        if not config.captures_dns(self.family):
            return AnyOf()
        servers = ALWAYS if config.capture_all_dns else self.to(config.dns_servers_of(self.family))
        return AllOf((AnyOf((TCP_ONLY, UDP_ONLY)), port(DNS_PORT), servers))

    @property
    def chosen(self) -> Condition:
        """Its destination and port are captured, as outbound traffic."""
        config = self.config
        return AllOf(
            (
                TCP_ONLY,
                Not(ports(config.outbound_ports_excluded)),
                Not(self.loopback),
                Not(self.to(config.outbound_cidrs_excluded)),
                AnyOf((ports(config.outbound_ports), self.to(config.outbound_cidrs))),
            )
        )

    # --- interfaces ---

    @property
    def to_itself(self) -> Condition:
        """It goes over lo, to the namespace itself."""
        return self.by((LOOPBACK,))

    def by(self, patterns: Iterable[str]) -> Condition:
        """It leaves, or has come in, by one of some interfaces; `+` ends a pattern."""
        if self.packets.direction == "in":
            return AnyOf(tuple(Named("received_on", pattern) for pattern in patterns))
        ways = self._ways_out()
        return AnyOf(tuple(ways[name] for name in ways if fits(patterns, name)))

    def _ways_out(self) -> dict[str, Condition]:
        """Return which packets leave by which interface, as the routes have it."""
        if not self._ways:
            space = self.packets.space
            algebra = Many(space)
            start = algebra.all(self.packets.fixed, self.packets.free, Region.whole(space))
            found: dict[str, Region] = {}
            for part, routed in self.network.routes_of_socket(algebra, start, self.family):
                for region in part.values():
                    name = "" if routed.error else routed.leaves_by
                    found[name] = found[name] | region if name in found else region
            self._ways = {name: condition_of(region) for name, region in found.items() if name}
        return self._ways

    @property
    def without_address(self) -> Condition:
        """It came in by an interface that has no address that REDIRECT could turn its destination into.

        With IPv6 that has to be one of the scope of the destination (nf_nat_redirect.c).
        """
        named: list[Condition] = []
        for name in self.network.interfaces:
            own = [each.address for each in self.network.redirects_to(self.family, name)]
            of_scope = [
                is_number("destination", first, last)
                for first, last in (_IPV6_SCOPES if self.family != IPV4 else ())
                if not any(first <= address <= last for address in own)
            ]
            if own:
                named.append(AllOf((Named("received_on", name), AnyOf(tuple(of_scope)))))
            else:
                named.append(Named("received_on", name))
        known = tuple(Named("received_on", name) for name in self.network.interfaces)
        return AnyOf((*named, Not(AnyOf(known))))

    def routes_with_mark(self, which: Condition = ALWAYS) -> Iterator[tuple[Condition, Routed]]:
        """Yield packets, of those that have a condition, with the route that they have with TPROXY's mark."""
        algebra = Many(self.packets.space)
        start = algebra.all(self.packets.fixed, self.packets.free, Region.whole(self.packets.space))
        start, _ = algebra.split(start, which, NO_QUESTION)
        marked = algebra.update(start, mark=self.config.tproxy_mark)
        if self.packets.direction == "out":
            found = self.network.routes_of_socket(algebra, marked, self.family, again=True)
        else:
            found = self.network.route(algebra, marked, self.family)
        for part, routed in found:
            for region in part.values():
                yield condition_of(region), routed

    # --- inbound ---

    @property
    def inbound_ports(self) -> Condition:
        """It goes to an inbound port that is captured."""
        config = self.config
        if config.inbound_ports == ALL:
            return AllOf((TCP_ONLY, Not(ports(config.inbound_ports_excluded))))
        return AllOf((TCP_ONLY, ports(config.inbound_ports)))  # type: ignore[arg-type]  # not ALL

    def captures_inbound(self, port: int) -> bool:
        """Tell whether an inbound port is captured."""
        config = self.config
        if config.inbound_ports == ALL:
            return not any(each.first <= port <= each.last for each in config.inbound_ports_excluded)
        return any(each.first <= port <= each.last for each in config.inbound_ports)  # type: ignore[union-attr]

    @property
    def tunnel(self) -> Condition:
        """It is for the tunnel port."""
        return AllOf((TCP_ONLY, port(self.config.tunnel_port)))


# --- conditions that need nothing else ---------------------------------------------------------


def ids(field: str, members: Iterable[int]) -> Condition:
    """It belongs to one of some users or groups."""
    return numbers(field, [(each, each) for each in members])


def port(number: int) -> Condition:
    """It goes to a port."""
    return is_number("destination_port", number)


def ports(ranges: Iterable[PortRange]) -> Condition:
    """It goes to one of some ports."""
    return numbers("destination_port", [(each.first, each.last) for each in ranges])


def mark(value: int) -> Condition:
    """It carries a mark."""
    return is_number("mark", value)


def condition_of(region: Region) -> Condition:
    """Return the condition that a packet is in a region."""
    return AnyOf(tuple(AllOf(tuple(_of_field(*each, region) for each in box)) for box in region.boxes))


def _of_field(field: str, values: object, region: Region) -> Condition:
    if field in region.space.marks:
        return AnyOf(tuple(Masked(field, *cube) for cube in sorted(values)))  # type: ignore[call-overload]
    if field in region.space.words:
        return OneOf(field, values)  # type: ignore[arg-type]
    return In(field, values)  # type: ignore[arg-type]


def _ends(cidr: Cidr, bits: int) -> tuple[int, int]:
    return cidr.address, cidr.address + (1 << (bits - cidr.prefix)) - 1


def fits(patterns: Iterable[str], name: str) -> bool:
    """Tell whether the name of an interface is one of some; `+` ends a pattern."""
    return any(name.startswith(p[:-1]) if p.endswith("+") else name == p for p in patterns)
