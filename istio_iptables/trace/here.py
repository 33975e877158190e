"""here: the network namespace that this process is in, as the interpreter has it. Nothing is changed."""

from __future__ import annotations

import sys

from ..change.actions import IPTABLES_NFT, NFTABLES
from ..errors import KernelError
from ..interpreter.journey import World
from . import dumps
from .world import with_sysctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpreter.routing import Network
    from ..kernel.dumps import Unreadable
    from .dumps import Rules


def network() -> Network | None:
    """Return the addresses, routes and routing rules here; None on a system without rtnetlink(7)."""
    if sys.platform != "linux":
        return None
    from ..kernel.netlink.network import read_network

    return read_network()


def rules(network: Network, *, with_handles: bool = False) -> Rules:
    """Return all tables that the kernel has here, of all backends; `network` is what `network` has returned.

    `with_handles`: those of nf_tables with their handles, by which the kernel's events name rules.
    Raises KernelError if any of them cannot be read: what is missing could decide, so an answer from the rest
    could be wrong.
    """
    from ..kernel.dumps import read_dumps

    found = read_dumps(with_handles=with_handles)
    by_nft = any(each.location == NFTABLES for each in found.printed)
    told_by_nft = tuple(e for e in found.unreadable if by_nft and e.location == IPTABLES_NFT)
    missing = tuple(each for each in found.unreadable if each not in told_by_nft)
    if missing:
        raise _unreadable(missing)
    sources = [
        dumps.Source(each.command, each.text, each.family, each.rule_texts, may_be_empty=True)
        for each in found.printed
    ]
    read = dumps.read(sources, network)
    unread = (f"{each}: {dumps.TELLS_LESS}" for each in told_by_nft)
    return read.replace(unread=(*read.unread, *unread))


def _unreadable(missing: Sequence[Unreadable]) -> KernelError:
    """Return the error for what could not be read; what has the same cause is named together."""
    causes: dict[str, list[str]] = {}
    for each in missing:
        causes.setdefault(each.cause, []).append(each.what)
    what = "; ".join(f"{', '.join(names)}: {cause}" for cause, names in causes.items())
    remedies = dict.fromkeys(each.remedy for each in missing if each.remedy)
    return KernelError(
        f"the rules in place cannot all be read, and an answer from the rest could be wrong: {what}",
        "; ".join(remedies) or "make that readable, or give dumps of all tables with --file",
    )


def world(found: Rules, network: Network, *, ever_routed: bool | None = None) -> World:
    """Return the namespace, with what the kernel's variables say; `ever_routed`: see SourceCheck."""
    from ..kernel.sysctls import read_sysctls

    return with_sysctls(World(found.program, network), read_sysctls(), ever_routed=ever_routed)
