"""watcher: sees every packet that gets through the rules of a network namespace, and where it goes.

A table of nftables with chains at the very ends of the hooks logs all packets to a netlink socket
(nfnetlink_log), and another socket hears of the connections (nfnetlink_conntrack). It changes nothing, but
for what the kernel itself makes: a refusal or an answer is logged and discarded where it begins, before
connection tracking sees it. So only the packets of a test have connections.

What has not come by before the sentinel, a packet that is sent after the others and queues behind them, has
been dropped.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from istio_iptables.kernel.netlink.messages import NETLINK_NETFILTER, pack_attribute, parse_attributes

from .scratch import entered
from .wire import SENTINEL_PROTOCOL, WINDOW, Cable, Seen, read_datagram, sentinel

TABLE = "watcher"
_GROUP = 77
_LAST = 2147483645  # conntrack confirms connections at 2147483647
_SCRIPT = f"""
table inet {TABLE} {{
    chain end {{
        type filter hook prerouting priority -2000
        meta l4proto {SENTINEL_PROTOCOL} log prefix "end" group {_GROUP} drop
    }}
    chain made {{
        type filter hook output priority -2000
        tcp window {WINDOW} accept
        meta l4proto {{ udp, sctp }} accept
        icmp type echo-request accept
        icmpv6 type echo-request accept
        log prefix "made" group {_GROUP} drop
    }}
    chain delivered {{
        type filter hook input priority {_LAST}
        @delivered
    }}
    chain sent {{
        type filter hook postrouting priority {_LAST}
        @sent
    }}
}}
"""


def _by_state(where: str) -> str:
    """Return rules that log a packet with its connection's state, as `log prefix` takes no variable."""
    log = f'log prefix "{where} {{}}" group {_GROUP} accept'
    states = [f"ct state {state} {log.format(state.upper())}" for state in ("invalid", "untracked")]
    return "; ".join(
        states
        + [
            f"ct direction {direction} ct state {state} {log.format(f'{state.upper()} {direction}')}"
            for state in ("new", "related", "established")
            for direction in ("original", "reply")
        ]
    )


def _script() -> str:
    return _SCRIPT.replace("@delivered", _by_state("delivered")).replace("@sent", _by_state("sent"))


# linux/netfilter/nfnetlink.h, nfnetlink_log.h, nfnetlink_conntrack.h
_ULOG, _CONNTRACK = 4 << 8, 1 << 8
_CONFIG, _CT_DELETE = _ULOG | 1, _CONNTRACK | 2
_CREATE = 0x600  # NLM_F_CREATE, NLM_F_EXCL
_NEW_OR_CHANGED = 0x3  # NF_NETLINK_CONNTRACK_NEW, NF_NETLINK_CONNTRACK_UPDATE
_REQUEST, _ACK = 0x01, 0x04
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_MARK, _INDEV, _OUTDEV, _PAYLOAD, _PREFIX, _UID = 2, 4, 5, 9, 10, 11
_CTA_ORIGINAL, _CTA_REPLY, _CTA_STATUS, _CTA_MARK, _CTA_ZONE = 1, 2, 3, 8, 18
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
#: Seconds after which something must be wrong.
_LIMIT = 20


class Tuple(NamedTuple):
    """One direction of a connection."""

    source: int
    destination: int
    source_port: int
    destination_port: int


class Connected(NamedTuple):
    """A connection as the kernel had it when a packet was seen."""

    original: Tuple
    reply: Tuple
    status: int
    mark: int
    zone: int
    reply_zone: int


class Event(NamedTuple):
    """A packet that was seen: `where` is the chain above, `device` the interface that counts there.

    `state` is that of its connection, with the direction if there is one.
    """

    where: str
    state: str
    device: str
    mark: int
    uid: int | None  #: of the socket that it belongs to
    packet: Seen


