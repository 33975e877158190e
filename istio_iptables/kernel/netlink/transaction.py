"""transaction: change nf_tables in one transaction (a batch of nfnetlink): all of it or nothing.

A batch holds the number of the generation that was read (NFNL_BATCH_GENID): if another program has changed
anything in nf_tables since, the kernel refuses it with ERESTART. The kernel works through a batch while it is
being sent, so all of its answers are there when that is done.

Layouts and numbers are those of linux/netfilter/nfnetlink.h and nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import struct

from ...startup.c_modules import socket
from .messages import (
    NETLINK_NETFILTER,
    NetlinkError,
    acknowledgements,
    ask,
    pack_attribute,
    pack_message,
    parse_attributes,
    prepare,
    refusal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    #: Type (of _NAMES), flags, family (of FAMILIES), attributes.
    Message: TypeAlias = tuple[int, int, int, bytes]

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE, NEWSET, DELSET, NEWSETELEM, GETGEN = (
    SUBSYSTEM << 8 | number for number in (0, 2, 3, 5, 6, 8, 9, 11, 12, 16)
)
FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
#: struct nfgenmsg: family, version, resource
_GENERAL = struct.Struct(">BBH")
_BATCH_BEGIN, _BATCH_END, _BATCH_GENID = 0x10, 0x11, 1
_NLM_F_REQUEST, _NLM_F_ACK = 0x01, 0x04
#: The kernel keeps so many bytes of the buffer for itself (netlink_sendmsg in af_netlink.c).
_OVERHEAD = 32
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h
#: How a message is called in an error, and the attribute that has the name of what it is about.
_NAMES = {
    NEWTABLE: ("make the table", 1),
    DELTABLE: ("delete the table", 1),
    NEWCHAIN: ("make the chain", 3),
    DELCHAIN: ("delete the chain", 3),
    NEWRULE: ("add a rule to the chain", 2),
    DELRULE: ("delete the rules of the table", 1),
    NEWSET: ("make the set", 2),
    DELSET: ("delete the set", 2),
    NEWSETELEM: ("fill the set", 2),
}
_TABLE = 1


def generation() -> int:
    """Return the number of the generation of nf_tables, which every transaction increases.

    NFT_MSG_GETGEN. Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    answers = ask("read the generation of nftables", NETLINK_NETFILTER, GETGEN, bytes(4))
    number: int = struct.unpack(">I", parse_attributes(answers[0][4:])[1])[0]
    return number


def following(number: int) -> int:
    """Return the number of the generation that a transaction makes of another one."""
    return (number + 1) & 0xFFFFFFFF or 1


def commit(operation: str, messages: Sequence[Message], number: int) -> None:
    """Do what messages say in one transaction on top of a generation, or raise NetlinkError.

    `operation` says for errors what is being done; the message that the kernel refused is added. Raises
    ERESTART if the generation is another one; then, as after each error that the kernel reports, nothing was
    changed. After ENOBUFS, or an error of the socket, it is not known.
    """
    begin = pack_attribute(_BATCH_GENID, struct.pack(">I", number))
    parts = [_packed(_BATCH_BEGIN, 0, 0, 0, SUBSYSTEM, begin)]
    last = len(messages)
    for sequence, (kind, flags, family, attributes) in enumerate(messages, 1):
        # One acknowledgement tells that all of it was done.
        flags |= _NLM_F_ACK if sequence == last else 0
        parts.append(_packed(kind, flags, sequence, family, 0, attributes))
    parts.append(_packed(_BATCH_END, 0, last + 1, 0, SUBSYSTEM, b""))
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            prepare(connection)
            data = b"".join(parts)
            _make_room(connection, len(data))
            connection.sendto(data, (0, 0))
            _await(operation, connection, messages)
        finally:
            connection.close()
    except NetlinkError:
        raise
    except OSError as error:
        raise refusal(error.errno or errno.EIO, operation) from error


def _packed(kind: int, flags: int, sequence: int, family: int, resource: int, attributes: bytes) -> bytes:
    payload = _GENERAL.pack(family, 0, resource) + attributes
    return pack_message(kind, flags | _NLM_F_REQUEST, sequence, payload)


def _make_room(connection: socket.socket, size: int) -> None:
    """Have the socket take a message of so many bytes, as far as this process may."""
    if size + _OVERHEAD <= connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF):
        return
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
        try:
            connection.setsockopt(socket.SOL_SOCKET, option, size + _OVERHEAD)
            return
        except PermissionError:  # in a user namespace: up to net.core.wmem_max
            continue


def _await(operation: str, connection: socket.socket, messages: Sequence[Message]) -> None:
    """Return when the last message is acknowledged. Raise the first error that there is."""
    lost = False
    while True:
        try:
            found = list(acknowledgements(connection))
        except BlockingIOError:
            raise refusal(errno.ENOBUFS if lost else errno.EIO, f"{operation}: no answer") from None
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # there were more errors than the socket can hold
                raise
            lost = True
            continue
        for sequence, number, detail in found:
            if number:
                raise refusal(number, _about(operation, messages, sequence), detail)
            if sequence == len(messages):
                return


def _about(operation: str, messages: Sequence[Message], sequence: int) -> str:
    """Return what was being done when the kernel refused a message; the first one is the whole batch."""
    if not 0 < sequence <= len(messages):
        return operation
    kind, _, _, attributes = messages[sequence - 1]
    verb, named_by = _NAMES[kind]
    found = parse_attributes(attributes)
    table, name = (os.fsdecode(found.get(key, b"").rstrip(b"\0")) for key in (_TABLE, named_by))
    return f"{operation}: {verb} {name}" + (f" in {table}" if named_by != _TABLE else "")
