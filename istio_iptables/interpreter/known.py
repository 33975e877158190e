"""known: what conditions may ask about besides the packet: addresses of the namespace, and named sets."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .routing import Network


class Known(Record):
    """What is known. `network` None: addresses are not known, so `addrtype` and `fib` cannot be told.

    `sets` are the sets of ipset(8) by name, each member as ipset prints it.
    """

    network: Network | None = None
    sets: Mapping[str, tuple[str, ...]] | None = None


NOTHING_KNOWN = Known()
