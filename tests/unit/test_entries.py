"""Entries: typed rules as the kernel's structures and back, held against the kernel's own declarations.

The structures below are written down from the uapi headers (linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h, linux/netfilter/x_tables.h and xt_*.h) as ctypes, which lays them out as
a C compiler does; the product packs bytes.
"""

from __future__ import annotations

import sys
from ctypes import Structure, Union, c_char, c_uint8, c_uint16, c_uint32, c_uint64, sizeof
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from istio_iptables.api import build, configure
from istio_iptables.kernel.xtables.entries import Unsupported, decode, encode
from istio_iptables.rules.istio import TAG
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
    NO_COUNTERS,
    RETURN,
    Cidr,
    Comment,
    ConnectionMark,
    ConntrackState,
    ConntrackZone,
    Counters,
    Destination,
    DestinationPort,
    DestinationPorts,
    ForeignMatch,
    ForeignTarget,
    GidOwner,
    InInterface,
    Jump,
    Mark,
    Match,
    OutInterface,
    PortRange,
    Redirect,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Source,
    SourcePort,
    Target,
    TProxy,
    Transport,
    UidOwner,
    Verdict,
)
from istio_iptables.rules.ownership import is_owned_rule, is_tagged
from istio_iptables.settings.facts import Facts
from tests.support import strategies

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family

# --- the kernel's declarations ----------------------------------------------------------------


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


def test_sizes_of_the_kernel_s_structures():
    assert (sizeof(IptEntry), sizeof(Ip6tEntry), sizeof(XtEntryMatch)) == (112, 168, 32)
    sizes = {
        kind.__name__: sizeof(kind) for kind in (*MATCHES.values(), *TARGETS.values(), NatIpv4Range, NatRange)
    }
    assert sizes == {
        "XtTcp": 12,
        "XtUdp": 10,
        "XtOwner": 20,
        "XtMultiport": 48,
        "XtMark": 12,
        "XtConntrack": 164,
        "XtComment": 256,
        "XtMarkTarget": 8,
        "XtConnmarkTarget": 16,
        "XtTproxy": 28,
        "XtCt": 72,
        "NatIpv4Range": 20,
        "NatRange": 40,
    }


FAMILIES = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
TCP, UDP = Transport("tcp"), Transport("udp")


# --- what is written, field by field ----------------------------------------------------------


@FAMILIES
def test_an_empty_rule(family: Family):
    found = entry_of(family=family)
    assert not any(bytes(found.ip))
    assert found.matches == []
    assert found.target.name == "RETURN"
    assert found.entry.counters.pcnt == found.entry.nfcache == found.entry.comefrom == 0


@FAMILIES
def test_counters(family: Family):
    counters = entry_of(family=family, counters=Counters(2**40, 7)).entry.counters
    assert (counters.pcnt, counters.bcnt) == (2**40, 7)


@FAMILIES
@pytest.mark.parametrize(
    ("name", "raw", "ones"),
    [
        ("lo", b"lo", 3),
        ("eth+", b"eth+", 3),
        ("a", b"a", 2),
        ("a+", b"a+", 1),
        ("fifteen-letters", b"fifteen-letters", 16),
        ("fourteen-lette+", b"fourteen-lette+", 14),
        ("é", "é".encode(), 3),
    ],
)
def test_interface_masks(family: Family, name: str, raw: bytes, ones: int):
    for match, prefix, other, flag in (
        (InInterface, "in", "out", 0x01),
        (OutInterface, "out", "in", 0x02),
    ):
        for negated in (False, True):
            ip = entry_of(match(name, negated), family=family).ip
            assert bytes(getattr(ip, f"{prefix}iface")) == raw.ljust(16, b"\0")
            assert bytes(getattr(ip, f"{prefix}iface_mask")) == (b"\xff" * ones).ljust(16, b"\0")
            assert not any(getattr(ip, f"{other}iface"))
            assert not any(getattr(ip, f"{other}iface_mask"))
            assert ip.invflags == (flag if negated else 0)


