"""nftables_remains: remove what a killed run, or an edit, has left in nf_tables and that does nothing.

iptables-nft makes a table and base chains before it puts rules into them, and never takes them away. Native
rules have their sets made by an earlier transaction.

Removing them is safe for three reasons. A base chain without a rule and with the policy accept decides about
no packet, and iptables-nft makes it anew when a program wants to put a rule there. Only chains of the names,
types, hooks and priorities that iptables-nft gives are taken, from its own tables. And the kernel itself
refuses (EBUSY, ERESTART) if something is in them by now: the transaction holds the number of the generation
that was read (NFNL_BATCH_GENID), and removes nothing along with what it names (NLM_F_NONREC).

Layouts and numbers are those of linux/netfilter/nfnetlink.h and nf_tables.h; the chains are those of
iptables' nft.c (xtables_ipv4).
"""

from __future__ import annotations

import errno
import os
import struct

from ...startup.c_modules import socket
from . import nftables
from .messages import (
    NETLINK_NETFILTER,
    NetlinkError,
    ask,
    dump,
    pack_attribute,
    parse_attributes,
    refusal,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import TypeAlias

    #: Type, number of the hook, priority.
    Form: TypeAlias = tuple[str, int, int]

_BATCH_BEGIN, _BATCH_END, _BATCH_GENID = 0x10, 0x11, 1
_SUBSYSTEM = 10
_DELTABLE, _GETCHAIN, _DELCHAIN, _DELSET, _GETGEN = (_SUBSYSTEM << 8 | number for number in (2, 4, 5, 11, 16))
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_NONREC = 0x01, 0x04, 0x100
_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 1, 3, 4, 5, 6, 7
_SET_NAME = 2
_HOOKNUM, _PRIORITY = 1, 2
_ACCEPT = 1
_FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
_ATTEMPTS = 5
#: struct nlmsghdr, and struct nfgenmsg: family, version, resource
_MESSAGE = struct.Struct("=IHHII")
_GENERAL = struct.Struct(">BBH")

_HOOKS = {"PREROUTING": 0, "INPUT": 1, "FORWARD": 2, "OUTPUT": 3, "POSTROUTING": 4}
#: The base chains that iptables-nft makes in the tables that this tool writes.
_FORMS: Mapping[str, Mapping[str, Form]] = {
    "raw": {name: ("filter", _HOOKS[name], -300) for name in ("PREROUTING", "OUTPUT")},
    "mangle": {
        name: ("route" if name == "OUTPUT" else "filter", number, -150) for name, number in _HOOKS.items()
    },
    "nat": {
        "PREROUTING": ("nat", 0, -100),
        "INPUT": ("nat", 1, 100),
        "OUTPUT": ("nat", 3, -100),
        "POSTROUTING": ("nat", 4, 100),
    },
}


def remove_empty_tables() -> None:
    """Remove tables of iptables-nft that have nothing but empty base chains. Raises NetlinkError."""
    candidates = {(t.family, t.name) for t in nftables.tables() if t.family in ("ip", "ip6")}
    for family, table in sorted(candidates):
        if table in _FORMS:
            _remove(family, table, _FORMS[table], whole=True)


def remove_empty_chains(family: str, table: str, names: Collection[str]) -> None:
    """Remove those of some base chains that are empty, and their table if nothing else is in it.

    Raises NetlinkError.
    """
    _remove(family, table, names, whole=False)


def remove_sets(family: str, table: str, names: Iterable[str], *, with_table: bool) -> None:
    """Remove sets that no rule uses, and with `with_table` their table, in one transaction.

    Raises NetlinkError, and has removed nothing then: EBUSY if one is in use.
    """
    messages = [(_DELSET, 0, family, _name(_TABLE, table) + _name(_SET_NAME, name)) for name in sorted(names)]
    if with_table:
        messages.append((_DELTABLE, _NLM_F_NONREC, family, _name(_TABLE, table)))
    _transaction(messages, _generation())


def _remove(family: str, table: str, names: Collection[str], *, whole: bool) -> None:
    for _ in range(_ATTEMPTS):
        generation = _generation()
        objects = [t.objects for t in nftables.tables() if (t.family, t.name) == (family, table)]
        empty = [name for name in _empty_chains(family, table) if name in names]
        if not objects or (whole and objects[0] != len(empty)):
            return
        messages = [
            (_DELCHAIN, _NLM_F_NONREC, family, _name(_TABLE, table) + _name(_CHAIN_NAME, name))
            for name in empty
        ]
        if objects[0] == len(empty):
            messages.append((_DELTABLE, _NLM_F_NONREC, family, _name(_TABLE, table)))
        if not messages:
            return
        try:
            return _transaction(messages, generation)
        except NetlinkError as error:
            if error.errno != errno.ERESTART:  # the rules are other ones since they were read
                raise


def _empty_chains(family: str, table: str) -> list[str]:
    """Return the base chains of a table that are as iptables-nft makes them, accept, and have no rule."""
    found = []
    for payload in dump("list nftables chains", NETLINK_NETFILTER, _GETCHAIN, bytes(4)):
        attributes = parse_attributes(payload[4:])
        if payload[0] != _FAMILIES[family] or _text(attributes[_TABLE]) != table:
            continue
        name = _text(attributes[_CHAIN_NAME])
        if _CHAIN_HOOK not in attributes or name not in _FORMS.get(table, {}):
            continue
        hook = parse_attributes(attributes[_CHAIN_HOOK])
        (priority,) = struct.unpack(">i", hook[_PRIORITY])
        form = (_text(attributes[_CHAIN_TYPE]), _u32(hook[_HOOKNUM]), priority)
        accepts = _u32(attributes[_CHAIN_POLICY]) == _ACCEPT
        if form == _FORMS[table][name] and accepts and _u32(attributes[_CHAIN_USE]) == 0:
            found.append(name)
    return found


def _generation() -> int:
    answers = ask("read the generation of nftables", NETLINK_NETFILTER, _GETGEN, bytes(4))
    return _u32(parse_attributes(answers[0][4:])[1])


def _transaction(messages: list[tuple[int, int, str, bytes]], generation: int) -> None:
    """Send messages (type, flags, family, attributes) as one transaction of a generation; wait for it."""
    begin = pack_attribute(_BATCH_GENID, struct.pack(">I", generation))
    parts = [_message(_BATCH_BEGIN, 0, 0, 0, _SUBSYSTEM, begin)]
    for number, (kind, flags, family, attributes) in enumerate(messages, 1):
        parts.append(_message(kind, flags | _NLM_F_ACK, number, _FAMILIES[family], 0, attributes))
    parts.append(_message(_BATCH_END, 0, len(messages) + 1, 0, _SUBSYSTEM, b""))
    operation = "remove what is empty from nftables"
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            connection.sendto(b"".join(parts), (0, 0))
            waiting = len(messages)
            while waiting:
                data, sender = connection.recvfrom(65536)
                if sender[0] == 0:
                    waiting -= _acknowledged(operation, data)
        finally:
            connection.close()
    except NetlinkError:
        raise
    except OSError as error:
        raise refusal(error.errno or errno.EIO, operation) from error


def _acknowledged(operation: str, data: bytes) -> int:
    """Return how many messages an answer acknowledges. Raises the error that it reports."""
    offset = count = 0
    while offset < len(data):
        length, kind, _, _, _ = _MESSAGE.unpack_from(data, offset)
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", data, offset + _MESSAGE.size)
            if code:
                raise refusal(-code, operation)
            count += 1
        offset += length + -length % 4
    return count


def _message(kind: int, flags: int, sequence: int, family: int, resource: int, attributes: bytes) -> bytes:
    payload = _GENERAL.pack(family, 0, resource) + attributes
    return _MESSAGE.pack(_MESSAGE.size + len(payload), kind, _NLM_F_REQUEST | flags, sequence, 0) + payload


def _name(kind: int, name: str) -> bytes:
    return pack_attribute(kind, os.fsencode(name) + b"\0")


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _u32(value: bytes) -> int:
    number: int = struct.unpack(">I", value)[0]
    return number
