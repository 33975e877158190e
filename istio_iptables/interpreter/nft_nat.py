"""nft_nat: the nat statements of nf_tables: dnat, redirect, snat, masquerade, with ranges and maps.

Sources: nft(8), NAT STATEMENTS; nft_nat.c, nft_redir.c, nf_nat_core.c.
"""

from __future__ import annotations

from ..rules.model import IPV4, IPV6
from . import action as actions
from .addresses import BITS
from .condition import ALWAYS, number, numbers
from .nft_fields import of_family
from .nft_maps import both, branches, choose
from .nft_values import UnreadError, address, fitting
from .packet import TCP, UDP, address_text

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


def masquerade(inner: Mapping[str, Any] | None, scope: NativeScope, why: str) -> Steps:
    """Return what masquerade does."""
    inner = inner or {}
    if _by_chance(inner):
        return (actions.Source(why),)
    needs, found = branches(inner.get("port"), scope)
    ways = [(when, actions.Source(why, port=_single(data), masquerade=True)) for when, data in found]
    return (*needs, choose(ways))


def source(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    """Return what snat does; where the new source is one of several it is not known."""
    needs, found = _cases(inner, scope)
    family = _family(inner, scope)
    ways = [(when, _new_source(to, port, family, inner, why)) for when, to, port in found]
    return (*needs, choose(ways))


def _new_source(to: Any, port: Any, family: Family, inner: Mapping[str, Any], why: str) -> Action:
    to, port = _apart(to, port)
    if isinstance(to, dict) and "prefix" in to and port is None:
        return _mapped(to, family)
    first, last = (None, None) if to is None else _ends(to, lambda value: address(value, family))
    if _by_chance(inner) or first != last:
        return actions.Source(why)
    return actions.Source(why, first, _single(port))


def _single(port: Any) -> int | None:
    """Return a port; one of a range is chosen by chance."""
    first, last = (None, None) if port is None else _ends(port, _number)
    return first if first == last else None


def redirect(inner: Mapping[str, Any] | None, scope: NativeScope, why: str) -> Steps:
    """Return what redirect does."""
    if not inner or inner.get("port") is None:
        return (actions.Redirect(0),)
    needs, found = targets(inner, scope)
    random = _by_chance(inner)
    ways = [
        (condition, _to_port(_ends(data, _number), lambda port: actions.Redirect(port or 0), random, why))
        for condition, data in found
    ]
    return (*needs, choose(ways))


def _by_chance(inner: Mapping[str, Any]) -> bool:
    flags = inner.get("flags", ())
    return bool({"random", "fully-random"} & {*((flags,) if isinstance(flags, str) else flags)})


def destination(inner: Mapping[str, Any], scope: NativeScope, why: str) -> Steps:
    """Return what dnat does."""
    needs, found = _cases(inner, scope)
    family, random = _family(inner, scope), _by_chance(inner)
    return (*needs, choose([(when, _translation(to, port, family, random, why)) for when, to, port in found]))


def _family(inner: Mapping[str, Any], scope: NativeScope) -> Family:
    if "family" in inner:
        return _FAMILIES[inner["family"]]
    [family] = scope.families
    return family


def _cases(
    inner: Mapping[str, Any], scope: NativeScope
) -> tuple[tuple[Condition, ...], list[tuple[Condition, Any, Any]]]:
    """Return what a statement needs, and each address and port that it may translate to."""
    of_address, addresses = branches(inner.get("addr"), scope)
    of_port, ports = branches(inner.get("port"), scope)
    found = [(both(when, where), to, port) for when, to in addresses for where, port in ports]
    return (*_of_its_family(inner, scope), *of_address, *of_port), found


def _apart(to: Any, port: Any) -> tuple[Any, Any]:
    """Return an address and a port, which a map may have as one value."""
    if isinstance(to, dict) and "concat" in to:
        if port is not None:
            raise UnreadError(to)
        to, port = to["concat"]
    return to, port


def _mapped(to: Mapping[str, Any], family: Family) -> Action:
    free = BITS[family] - to["prefix"]["len"]
    return actions.NetMap(address(to["prefix"]["addr"], family), (1 << free) - 1)


def _translation(to: Any, port: Any, family: Family, random: bool, why: str) -> Action:
    to, port = _apart(to, port)
    if isinstance(to, dict) and "prefix" in to and port is None:
        return _mapped(to, family)
    ports = None if port is None else _ends(port, _number)

    def at(where: int | None) -> Action:
        return _to_port(ports, lambda number: actions.Destination(where, number), random, why)

    if to is None:
        return at(None)
    # Of several addresses a hash of both ends chooses one (find_best_ips_proto).
    first, last = _ends(to, lambda value: address(value, family))
    each = range(first, min(last, first + actions.MOST_CHOICES) + 1)
    return actions.one_of([(address_text(family, where), at(where)) for where in each], why)


def _to_port(
    ports: tuple[int, int] | None, make: Callable[[int | None], Action], random: bool, why: str
) -> Action:
    """Return a translation to one port of a range: as iptables' (`_to_ports` of iptables_targets.py)."""
    if ports is None or ports[0] == ports[1]:
        return make(ports[0] if ports else None)
    if random:
        each = range(ports[0], min(ports[1], ports[0] + actions.MOST_CHOICES) + 1)
        return actions.one_of([(f"port {port}", make(port)) for port in each], why)
    kept = number("destination_port", *ports)
    return actions.Choose(((kept, make(None)), (ALWAYS, make(ports[0]))))


def _number(value: Any) -> int:
    return fitting(value, 16)


def _ends(value: Any, read: Callable[[Any], int]) -> tuple[int, int]:
    if isinstance(value, dict) and "range" in value:
        first, last = (read(end) for end in value["range"])
        return first, last
    return (read(value),) * 2
