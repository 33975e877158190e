"""model: the rules as plain typed data, which every other package reads.

The policy makes a Ruleset from a Config, parsers make one from the live kernel state, writers turn one into
text or kernel structures, the plan compares two. Nothing here knows about flags, and nothing is a string that
a writer would still have to take apart. Names are those of iptables-extensions(8).

A new match or target has to be made known in each of these places, or listed as one that cannot occur there
(tests/unit/test_every_match_and_target.py holds that, and says which lists):

- formats/iptables_args, written and read: formats/iptables_restore, formats/shell and formats/json use it
- rules/nftables/translate, which turns it into native nftables
- formats/nft and formats/nft_json, which write and read that
- kernel/netlink/nf_tables, which sends it to the kernel and reads it back
- kernel/xtables/entries, which encodes it for the legacy tables and decodes it
- change/actions, if a target hands traffic to the proxy; rules/traffic, if it narrows the traffic of a chain
- testing/refusals: whether the fake kernel accepts it
- rules/forms, if Istio's tools write it; kernel/iptables_command, if it has more than six arguments
- interpreter/iptables and interpreter/nft_rules: what it means for a packet
- doctor/features: which part of the kernel it needs
"""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Network, IPv6Network
    from typing import Any, Literal, Self, TypeAlias

    Family: TypeAlias = Literal["ipv4", "ipv6"]
    TableName: TypeAlias = Literal["raw", "mangle", "nat"]
    Protocol: TypeAlias = Literal["tcp", "udp"]

IPV4: Family = "ipv4"
IPV6: Family = "ipv6"
FAMILIES: tuple[Family, ...] = (IPV4, IPV6)

#: The tables that this tool writes, in the order in which a packet meets them.
TABLES: tuple[TableName, ...] = ("raw", "mangle", "nat")

FULL_MASK = 0xFFFFFFFF  #: leaves no bit of a mark out
NO_ID = 0xFFFFFFFF  #: no user or group has this ID (chown(2))

#: The kernel's numbers of the address families: AF_INET and AF_INET6 on Linux (linux/socket.h).
ADDRESS_FAMILIES: Mapping[str, int] = {IPV4: 2, IPV6: 10}
PROTOCOL_NUMBERS: Mapping[Protocol, int] = {"tcp": 6, "udp": 17}  #: in IP headers (linux/in.h)

#: The built-in chains of the three tables (iptables(8), TABLES).
BUILTIN_CHAINS = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})


# --- values ---------------------------------------------------------------------------------


