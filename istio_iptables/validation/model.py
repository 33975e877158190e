"""model: the records of validation: the probes, what was observed of each, and the results."""

from __future__ import annotations

from ..startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from ..rules.model import Family

    #: What a probe has to prove. The exemptions are outbound, too: the proxy's own traffic is not redirected,
    #: because of its UID, because of its GID, or (`exempt`) because of either, where a process cannot
    #: separate them.
    Kind: TypeAlias = Literal["inbound", "outbound", "exempt", "exempt-uid", "exempt-gid"]
    #: unproven: this had to be proven and could not be; not-probed: the proof is complete without it.
    Status: TypeAlias = Literal["pass", "fail", "unproven", "not-probed"]
    #: What became of a connection; see Observation.
    State: TypeAlias = Literal[
        "connected",
        "reset",
        "refused",
        "unanswered",
        "unclear",
        "error",
        "cannot-become",
        "no-dialler",
        "late",
    ]

    Protocol: TypeAlias = Literal["tcp", "udp"]
    #: Returns the interface that leads to an address of a family, None if no route does.
    Route: TypeAlias = Callable[[Family, str], str | None]
    #: Returns a number below the one given, at random.
    Pick: TypeAlias = Callable[[int], int]


#: The families as text.
FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}
#: Where the target REDIRECT sends a connection that is made here (nf_nat_redirect_ipv4 in
#: net/netfilter/nf_nat_redirect.c).
LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1"}


class Identity(Record):
    """The user and group that a connection belongs to, as netfilter's owner match sees them."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"UID {self.uid}, GID {self.gid}"


class Probe(Record):
    """One connection to make, and where it has to arrive.

    `source` is the address to dial from; if it is empty, the kernel chooses. If `arrives`, the connection
    must arrive at the local port `watched`. If not, it must not arrive there, nor at any other local port
    except `elsewhere`, where rules may send it. `why` is the reason of the rule that decides. `others` are
    equivalent destination addresses, for dialling again. `dns`: it is a query, or a connection, to a DNS
    server, and `watched` is the agent's port.
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
    protocol: Protocol = "tcp"
    dns: bool = False

    @property
    def dialled(self) -> str:
        """Who dialled what, as text."""
        return f"{self.identity} dialled {endpoint(self.address, self.port)}"


class Skipped(Record):
    """A probe that is not made, why, and what to do to have it made. `required`: validation needs it."""

    kind: Kind
    family: Family
    why: str
    remedy: str
    required: bool
    protocol: Protocol = "tcp"
    dns: bool = False

    @property
    def dialled(self) -> str:
        """Empty: no connection is made."""
        return ""


class Listening(Record):
    """Who listens on a watched port: this process, or (`taken`) another one, of user `uid` if that is known.

    `problem` is the reason why no process listens there. `stuck`: the other process has left so many
    connections waiting that the kernel might not answer another one. `inode` tells its socket from others.
    """

    port: int
    taken: bool = False
    uid: int | None = None
    stuck: bool = False
    problem: str = ""
    inode: int | None = None


class Observation(Record):
    """What became of a dialled connection, or of a query over UDP.

    The states:

    - `connected`: a listener accepted it, or received the query. `arrived` is its local port, None if the
      listener is not in this network namespace; `listener_uid` is the user who owns the socket, and
      `arrived_at` its address, if the socket is another process's.
    - `reset`: it was accepted and reset before it could be seen where it arrived.
    - `unclear`: it was accepted, and a listener here has a connection that may be this one or another's. Or
      it was refused here, and the listener of another process has ended.
    - `refused`: a reset came back (UDP: an ICMP error that says so).
    - `unanswered`: nothing came back (`certain`: in the time that a local listener needs to answer), or an
      ICMP error did.
    - `error`: the first packet could not be sent.
    - `cannot-become`: the process could not change to the user.
    - `no-dialler`: the process that should have dialled failed.
    - `late`: the time was up.

    `error` is the kernel's error message. `original` is the value of SO_ORIGINAL_DST (of UDP: what connection
    tracking knows of it). `sent_to` is where rules sent the connection, according to connection tracking.
    `asked`: connection tracking was asked about this connection and no earlier one. Then no `sent_to` means
    that it has no entry: no nat rule has redirected it, or its first packet was dropped before it left.
    `address_is_here`: the dialled address is one of this network namespace. `refused_here`: this network
    namespace sent a refusal while the connection was dialled.
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
    asked: bool = False
    arrived_at: str = ""


class Result(Record):
    """The result of a probe: its status, where the connection arrived, what that means, and what to do."""

    subject: Probe | Skipped
    status: Status
    where: str
    meaning: str
    remedy: str = ""
    observation: Observation | None = None


def succeeded(results: tuple[Result, ...]) -> bool:
    """Tell whether redirection is proven: no result is a failure or unproven, and at least one is a pass."""
    statuses = {result.status for result in results}
    return "pass" in statuses and not statuses & {"fail", "unproven"}


def endpoint(address: str, port: int) -> str:
    """Return `address:port`, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
