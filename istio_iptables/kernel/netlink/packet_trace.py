"""packet_trace: what the kernel reports of packets that are traced: the rules they meet, as events.

nf_tables reports by the nfnetlink group NFNLGRP_NFTRACE, as `nft monitor trace` reads it. Legacy iptables
logs lines that begin with TRACE to nfnetlink_log, group 0. Both name only rules that match. Layouts and
numbers are those of linux/netfilter/nf_tables.h (enum nft_trace_attributes) and nfnetlink_log.h.
"""

from __future__ import annotations

import os
import select
import struct

from ...startup.c_modules import socket
from ...startup.record import Record
from .messages import NETLINK_NETFILTER, pack_attribute, parse_attributes, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Literal, Self

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_GROUP_NFTRACE = 9
_NFT_MSG_TRACE = 10 << 8 | 17
_NFULNL_MSG_PACKET, _NFULNL_MSG_CONFIG = 4 << 8, 4 << 8 | 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST_WITH_ACK = 0x05

_TRACE_TABLE, _TRACE_CHAIN, _TRACE_HANDLE, _TRACE_TYPE, _TRACE_VERDICT, _TRACE_ID = 1, 2, 3, 4, 5, 6
_TRACE_NETWORK, _TRACE_TRANSPORT, _TRACE_IIF, _TRACE_OIF, _TRACE_MARK = 8, 9, 10, 12, 14
_TRACE_FAMILY, _TRACE_POLICY = 15, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_NFULA_MARK, _NFULA_IIF, _NFULA_OIF, _NFULA_PAYLOAD, _NFULA_PREFIX = 2, 4, 5, 9, 10
_NFULA_CFG_CMD, _NFULA_CFG_MODE = 1, 2
_CMD_BIND = b"\x01"
#: Bytes of a packet that are logged: enough for all headers. Mode 2 copies the packet.
_LOGGED = struct.pack(">IBB", 128, 2, 0)

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
    """The sockets that events come from. A context manager. Raises OSError if the kernel refuses them."""

    def __init__(self) -> None:
        self._nftables = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._legacy = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        self._nftables.bind((0, 0))
        self._nftables.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _GROUP_NFTRACE)
        self._legacy.bind((0, 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._nftables.close()
        self._legacy.close()

    def bind_log(self) -> None:
        """Take the packets that are logged to group 0. Raises NetlinkError if another process has it."""
        for kind, value in ((_NFULA_CFG_CMD, _CMD_BIND), (_NFULA_CFG_MODE, _LOGGED)):
            payload = struct.pack(">BBH", 0, 0, 0) + pack_attribute(kind, value)
            length = _HEADER.size + len(payload)
            self._legacy.send(_HEADER.pack(length, _NFULNL_MSG_CONFIG, _REQUEST_WITH_ACK, 1, 0) + payload)
            answer = self._legacy.recv(65536)
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if code:
                raise refusal(-code, "take the packets that are logged to group 0")

    def events(self, seconds: float | None) -> Iterator[TraceEvent]:
        """Yield the events that come within some time after the last one, legacy ones after the others."""
        while True:
            ready, _, _ = select.select([self._nftables, self._legacy], [], [], seconds)
            if not ready:
                return
            for source, read in ((self._nftables, _nftables_event), (self._legacy, _legacy_event)):
                if source in ready:
                    for kind, payload in _messages(source.recv(65536)):
                        event = read(kind, payload)
                        if event:
                            yield event


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
