"""route_table: a routing table for look-ups: which routes an address has, the best one first.

Source: net/ipv4/fib_trie.c (fib_table_lookup) and net/ipv6/ip6_fib.c, route.c: the longest prefix; of these,
for IPv4, a route with a TOS, for IPv6 one with the longest source prefix; then the smallest metric, and for
IPv6 the highest preference; then the order in which the kernel lists them.
"""

from __future__ import annotations

from bisect import bisect_right

from ..rules.lists import union
from .condition import ALWAYS, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from .condition import Condition, In
    from .route import Route

    #: Routes that an address has, the best first; each but the last is only for some packets.
    Choice: TypeAlias = tuple[Route, ...]


class RouteTable:
    """The routes of one table and one family, over all addresses.

    `condition` returns what a packet must have to take a route that its destination has.
    """

    def __init__(self, routes: Iterable[Route], condition: Callable[[Route], Condition]) -> None:
        self.condition = condition
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._choices: list[Choice] = []
        self._grouped: dict[int, list[tuple[In, Choice]]] = {}
        self._divide(routes)

    def _divide(self, routes: Iterable[Route]) -> None:
        """Divide the addresses into ranges whose addresses have the same routes."""
        nets: dict[tuple[int, int], list[Route]] = {}
        for route in routes:
            nets.setdefault((route.first, -route.last), []).append(route)
        around: list[
            tuple[int, Choice]
        ] = []  # the networks that the next one may be in: last address, routes
        at = 0
        for (first, last), members in sorted(nets.items(), key=lambda net: net[0]):
            while around and around[-1][0] < first:
                at = self._add(at, *around.pop())
            if around:
                self._add(at, first - 1, around[-1][1])
            at = first
            around.append((-last, self._choice(members, around[-1][1] if around else ())))
        while around:
            at = self._add(at, *around.pop())

    def _add(self, first: int, last: int, choice: Choice) -> int:
        if first <= last:
            self._firsts.append(first)
            self._lasts.append(last)
            self._choices.append(choice)
        return max(first, last + 1)

    def _choice(self, routes: list[Route], wider: Choice) -> Choice:
        """Return the routes of one network up to the first for every packet, else those around it too."""
        chosen: list[Route] = []
        for route in sorted(routes, key=_precedence) if len(routes) > 1 else routes:
            chosen.append(route)
            if self.condition(route) == ALWAYS:
                return tuple(chosen)
        return (*chosen, *wider)

    def choice(self, address: int) -> Choice:
        """Return the routes that packets to an address may take, the best first."""
        at = bisect_right(self._firsts, address) - 1
        return self._choices[at] if at >= 0 and address <= self._lasts[at] else ()

    def groups(self, shortest: int = 0) -> list[tuple[In, Choice]]:
        """Return the destinations whose routes lead to the same result, and routes that stand for theirs.

        The destinations of different groups have nothing in common. Routes whose prefixes are shorter than
        `shortest` are apart from the others.
        """
        if shortest not in self._grouped:
            self._grouped[shortest] = self._group(lambda route: (*route.result, route.prefix < shortest))
        return self._grouped[shortest]

    def more_specific(self, other: RouteTable) -> tuple[tuple[int, int], ...]:
        """Return the addresses for which both tables have routes, and this one's prefix is longer."""
        found = []
        for first, last, choice in zip(self._firsts, self._lasts, self._choices, strict=True):
            at = max(bisect_right(other._firsts, first) - 1, 0)
            while at < len(other._firsts) and other._firsts[at] <= last:
                both = max(first, other._firsts[at]), min(last, other._lasts[at])
                if both[0] <= both[1] and choice[0].prefix > other._choices[at][0].prefix:
                    found.append(both)
                at += 1
        return union(found)

    def _group(self, result: Callable[[Route], Any]) -> list[tuple[In, Choice]]:
        found: dict[Any, tuple[list[tuple[int, int]], Choice]] = {}
        for first, last, choice in zip(self._firsts, self._lasts, self._choices, strict=True):
            key = tuple([result(route) for route in choice])
            found.setdefault(key, ([], choice))[0].append((first, last))
        return [(numbers("destination", ranges), choice) for ranges, choice in found.values()]


def _precedence(route: Route) -> tuple[int, bool, int, int]:
    first, last = route.sources or (0, 1 << 128)
    return (last - first, not route.tos, route.metric, -route.preference)