class Watcher:
    """The table, and the socket that reads what it logs."""

    def __init__(self, namespace: str, run: Callable[[list[str], str], object]) -> None:
        """Begin to watch a namespace; `run` runs a command in it."""
        run(["nft", "-f", "-"], _script())
        with entered(f"/run/netns/{namespace}"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
            self._control = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
            self._connections = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
            self.interfaces = dict(socket.if_nameindex())
        self._socket.settimeout(_LIMIT)
        self._control.settimeout(_LIMIT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._own = Cable(namespace, "lo", bytes(6))
        for kind, value in (
            (_CFG_CMD, struct.pack("=B", _BIND)),
            (_CFG_MODE, struct.pack("!IBx", 0xFFFF, _COPY_PACKET)),
            (_CFG_QTHRESH, struct.pack("!I", 1)),
        ):
            self._ask(self._socket, _CONFIG, 0, _GROUP, pack_attribute(kind, value))
        self._connections.bind((0, _NEW_OR_CHANGED))
        self._connections.setblocking(False)

    def close(self) -> None:
        """Close the sockets; the table goes with the namespace."""
        self._socket.close()
        self._control.close()
        self._connections.close()
        self._own.close()

    def events(self) -> list[Event]:
        """Return what has been seen since the last time: everything that was sent has got where it gets."""
        self._own.write("ipv4", sentinel())
        found: list[Event] = []
        while True:
            for event in self._read():
                if event.where == "end":
                    return found
                found.append(event)

    def connections(self) -> list[Connected]:
        """Return the connections that were made or changed since the last time, as they are since then."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                for kind, payload in _messages(self._connections.recv(1 << 17)):
                    if kind == _CONNTRACK:
                        found.append(_connection(payload))
        return found

    def forget(self) -> None:
        """Remove all connections."""
        self._ask(self._control, _CT_DELETE, 0, 0, b"")

    def make(self, family: int, connection: bytes) -> None:
        """Make a connection that conntrack knows (see known_connections)."""
        self._ask(self._control, _CONNTRACK, family, 0, connection, _CREATE)

    def _read(self) -> Iterator[Event]:
        for kind, payload in _messages(self._socket.recv(1 << 17)):
            if kind == _ULOG:
                yield self._event(payload)

    def _event(self, found: dict[int, bytes]) -> Event:
        where, _, state = found[_PREFIX].rstrip(b"\0").decode().partition(" ")
        device = found.get(_OUTDEV if where in ("sent", "made") else _INDEV, bytes(4))
        uid = found.get(_UID)
        return Event(
            where,
            state,
            self.interfaces.get(int.from_bytes(device, "big"), ""),
            int.from_bytes(found.get(_MARK, b""), "big"),
            None if uid is None else int.from_bytes(uid, "big"),
            read_datagram(found[_PAYLOAD]),
        )

    @staticmethod
    def _ask(on: socket.socket, kind: int, family: int, group: int, payload: bytes, flags: int = 0) -> None:
        body = struct.pack("!BBH", family, 0, group) + payload
        on.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        answer = on.recv(1 << 16)
        (code,) = struct.unpack_from("=i", answer, 16)
        if code:
            raise OSError(-code, f"the kernel refuses the message {kind:#x}")


def _messages(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    offset = 0
    while offset < len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield kind, parse_attributes(data[offset + 20 : offset + length])
        offset += length + -length % 4


def _connection(parts: dict[int, bytes]) -> Connected:
    original, zone = _tuple(parts[_CTA_ORIGINAL])
    reply, reply_zone = _tuple(parts[_CTA_REPLY])
    both = int.from_bytes(parts.get(_CTA_ZONE, b""), "big")
    return Connected(
        original,
        reply,
        int.from_bytes(parts.get(_CTA_STATUS, b""), "big"),
        int.from_bytes(parts.get(_CTA_MARK, b""), "big"),
        both or zone,
        both or reply_zone,
    )


def _tuple(data: bytes) -> tuple[Tuple, int]:
    parts = parse_attributes(data)
    addresses = list(parse_attributes(parts[_TUPLE_IP]).values())
    protocol = parse_attributes(parts[_TUPLE_PROTO])
    ports = [int.from_bytes(protocol.get(kind, b""), "big") for kind in (2, 3)]
    source, destination = (int.from_bytes(address, "big") for address in addresses)
    return Tuple(source, destination, *ports), int.from_bytes(parts.get(_TUPLE_ZONE, b""), "big")
