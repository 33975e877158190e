"""layout: where the parts of the kernel's entries are, and its numbers."""

from __future__ import annotations

import errno
import os
import struct

from ....rules.model import ACCEPT, DROP, RETURN, Verdict
from ....startup.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Layout(Record):
    """Where the parts of an entry are, for one family.

    `addresses` packs source, destination and their masks; `head` what follows the interface
    names; `offsets` target_offset and next_offset; `counters` the counters; `size` is all of it.
    """

    version: int
    address_size: int
    head: str
    head_at: int
    offsets_at: int
    counters_at: int
    size: int
    goto_flag: int
    protocol_flag: int


# struct ipt_ip: 4 addresses, 4 interface fields, proto u16, flags u8, invflags u8
IPV4 = Layout(4, 4, "=HBB", 80, 88, 96, 112, 0x02, 0)
# struct ip6t_ip6: the same, but proto u16, tos u8, flags u8, invflags u8 and padding
IPV6 = Layout(6, 16, "=HxBB", 128, 140, 152, 168, 0x04, 0x01)
LAYOUTS: Mapping[str, Layout] = {"ipv4": IPV4, "ipv6": IPV6}

# Flags of `invflags`, the same for both families (ip_tables.h, ip6_tables.h).
NOT_IN, NOT_OUT, NOT_SOURCE, NOT_DESTINATION, NOT_PROTOCOL = 0x01, 0x02, 0x08, 0x10, 0x40
INTERFACE_SIZE = 16

# struct xt_entry_match / xt_entry_target: size u16, name[29], revision u8, data
HEADER = struct.Struct("=H29sB")

OWNER_UID, OWNER_GID = 0x01, 0x02
MULTIPORT_DESTINATION = 1
CONNTRACK_STATE = 0x01
# XT_CONNTRACK_STATE_BIT: IP_CT_ESTABLISHED 0, IP_CT_RELATED 1, IP_CT_NEW 2, after INVALID
STATE_BITS: Mapping[str, int] = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8}
RANGE_HAS_PORTS = 0x02
CONNMARK_SAVE, CONNMARK_RESTORE = 1, 2
VERDICTS: Mapping[str, Verdict] = {verdict.name: verdict for verdict in (ACCEPT, DROP, RETURN)}


class Unsupported(ValueError):
    """A rule with parts that this tool never writes."""


def not_a_table() -> OSError:
    """Return the error for bytes that Linux does not have for a table, as another kernel may answer."""
    return OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def aligned(data: bytes) -> bytes:
    """Pad to a multiple of eight, as XT_ALIGN does."""
    return data + bytes(-len(data) % 8)


def extension(name: str, revision: int, data: bytes) -> bytes:
    """Return struct xt_entry_match or xt_entry_target with its data."""
    body = aligned(data)
    return HEADER.pack(HEADER.size + len(body), name.encode(), revision) + body