def test_addresses():
    ten = Cidr(4, 0x0A010000, 16)
    ip = entry_of(Source(ten), Destination(Cidr(4, 0x7F000001, 32), True)).ip
    assert (bytes(ip.src), bytes(ip.smsk)) == (b"\x0a\x01\0\0", b"\xff\xff\0\0")
    assert (bytes(ip.dst), bytes(ip.dmsk)) == (b"\x7f\0\0\x01", b"\xff\xff\xff\xff")
    assert ip.invflags == 0x10
    ip = entry_of(Source(Cidr(6, 0xFD << 120, 9), True), Destination(Cidr(6, 1, 128)), family="ipv6").ip
    assert (bytes(ip.src), bytes(ip.smsk)) == (b"\xfd" + bytes(15), b"\xff\x80" + bytes(14))
    assert (bytes(ip.dst), bytes(ip.dmsk)) == (bytes(15) + b"\x01", b"\xff" * 16)
    assert ip.invflags == 0x08


@FAMILIES
def test_transport(family: Family):
    for match, number in ((TCP, 6), (UDP, 17)):
        ip = entry_of(match, family=family).ip
        assert (ip.proto, ip.flags, ip.invflags) == (number, 0x01 if family == "ipv6" else 0, 0)
    assert entry_of(Transport("tcp", True), family=family).ip.invflags == 0x40


@FAMILIES
def test_ports(family: Family):
    (ports,) = entry_of(TCP, DestinationPort(PortRange(80, 90), True), family=family).matches
    assert ports.name == "tcp"
    assert (list(ports.data.spts), list(ports.data.dpts), ports.data.invflags) == ([0, 65535], [80, 90], 2)
    (ports,) = entry_of(UDP, SourcePort(PortRange(53, 53), True), family=family).matches
    assert ports.name == "udp"
    assert (list(ports.data.spts), list(ports.data.dpts), ports.data.invflags) == ([53, 53], [0, 65535], 1)
    (ports,) = entry_of(
        TCP, SourcePort(PortRange(1, 2)), DestinationPort(PortRange(3, 4)), family=family
    ).matches
    assert (list(ports.data.spts), list(ports.data.dpts), ports.data.invflags) == ([1, 2], [3, 4], 0)
    assert ports.data.option == ports.data.flg_mask == ports.data.flg_cmp == 0


def test_ports_come_first_among_the_matches():
    found = entry_of(UidOwner(1), TCP, DestinationPort(PortRange(80, 80)), Comment("x"))
    assert [part.name for part in found.matches] == ["tcp", "owner", "comment"]


def test_multiport():
    (part,) = entry_of(
        TCP, DestinationPorts((PortRange(53, 53), PortRange(80, 90), PortRange(15008, 15008)), True)
    ).matches
    assert (part.data.flags, part.data.count, part.data.invert) == (1, 4, 1)
    assert list(part.data.ports) == [53, 80, 90, 15008] + [0] * 11
    assert list(part.data.pflags) == [0, 1, 0, 0] + [0] * 11
    most = DestinationPorts(tuple(PortRange(n, n) for n in range(1, 16)))
    assert list(entry_of(TCP, most).matches[0].data.ports) == list(range(1, 16))
    with pytest.raises(Unsupported, match="15"):
        encode(Rule((TCP, DestinationPorts((*most.ports[1:], PortRange(1, 2)))), RETURN), "ipv4")


@FAMILIES
def test_owners(family: Family):
    uid, gid = entry_of(UidOwner(1337, True), GidOwner(2**32 - 2), family=family).matches
    data = uid.data
    assert (data.uid_min, data.uid_max, data.gid_min, data.gid_max) == (1337, 1337, 0, 0)
    assert (data.match, data.invert) == (1, 1)
    data = gid.data
    assert (data.uid_min, data.uid_max, data.gid_min, data.gid_max) == (0, 0, 2**32 - 2, 2**32 - 2)
    assert (data.match, data.invert) == (2, 0)


@FAMILIES
def test_marks(family: Family):
    mark, connmark = entry_of(Mark(1337), ConnectionMark(1, 0xFF, True), family=family).matches
    assert (mark.name, mark.data.mark, mark.data.mask, mark.data.invert) == ("mark", 1337, 2**32 - 1, 0)
    assert (connmark.name, connmark.data.mark, connmark.data.mask, connmark.data.invert) == (
        "connmark",
        1,
        255,
        1,
    )


