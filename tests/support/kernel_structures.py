"""kernel_structures: the kernel's declarations of an entry of a table, and an entry taken apart by them.

The structures below are written down from the uapi headers (linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h and xt_*.h) as ctypes, which lays them out as
a C compiler does; the product packs bytes.
"""

from __future__ import annotations

from ctypes import Structure, Union, c_char, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from typing import TYPE_CHECKING, Any

from istio_iptables.kernel.xtables.entries import encode
from istio_iptables.rules.model import NO_COUNTERS, RETURN, Counters, Match, Rule, Target

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


class XtCounters(Structure):
    _fields_ = (("pcnt", c_uint64), ("bcnt", c_uint64))


class IptIp(Structure):
    _fields_ = (
        ("src", c_uint8 * 4),
        ("dst", c_uint8 * 4),
        ("smsk", c_uint8 * 4),
        ("dmsk", c_uint8 * 4),
        ("iniface", c_uint8 * 16),
        ("outiface", c_uint8 * 16),
        ("iniface_mask", c_uint8 * 16),
        ("outiface_mask", c_uint8 * 16),
        ("proto", c_uint16),
        ("flags", c_uint8),
        ("invflags", c_uint8),
    )


class Ip6tIp6(Structure):
    _fields_ = (
        ("src", c_uint8 * 16),
        ("dst", c_uint8 * 16),
        ("smsk", c_uint8 * 16),
        ("dmsk", c_uint8 * 16),
        ("iniface", c_uint8 * 16),
        ("outiface", c_uint8 * 16),
        ("iniface_mask", c_uint8 * 16),
        ("outiface_mask", c_uint8 * 16),
        ("proto", c_uint16),
        ("tos", c_uint8),
        ("flags", c_uint8),
        ("invflags", c_uint8),
    )


class Aligned4(Structure):
    """What makes a structure of bytes and shorts as aligned as the union in_addr is."""

    _fields_ = (("word", c_uint32),)


class IptIpAligned(Union):
    _fields_ = (("ip", IptIp), ("_", Aligned4))


class Ip6tIp6Aligned(Union):
    _fields_ = (("ip", Ip6tIp6), ("_", Aligned4))


class IptEntry(Structure):
    _fields_ = (
        ("u", IptIpAligned),
        ("nfcache", c_uint32),
        ("target_offset", c_uint16),
        ("next_offset", c_uint16),
        ("comefrom", c_uint32),
        ("counters", XtCounters),
    )


class Ip6tEntry(Structure):
    _fields_ = (
        ("u", Ip6tIp6Aligned),
        ("nfcache", c_uint32),
        ("target_offset", c_uint16),
        ("next_offset", c_uint16),
        ("comefrom", c_uint32),
        ("counters", XtCounters),
    )


class XtEntryMatch(Structure):
    """Also struct xt_entry_target."""

    _fields_ = (("match_size", c_uint16), ("name", c_char * 29), ("revision", c_uint8))


class XtTcp(Structure):
    _fields_ = (
        ("spts", c_uint16 * 2),
        ("dpts", c_uint16 * 2),
        ("option", c_uint8),
        ("flg_mask", c_uint8),
        ("flg_cmp", c_uint8),
        ("invflags", c_uint8),
    )


class XtUdp(Structure):
    _fields_ = (("spts", c_uint16 * 2), ("dpts", c_uint16 * 2), ("invflags", c_uint8))


class XtOwner(Structure):
    _fields_ = (
        ("uid_min", c_uint32),
        ("uid_max", c_uint32),
        ("gid_min", c_uint32),
        ("gid_max", c_uint32),
        ("match", c_uint8),
        ("invert", c_uint8),
    )


class XtMultiport(Structure):
    _fields_ = (
        ("flags", c_uint8),
        ("count", c_uint8),
        ("ports", c_uint16 * 15),
        ("pflags", c_uint8 * 15),
        ("invert", c_uint8),
    )


class XtMark(Structure):
    """Also struct xt_connmark_mtinfo1."""

    _fields_ = (("mark", c_uint32), ("mask", c_uint32), ("invert", c_uint8))


class XtConntrack(Structure):
    _fields_ = (
        ("addresses", (c_uint32 * 4) * 8),
        ("expires_min", c_uint32),
        ("expires_max", c_uint32),
        ("l4proto", c_uint16),
        ("ports", c_uint16 * 4),
        ("match_flags", c_uint16),
        ("invert_flags", c_uint16),
        ("state_mask", c_uint16),
        ("status_mask", c_uint16),
        ("high_ports", c_uint16 * 4),
    )