class Cidr(Record):
    """A CIDR: `version` 4 or 6, `address` as an integer, `prefix` in bits.

    >>> str(Cidr(4, 0x0A000000, 8))
    '10.0.0.0/8'
    """

    version: int
    address: int
    prefix: int

    @classmethod
    def from_ipaddress(cls, network: object) -> Self:
        """Return the CIDR of a network, an interface or an address of `ipaddress` or netaddr, or of its text.

        Host bits are cleared; an address is its host route. Raises TypeError for anything else, and
        ValueError for a text that is no CIDR.

        >>> from ipaddress import ip_network
        >>> Cidr.from_ipaddress(ip_network("10.0.0.0/8")) == Cidr.from_ipaddress("10.1.2.3/8")
        True
        """
        import ipaddress

        if not isinstance(network, str) and getattr(network, "version", None) not in (4, 6):
            raise TypeError(
                "a Cidr is made from a network of ipaddress or netaddr, or from a text, "
                f"not {type(network).__name__}"
            )
        found = ipaddress.ip_network(str(network), strict=False)
        return cls(found.version, int(found.network_address), found.prefixlen)

    @classmethod
    def from_netaddr(cls, network: object) -> Self:
        """Return the CIDR of a netaddr.IPNetwork or IPAddress; all that `from_ipaddress` takes works, too."""
        return cls.from_ipaddress(network)

    def to_ipaddress(self) -> IPv4Network | IPv6Network:
        """Return it as a network of the module `ipaddress`."""
        import ipaddress

        return ipaddress.ip_network(str(self))

    def to_netaddr(self) -> Any:
        """Return it as a netaddr.IPNetwork."""
        import netaddr

        return netaddr.IPNetwork(str(self))

    @property
    def bits(self) -> int:
        """The length of an address of this family in bits: 32 or 128."""
        return 32 if self.version == 4 else 128

    @property
    def family(self) -> Family:
        """The family as rules and tables name it."""
        return IPV4 if self.version == 4 else IPV6

    @property
    def is_everything(self) -> bool:
        """True for /0, which matches every packet and so is no match at all."""
        return self.prefix == 0

    @property
    def last(self) -> int:
        """The last address, as an integer; the first is `address`."""
        return self.address | ((1 << (self.bits - self.prefix)) - 1)

    @property
    def packed(self) -> bytes:
        """The address in network byte order."""
        return self.address.to_bytes(self.bits // 8, "big")

    @property
    def packed_mask(self) -> bytes:
        """The netmask in network byte order."""
        mask = ((1 << self.prefix) - 1) << (self.bits - self.prefix)
        return mask.to_bytes(self.bits // 8, "big")

    def __str__(self) -> str:
        if self.version == 4:
            a = self.address  # written out: a list may have twenty thousand of them
            return f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255}/{self.prefix}"
        from ..startup.c_modules import socket  # only IPv6 needs inet_ntop's shortening

        return f"{socket.inet_ntop(socket.AF_INET6, self.packed)}/{self.prefix}"


class PortRange(Record):
    """Ports `first` to `last`, both included; one port is a range of one.

    >>> str(PortRange(80, 80)), str(PortRange(8000, 8100))
    ('80', '8000:8100')
    """

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"


# --- matches --------------------------------------------------------------------------------


class Match(Record):
    """One condition of a rule. All conditions of a rule must hold."""


class InInterface(Match):
    """-i: the interface a packet came in by; a trailing `+` in `name` is a wildcard."""

    name: str
    negated: bool = False


class OutInterface(Match):
    """-o: the interface a packet leaves by; a trailing `+` in `name` is a wildcard."""

    name: str
    negated: bool = False


class Source(Match):
    """-s: the source address."""

    cidr: Cidr
    negated: bool = False


class Destination(Match):
    """-d: the destination address."""

    cidr: Cidr
    negated: bool = False


class Transport(Match):
    """-p: the transport protocol."""

    protocol: Protocol
    negated: bool = False


class SourcePort(Match):
    """--sport of the tcp or udp match; goes with a Transport match."""

    ports: PortRange
    negated: bool = False


class DestinationPort(Match):
    """--dport of the tcp or udp match; goes with a Transport match."""

    ports: PortRange
    negated: bool = False


class DestinationPorts(Match):
    """-m multiport --dports: up to 15 ports, a range counting two; goes with a Transport match."""

    ports: tuple[PortRange, ...]
    negated: bool = False


class UidOwner(Match):
    """-m owner --uid-owner: the user whose socket sent the packet (OUTPUT only)."""

    uid: int
    negated: bool = False


class GidOwner(Match):
    """-m owner --gid-owner: the group whose socket sent the packet (OUTPUT only)."""

    gid: int
    negated: bool = False


class Mark(Match):
    """-m mark: the packet's mark, under `mask`."""

    value: int
    mask: int = FULL_MASK
    negated: bool = False


class ConnectionMark(Match):
    """-m connmark: the connection's mark, under `mask`."""

    value: int
    mask: int = FULL_MASK
    negated: bool = False


class ConntrackState(Match):
    """-m conntrack --ctstate: one of `states` (of INVALID, NEW, RELATED, ESTABLISHED, ...)."""

    states: frozenset[str]
    negated: bool = False


class Comment(Match):
    """-m comment: matches always; at most 255 bytes."""

    text: str


class ForeignMatch(Match):
    """A match that this tool never writes, as the arguments that the tool which read it prints."""

    args: tuple[str, ...]


# --- targets --------------------------------------------------------------------------------


class Target(Record):
    """What happens to a packet that all matches of a rule accept."""


class Jump(Target):
    """-j CHAIN: go on in a chain of the same table (-g if `goto`: and do not come back)."""

    chain: str
    goto: bool = False


class Verdict(Target):
    """-j ACCEPT, DROP or RETURN."""

    name: Literal["ACCEPT", "DROP", "RETURN"]


class Redirect(Target):
    """-j REDIRECT --to-ports: to `port` of the local machine."""

    port: int


class SetMark(Target):
    """-j MARK --set-xmark value/mask: zero the bits of `mask`, then XOR `value` in."""

    value: int
    mask: int = FULL_MASK


class SaveMark(Target):
    """-j CONNMARK --save-mark: the packet's mark becomes the connection's."""


class RestoreMark(Target):
    """-j CONNMARK --restore-mark: the connection's mark becomes the packet's."""


class TProxy(Target):
    """-j TPROXY: hand the packet to the local socket on `port` unchanged and mark it `mark`."""

    port: int
    mark: int


class ConntrackZone(Target):
    """-j CT --zone: track the packet's connection in conntrack zone `zone`."""

    zone: int


class ForeignTarget(Target):
    """A target (with its options, or none) that this tool never writes, as arguments."""

    args: tuple[str, ...]


RETURN = Verdict("RETURN")
ACCEPT = Verdict("ACCEPT")
DROP = Verdict("DROP")


# --- rules, chains, tables ------------------------------------------------------------------


class Counters(Record):
    """How many packets and bytes a rule has matched."""

    packets: int = 0
    bytes: int = 0


NO_COUNTERS = Counters()


class Listed(Record):
    """A list among the settings, each of whose members has a rule of its own.

    The rules of a list follow each other and differ in one match of the kind `varies`. A writer that can
    (nftables sets, multiport) may therefore write one rule for all that have everything else in common. A
    rule without that match is for every packet. `reason` is why a rule for the whole list is there.
    """

    varies: type[Match]
    reason: str


class Rule(Record):
    """Matches (order does not matter: all must hold), a target and why the rule is there.

    The reason, the counters and the list that it is `listed` in do not count in comparisons. `raw` is the
    rule in the form of the backend that read it, if it has parts that this tool never writes.
    """

    matches: tuple[Match, ...]
    target: Target
    reason: str = ""
    listed: Listed | None = None
    counters: Counters = NO_COUNTERS
    raw: bytes = b""

    def _key(self) -> tuple[object, ...]:
        # Backends print the matches of a rule in different orders, which make no difference.
        unique = frozenset(self.matches)
        if len(unique) == len(self.matches):
            return (unique, self.target)
        return (frozenset((match, self.matches.count(match)) for match in unique), self.target)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Rule:
            return NotImplemented
        if self.matches == other.matches:  # mostly they are in the same order
            return self.target == other.target
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash((frozenset(self.matches), self.target))


class Chain(Record):
    """A chain and its rules in order.

    In a built-in chain of a wanted Ruleset `head` are the rules that belong at the very top and
    `rules` those that belong after the rules that are there already; elsewhere `head` is empty.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    head: tuple[Rule, ...] = ()

    @property
    def in_order(self) -> tuple[Rule, ...]:
        """All rules in the order in which a packet meets them."""
        return self.head + self.rules


class Table(Record):
    """One table of one family: chains by name, in the order of their creation."""

    family: Family
    name: TableName
    chains: tuple[Chain, ...] = ()

    def chain(self, name: str) -> Chain:
        """Return the chain of that name, an empty one if there is none."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        return Chain(name)

    @property
    def is_empty(self) -> bool:
        """True if no chain has a rule."""
        return not any(chain.in_order for chain in self.chains)


# --- what TPROXY and IPv6 need besides the rules ---------------------------------------------
#
# str() of each is the ip(8) command that makes it.


class LocalAddress(Record):
    """`ip [-6] addr add CIDR dev lo nodad`."""

    cidr: Cidr

    @property
    def family(self) -> Family:
        """The family of the address."""
        return self.cidr.family

    def __str__(self) -> str:
        return f"{_ip(self.family)} addr add {self.cidr} dev lo nodad"


class MarkLookup(Record):
    """`ip [-6] rule add fwmark MARK lookup TABLE`: marked packets are routed by TABLE."""

    family: Family
    mark: int
    table: int

    def __str__(self) -> str:
        return f"{_ip(self.family)} rule add fwmark {self.mark} lookup {self.table}"


class LocalDefaultRoute(Record):
    """`ip [-6] route add local default dev lo table TABLE`: TABLE delivers every packet locally."""

    family: Family
    table: int

    def __str__(self) -> str:
        return f"{_ip(self.family)} route add local default dev lo table {self.table}"


def _ip(family: Family) -> str:
    return "ip" if family == IPV4 else "ip -6"


RoutingObject = LocalAddress | MarkLookup | LocalDefaultRoute


class Ruleset(Record):
    """All rules of istio-iptables, and the addresses and routes that they rely on."""

    tables: tuple[Table, ...] = ()
    routing: tuple[RoutingObject, ...] = ()

    def table(self, family: Family, name: TableName) -> Table:
        """Return the table, an empty one if there is none."""
        for table in self.tables:
            if table.family == family and table.name == name:
                return table
        return Table(family, name)

    def families(self) -> tuple[Family, ...]:
        """Return the families that have rules, IPv4 first."""
        return tuple(f for f in FAMILIES if any(t.family == f and not t.is_empty for t in self.tables))

    def rules(self) -> Iterator[tuple[Table, Chain, Rule]]:
        """Yield every rule with its table and chain."""
        for table in self.tables:
            for chain in table.chains:
                for rule in chain.in_order:
                    yield table, chain, rule
