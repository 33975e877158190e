"""origin: the address and port to dial from, chosen so that connection tracking knows nothing of it.

Connection tracking remembers the connections that were made before: an unanswered one for two minutes
(nf_conntrack_tcp_timeout_syn_sent), one that was reset for ten seconds. If a probe repeats the addresses and
ports of a remembered one, the nat rules are not asked about it. If another connection from the same port was
redirected to the same listener, the kernel gives the probe another source port, so that the listener does not
see the port that dialled. Both look as if correct rules did not work. So the kernel is asked beforehand.
"""

from __future__ import annotations

import contextlib
import os
import socket

from ...rules.model import ADDRESS_FAMILIES
from ...startup.record import Record
from ..model import LOOPBACK
from .conntrack import look_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ..model import Probe

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
#: The zones of connection tracking that queries are in: none, and those of the rules in raw.
ZONES = {"tcp": (0,), "udp": (0, 1, 2)}
#: How many ports the kernel is asked for until connection tracking knows nothing of one.
_PORTS = 32


class Origin(Record):
    """Where to dial from, and hexadecimal digits by which a query over UDP is recognized.

    `fresh`: connection tracking was asked, and knows no connection that this one would repeat.
    """

    address: str
    port: int
    fresh: bool
    token: bytes


def choose(probe: Probe, used: Collection[int]) -> Origin:
    """Return an address and a free port that is not in `used`. Raises OSError if there is no route.

    Without NET_ADMIN connection tracking cannot be asked: then any port does.
    """
    token = os.urandom(8).hex().encode()
    address = probe.source or source_of(probe)
    with contextlib.ExitStack() as occupied:
        port = 0
        for _ in range(_PORTS):
            # It stays open until one is found: the kernel does not choose a port that is taken.
            made = occupied.enter_context(
                socket.socket(ADDRESS_FAMILIES[probe.family], KINDS[probe.protocol])
            )
            try:
                made.bind((address, 0))
            except OSError:
                if port:  # all are taken
                    break
                raise
            port = made.getsockname()[1]
            if port in used:
                continue
            try:
                if not _is_known(probe, (address, port)):
                    return Origin(address, port, True, token)
            except OSError:
                return Origin(address, port, False, token)
    return Origin(address, port, False, token)


def _is_known(probe: Probe, source: tuple[str, int]) -> bool:
    """Tell whether connection tracking has an entry that a probe from this source repeats. Raises OSError."""
    zones = ZONES[probe.protocol]
    dialled = (probe.address, probe.port)
    redirected = (LOOPBACK[probe.family], probe.watched)
    return bool(
        look_up(probe.family, probe.protocol, source, dialled, zones=zones)
        or look_up(probe.family, probe.protocol, redirected, source, reply=True, zones=zones)
    )


def source_of(probe: Probe) -> str:
    """Return the source address that the kernel would choose. Raises OSError if there is no route."""
    with socket.socket(ADDRESS_FAMILIES[probe.family], socket.SOCK_DGRAM) as asking:
        asking.connect((probe.address, probe.port))  # sends nothing
        source: str = asking.getsockname()[0]
    return source