class XtComment(Structure):
    _fields_ = (("comment", c_char * 256),)


class XtMarkTarget(Structure):
    _fields_ = (("mark", c_uint32), ("mask", c_uint32))


class XtConnmarkTarget(Structure):
    _fields_ = (
        ("ctmark", c_uint32),
        ("ctmask", c_uint32),
        ("nfmask", c_uint32),
        ("shift_dir", c_uint8),
        ("shift_bits", c_uint8),
        ("mode", c_uint8),
    )


class XtTproxy(Structure):
    _fields_ = (
        ("mark_mask", c_uint32),
        ("mark_value", c_uint32),
        ("laddr", c_uint32 * 4),
        ("lport", c_uint8 * 2),  # big endian
    )


class XtCt(Structure):
    _fields_ = (
        ("flags", c_uint16),
        ("zone", c_uint16),
        ("ct_events", c_uint32),
        ("exp_events", c_uint32),
        ("helper", c_char * 16),
        ("timeout", c_char * 32),
        ("ct", c_uint64),  # a pointer, aligned to eight
    )


class NatIpv4Range(Structure):
    _fields_ = (
        ("rangesize", c_uint32),
        ("flags", c_uint32),
        ("min_ip", c_uint32),
        ("max_ip", c_uint32),
        ("min", c_uint8 * 2),  # big endian
        ("max", c_uint8 * 2),
    )


class NatRange(Structure):
    _fields_ = (
        ("flags", c_uint32),
        ("min_addr", c_uint32 * 4),
        ("max_addr", c_uint32 * 4),
        ("min_proto", c_uint8 * 2),  # big endian
        ("max_proto", c_uint8 * 2),
    )


class Verdict4(Structure):
    _fields_ = (("verdict", c_uint32),)


ENTRIES: dict[str, Any] = {"ipv4": IptEntry, "ipv6": Ip6tEntry}
MATCHES: dict[tuple[str, int], Any] = {
    ("tcp", 0): XtTcp,
    ("udp", 0): XtUdp,
    ("owner", 1): XtOwner,
    ("multiport", 1): XtMultiport,
    ("mark", 1): XtMark,
    ("connmark", 1): XtMark,
    ("conntrack", 3): XtConntrack,
    ("comment", 0): XtComment,
}

TARGETS: dict[tuple[str, int], Any] = {
    ("MARK", 2): XtMarkTarget,
    ("CONNMARK", 2): XtConnmarkTarget,
    ("TPROXY", 1): XtTproxy,
    ("CT", 2): XtCt,
}


def aligned(size: int) -> int:
    """XT_ALIGN."""
    return (size + 7) // 8 * 8


class Part:
    """A match or target of an entry: its name, its revision, and its data as the kernel declares it."""

    def __init__(self, data: bytes, kinds: dict[tuple[str, int], Any]) -> None:
        header = XtEntryMatch.from_buffer_copy(data)
        self.size = header.match_size
        self.name = header.name.decode()
        kind = kinds.get((self.name, header.revision), Verdict4)
        assert self.size == sizeof(XtEntryMatch) + aligned(sizeof(kind))
        self.data = kind.from_buffer_copy(data[sizeof(XtEntryMatch) :])
        beyond = data[sizeof(XtEntryMatch) + sizeof(kind) : self.size]
        assert not any(beyond), "padding is zero"


class Entry:
    """An entry, taken apart as the kernel does it."""

    def __init__(self, data: bytes, family: str) -> None:
        kind = ENTRIES[family]
        self.entry = kind.from_buffer_copy(data)
        self.ip = self.entry.u.ip
        assert self.entry.target_offset % 8 == self.entry.next_offset % 8 == 0
        assert self.entry.next_offset == len(data)
        at, self.matches = sizeof(kind), list[Part]()
        while at < self.entry.target_offset:
            self.matches.append(Part(data[at:], MATCHES))
            at += self.matches[-1].size
        assert at == self.entry.target_offset
        redirect = NatIpv4Range if family == "ipv4" else NatRange
        self.target = Part(data[at:], {**TARGETS, ("REDIRECT", 0): redirect})
        assert at + self.target.size == len(data)


def entry_of(
    *matches: Match, target: Target = RETURN, family: Family = "ipv4", counters: Counters = NO_COUNTERS
) -> Entry:
    return Entry(encode(Rule(matches, target, counters=counters), family), family)