@pytest.mark.parametrize(
    ("states", "bits"),
    [(["INVALID"], 1), (["ESTABLISHED"], 2), (["RELATED"], 4), (["NEW"], 8), (["RELATED", "ESTABLISHED"], 6)],
)
def test_conntrack_states(states: list[str], bits: int):
    for negated in (False, True):
        (part,) = entry_of(ConntrackState(frozenset(states), negated)).matches
        data = part.data
        assert (data.match_flags, data.invert_flags, data.state_mask) == (1, int(negated), bits)
        assert data.status_mask == data.expires_min == data.expires_max == data.l4proto == 0
        assert not any(bytes(data)[:146])


@FAMILIES
def test_comments(family: Family):
    (part,) = entry_of(Comment("é: " + "x" * 200), family=family).matches
    assert part.data.comment.decode() == "é: " + "x" * 200


@FAMILIES
def test_targets(family: Family):
    def target(of: Target) -> Part:
        return entry_of(target=of, family=family).target

    redirect = target(Redirect(15001))
    assert redirect.data.flags == 2
    ports = ("min", "max") if family == "ipv4" else ("min_proto", "max_proto")
    assert [bytes(getattr(redirect.data, name)) for name in ports] == [(15001).to_bytes(2, "big")] * 2
    assert family == "ipv6" or redirect.data.rangesize == 1
    mark = target(SetMark(1338, 0xFF)).data
    assert (mark.mark, mark.mask) == (1338, 0xFF)
    for kind, mode in ((SaveMark(), 1), (RestoreMark(), 2)):
        data = target(kind).data
        assert (data.ctmark, data.ctmask, data.nfmask, data.mode) == (0, 2**32 - 1, 2**32 - 1, mode)
        assert data.shift_dir == data.shift_bits == 0
    data = target(TProxy(15006, 1337)).data
    assert (data.mark_mask, data.mark_value, bytes(data.lport)) == (
        2**32 - 1,
        1337,
        (15006).to_bytes(2, "big"),
    )
    assert not any(data.laddr)
    data = target(ConntrackZone(2)).data
    assert (data.flags, data.zone) == (0, 2)
    assert not any(bytes(data)[4:])
    for verdict in (ACCEPT, DROP, RETURN):
        assert target(verdict).name == verdict.name
    assert target(Jump("ISTIO_IN_REDIRECT")).name == "ISTIO_IN_REDIRECT"


@FAMILIES
def test_goto_is_a_flag(family: Family):
    flags = entry_of(target=Jump("ISTIO_OUTPUT", goto=True), family=family).ip.flags
    assert flags == (0x02 if family == "ipv4" else 0x04)
    assert entry_of(target=Jump("ISTIO_OUTPUT"), family=family).ip.flags == 0
    assert entry_of(TCP, target=Jump("ISTIO_OUTPUT", goto=True), family="ipv6").ip.flags == 0x05


@pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")
def test_two_entries_byte_by_byte():
    # -A OUTPUT -o lo -p tcp -m owner --uid-owner 1337 -j RETURN
    rule = Rule((OutInterface("lo"), TCP, UidOwner(1337)), RETURN)
    owner = "3800" + b"owner".ljust(29, b"\0").hex() + "01" + "39050000" * 2 + "00" * 8 + "0100" + "00" * 6
    target = "2800" + b"RETURN".ljust(29, b"\0").hex() + "00" + "00" * 8
    interfaces = "00" * 16 + b"lo".ljust(16, b"\0").hex() + "00" * 16 + "ffffff" + "00" * 13
    assert encode(rule, "ipv4").hex() == (
        "00" * 16
        + interfaces
        + "060000"
        + "00"
        + "00" * 4
        + "a800"
        + "d000"
        + "00" * 4
        + "00" * 16
        + owner
        + target
    )
    assert encode(rule, "ipv6").hex() == (
        "00" * 64 + interfaces + "060000" + "01" + "00" + "00" * 3 + "00" * 4 + "e000" + "0801" + "00" * 8
        + "00" * 16 + owner + target
    )  # fmt: skip


# --- there and back ---------------------------------------------------------------------------

CHAINS = frozenset({"ISTIO_OUTPUT", "ISTIO_IN_REDIRECT", "A_CHAIN_OF_TWENTY_NINE_LETTE"})


