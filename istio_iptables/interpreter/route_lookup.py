"""route_lookup: the route that packets take, by the rules and tables of their network namespace.

Source: net/core/fib_rules.c (fib_rules_lookup), net/ipv4/fib_rules.c, fib_frontend.c, fib_trie.c, route.c;
net/ipv6/fib6_rules.c, route.c.
"""

from __future__ import annotations

from ..rules.model import IPV4
from .algebra import NO_QUESTION, Question
from .condition import ALWAYS, AllOf, Unmodelled, number, numbers
from .ip_names import MAIN_TABLE
from .route import ERRORS, LOOPBACK, SENT_HERE, Routed, RoutingRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Generic, Protocol, TypeVar

    from ..rules.model import Family
    from .condition import Condition
    from .route import Route
    from .route_table import RouteTable
    from .routing import Network

    S = TypeVar("S")

    class Sets(Protocol[S]):
        """What routing needs of an Algebra, which has the descriptions."""

        empty: S

        def is_empty(self, packets: S) -> bool: ...  # noqa: D102

        def join(self, one: S, other: S) -> S: ...  # noqa: D102

        def split(self, packets: S, condition: Condition, asked: Question) -> tuple[S, S]: ...  # noqa: D102

        def answer(self, asked: Question) -> int: ...  # noqa: D102

else:
    Generic = {None: object}
    S = None

#: IPv4 destinations that many have, and the kind of a route to them, whatever kind the table says.
_GROUPS = (
    (number("destination", 0xE0000000, 0xEFFFFFFF), "multicast"),
    (number("destination", 0xFFFFFFFF), "broadcast"),
)
#: What is sent to 0.0.0.0 or :: stays here (ip_route_output_key_hash_rcu; rawv6_sendmsg: only at first).
_TO_NOWHERE = AllOf((SENT_HERE, number("destination", 0)))
#: IPv6 destinations that mean something on one link alone (rt6_need_strict): ::1, link-local, multicast.
OF_THE_LINK = numbers(
    "destination", [(1, 1), (0xFE80 << 112, (0xFEC0 << 112) - 1), (0xFF << 120, (1 << 128) - 1)]
)
_NEVER_A_RULE = Unmodelled("no other routing rule has ever been in this network namespace")
_AS_ONE = RoutingRule(IPV4, 0, ALWAYS, MAIN_TABLE, text=_NEVER_A_RULE.why)
_ASKED_FOR_RULES = Question(("ip rule", "merged"), f"ip rule: {_NEVER_A_RULE.why}")


