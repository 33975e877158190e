"""effects: what the actions of rules do to packets: marks, zones, TPROXY and nat.

Source: xt_mark.c, xt_connmark.c, xt_CT.c, xt_TPROXY.c, nft_ct.c, nft_tproxy.c, nf_nat_core.c,
nf_nat_redirect.c and nf_nat_masquerade.c.
"""

from __future__ import annotations

from ..rules.model import IPV4
from . import action as actions
from .algebra import NO_QUESTION
from .condition import AllOf, Masked, OneOf, number, numbers
from .conntrack import TEMPLATE, has_entry
from .packet import TCP, UDP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Generic, TypeVar

    from ..rules.model import Family
    from .action import Action
    from .algebra import Algebra, Side
    from .program import HookName, Place
    from .surroundings import Surroundings
    from .walk import Walk

    S = TypeVar("S")
else:
    Generic = {None: object}
    S = None

#: Conntrack has not seen the packet, and no rule has said what it is to do with it (`_nfct` is 0).
_UNDECIDED = AllOf((number("tracked", 0), number("zoned", 0)))
_HAS_ENTRY = has_entry(before=True)
_UNTRACKED = OneOf("state", frozenset({"UNTRACKED"}))
_TRANSPORTS = numbers("protocol", [(TCP, TCP), (UDP, UDP)])