def target_name(target: Target) -> str:
    """What libiptc calls the target of an entry."""
    if isinstance(target, Jump):
        return target.chain
    if isinstance(target, Verdict):
        return target.name
    names: dict[type, str] = {Redirect: "REDIRECT", SetMark: "MARK", TProxy: "TPROXY", ConntrackZone: "CT"}
    return names.get(type(target), "CONNMARK")


def there_and_back(rule: Rule, family: Family) -> Rule:
    return decode(encode(rule, family), target_name(rule.target), family, CHAINS)


def words32() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


def port_ranges() -> st.SearchStrategy[PortRange]:
    pairs = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted)
    return pairs.filter(lambda pair: pair != [0, 65535]).map(lambda pair: PortRange(*pair))


@st.composite
def networks(draw: st.DrawFn, family: Family) -> Cidr:
    bits = 32 if family == "ipv4" else 128
    prefix = draw(st.integers(1, bits))
    return Cidr(4 if bits == 32 else 6, draw(st.integers(0, 2**prefix - 1)) << (bits - prefix), prefix)


@st.composite
def rules(draw: st.DrawFn, family: Family) -> Rule:
    """Any rule of parts that this tool writes."""
    negated = st.booleans()
    matches: list[Match] = []
    names = strategies.interfaces().filter(lambda name: name != "+")
    for kind in (InInterface, OutInterface):
        if draw(st.booleans()):
            matches.append(kind(draw(names), draw(negated)))
    for place in (Source, Destination):
        if draw(st.booleans()):
            matches.append(place(draw(networks(family)), draw(negated)))
    if draw(st.booleans()):
        matches.append(Transport(draw(st.sampled_from(["tcp", "udp"])), draw(negated)))
        for side in (SourcePort, DestinationPort):
            if draw(st.booleans()):
                matches.append(side(draw(port_ranges()), draw(negated)))
    states = st.frozensets(st.sampled_from(["INVALID", "NEW", "RELATED", "ESTABLISHED"]), min_size=1)
    text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)
    marks = st.tuples(words32(), words32(), negated)
    others: list[st.SearchStrategy[Match]] = [
        st.builds(UidOwner, words32(), negated),
        st.builds(GidOwner, words32(), negated),
        marks.map(lambda values: Mark(*values)),
        marks.map(lambda values: ConnectionMark(*values)),
        st.builds(ConntrackState, states, negated),
        st.builds(Comment, text),
        st.builds(DestinationPorts, st.lists(port_ranges(), min_size=1, max_size=7).map(tuple), negated),
    ]
    matches += draw(st.lists(st.one_of(others), max_size=4, unique=True))
    targets: list[st.SearchStrategy[Target]] = [
        st.sampled_from([ACCEPT, DROP, RETURN, SaveMark(), RestoreMark()]),
        st.builds(Jump, st.sampled_from(sorted(CHAINS)), st.booleans()),
        st.builds(Redirect, st.integers(0, 65535)),
        st.builds(SetMark, words32(), words32()),
        st.builds(TProxy, st.integers(0, 65535), words32()),
        st.builds(ConntrackZone, st.integers(0, 65535)),
    ]
    counters = st.builds(Counters, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    return Rule(tuple(draw(st.permutations(matches))), draw(st.one_of(targets)), counters=draw(counters))


@FAMILIES
@settings(max_examples=settings().max_examples * 2)
@given(data=st.data())
def test_any_rule_survives(family: Family, data: st.DataObject):
    rule = data.draw(rules(family))
    found = there_and_back(rule, family)
    assert found == rule
    assert found.counters == rule.counters
    assert encode(found, family) == encode(rule.replace(matches=found.matches), family)


@FAMILIES
def test_all_ports(family: Family):
    every = PortRange(0, 65535)
    never = Rule((TCP, SourcePort(every, True), DestinationPort(every, True)), RETURN)
    assert there_and_back(never, family) == never
    always = Rule((TCP, SourcePort(every), DestinationPort(every)), RETURN)
    assert there_and_back(always, family) == Rule((TCP,), RETURN), "which is no match at all"


@FAMILIES
@settings(max_examples=settings().max_examples // 2)
@given(data=st.data())
def test_every_entry_is_one_that_the_kernel_would_take(family: Family, data: st.DataObject):
    rule = data.draw(rules(family))
    found = Entry(encode(rule, family), family)
    assert found.target.name == target_name(rule.target)
    ports = any(isinstance(match, (SourcePort, DestinationPort)) for match in rule.matches)
    assert (found.matches[:1] != [] and found.matches[0].name in ("tcp", "udp")) == ports
    inverting = sum(
        {InInterface: 1, OutInterface: 2, Source: 8, Destination: 16, Transport: 64}.get(type(match), 0)
        for match in rule.matches
        if getattr(match, "negated", False)
    )
    assert found.ip.invflags == inverting


@given(strategies.settings())
@example({"istio-exclude-interfaces": "eth1,fourteen-lette+", "rule-comments": "true"})
def test_every_rule_of_the_policy_survives(chosen: dict[str, str]):
    wanted = build(configure(chosen, environment=Facts(False, True, ("10.0.0.1", "fd00::1"))))
    for table, _, rule in wanted.rules():
        names = frozenset(chain.name for chain in table.chains)
        found = decode(encode(rule, table.family), target_name(rule.target), table.family, names)
        assert found == rule
        assert is_owned_rule(found) == is_owned_rule(rule)


# --- what others wrote ------------------------------------------------------------------------


def patched(rule: Rule, at: int, value: bytes, family: Family = "ipv4") -> bytes:
    entry = bytearray(encode(rule, family))
    entry[at : at + len(value)] = value
    return bytes(entry)


PLAIN = Rule((TCP, DestinationPort(PortRange(80, 80)), Comment(TAG)), RETURN)
HEADER, FIRST = sizeof(XtEntryMatch), sizeof(IptEntry)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (80, b"\x01\x00"),  # -p icmp
        (82, b"\x01"),  # -f
        (13, b"\x00\xff\x00"),  # a mask with gaps, as part of --dst… and --src
        (FIRST + HEADER + 8, b"\x01"),  # --tcp-option
        (FIRST + HEADER + 9, b"\x3f\x02"),  # --tcp-flags
        (FIRST + 2, b"sctp\0"),  # a match that this tool does not know
        (FIRST + 31, b"\x07"),  # a revision that it does not know
    ],
)
def test_foreign_matches_are_kept_apart_from_their_comments(at: int, value: bytes):
    rule = PLAIN.replace(matches=(Destination(Cidr(4, 0x0A000000, 8)), *PLAIN.matches))
    entry = patched(rule, at, value)
    found = decode(entry, "RETURN", "ipv4", CHAINS)
    foreign, comment = found.matches
    assert isinstance(foreign, ForeignMatch)
    assert comment == Comment(TAG)
    assert is_tagged(found)
    assert found.target == RETURN
    assert decode(entry, "RETURN", "ipv4", CHAINS) == found
    assert decode(encode(rule, "ipv4"), "RETURN", "ipv4", CHAINS) != found
    assert encode(found, "ipv4") == entry, "it is put back as it was"


