"""nft_nat: the nat statements of nf_tables: dnat, redirect, snat, masquerade, with ranges and maps.

Sources: nft(8), NAT STATEMENTS; nft_nat.c, nft_redir.c, nf_nat_core.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from . import action as actions
from .condition import Unmodelled, number, numbers
from .nft_fields import of_family
from .nft_maps import both, branches, choose
from .nft_values import UnreadError, address
from .nft_values import number as constant
from .packet import TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TypeAlias

    from ..rules.model import Family
    from .action import Action
    from .condition import Condition
    from .nft_fields import Scope

    Steps: TypeAlias = Iterable[Condition | Action]
    Cases: TypeAlias = Sequence[tuple[Condition, Any]]

#: tproxy takes packets of these protocols alone (nft_tproxy.c).
TRANSPORT = (numbers("protocol", [(TCP, TCP), (UDP, UDP)]),)
_FAMILIES: Mapping[str, Family] = {"ip": IPV4, "ip6": IPV6}


def targets(inner: Mapping[str, Any], scope: Scope) -> tuple[tuple[Condition, ...], Cases]:
    """Return what a statement with a family and a port needs, and the ports, each with its condition."""
    needs, found = branches(inner.get("port"), scope)
    return (*_of_its_family(inner, scope), *needs), found


def _of_its_family(inner: Mapping[str, Any], scope: Scope) -> tuple[Condition, ...]:
    return of_family(_FAMILIES[inner["family"]], scope) if "family" in inner else ()


def source(inner: Mapping[str, Any] | None, scope: Scope, why: str) -> Steps:
    """Return what snat and masquerade do."""
    return (*_of_its_family(inner or {}, scope), actions.Source(why))


def redirect(inner: Mapping[str, Any] | None, scope: Scope, why: str) -> Steps:
    """Return what redirect does."""
    if not inner or inner.get("port") is None:
        return (actions.Redirect(0),)
    needs, found = targets(inner, scope)
    ways = [(condition, _port(data)) for condition, data in found]
    return (*needs, choose([each for way in ways for each in _redirects(*way, why)]))


def _redirects(condition: Condition, ports: tuple[int, int], why: str) -> Cases:
    first, last = ports
    if first == last:
        return [(condition, actions.Redirect(first))]
    # A port that is in the range already stays as it is, unless another connection needs it.
    return [
        (both(condition, number("destination_port", first, last)), actions.Redirect(0)),
        (both(condition, Unmodelled(f"the port of {why}")), actions.Redirect(first)),
        (condition, actions.Redirect(last)),
    ]


def destination(inner: Mapping[str, Any], scope: Scope, why: str) -> Steps:
    """Return what dnat does."""
    if "prefix" in (inner.get("type_flags"), inner.get("addr")) or "netmap" in _flags(inner):
        raise UnreadError(inner)
    family = _FAMILIES[inner["family"]] if "family" in inner else None
    if family is None and len(scope.families) == 1:
        [family] = scope.families
    of_address, addresses = branches(inner.get("addr"), scope)
    of_port, ports = branches(inner.get("port"), scope)
    found: list[tuple[Condition, Action]] = []
    for when, to in addresses:
        for where, port in ports:
            found += _translations(both(when, where), to, port, family, why)
    needs = (*_of_its_family(inner, scope), *of_address, *of_port)
    return (*needs, choose(found))


def _flags(inner: Mapping[str, Any]) -> Sequence[str]:
    flags = inner.get("flags", ())
    return (flags,) if isinstance(flags, str) else flags


def _translations(
    condition: Condition, to: Any, port: Any, family: Family | None, why: str
) -> list[tuple[Condition, Action]]:
    if isinstance(to, dict) and "concat" in to:
        if port is not None:
            raise UnreadError(to)
        to, port = to["concat"]
    addresses = (None, None) if to is None else _ends(to, family)
    ports = (None, None) if port is None else _port(port)
    first = actions.Destination(addresses[0], ports[0])
    last = actions.Destination(addresses[1], ports[1])
    if first == last:
        return [(condition, first)]
    kept: list[tuple[Condition, Action]] = []
    if ports[0] is not None and ports[0] != ports[1] and addresses[0] == addresses[1]:
        stays = number("destination_port", ports[0], ports[1])
        kept = [(both(condition, stays), actions.Destination(addresses[0], None))]
    which = Unmodelled(f"which of {why}")
    return [*kept, (both(condition, which), first), (condition, last)]


def _ends(value: Any, family: Family | None) -> tuple[int, int]:
    if family is None:
        family = IPV6 if ":" in str(value) else IPV4
    if isinstance(value, dict) and "range" in value:
        first, last = (address(end, family) for end in value["range"])
        return first, last
    return (address(value, family),) * 2


def _port(value: Any) -> tuple[int, int]:
    if isinstance(value, dict) and "range" in value:
        first, last = (constant(end, {}) for end in value["range"])
        return first, last
    return (constant(value, {}),) * 2
