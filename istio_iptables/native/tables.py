"""tables: nftables' tables, chains and hooks, and the matches that iptables does not have.

Rules are those of ruleset.py: matches, a target, a reason. Where nftables says the same as iptables the
match or target is the same, too; matches of addresses, ports and owners take sets here. Names are
those of nft(8).
"""

from __future__ import annotations

from ..record import Record
from ..ruleset import Match, TProxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, TypeAlias

    from ..ruleset import Family, Protocol, Rule, TableName

    #: Numbers, both ends included, sorted, none touching the next: what `lists.union` returns.
    Ranges: TypeAlias = tuple[tuple[int, int], ...]
    Direction: TypeAlias = Literal["source", "destination"]

#: The family of the tables, and their names by those of the iptables tables that they stand for.
NATIVE_FAMILY = "inet"
NATIVE_TABLES: Mapping[TableName, str] = {
    "raw": "istio-proxy-raw",
    "mangle": "istio-proxy-mangle",
    "nat": "istio-proxy-nat",
}


class NetworkFamily(Match):
    """meta nfproto: packets of this family only."""

    family: Family


class Addresses(Match):
    """ip saddr, ip daddr, ip6 saddr, ip6 daddr: one of these addresses, as integers. Implies the family."""

    direction: Direction
    family: Family
    ranges: Ranges
    negated: bool = False


class Ports(Match):
    """tcp dport and its like: one of these ports of that transport protocol, which it implies."""

    direction: Direction
    protocol: Protocol
    ranges: Ranges
    negated: bool = False


class Owners(Match):
    """meta skuid, meta skgid: the user or group whose socket sent the packet.

    Unlike the owner match of iptables it never holds for a packet without a socket, even if negated.
    """

    kind: Literal["user", "group"]
    ids: Ranges
    negated: bool = False


class FamilyTProxy(TProxy):
    """tproxy ip to :port, tproxy ip6 to :port; the mark is set and the packet accepted if somebody listens.

    nft wants the family to be said where a rule is for one family.
    """

    family: Family


class Hook(Record):
    """Where a base chain is called: chain type, hook and priority, and its policy."""

    kind: str
    hook: str
    priority: int
    policy: str = "accept"


class NativeChain(Record):
    """A chain and its rules in order; a base chain has a hook."""

    name: str
    hook: Hook | None
    rules: tuple[Rule, ...]


class NativeTable(Record):
    """A table of family inet.

    `extras` names what this tool never makes (sets, maps, flags, ...). If a table that was read has
    anything of that kind, `text` is what nft printed of it: that is how it can be made again.
    """

    name: str
    chains: tuple[NativeChain, ...] = ()
    extras: tuple[str, ...] = ()
    text: str = ""

    def _key(self) -> tuple[object, ...]:
        # Chains are called by name: their order is of no account.
        return (self.name, frozenset(self.chains), self.extras)

    def chain(self, name: str) -> NativeChain | None:
        """Return the chain of that name."""
        return next((chain for chain in self.chains if chain.name == name), None)
