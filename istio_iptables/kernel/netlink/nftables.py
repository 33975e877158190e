"""nftables: which tables and chains nf_tables has, as `nft list tables` shows them. They are only read here.

Layouts and numbers are those of linux/netfilter/nf_tables.h and nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import struct

from ...startup.record import Record
from .messages import NETLINK_NETFILTER, NetlinkError, dump, parse_attributes

# netfilter/nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE
_GETTABLE = 10 << 8 | 1
_GETCHAIN = 10 << 8 | 4
_GETRULE = 10 << 8 | 7
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_HOOK, _NFTA_CHAIN_TYPE = 1, 3, 4, 7
_NFTA_TABLE_NAME, _NFTA_TABLE_FLAGS, _NFTA_TABLE_USE = 1, 2, 3
_OF_PEOPLE = {6, 7}  # NFTA_TABLE_USERDATA, NFTA_TABLE_OWNER
_NFTA_RULE_TABLE = 1
#: struct nfgenmsg: family (any), version, resource
_HEADER = struct.pack(">BBH", 0, 0, 0)
#: The kernel has no netfilter sockets, or they do not know nftables.
_NO_NFTABLES = (errno.EPROTONOSUPPORT, errno.EINVAL)
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class TableInfo(Record):
    """An nftables table: family ("ip", "ip6", "inet", ...), name, and how many objects are in it.

    `is_plain`: it has no flag (dormant, owner), no comment and no owner.
    """

    family: str
    name: str
    objects: int
    is_plain: bool = True


def tables() -> tuple[TableInfo, ...]:
    """Return every nftables table, in the kernel's order.

    A kernel without nftables has none. Like `nft list tables`; NFT_MSG_GETTABLE in
    linux/netfilter/nf_tables.h. Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    return tuple([_table(payload) for payload in _dump("list nftables tables", _GETTABLE)])


def exist() -> bool:
    """Tell whether the kernel has nftables. If they are a module, the kernel loads it to answer.

    Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    try:
        dump("list nftables tables", NETLINK_NETFILTER, _GETTABLE, _HEADER)
    except NetlinkError as error:
        if error.errno in _NO_NFTABLES:
            return False
        raise
    return True


def chains(family: str, table: str) -> tuple[str, ...]:
    """Return the names of the chains of one nftables table; `family` as in TableInfo.

    Like `nft list chains`; NFT_MSG_GETCHAIN. Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    names = []
    for payload in _dump("list nftables chains", _GETCHAIN):
        attributes = parse_attributes(payload[4:])
        if (_family(payload), _text(attributes[_NFTA_CHAIN_TABLE])) == (family, table):
            names.append(_text(attributes[_NFTA_CHAIN_NAME]))
    return tuple(names)


def nat_tables() -> tuple[tuple[str, str], ...]:
    """Return family and name of each nftables table that has a nat base chain, those of iptables too.

    Like `nft list chains`; NFT_MSG_GETCHAIN. Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    found = {}
    for payload in _dump("list nftables chains", _GETCHAIN):
        attributes = parse_attributes(payload[4:])
        if _NFTA_CHAIN_HOOK in attributes and _text(attributes.get(_NFTA_CHAIN_TYPE, b"")) == "nat":
            found[_family(payload), _text(attributes[_NFTA_CHAIN_TABLE])] = True
    return tuple(found)


def tables_with_rules() -> tuple[tuple[str, str], ...]:
    """Return family and name of each nftables table that has a rule, in the kernel's order.

    Like `nft list ruleset`; NFT_MSG_GETRULE. Raises NetlinkError: EPERM without CAP_NET_ADMIN.
    """
    found = {}
    for payload in _dump("list nftables rules", _GETRULE):
        found[_family(payload), _text(parse_attributes(payload[4:])[_NFTA_RULE_TABLE])] = True
    return tuple(found)


def _dump(operation: str, kind: int) -> list[bytes]:
    try:
        return dump(operation, NETLINK_NETFILTER, kind, _HEADER)
    except NetlinkError as error:
        if error.errno in _NO_NFTABLES:
            return []
        raise


def _family(payload: bytes) -> str:
    return _FAMILIES.get(payload[0], str(payload[0]))


def _text(value: bytes) -> str:
    return os.fsdecode(value.rstrip(b"\0"))


def _table(payload: bytes) -> TableInfo:
    attributes = parse_attributes(payload[4:])
    (objects,) = struct.unpack(">I", attributes[_NFTA_TABLE_USE])  # nf_tables is big endian throughout
    is_plain = not any(attributes.get(_NFTA_TABLE_FLAGS, b"")) and not attributes.keys() & _OF_PEOPLE
    return TableInfo(_family(payload), _text(attributes[_NFTA_TABLE_NAME]), objects, is_plain)
