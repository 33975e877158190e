"""model: nftables' tables, chains and hooks, and the matches that iptables does not have.

Rules are those of rules/model.py: matches, a target, a reason. Where nftables means the same as iptables the
match or target is the same, too; matches of addresses, ports and owners take sets here. Names are
those of nft(8).
"""

from __future__ import annotations

from ...startup.c_modules import blake2b
from ...startup.record import Record
from ..model import ForeignMatch, ForeignTarget, Match, TProxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from ..model import Family, Protocol, Rule

    #: Numbers, both ends included, sorted, none touching the next: what `lists.union` returns.
    Ranges: TypeAlias = tuple[tuple[int, int], ...]
    Direction: TypeAlias = Literal["source", "destination"]


class NfProto(Match):
    """meta nfproto: packets of this family only."""

    family: Family


class Addresses(Match):
    """ip saddr, ip daddr, ip6 saddr, ip6 daddr: one of these addresses, as integers. Implies the family."""

    direction: Direction
    family: Family
    ranges: Ranges
    negated: bool = False


class Ports(Match):
    """tcp dport, udp sport and so on: one of these ports of that transport protocol, which it implies."""

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


if TYPE_CHECKING:
    #: The matches whose values may be a set.
    Listing: TypeAlias = Addresses | Ports | Owners


def set_of(match: Listing) -> tuple[str, Ranges]:
    """Return the type of a match's values, as nft(8) names it, and the values."""
    if isinstance(match, Addresses):
        return f"{match.family}_addr", match.ranges
    if isinstance(match, Ports):
        return "inet_service", match.ranges
    return ("uid" if match.kind == "user" else "gid"), match.ids


def set_name(match: Listing) -> str:
    """Return the name of the set that a match needs, an empty text if its values can be written in the rule.

    Intervals need a set that exists before the rule does. If one transaction makes both, a packet that meets
    the rule while the transaction takes effect may miss elements of the set (seen with Linux 6.18; sets of
    single values have no such gap). The name is made from the content, so a set with the same content is
    kept.
    """
    return name_of_set(*set_of(match))


def name_of_set(kind: str, ranges: Ranges) -> str:
    """Return the name of the set of a type that has these values: see `set_name`."""
    if len(ranges) == 1 or all(first == last for first, last in ranges):
        return ""
    content = ",".join([f"{first}-{last}" for first, last in ranges])
    return f"{_SET_NAMES[kind]}-{blake2b(content.encode(), digest_size=6).hexdigest()}"


_SET_NAMES = {
    "inet_service": "ports",
    "ipv4_addr": "addresses",
    "ipv6_addr": "addresses6",
    "uid": "users",
    "gid": "groups",
}


class FamilyTProxy(TProxy):
    """tproxy ip to :port, tproxy ip6 to :port; if a socket listens, the mark is set and the packet accepted.

    nft requires the family where a rule is for one family.
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

    `extras` names what this tool never makes (maps, flags, sets with other names, ...). If a table that was
    read has anything of that kind, `text` is what nft printed about it, from which it can be made again.
    `unused` are owned sets that no rule uses, left by a run that was killed: they are no difference, and the
    next edit deletes them.
    """

    name: str
    chains: tuple[NativeChain, ...] = ()
    extras: tuple[str, ...] = ()
    text: str = ""
    unused: tuple[str, ...] = ()

    def _key(self) -> tuple[object, ...]:
        # Chains are called by name: their order does not matter.
        return (self.name, frozenset(self.chains), self.extras)

    @property
    def is_foreign(self) -> bool:
        """True if it has something that this tool never writes, and so cannot write again."""
        return bool(self.extras or self.text) or any(
            isinstance(part, (ForeignMatch, ForeignTarget))
            for chain in self.chains
            for rule in chain.rules
            for part in (*rule.matches, rule.target)
        )

    @property
    def is_left_over(self) -> bool:
        """True if it has nothing but unused owned sets: a run was killed before it made rules."""
        return bool(self.unused) and not self.chains and not self.extras

    def named_sets(self) -> dict[str, Listing]:
        """Return the sets that its rules need, in the rules' order: by name, a match that has the values."""
        return {
            name: match
            for chain in self.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, (Addresses, Ports, Owners)) and (name := set_name(match))
        }

    def set_names(self) -> frozenset[str]:
        """Return the names of the sets that its rules need."""
        return frozenset(self.named_sets())

    def chain(self, name: str) -> NativeChain | None:
        """Return the chain of that name."""
        return next((chain for chain in self.chains if chain.name == name), None)
