"""nft_nat: the nat statements of nf_tables: dnat, redirect, snat, masquerade, with ranges and maps.

Sources: nft(8), NAT STATEMENTS; nft_nat.c, nft_redir.c, nf_nat_core.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from . import action as actions
from .addresses import BITS
from .condition import number, numbers
from .nft_fields import of_family
from .nft_maps import both, branches, choose
from .nft_values import UnreadError, address
from .nft_values import number as constant
from .packet import TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeAlias

    from ..rules.model import Family
    from .action import Action
    from .condition import Condition
    from .nft_fields import NativeScope

    Steps: TypeAlias = Iterable[Condition | Action]
    Cases: TypeAlias = Sequence[tuple[Condition, Any]]

#: tproxy takes packets of these protocols alone (nft_tproxy.c).
TRANSPORT = (numbers("protocol", [(TCP, TCP), (UDP, UDP)]),)
_FAMILIES: Mapping[str, Family] = {"ip": IPV4, "ip6": IPV6}


def targets(inner: Mapping[str, Any], scope: NativeScope) -> tuple[tuple[Condition, ...], Cases]:
    """Return what a statement with a family and a port needs, and the ports, each with its condition."""
    needs, found = branches(inner.get("port"), scope)
    return (*_of_its_family(inner, scope), *needs), found


def _of_its_family(inner: Mapping[str, Any], scope: NativeScope) -> tuple[Condition, ...]:
    return of_family(_FAMILIES[inner["family"]], scope) if "family" in inner else ()


def source(inner: Mapping[str, Any] | None, scope: NativeScope, why: str) -> Steps:
    """Return what snat and masquerade do."""
    return (*_of_its_family(inner or {}, scope), actions.Source(why))


def redirect(inner: Mapping[str, Any] | None, scope: NativeScope, why: str) -> Steps:
    """Return what redirect does."""
    if not inner or inner.get("port") is None:
        return (actions.Redirect(0),)
    _refuse_chance(inner)
    needs, found = targets(inner, scope)
    ways = [
        each
        for condition, data in found
        for each in to_port(condition, _ends(data, _number), lambda port: actions.Redirect(port or 0))
    ]
    return (*needs, choose(ways))


def _refuse_chance(inner: Mapping[str, Any]) -> None:
    """Raise UnreadError if the port is one of a range by chance."""
    flags = inner.get("flags", ())
    if isinstance(inner.get("port"), dict) and {"random", "fully-random"} & {*_words(flags)}:
        raise UnreadError(flags)


def _words(flags: Any) -> Sequence[str]:
    return (flags,) if isinstance(flags, str) else flags


def destination(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    """Return what dnat does."""
    _refuse_chance(inner)
    family = _FAMILIES[inner["family"]] if "family" in inner else None
    if family is None:
        [family] = scope.families
    of_address, addresses = branches(inner.get("addr"), scope)
    of_port, ports = branches(inner.get("port"), scope)
    found: list[tuple[Condition, Action]] = []
    for when, to in addresses:
        for where, port in ports:
            found += _translations(both(when, where), to, port, family)
    return (*_of_its_family(inner, scope), *of_address, *of_port, choose(found))


def _translations(
    condition: Condition, to: Any, port: Any, family: Family
) -> Sequence[tuple[Condition, Action]]:
    if isinstance(to, dict) and "concat" in to:
        if port is not None:
            raise UnreadError(to)
        to, port = to["concat"]
    if isinstance(to, dict) and "prefix" in to:
        if port is not None:
            raise UnreadError(to)
        free = BITS[family] - to["prefix"]["len"]
        return [(condition, actions.NetMap(address(to["prefix"]["addr"], family), (1 << free) - 1))]
    first, last = (None, None) if to is None else _ends(to, lambda value: address(value, family))
    if first != last:  # a hash of both ends chooses one (find_best_ips_proto)
        raise UnreadError(to)
    ports = None if port is None else _ends(port, _number)
    return to_port(condition, ports, lambda number: actions.Destination(first, number))


def to_port(
    condition: Condition, ports: tuple[int, int] | None, make: Callable[[int | None], Action]
) -> Sequence[tuple[Condition, Action]]:
    """Return a translation to one port of a range; see `_to_ports` of iptables_targets.py."""
    if ports is None or ports[0] == ports[1]:
        return [(condition, make(ports[0] if ports else None))]
    first, last = ports
    return [(both(condition, number("destination_port", first, last)), make(None)), (condition, make(first))]


def _number(value: Any) -> int:
    return constant(value, {})


def _ends(value: Any, read: Callable[[Any], int]) -> tuple[int, int]:
    if isinstance(value, dict) and "range" in value:
        first, last = (read(end) for end in value["range"])
        return first, last
    return (read(value),) * 2
