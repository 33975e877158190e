"""observe: dial once, and see where the connection or the query arrives."""

from __future__ import annotations

import time

from ...kernel.netlink import routing
from ...kernel.proc import refusals_sent
from ..model import LOOPBACK, Observation
from .conntrack import look_up
from .dial import SHORTAGES, Dialling
from .origin import ZONES, choose
from .sockets import answering, has_orphan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Identity, Listening, Probe
    from .conntrack import Tracked
    from .dial import Dialled
    from .listeners import Listeners


def observe(
    probe: Probe,
    own: Identity,
    listeners: Listeners,
    listening: Listening,
    deadline: float,
    used: set[int],
) -> Observation:
    """Dial once, from a port that is not in `used`, and add the port to it."""
    refusals = refusals_sent()
    try:
        origin = choose(probe, used)
        dialling = Dialling(probe, own, deadline, origin)
        with dialling:
            done = dialling.done
            used.add(done.local[1])
            seen = Observation(done.state, done.error, done.certain, address_is_here=_is_here(probe))
            if done.state == "refused":
                seen = seen.replace(refused_here=refusals_sent() != refusals)
            if done.state not in ("connected", "refused", "reset", "unanswered"):
                return seen
            asked, tracked = _ask(probe, done)
            if asked and origin.fresh and done.local == (origin.address, origin.port):
                seen = seen.replace(asked=True, sent_to=tracked.sent_to if tracked else None)
            if probe.protocol == "udp":
                return _query_arrival(seen, probe, origin.token, listeners, listening)
            if done.state == "connected":
                return _arrival(seen, probe, done, tracked, listeners, deadline)
            return seen
    except OSError as error:
        text = error.strerror or str(error)
        return Observation(
            "no-dialler" if error.errno in SHORTAGES else "error", text, address_is_here=_is_here(probe)
        )


def _arrival(
    seen: Observation,
    probe: Probe,
    done: Dialled,
    tracked: Tracked | None,
    listeners: Listeners,
    deadline: float,
) -> Observation:
    """Return what was seen of an accepted connection, with the place where it arrived."""
    peers = {done.local, tracked.seen_as} if tracked else {done.local}
    accepted = listeners.accepted(probe, peers, 0)
    found = None if isinstance(accepted, tuple) else [end for end in map(answering, peers) if end]
    port = found[0].local[1] if found else seen.sent_to[1] if seen.sent_to else None
    if found is not None and port is not None and listeners.is_own(probe, port):
        # The kernel has not handed it over yet, for some reason: it will be there in a moment.
        accepted = listeners.accepted(probe, peers, deadline - time.monotonic())
        if not isinstance(accepted, tuple):
            return seen.replace(state="late")
    if isinstance(accepted, tuple):
        return seen.replace(arrived=accepted[0], original=accepted[1])
    if found:
        address, port = found[0].local
        return seen.replace(arrived=port, arrived_at=address, listener_uid=found[0].uid)
    if seen.sent_to == (LOOPBACK[probe.family], probe.watched):
        return seen.replace(arrived=probe.watched)
    if not seen.asked and (accepted or seen.address_is_here or has_orphan(probe.watched)):
        return seen.replace(state="unclear")
    return seen


def _query_arrival(
    seen: Observation, probe: Probe, token: bytes, listeners: Listeners, listening: Listening
) -> Observation:
    """Return what was seen of a query over UDP, with the place where it arrived."""
    received = listeners.received(probe, token)
    if received:
        port, peer = received
        tracked = None
        try:
            redirected = (LOOPBACK[probe.family], port)
            zones = ZONES[probe.protocol]
            tracked = look_up(probe.family, "udp", redirected, peer, reply=True, zones=zones)
        except OSError:
            seen = seen.replace(asked=False)
        return seen.replace(state="connected", arrived=port, original=tracked.dialled if tracked else None)
    if listening.taken and seen.sent_to == (LOOPBACK[probe.family], probe.watched):
        return seen.replace(state="connected", arrived=probe.watched, listener_uid=listening.uid)
    return seen


def _ask(probe: Probe, done: Dialled) -> tuple[bool, Tracked | None]:
    """Return whether this process may ask connection tracking, and what that knows of a connection."""
    dialled = (probe.address, probe.port)
    try:
        return True, look_up(probe.family, probe.protocol, done.local, dialled, zones=ZONES[probe.protocol])
    except OSError:
        return False, None


def _is_here(probe: Probe) -> bool:
    """Tell whether the dialled address is one of this network namespace."""
    if probe.family == "ipv4" and probe.address.startswith("127."):
        return True
    try:
        return any(address.address == probe.address for address in routing.addresses())
    except OSError:
        return True
