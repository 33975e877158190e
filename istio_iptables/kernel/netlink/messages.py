"""messages: the mechanism of netlink(7): attributes, messages, one request and its answer.

Nothing here knows addresses, routes or tables. Every request has a socket of its own.
"""

from __future__ import annotations

import errno
import os
import struct

from ...startup.c_modules import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# netlink.h: protocols, message types and flags, socket options, attributes of an answer
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR = 0x01, 0x04, 0x10
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP = 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_SOL_NETLINK = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 10, 11, 12
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF

#: struct nlmsghdr: length, type, flags, sequence number, port
_MESSAGE_HEADER = struct.Struct("=IHHII")
#: struct nlattr: length, type
_ATTRIBUTE_HEADER = struct.Struct("=HH")

#: One socket carries one request, so one sequence number is enough to recognize its answers.
_SEQUENCE = 1
#: Bytes. The kernel fills at most 32 KiB with one part of a dump, if the reader offers that much.
_BUFFER = 65536
_DUMP_ATTEMPTS = 20


class NetlinkError(OSError):
    """An error of the kernel: `errno` is its number, `strerror` says what was being done.

    `strerror` ends with the kernel's own explanation (NETLINK_EXT_ACK), if it gave one.
    """


def pack_attribute(kind: int, value: bytes) -> bytes:
    """Return a netlink attribute, padded to the four bytes on which the next one has to begin."""
    return _ATTRIBUTE_HEADER.pack(_ATTRIBUTE_HEADER.size + len(value), kind) + value + bytes(-len(value) % 4)


def pack_u32(kind: int, value: int) -> bytes:
    """Return an attribute that is one number of 32 bits."""
    return pack_attribute(kind, struct.pack("=I", value))


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Return the values of consecutive netlink attributes by their types."""
    found = {}
    offset = 0
    while offset < len(data):
        length, kind = _ATTRIBUTE_HEADER.unpack_from(data, offset)
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE_HEADER.size : offset + length]
        offset += length + -length % 4
    return found


def read_u32(attributes: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    """Return the number that an attribute holds, or the default if there is no such attribute."""
    if kind not in attributes:
        return default
    number: int = struct.unpack("=I", attributes[kind])[0]
    return number


def request(operation: str, kind: int, flags: int, payload: bytes) -> None:
    """Have the kernel change something; return when that is done."""
    _exchange(operation, NETLINK_ROUTE, kind, flags | _NLM_F_ACK, payload)


def ask(operation: str, protocol: int, kind: int, payload: bytes) -> list[bytes]:
    """Return the payloads of the kernel's answers to a question about one thing."""
    payloads, _ = _exchange(operation, protocol, kind, _NLM_F_ACK, payload)
    return payloads


def dump(operation: str, protocol: int, kind: int, payload: bytes) -> list[bytes]:
    """Return the payloads of all the kernel's answers to a request for a list."""
    for _ in range(_DUMP_ATTEMPTS):
        payloads, interrupted = _exchange(operation, protocol, kind, _NLM_F_DUMP, payload)
        if not interrupted:
            return payloads
    raise refusal(errno.EINTR, operation, f"the list changed while it was read, {_DUMP_ATTEMPTS} times over")


def pack_message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return a message, padded to the four bytes on which the next one has to begin."""
    length = _MESSAGE_HEADER.size + len(payload)
    return _MESSAGE_HEADER.pack(length, kind, flags, sequence, 0) + payload + bytes(-length % 4)


def acknowledgements(connection: socket.socket) -> Iterator[tuple[int, int, str]]:
    """Yield sequence number, errno (0: none) and explanation of what has been answered, without waiting.

    Raises OSError: BlockingIOError if nothing has been answered, ENOBUFS if an answer was lost.
    """
    data, _, _, sender = connection.recvmsg(_BUFFER, 0, socket.MSG_DONTWAIT)
    offset = 0
    while offset < len(data) and sender[0] == 0:  # from the kernel
        length, kind, flags, sequence, _ = _MESSAGE_HEADER.unpack_from(data, offset)
        if kind == _NLMSG_ERROR:
            payload = data[offset + _MESSAGE_HEADER.size : offset + length]
            yield sequence, *_error(kind, flags, payload)
        offset += length + -length % 4


def _exchange(
    operation: str, protocol: int, kind: int, flags: int, payload: bytes
) -> tuple[list[bytes], bool]:
    """Send one request, on a socket of its own, and read all of the answer.

    Return the payloads, and whether the list changed while the kernel was sending it in parts: then an
    entry may be missing or appear twice.
    """
    message = pack_message(kind, flags | _NLM_F_REQUEST, _SEQUENCE, payload)
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            prepare(connection)
            connection.sendto(message, (0, 0))
            return _answer(operation, connection)
        finally:
            connection.close()
    except NetlinkError:
        raise
    except OSError as error:
        raise refusal(error.errno or errno.EIO, operation) from error


def prepare(connection: socket.socket) -> None:
    """Ask for short errors, errors with an explanation, and lists filtered by the kernel."""
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
        try:
            connection.setsockopt(_SOL_NETLINK, option, 1)
        except OSError:
            return  # They were added in this order: a kernel without this one has no later one.


def _answer(operation: str, connection: socket.socket) -> tuple[list[bytes], bool]:
    payloads: list[bytes] = []
    interrupted = False
    while True:
        data, _, receive_flags, sender = connection.recvmsg(_BUFFER)
        if receive_flags & socket.MSG_TRUNC:
            raise refusal(errno.EMSGSIZE, operation, f"an answer of more than {_BUFFER} bytes")
        if sender[0] != 0:  # from another process, not from the kernel
            continue
        for kind, flags, payload in _messages(data):
            interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                _raise_error(operation, kind, flags, payload)
                return payloads, interrupted
            payloads.append(payload)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and payload of every message in a datagram that answers our request."""
    offset = 0
    while offset < len(data):
        length, kind, flags, sequence, _ = _MESSAGE_HEADER.unpack_from(data, offset)
        if sequence == _SEQUENCE:
            yield kind, flags, data[offset + _MESSAGE_HEADER.size : offset + length]
        offset += length + -length % 4


def _raise_error(operation: str, kind: int, flags: int, payload: bytes) -> None:
    """Raise what the last message of an answer reports, if that is an error."""
    number, detail = _error(kind, flags, payload)
    if number:
        raise refusal(number, operation, detail)


def _error(kind: int, flags: int, payload: bytes) -> tuple[int, str]:
    """Return the errno and the explanation that the last message of an answer reports; 0 is no error."""
    (code,) = struct.unpack_from("=i", payload)
    if code >= 0:
        return 0, ""
    # struct nlmsgerr repeats the header of the request after the error number (NETLINK_CAP_ACK:
    # nothing but the header); the end of a dump is the number alone. The explanation follows.
    start = 4 + _MESSAGE_HEADER.size if kind == _NLMSG_ERROR else 4
    explained = parse_attributes(payload[start:]) if flags & _NLM_F_ACK_TLVS else {}
    return -code, os.fsdecode(explained.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0"))


def refusal(number: int, operation: str, detail: str = "") -> NetlinkError:
    """Return the error, to be raised, for something that the kernel refused."""
    text = f"{operation}: {os.strerror(number)}"
    return NetlinkError(number, f"{text} ({detail})" if detail else text)