def test_foreign_flags_of_ipv6():
    found = decode(patched(PLAIN, 131, b"\x03", "ipv6"), "RETURN", "ipv6", CHAINS)  # --tos beside -p
    assert isinstance(found.matches[0], ForeignMatch)


@pytest.mark.parametrize(
    ("match", "at", "value"),
    [
        (UidOwner(5), 4, b"\x09"),  # --uid-owner 5-9
        (UidOwner(5), 16, b"\x03"),  # --uid-owner with --gid-owner
        (UidOwner(5), 16, b"\x04"),  # --socket-exists
        (DestinationPorts((PortRange(1, 1),)), 0, b"\x00"),  # --sports
        (ConntrackState(frozenset({"NEW"})), 146, b"\x03\x00"),  # --ctproto too
        (ConntrackState(frozenset({"NEW"})), 150, b"\x48\x00"),  # --ctstate NEW,SNAT or so
    ],
    ids=str,
)
def test_matches_used_as_this_tool_does_not(match: Match, at: int, value: bytes):
    found = decode(patched(Rule((match,), RETURN), FIRST + HEADER + at, value), "RETURN", "ipv4", CHAINS)
    assert [type(part) for part in found.matches] == [ForeignMatch]


@pytest.mark.parametrize(
    ("target", "at", "value"),
    [
        (Redirect(80), 4, b"\x06"),  # --random
        (Redirect(80), 18, b"\x00\x51"),  # --to-ports 80-81
        (Redirect(80), 0, b"\x02"),  # two ranges
        (SaveMark(), 4, b"\x00"),  # --ctmask
        (SaveMark(), 8, b"\x00"),  # --nfmask
        (SaveMark(), 0, b"\x01"),
        (SaveMark(), 13, b"\x01"),  # --left-shift-mark
        (SaveMark(), 14, b"\x00"),  # --set-mark
        (TProxy(1, 2), 0, b"\x00"),  # a mask
        (TProxy(1, 2), 8, b"\x0a"),  # --on-ip
        (ConntrackZone(1), 0, b"\x01"),  # --notrack
        (ConntrackZone(1), 4, b"\x01"),  # --ctevents
        (ConntrackZone(1), 12, b"ftp"),  # --helper
        (SetMark(1), -1, b"\x07"),  # another revision
    ],
    ids=str,
)
def test_targets_used_as_this_tool_does_not(target: Target, at: int, value: bytes):
    entry = patched(Rule((), target), FIRST + HEADER + at, value)
    found = decode(entry, target_name(target), "ipv4", CHAINS)
    assert found == Rule((), ForeignTarget(("-j", target_name(target))))
    assert encode(found, "ipv4") == entry, "it is put back as it was"


