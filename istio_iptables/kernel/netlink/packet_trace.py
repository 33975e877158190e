"""packet_trace: what the kernel reports of packets that are traced: the rules they meet, as events.

nf_tables reports by the nfnetlink group NFNLGRP_NFTRACE, as `nft monitor trace` reads it. Legacy iptables
logs lines that begin with TRACE to nfnetlink_log, group 0. Both name only rules that match. Layouts and
numbers are those of linux/netfilter/nf_tables.h (enum nft_trace_attributes) and nfnetlink_log.h.
"""

from __future__ import annotations

import errno
import os
import select
import struct

from ...startup.c_modules import socket
from ...startup.record import Record
from .messages import NETLINK_NETFILTER, pack_attribute, parse_attributes, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Literal, Self

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_GROUP_NFTRACE = 9
_NFT_MSG_TRACE = 10 << 8 | 17
_NFULNL_MSG_PACKET, _NFULNL_MSG_CONFIG = 4 << 8, 4 << 8 | 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_DATAGRAM = 65536
_REQUEST_WITH_ACK = 0x05

_TRACE_TABLE, _TRACE_CHAIN, _TRACE_HANDLE, _TRACE_TYPE, _TRACE_VERDICT, _TRACE_ID = 1, 2, 3, 4, 5, 6
_TRACE_NETWORK, _TRACE_TRANSPORT, _TRACE_IIF, _TRACE_OIF, _TRACE_MARK = 8, 9, 10, 12, 14
_TRACE_FAMILY, _TRACE_POLICY = 15, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_NFULA_MARK, _NFULA_IIF, _NFULA_OIF, _NFULA_PAYLOAD, _NFULA_PREFIX = 2, 4, 5, 9, 10
_NFULA_CFG_CMD, _NFULA_CFG_MODE, _NFULA_CFG_QTHRESH = 1, 2, 5
_CMD_BIND = b"\x01"
#: Bytes of a packet that are logged: enough for all headers. Mode 2 copies the packet.
_LOGGED = struct.pack(">IBB", 128, 2, 0)
#: The kernel sends each line at once, where it would collect a hundred, or wait for a second.
_AT_ONCE = struct.pack(">I", 1)
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
#: Bytes of events that may wait to be read: some ten thousand events.
_WAITING = 16 << 20
#: As many datagrams are read before what they have is looked at.
_MOST_AT_ONCE = 1000

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
#: enum nft_trace_types
_TYPES = {1: "policy", 2: "return", 3: "rule"}
#: Codes of verdicts (nf_tables.h, netfilter.h).
_VERDICTS = {-1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return", 0: "drop", 1: "accept"}


class TraceEvent(Record):
    """A packet has met a rule, returned from a chain, or come to its end.

    `family` and `table` are those of nf_tables, or `ip` and `ip6` for legacy tables. A rule of nf_tables has
    a `handle`, one of a legacy table a `number`. `packet` tells packets of nf_tables apart; it is 0 for
    legacy ones.
    `headers` are the packet's from the IP header on, empty if this event does not have them.
    """

    legacy: bool
    family: str
    table: str
    chain: str
    kind: Literal["rule", "policy", "return"]
    handle: int = 0
    number: int = 0
    verdict: str = ""
    to_chain: str = ""
    packet: int = 0
    mark: int = 0
    received_on: str = ""
    sent_to: str = ""
    headers: bytes = b""


class TraceSockets:
    """The sockets that events come from. A context manager. Raises OSError if the kernel refuses them.

    `lost` counts how often events came faster than they were read, so that the kernel dropped some.
    """

    def __init__(self) -> None:
        self._nftables = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._legacy = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.lost = 0

    def __enter__(self) -> Self:
        for each in (self._nftables, self._legacy):
            each.bind((0, 0))
            _enlarge(each)
        self._nftables.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP_NFTRACE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nftables.close()
        self._legacy.close()

    def bind_log(self) -> None:
        """Take the packets that are logged to group 0. Raises NetlinkError if another process has it."""
        for kind, value in (
            (_NFULA_CFG_CMD, _CMD_BIND),
            (_NFULA_CFG_MODE, _LOGGED),
            (_NFULA_CFG_QTHRESH, _AT_ONCE),
        ):
            payload = struct.pack(">BBH", 0, 0, 0) + pack_attribute(kind, value)
            length = _HEADER.size + len(payload)
            self._legacy.send(_HEADER.pack(length, _NFULNL_MSG_CONFIG, _REQUEST_WITH_ACK, 1, 0) + payload)
            code = self._acknowledged()
            if code:
                raise refusal(-code, "take the packets that are logged to group 0")

    def _acknowledged(self) -> int:
        """Return the kernel's answer to a request; packets that were logged before it are not awaited yet."""
        while True:
            for kind, payload in _messages(self._legacy.recv(_DATAGRAM)):
                if kind == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    return int(code)

    def read(self, seconds: float | None) -> list[TraceEvent]:
        """Wait for events, by default for ever, and return all that are there then, of both sockets.

        Those of nf_tables come first. The list is empty if none has come in time.
        """
        select.select([self._nftables, self._legacy], [], [], seconds)
        return [
            *self._all(self._nftables, _nftables_event),
            *self._all(self._legacy, _legacy_event),
        ]

    def _all(
        self, source: socket.socket, event_of: Callable[[int, bytes], TraceEvent | None]
    ) -> Iterator[TraceEvent]:
        """Yield the events that a socket has now."""
        for _ in range(_MOST_AT_ONCE):
            try:
                data = source.recv(_DATAGRAM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            yield from filter(None, (event_of(kind, payload) for kind, payload in _messages(data)))


def _enlarge(connection: socket.socket) -> None:
    """Have a socket keep many events, as many as are allowed where more are not."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _WAITING)
    except OSError:  # a user namespace of its own
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += length + -length % 4


def _nftables_event(kind: int, payload: bytes) -> TraceEvent | None:
    if kind != _NFT_MSG_TRACE:
        return None
    found = parse_attributes(payload[4:])
    verdict = parse_attributes(found[_TRACE_VERDICT]) if _TRACE_VERDICT in found else {}
    code = _signed(verdict[_VERDICT_CODE]) if _VERDICT_CODE in verdict else None
    if _TRACE_POLICY in found:
        code = _number(found, _TRACE_POLICY)
    network = found.get(_TRACE_NETWORK, b"")
    return TraceEvent(
        False,
        _FAMILIES.get(payload[0], str(payload[0])),
        _text(found.get(_TRACE_TABLE, b"")),
        _text(found.get(_TRACE_CHAIN, b"")),
        _TYPES.get(_number(found, _TRACE_TYPE), "rule"),  # type: ignore[arg-type]
        handle=int.from_bytes(found.get(_TRACE_HANDLE, b""), "big"),
        verdict=_VERDICTS.get(code, str(code)) if code is not None else "",
        to_chain=_text(verdict.get(_VERDICT_CHAIN, b"")),
        packet=_number(found, _TRACE_ID),
        mark=_number(found, _TRACE_MARK),
        received_on=_interface(found, _TRACE_IIF),
        sent_to=_interface(found, _TRACE_OIF),
        headers=network + found.get(_TRACE_TRANSPORT, b"") if network else b"",
    )


def _legacy_event(kind: int, payload: bytes) -> TraceEvent | None:
    """Read a log line such as `TRACE: nat:ISTIO_OUTPUT:rule:1 ` (trace_packet in ip_tables.c)."""
    if kind != _NFULNL_MSG_PACKET:
        return None
    found = parse_attributes(payload[4:])
    words = _text(found.get(_NFULA_PREFIX, b"")).split()
    if len(words) < 2 or words[0] != "TRACE:":
        return None
    table, chain, what, number = words[1].rsplit(":", 3) if words[1].count(":") >= 3 else ("", "", "", "0")
    if what not in ("rule", "policy", "return"):
        return None
    return TraceEvent(
        True,
        _FAMILIES.get(payload[0], str(payload[0])),
        table,
        chain,
        what,  # type: ignore[arg-type]  # one of the three, as just compared
        number=int(number),
        mark=_number(found, _NFULA_MARK),
        received_on=_interface(found, _NFULA_IIF),
        sent_to=_interface(found, _NFULA_OIF),
        headers=found.get(_NFULA_PAYLOAD, b""),
    )


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), "big")


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)


def _interface(attributes: Mapping[int, bytes], kind: int) -> str:
    index = _number(attributes, kind)
    if not index:
        return ""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
