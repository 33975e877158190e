"""Entries: typed rules as the kernel's structures, field by field, by the kernel's own declarations."""

from __future__ import annotations

import sys
from ctypes import sizeof
from typing import TYPE_CHECKING

import pytest

from istio_iptables.kernel.xtables.entries import Unsupported, encode
from istio_iptables.rules.model import (
    ACCEPT,
    DROP,
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
    GidOwner,
    InInterface,
    Jump,
    Mark,
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
)
from tests.support.kernel_structures import (
    MATCHES,
    TARGETS,
    Ip6tEntry,
    IptEntry,
    NatIpv4Range,
    NatRange,
    Part,
    XtEntryMatch,
    entry_of,
)

if TYPE_CHECKING:
    from istio_iptables.rules.model import Family


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
