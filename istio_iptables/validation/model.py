"""Probe: proving redirection by real connections, without the connections.

`planning` decides which connections are to be made, as whom, and where each has to arrive; `trace` follows
a connection's first packet through a rule set; `judging` turns what was seen into a verdict and what to do.
The records that they speak of are here. All of it computes: connections are made in backends/probing.py.
"""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from ..rules.model import Family

    #: What a probe is to prove. Exemptions are outbound, too: the proxy's own traffic is left alone, for its
    #: UID, for its GID, or (`exempt`) for both together, where they cannot be had apart.
    Kind: TypeAlias = Literal["inbound", "outbound", "exempt", "exempt-uid", "exempt-gid"]
    #: unproven: has to be proven and could not be; not-probed: nothing is missing without it.
    Status: TypeAlias = Literal["pass", "fail", "unproven", "not-probed"]
    #: What became of a connection; see Observation.
    State: TypeAlias = Literal[
        "connected", "reset", "refused", "unanswered", "error", "cannot-become", "no-dialler", "late"
    ]

    #: Returns the interface that leads to an address of a family, None if no route does.
    Route: TypeAlias = Callable[[Family, str], str | None]
    #: Returns a number below the one given, at random.
    Pick: TypeAlias = Callable[[int], int]


class Identity(Record):
    """The user and group that a connection belongs to, as netfilter's owner match sees them."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"UID {self.uid}, GID {self.gid}"


class Probe(Record):
    """A connection to be made, and what has to become of it.

    `source` is the address to dial from, empty for whichever the kernel takes. If `arrives`, the connection
    has to arrive at the local port `watched`; otherwise it must not, nor at any other but `elsewhere`, where
    rules may send it. `why` is the reason of the rule that settles it. `others` are addresses that would do
    as well, for dialling again.
    """

    kind: Kind
    family: Family
    identity: Identity
    source: str
    address: str
    port: int
    interface: str
    watched: int
    arrives: bool
    why: str
    elsewhere: int | None = None
    others: tuple[str, ...] = ()

    @property
    def dialled(self) -> str:
        """Who dials what, in words."""
        return f"{self.identity} dialled {endpoint(self.address, self.port)}"


class Skipped(Record):
    """A proof that is not attempted, why, and what to do to have it. `required`: it is owed."""

    kind: Kind
    family: Family
    why: str
    remedy: str
    required: bool

    @property
    def dialled(self) -> str:
        """Nobody dials anything."""
        return ""


class Listening(Record):
    """Who listens on a watched port: this process, or (`taken`) another one, of user `uid` if that is known.

    `problem` says why nobody does. `stuck`: the other process leaves so many connections waiting that a
    further one might not be answered.
    """

    port: int
    taken: bool = False
    uid: int | None = None
    stuck: bool = False
    problem: str = ""


class Observation(Record):
    """What became of a dialled connection.

    `connected`: somebody accepted it; `arrived` is the local port at which, None if not in this network
    namespace, and `listener_uid` whose socket that is. `reset`: accepted and broken off before it could be
    seen where. `refused`: a reset came back. `unanswered`: nothing came back (`certain`: in the time in which
    an answer of a local listener would have come), or the network's word that it does not get there. `error`:
    it could not even be sent. `cannot-become`: the user could not be had. `no-dialler`: the process that was
    to dial failed. `late`: the time was up. `error` holds the kernel's words. `original` is SO_ORIGINAL_DST.
    `sent_to` is where rules sent it, by the kernel's connection tracking, None if that may not be asked.
    `address_is_here`: the address that was dialled is one of this network namespace. `refused_here`: this
    network namespace itself has sent a refusal meanwhile.
    """

    state: State
    error: str = ""
    certain: bool = True
    arrived: int | None = None
    listener_uid: int | None = None
    original: tuple[str, int] | None = None
    sent_to: tuple[str, int] | None = None
    address_is_here: bool = True
    refused_here: bool = False


class Result(Record):
    """The verdict on a probe: where the connection arrived, what that means, and what to do."""

    subject: Probe | Skipped
    status: Status
    where: str
    meaning: str
    remedy: str = ""
    observation: Observation | None = None


def succeeded(results: tuple[Result, ...]) -> bool:
    """Tell whether redirection is proven: nothing failed or is owed, and at least one probe was made."""
    statuses = {result.status for result in results}
    return "pass" in statuses and not statuses & {"fail", "unproven"}


def endpoint(address: str, port: int) -> str:
    """Return an address and a port as they are written together."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