class RouteLookup(Generic[S]):
    """Finds the routes of packets of one family. Sockets are taken to be bound to no interface.

    `again`: the packets are routed again, since a rule of netfilter has changed them.
    """

    def __init__(self, network: Network, algebra: Sets[S], family: Family, again: bool = False) -> None:
        self._again = again
        self._network = network
        self._algebra = algebra
        self._family: Family = family
        self._rules = [rule for rule in network.rules if rule.family == family]

    def routes(self, packets: S) -> Iterator[tuple[S, Routed]]:
        """Yield the packets of each route that they take, and the route; packets without one come last."""
        if self._family == IPV4 or not self._again:
            part, packets = self._algebra.split(packets, _TO_NOWHERE, NO_QUESTION)
            if not self._algebra.is_empty(part):
                yield part, Routed("local", LOOPBACK)
        if self._family == IPV4:
            for destination, kind in _GROUPS:
                part, packets = self._algebra.split(packets, destination, NO_QUESTION)
                yield from self._to_group(part, kind)
        yield from self.looked_up(packets)

    def looked_up(self, packets: S) -> Iterator[tuple[S, Routed]]:
        """Yield packets with their routes by rules and tables alone (fib_lookup, fib6_rule_lookup)."""
        algebra = self._algebra
        if self._family == IPV4:
            part, packets = algebra.split(packets, self._network.merged, NO_QUESTION)
            as_one, part = algebra.split(part, _NEVER_A_RULE, _ASKED_FOR_RULES)
            found = _InTable(algebra, _AS_ONE, as_one)
            yield from found.routes(self._network.table(MAIN_TABLE, IPV4))
            packets = algebra.join(algebra.join(packets, part), found.left)
        else:
            part, packets = algebra.split(packets, OF_THE_LINK, NO_QUESTION)
            yield from self._by_rules(part, by_link=True)
        yield from self._by_rules(packets)

    def _to_group(self, packets: S, kind: str) -> Iterator[tuple[S, Routed]]:
        """Yield IPv4 packets to many: those that come in need no route (ip_route_input_slow).

        Those that are sent leave by the interface that has their source address, without one by a route
        (ip_route_output_key_hash_rcu).
        """
        algebra = self._algebra
        sent, received = algebra.split(packets, SENT_HERE, NO_QUESTION)
        if not algebra.is_empty(received):
            yield received, Routed(kind)
        for address in self._network.addresses:
            if address.family == IPV4 and not algebra.is_empty(sent):
                part, sent = algebra.split(sent, number("source", address.address), NO_QUESTION)
                if not algebra.is_empty(part):
                    yield part, Routed(kind, address.interface)
        for part, routed in self._by_rules(sent):
            yield part, routed.replace(kind=kind) if routed.kind == "unicast" else routed

    def _by_rules(self, packets: S, by_link: bool = False) -> Iterator[tuple[S, Routed]]:
        """Yield the packets of each route that the rules lead to.

        With `by_link` a packet that has come in takes a route by its incoming interface alone.
        """
        algebra = self._algebra
        later: dict[int, S] = {}  # packets that a rule has sent to another one, by its place
        for at, rule in enumerate(self._rules):
            packets = algebra.join(packets, later.pop(at, algebra.empty))
            if algebra.is_empty(packets) or not (rule.table or rule.ends or rule.goto is not None):
                continue
            asked = Question(("ip rule", rule.priority, rule.text), f"ip rule {rule.priority}: {rule.text}")
            condition = rule.again if self._again and rule.again else rule.condition
            hit, packets = algebra.split(packets, condition, asked)
            if algebra.is_empty(hit):
                continue
            if rule.ends:
                yield hit, Routed(rule.ends, rule=rule.text)
            elif rule.table:
                found = _InTable(algebra, rule, hit)
                yield from found.routes(self._network.table(rule.table, self._family, by_link))
                packets = algebra.join(packets, found.left)
            else:
                to = self._place(at, rule.goto)
                if to is None:
                    packets = algebra.join(packets, hit)
                else:
                    later[to] = algebra.join(later.get(to, algebra.empty), hit)
        if not algebra.is_empty(packets):
            yield packets, Routed("none")

    def _place(self, at: int, priority: int | None) -> int | None:
        """Return where the rule is that `goto` leads to, None if there is none: then it does nothing."""
        for place in range(at + 1, len(self._rules)):
            if self._rules[place].priority == priority:
                return place
        return None


class _InTable(Generic[S]):
    """The look-up of packets in the table of one rule. Packets that find no route there are in `left`."""

    def __init__(self, algebra: Sets[S], rule: RoutingRule, packets: S) -> None:
        self.left = algebra.empty
        self._algebra = algebra
        self._rule = rule
        self._packets = packets

    def routes(self, table: RouteTable) -> Iterator[tuple[S, Routed]]:
        algebra = self._algebra
        packets = self._packets
        if algebra.is_empty(packets):
            return
        for destinations, choice in table.groups(self._rule.suppress_prefix + 1):
            hit, packets = algebra.split(packets, destinations, NO_QUESTION)
            for route in choice:
                if algebra.is_empty(hit):
                    break
                taken, hit = algebra.split(hit, table.condition(route), _asked(route))
                yield from self._taken(taken, route)
            self.left = algebra.join(self.left, hit)
            if algebra.is_empty(packets):
                break
        self.left = algebra.join(self.left, packets)

    def _taken(self, packets: S, route: Route) -> Iterator[tuple[S, Routed]]:
        """Yield packets that take a route with what that does, or leave them to the next rule."""
        algebra, rule = self._algebra, self._rule
        # `suppress_prefixlength` does not concern routes that end with an error.
        suppressed = route.prefix <= rule.suppress_prefix and route.kind not in ERRORS
        if route.kind == "throw" or suppressed:
            self.left = algebra.join(self.left, packets)
            return
        if rule.suppress_group and route.kind not in ERRORS:
            why = f"suppress_ifgroup {rule.suppress_group}: whether {route.interface} is in this group"
            left, packets = algebra.split(packets, Unmodelled(why), _asked(route, why))
            self.left = algebra.join(self.left, left)
        if algebra.is_empty(packets):
            return
        by = route.interfaces
        interface = by[algebra.answer(_asked(route, options=len(by)))] if len(by) > 1 else by[0]
        yield packets, Routed(route.kind, interface, route.source, rule.text, route.table, by)


def _asked(route: Route, why: str = "", options: int = 2) -> Question:
    about = f"ip route {route.text}{f' ({why})' if why else ''}"
    return Question(("ip route", route.family, route.text, why), about, options)
