"""known: what conditions may ask about besides the packet: addresses of the namespace, and named sets."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..rules.model import Family
    from .routing import Network


class Known(Record):
    """What is known. `network` None: addresses are not known, so `addrtype` and `fib` cannot be told.

    `sets` are the sets of ipset(8) by name, each member as ipset prints it. A set whose members do not say
    what is in it must not be there: of the types with a MAC address or a mark, or with the options netmask,
    bitmask or markmask (iptables_sets.read makes such a mapping).
    """

    network: Network | None = None
    sets: Mapping[str, tuple[str, ...]] | None = None


NOTHING_KNOWN = Known()


class Scope(Record):
    """What the meaning of an option may depend on besides its words.

    `family` is that of the table, None if it is not known. `before_conntrack`: the table is raw, so packets
    may come to the rule that conntrack has not seen.
    """

    known: Known = NOTHING_KNOWN
    family: Family | None = None
    before_conntrack: bool = False


ANYWHERE = Scope()
