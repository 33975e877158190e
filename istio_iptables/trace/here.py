"""here: the network namespace that this process is in, as the interpreter has it. Nothing is changed."""

from __future__ import annotations

import sys

from ..errors import KernelError
from ..interpreter.journey import World
from . import dumps
from .world import with_sysctls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..interpreter.routing import Network
    from .dumps import Rules


def network() -> Network | None:
    """Return the addresses, routes and routing rules here; None on a system without rtnetlink(7)."""
    if sys.platform != "linux":
        return None
    from ..kernel.netlink.network import read_network

    return read_network()


def rules() -> Rules:
    """Return all tables that the kernel has here, of all backends.

    Raises KernelError if none can be read, for example for want of privilege.
    """
    from ..kernel.dumps import read_dumps

    found = read_dumps()
    if found.unreadable and not found.printed:
        first = found.unreadable[0]
        raise KernelError(f"{first.what}: {first.cause}", first.remedy)
    sources = [dumps.Source(each.command, each.text, each.family, each.rule_texts) for each in found.printed]
    read = dumps.read(sources, network())
    return read.replace(unread=(*read.unread, *map(str, found.unreadable)))


def world(found: Rules, network: Network) -> World:
    """Return the namespace with what the kernel's variables say about packets."""
    from ..kernel.sysctls import read_sysctls

    return with_sysctls(World(found.program, network), read_sysctls())