@FAMILIES
@pytest.mark.parametrize("target", [ACCEPT, Jump("ISTIO_OUTPUT"), Jump("ISTIO_OUTPUT", goto=True)], ids=str)
def test_foreign_rules_are_put_back_with_the_name_of_their_target(family: Family, target: Target):
    # What the kernel holds of a verdict or jump has no name, but an offset.
    rule = Rule((Source(Cidr(4, 1, 32) if family == "ipv4" else Cidr(6, 1, 128)), UidOwner(5)), target)
    written = bytearray(encode(rule, family))
    at = sizeof(ENTRIES[family]) + HEADER + 4  # --uid-owner 5-9
    written[at] = 9
    held = bytes(written).replace(target_name(target).encode(), bytes(len(target_name(target))))
    found = decode(held, target_name(target), family, CHAINS)
    assert isinstance(found.matches[0], ForeignMatch)
    assert found.target == target
    assert encode(found, family) == bytes(written)


def test_unknown_targets():
    assert decode(encode(PLAIN, "ipv4"), "LOG", "ipv4", CHAINS).target == ForeignTarget(("-j", "LOG"))
    assert decode(encode(PLAIN, "ipv4"), "", "ipv4", CHAINS).target == ForeignTarget(())
    assert decode(encode(PLAIN, "ipv4"), "LOG", "ipv4", frozenset({"LOG"})).target == Jump("LOG")


def test_what_the_kernel_leaves_behind_a_name_does_not_count():
    rule = Rule((InInterface("eth0"), Comment(TAG)), RETURN)
    entry = patched(rule, 16 + 5, b"garbage")
    assert decode(entry, "RETURN", "ipv4", CHAINS) == rule
    entry = patched(rule, FIRST + HEADER + len(TAG) + 1, b"garbage")
    assert decode(entry, "RETURN", "ipv4", CHAINS) == rule


def test_wildcards_without_their_plus():
    # nft's translation of `eth+` keeps the name without the sign and a shorter mask
    entry = patched(Rule((InInterface("eth+"),), RETURN), 16, b"eth\0")
    assert decode(entry, "RETURN", "ipv4", CHAINS).matches == (InInterface("eth+"),)


@pytest.mark.parametrize(
    "rule",
    [
        Rule((ForeignMatch(("-m", "set")),), RETURN),
        Rule((), ForeignTarget(("-j", "LOG"))),
        Rule((), ForeignTarget(())),
        Rule((DestinationPort(PortRange(80, 80)),), RETURN),
    ],
    ids=str,
)
def test_what_cannot_be_written(rule: Rule):
    with pytest.raises(Unsupported):
        encode(rule, "ipv4")