class Effects(Generic[S]):
    """What actions do to packets of one family, at the hook `hook`."""

    def __init__(self, family: Family, algebra: Algebra[S], surroundings: Surroundings[S]) -> None:
        self.hook: HookName = "output"
        self._family = family
        self._algebra = algebra
        self._surroundings = surroundings

    def of(self, walk: Walk[S], action: Action, packets: S, place: Place) -> tuple[S, S, S]:
        """Return packets for the next statement, for the next rule, and those that leave the table."""
        return _EFFECTS[type(action)](self, walk, action, packets, place)

    def keep(self, packets: S, side: Side) -> S:
        """Return the packets with what nat has decided about their connections."""
        same, moved = self._algebra.keep(packets, side)
        return self._algebra.join(same, self._moved(moved, side))

    # --- marks, zones --------------------------------------------------------------------------

    def _assign(self, walk: Walk[S], action: actions.Assign, packets: S, place: Place) -> tuple[S, S, S]:
        algebra = self._algebra
        without = algebra.empty
        if "connection_mark" in (action.field, action.source):
            if action.in_template:
                template, packets = algebra.split(packets, TEMPLATE, NO_QUESTION)
                walk.end(template, "not known", place, "the mark that goes with its zone is not known")
            packets, without = algebra.split(packets, _HAS_ENTRY, NO_QUESTION)
        if action.source == "connection_mark":  # a template has one, too: 0
            templates, without = algebra.split(without, TEMPLATE, NO_QUESTION)
            without = algebra.join(without, algebra.assign(templates, action.replace(source="")))
        return algebra.join(algebra.assign(packets, action), without), algebra.empty, algebra.empty

    def _zone(self, walk: Walk[S], action: actions.Zone, packets: S, place: Place) -> tuple[S, S, S]:
        if action.tracks_again:
            again, packets = self._algebra.split(packets, _UNTRACKED, NO_QUESTION)
            walk.end(again, "not known", place, "conntrack sees a packet that a rule before kept from it")
        reply = action.zone if action.reply is None else action.reply
        return self._decided(packets, zone=action.zone, reply_zone=reply, zoned=True)

    def _untrack(self, _walk: Walk[S], _action: actions.Untrack, packets: S, _: Place) -> tuple[S, S, S]:
        return self._decided(packets, state="UNTRACKED", tracked=True, first=False, connection=None)

    def _decided(self, packets: S, **fields: object) -> tuple[S, S, S]:
        algebra = self._algebra
        free, decided = algebra.split(packets, _UNDECIDED, NO_QUESTION)
        return algebra.join(algebra.update(free, **fields), decided), algebra.empty, algebra.empty

    # --- TPROXY --------------------------------------------------------------------------------

    def _tproxy(self, walk: Walk[S], action: actions.TProxy, packets: S, place: Place) -> tuple[S, S, S]:
        algebra = self._algebra
        none = algebra.empty
        packets, others = algebra.split(packets, _TRANSPORTS, NO_QUESTION)
        port = action.port or _own_port(packets)
        handed, without = algebra.split(packets, self._surroundings.listening(port), NO_QUESTION)
        # The packet has got a socket: that of the proxy.
        handed = algebra.update(handed, tproxied=port, uid=None, gid=None, groups=None)
        handed = algebra.assign(handed, actions.Assign("mark", action.keep, action.flip))
        if not action.accepts:
            return handed, algebra.join(without, others), none
        walk.end(without, "dropped", place, f"TPROXY finds no transparent socket on port {port}")
        return none, others, handed

    # --- nat -----------------------------------------------------------------------------------

    def _redirect(self, walk: Walk[S], action: actions.Redirect, packets: S, place: Place) -> tuple[S, S, S]:
        algebra = self._algebra
        translated = algebra.empty
        packets = algebra.update(packets, redirected=action.port or _own_port(packets))
        for part, address in self._redirect_addresses(packets):
            if address == 0:
                walk.end(part, "dropped", place, "REDIRECT finds no address of the interface")
            elif address is None:
                port = {"destination_port": action.port} if action.port else {}
                bound = {"destination": None, "destination_bound": True, "translated": True, **port}
                translated = algebra.join(translated, algebra.update(part, **bound))
            else:
                one = self._translated(part, "destination", address, action.port or None)
                translated = algebra.join(translated, one)
        return algebra.empty, algebra.empty, translated

    def _redirect_addresses(self, packets: S) -> list[tuple[S, int | None]]:
        """REDIRECT: the loopback address for what this machine sends, else the incoming interface's own."""
        if self.hook == "output":
            return [(packets, 0x7F000001 if self._family == IPV4 else 1)]
        return list(self._surroundings.redirect_addresses(packets))

    def _destination(
        self, _walk: Walk[S], action: actions.Destination, packets: S, _: Place
    ) -> tuple[S, S, S]:
        none = self._algebra.empty
        return none, none, self._translated(packets, "destination", action.address, action.port)

    def _source(self, walk: Walk[S], action: actions.Source, packets: S, place: Place) -> tuple[S, S, S]:
        algebra = self._algebra
        if action.kept:
            return algebra.empty, algebra.empty, self._translated(packets, "source", None, action.port)
        translated = algebra.empty
        for part, address in self._source_addresses(action, packets):
            if address == 0:
                walk.end(part, "dropped", place, "MASQUERADE finds no address")
            elif address is None:
                fields = ("source", "source_port", "source_translated")
                unknown = algebra.update(part, source_bound=True, **dict.fromkeys(fields))
                translated = algebra.join(translated, unknown)
            else:
                one = self._translated(part, "source", address, action.port)
                translated = algebra.join(translated, one)
        return algebra.empty, algebra.empty, translated

    def _source_addresses(self, action: actions.Source, packets: S) -> list[tuple[S, int | None]]:
        if action.masquerade:
            return list(self._surroundings.masquerade_addresses(packets))
        return [(packets, action.address)]

    def _translated(self, packets: S, side: Side, address: int | None, port: int | None) -> S:
        """Return packets with another address and port, each kept where None (nf_nat_setup_info)."""
        algebra = self._algebra
        bound: dict[str, object] = {f"{side}_bound": True}
        flag = "translated" if side == "destination" else "source_translated"
        same_address, moved = packets, algebra.empty
        if address is not None:
            same_address, moved = algebra.split(packets, number(side, address), NO_QUESTION)
            bound[side] = address
        same, others = same_address, algebra.empty
        if port is not None:
            same, others = algebra.split(same_address, number(f"{side}_port", port), NO_QUESTION)
            bound[f"{side}_port"] = port
        same = algebra.update(same, **bound)
        others = algebra.update(others, **bound, **{flag: True})
        moved = self._moved(algebra.update(moved, **bound, **{flag: True}), side)
        return algebra.join(algebra.join(same, others), moved)

    def _netmap(self, _walk: Walk[S], action: actions.NetMap, packets: S, _: Place) -> tuple[S, S, S]:
        algebra = self._algebra
        side: Side = "destination" if self.hook in ("prerouting", "output") else "source"
        flag = "translated" if side == "destination" else "source_translated"
        everything = (1 << (32 if self._family == IPV4 else 128)) - 1
        there = Masked(side, action.address, everything & ~action.keep)
        same, moved = algebra.split(packets, there, NO_QUESTION)
        moved = algebra.assign(moved, actions.Assign(side, action.keep, action.address))
        moved = self._moved(algebra.update(moved, **{flag: True, f"{side}_bound": True}), side)
        same = algebra.update(same, **{f"{side}_bound": True})
        return algebra.empty, algebra.empty, algebra.join(same, moved)

    def _moved(self, packets: S, side: Side) -> S:
        """Return packets that nat has given another address: a new destination takes the route away."""
        return self._algebra.update(packets, route="") if side == "destination" else packets


def _own_port(packets: object) -> int:
    """Return the destination port of one packet; 0 for a set of packets, which may have many."""
    port: int = getattr(packets, "destination_port", 0)
    return port


_EFFECTS: Mapping[type[Action], Callable[..., tuple[Any, Any, Any]]] = {
    actions.Assign: Effects._assign,
    actions.Zone: Effects._zone,
    actions.Untrack: Effects._untrack,
    actions.TProxy: Effects._tproxy,
    actions.Redirect: Effects._redirect,
    actions.Destination: Effects._destination,
    actions.NetMap: Effects._netmap,
    actions.Source: Effects._source,
}
