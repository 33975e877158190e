"""arrivals: a connection or a datagram, as the caller and as the listener that got it saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.support.netns_helper import Endpoint as Endpoint


class Arrival(NamedTuple):
    """A connection or a datagram, as the listener that got it saw it."""

    name: str  #: the listener's
    port: int  #: that the listener listens on
    local: Endpoint  #: the connection's address at the listener's end (getsockname)
    peer: Endpoint  #: who called (getpeername)
    original: Endpoint | None  #: SO_ORIGINAL_DST; None if the kernel knows none, and for UDP


class Call(NamedTuple):
    """A call, as the caller saw it: where it arrived, or in `error` why it did not."""

    dialled: Endpoint
    arrival: Arrival | None
    local: Endpoint
    error: str


def read_arrival(report: Mapping[str, Any]) -> Arrival:
    """Read what a listener says to a caller."""
    original = report["original"]
    return Arrival(
        report["name"],
        report["port"],
        _endpoint(report["local"]),
        _endpoint(report["peer"]),
        original and _endpoint(original),
    )


def _endpoint(words: Sequence[Any]) -> Endpoint:
    return words[0], words[1]


def read_call(dialled: Endpoint, answer: Mapping[str, Any]) -> Call:
    """Read what a helper says of a call."""
    if "error" in answer:
        return Call(dialled, None, _endpoint(answer.get("local") or ("", 0)), answer["error"])
    return Call(dialled, read_arrival(answer["server"]), _endpoint(answer["local"]), "")
