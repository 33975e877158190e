"""ip_rule: what the selectors and the action of a routing rule mean, whoever has read it.

Sources: ip-rule(8); the kernel's net/core/fib_rules.c (fib_rule_match), net/ipv4/fib_rules.c and
net/ipv6/fib6_rules.c.
"""

from __future__ import annotations

from ..rules.model import FULL_MASK, IPV4, NO_ID
from ..startup.record import Record
from .condition import NEVER, AllOf, AnyOf, In, Masked, Unmodelled, negated, number, numbers
from .packet import address_text
from .protocols import PROTOCOLS
from .route import SENT_HERE, RoutingRule, from_interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..rules.model import Family
    from .condition import Condition

#: Names of protocols by number, the first of several.
_NAMES: Mapping[int, str] = {number: name for name, number in reversed(list(PROTOCOLS.items()))}


class IpRule(Record):
    """A routing rule in the words of ip-rule(8).

    `source` and `destination` are address and prefix in bits; ranges have both ends included. `unmodelled`
    are selectors that are not known here, as text. The action is one of: `table`, `ends` (unreachable,
    prohibit or blackhole), `goto` (the priority of a rule), `l3mdev` (the table of the VRF), or none (nop).
    """

    family: Family
    priority: int
    inverted: bool = False
    source: tuple[int, int] | None = None
    destination: tuple[int, int] | None = None
    tos: str = ""
    mark: int = 0
    mask: int = 0
    iif: str = ""
    oif: str = ""
    l3mdev: bool = False
    uids: tuple[int, int] | None = None
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    tunnel: int = 0
    unmodelled: tuple[str, ...] = ()
    table: str = ""
    ends: str = ""
    goto: int | None = None
    suppress_prefix: int = -1
    suppress_group: str = ""

    def routing_rule(self) -> RoutingRule:
        """Return the rule as the kernel applies it."""
        return RoutingRule(
            family=self.family,
            priority=self.priority,
            condition=negated(_all(self._conditions()), self.inverted),
            table=self.table,
            ends="unknown" if self.l3mdev else self.ends,
            text=" ".join(self._words()),
            goto=self.goto,
            suppress_prefix=self.suppress_prefix,
            suppress_group=self.suppress_group,
            again=self._again(),
        )

    def _again(self) -> Condition | None:
        """IPv4 takes all packets for root's that it routes again (ip_route_me_harder), IPv6 does not."""
        if self.uids is None or self.family != IPV4:
            return None
        others = _all(self.replace(uids=None)._conditions())
        return negated(others if self.uids[0] == 0 else NEVER, self.inverted)

    def _conditions(self) -> Iterator[Condition]:
        if self.source:
            yield in_prefix("source", self.family, *self.source)
        if self.destination:
            yield in_prefix("destination", self.family, *self.destination)
        if self.mask:
            yield Masked("mark", self.mark & self.mask, self.mask)
        if self.iif:
            yield from_interface(self.iif)
        if self.uids:
            yield _of_users(*self.uids)
        if self.protocol:
            yield number("protocol", self.protocol)
        if self.source_ports:
            yield number("source_port", *self.source_ports)
        if self.destination_ports:
            yield number("destination_port", *self.destination_ports)
        yield from self._unmodelled()

    def _unmodelled(self) -> Iterator[Condition]:
        """Yield what cannot be told, but where it is certain that it does not hold."""
        if self.oif:
            why = f"oif {self.oif}: whether the socket is bound to this interface"
            yield AllOf((SENT_HERE, Unmodelled(why)))
        if self.tunnel:
            why = f"tun_id {self.tunnel}: whether the packet has come by this tunnel"
            yield AllOf((negated(SENT_HERE), Unmodelled(why)))
        if self.l3mdev:
            yield Unmodelled("l3mdev: whether the packet belongs to a VRF")
        if self.tos:
            yield Unmodelled(f"tos {self.tos}")
        for text in self.unmodelled:
            yield Unmodelled(text)

    def _words(self) -> Iterator[str]:
        """Yield the words of the rule as `ip rule` prints them, without the priority."""
        if self.inverted:
            yield "not"
        yield f"from {_prefix_text(self.family, self.source)}"
        if self.destination:
            yield f"to {_prefix_text(self.family, self.destination)}"
        if self.tos:
            yield f"tos {self.tos}"
        if self.mask:
            mark = f"{self.mark:#x}" if self.mark else "0"
            yield f"fwmark {mark}" + ("" if self.mask == FULL_MASK else f"/{self.mask:#x}")
        if self.iif:
            yield f"iif {self.iif}"
        if self.oif:
            yield f"oif {self.oif}"
        if self.uids:
            yield "uidrange {}-{}".format(*self.uids)
        if self.protocol:
            yield f"ipproto {_NAMES.get(self.protocol, f'ipproto-{self.protocol}')}"
        for name, ports in (("sport", self.source_ports), ("dport", self.destination_ports)):
            if ports:
                yield f"{name} {ports[0]}" + (f"-{ports[1]}" if ports[1] != ports[0] else "")
        if self.tunnel:
            yield f"tun_id {self.tunnel}"
        yield from self.unmodelled
        yield from self._action_words()

    def _action_words(self) -> Iterator[str]:
        if self.l3mdev:
            yield "lookup [l3mdev-table]"
        elif self.goto is not None:
            yield f"goto {self.goto}"
        elif self.table:
            yield f"lookup {self.table}"
        else:
            yield self.ends or "nop"
        if self.suppress_prefix >= 0:
            yield f"suppress_prefixlength {self.suppress_prefix}"
        if self.suppress_group:
            yield f"suppress_ifgroup {self.suppress_group}"


def _all(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that all of some are true; one alone is itself."""
    found = tuple(conditions)
    return found[0] if len(found) == 1 else AllOf(found)


def in_prefix(field: str, family: Family, address: int, prefix: int) -> In:
    """Return the condition that an address is in a network."""
    return number(field, *ends_of(family, address, prefix))


def ends_of(family: Family, address: int, prefix: int) -> tuple[int, int]:
    """Return the first and the last address of a network."""
    rest = (1 << ((32 if family == IPV4 else 128) - prefix)) - 1
    return address & ~rest, address | rest


def _of_users(first: int, last: int) -> Condition:
    """Packets that have come in count as root's, and so do those without a socket (sock_net_uid)."""
    if first > 0:
        return AllOf((SENT_HERE, number("uid", first, last)))
    return AnyOf((negated(SENT_HERE), numbers("uid", [(first, last), (NO_ID, NO_ID)])))


def _prefix_text(family: Family, network: tuple[int, int] | None) -> str:
    if network is None:
        return "all"
    address, prefix = network
    text = address_text(family, address)
    return text if prefix == (32 if family == IPV4 else 128) else f"{text}/{prefix}"
