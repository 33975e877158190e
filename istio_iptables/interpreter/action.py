"""action: what a rule does with the packets that its conditions accept."""

from __future__ import annotations

from ..rules.model import FULL_MASK
from ..startup.record import Record
from .condition import ALWAYS, Unmodelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    from .condition import Condition

    How: TypeAlias = Literal["accept", "drop", "reject"]


class Action(Record):
    """What a rule does."""


class Pass(Action):
    """Nothing that changes the packet's way: LOG, a counter. The next statement follows."""

    what: str = ""


class End(Action):
    """accept, drop or reject: the packet leaves this chain and those that called it.

    `accept` ends the way through this table at this hook only; drop and reject end the packet's way.
    """

    how: How


class Return(Action):
    """return: back to the chain that jumped here; at the end of a base chain its policy counts."""


class Call(Action):
    """jump: go on in a chain of the same table, then with the next rule; with `goto`, not with that."""

    chain: str
    goto: bool = False


class Choose(Action):
    """A verdict map: the first condition that is true says what is done; if none is, the rule ends."""

    branches: tuple[tuple[Condition, Action], ...]


class Assign(Action):
    """A mark becomes `(mark & keep) ^ flip`; with `source`, the other mark, `^ (source & source_mask)`, too.

    `field` is `mark` or `connection_mark`. Nothing happens if one of them is the connection's and there is no
    conntrack entry (xt_connmark.c, nft_ct.c). `in_template`: that of iptables takes a template for an entry,
    see conntrack.py. It is one for all packets, so the mark in it is not known.
    """

    field: str
    keep: int = 0
    flip: int = 0
    source: str = ""
    source_mask: int = FULL_MASK
    in_template: bool = True


class Zone(Action):
    """The conntrack zone of the packet's connection, unless that is decided already (xt_CT.c).

    `reply` is the zone in which answers are looked for, if it is another one (nf_conntrack_zones.h).
    `tracks_again`: that of nftables also takes a packet that conntrack was to leave alone (nft_ct.c).
    """

    zone: int
    reply: int | None = None
    tracks_again: bool = False


class Untrack(Action):
    """NOTRACK: conntrack leaves the packet alone."""


class Redirect(Action):
    """redirect: to this machine, to `port` or the packet's own if that is 0. Ends the way through nat."""

    port: int


class Destination(Action):
    """dnat: to an address and port, each kept where None. Ends the way through nat."""

    address: int | None
    port: int | None


class NetMap(Action):
    """NETMAP: an address becomes `address`, but for the bits of `keep`. Ends the way through nat.

    It is the destination at the hooks prerouting and output, else the source (xt_NETMAP.c).
    """

    address: int
    keep: int


class Source(Action):
    """snat, masquerade: a new source. Ends the way through nat, and does not change where a packet goes.

    `what` names it. The address is `address`, with `masquerade` that of the interface by which the packet
    leaves, with `kept` its own, else not known. The port is `port`; None: it is kept unless another
    connection has it.
    """

    what: str
    address: int | None = None
    port: int | None = None
    masquerade: bool = False
    kept: bool = False


class TProxy(Action):
    """TPROXY: hand the packet to the local socket on `port` as it is, and set its mark; port 0 is its own.

    `accepts`: the packet then leaves the table (xt_TPROXY.c); that of nftables goes on to the next
    statement. Without a socket iptables drops the packet, and nftables leaves the rule (nft_tproxy.c).
    """

    port: int
    keep: int = FULL_MASK
    flip: int = 0
    accepts: bool = True


class Unknown(Action):
    """An action that is not modelled; it may go on, accept or drop, or translate. `why` is its name."""

    why: str


#: If chance chooses one of so many translations, all of them are followed.
MOST_CHOICES = 8


def one_of(ways: Sequence[tuple[str, Action]], what: str) -> Action:
    """Return the action that is one of some, by chance, each with its name; Unknown if these are too many."""
    if len(ways) > MOST_CHOICES or any(isinstance(action, (Choose, Unknown)) for _, action in ways):
        return ways[0][1] if len(ways) == 1 else Unknown(what)
    *others, (_, last) = ways
    chosen = [(Unmodelled(f"whether it is {name}"), action) for name, action in others]
    return Choose((*chosen, (ALWAYS, last))) if chosen else last
