"""entries: a typed rule as the kernel's own structure (struct ipt_entry, ip6t_entry), and back.

Pure functions over bytes. Building entries here, instead of through python-iptables' Rule and
Match objects, is what keeps ten thousand rules fast and what keeps that library's traps out:
interface masks and protocol flags are set as the kernel wants them, host bits are cleared, and no
value reaches the C parsers of the extensions, which end the process when they dislike one.

The layouts are those of the kernel's uapi headers: linux/netfilter_ipv4/ip_tables.h,
linux/netfilter_ipv6/ip6_tables.h and linux/netfilter/xt_*.h.
"""

from __future__ import annotations

import struct

from ..record import Record
from ..ruleset import (
    ACCEPT,
    DROP,
    RETURN,
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
    Network,
    OutInterface,
    PortRange,
    Redirect,
    RestoreMark,
    Rule,
    SaveMark,
    SetMark,
    Source,
    SourcePort,
    TProxy,
    Transport,
    UidOwner,
    Verdict,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ..ruleset import Family, Match, Target


class _Layout(Record):
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
_IPV4 = _Layout(4, 4, "=HBB", 80, 88, 96, 112, 0x02, 0)
# struct ip6t_ip6: the same, but proto u16, tos u8, flags u8, invflags u8 and padding
_IPV6 = _Layout(6, 16, "=HxBB", 128, 140, 152, 168, 0x04, 0x01)
_LAYOUTS: Mapping[str, _Layout] = {"ipv4": _IPV4, "ipv6": _IPV6}

# Flags of `invflags`, the same for both families (ip_tables.h, ip6_tables.h).
_NOT_IN, _NOT_OUT, _NOT_SOURCE, _NOT_DESTINATION, _NOT_PROTOCOL = 0x01, 0x02, 0x08, 0x10, 0x40
_PROTOCOLS: Mapping[str, int] = {"tcp": 6, "udp": 17}
_INTERFACE_SIZE = 16

# struct xt_entry_match / xt_entry_target: size u16, name[29], revision u8, data
_HEADER = struct.Struct("=H29sB")

_OWNER_UID, _OWNER_GID = 0x01, 0x02
_MULTIPORT_DESTINATION = 1
_CONNTRACK_STATE = 0x01
# XT_CONNTRACK_STATE_BIT: IP_CT_ESTABLISHED 0, IP_CT_RELATED 1, IP_CT_NEW 2, after INVALID
_STATE_BITS: Mapping[str, int] = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8}
_RANGE_HAS_PORTS = 0x02
_CONNMARK_SAVE, _CONNMARK_RESTORE = 1, 2
_FULL_MASK = 0xFFFFFFFF
_VERDICTS: Mapping[str, Verdict] = {verdict.name: verdict for verdict in (ACCEPT, DROP, RETURN)}


class Unsupported(ValueError):
    """A rule with parts that this tool never writes."""


def _aligned(data: bytes) -> bytes:
    """Pad to a multiple of eight, as XT_ALIGN does."""
    return data + bytes(-len(data) % 8)


def _extension(name: str, revision: int, data: bytes) -> bytes:
    body = _aligned(data)
    return _HEADER.pack(_HEADER.size + len(body), name.encode(), revision) + body


# --- writing --------------------------------------------------------------------------------


def encode(rule: Rule, family: Family) -> bytes:
    """Return the entry for a rule. Raises Unsupported for parts that this tool never writes.

    The target of a jump is named, not resolved: libiptc looks the chain up when it is added.
    """
    layout = _LAYOUTS[family]
    entry = _Entry(layout)
    for match in rule.matches:
        entry.add(match)
    extensions = b"".join(entry.extensions())
    target = _encode_target(rule.target, family)
    if isinstance(rule.target, Jump) and rule.target.goto:
        entry.flags |= layout.goto_flag
    target_at = layout.size + len(extensions)
    head = bytearray(entry.head())
    struct.pack_into("=HH", head, layout.offsets_at, target_at, target_at + len(target))
    struct.pack_into("=QQ", head, layout.counters_at, rule.counters.packets, rule.counters.bytes)
    return bytes(head) + extensions + target


class _Entry:
    """The parts of an entry that matches fill in, before they are laid out."""

    def __init__(self, layout: _Layout) -> None:
        nothing = bytes(layout.address_size)
        no_interface = bytes(_INTERFACE_SIZE)
        self.layout = layout
        self.source = self.source_mask = self.destination = self.destination_mask = nothing
        self.interfaces = [no_interface, no_interface]  # in, out
        self.interface_masks = [no_interface, no_interface]
        self.protocol = self.flags = self.inverted = 0
        self.port_match: dict[str, SourcePort | DestinationPort] = {}
        self.others: list[bytes] = []

    def add(self, match: Match) -> None:
        """Fill in one match."""
        if isinstance(match, InInterface):
            self._interface(0, match.name)
            self.inverted |= _NOT_IN if match.negated else 0
        elif isinstance(match, OutInterface):
            self._interface(1, match.name)
            self.inverted |= _NOT_OUT if match.negated else 0
        elif isinstance(match, Source):
            self.source, self.source_mask = match.network.packed, match.network.packed_mask
            self.inverted |= _NOT_SOURCE if match.negated else 0
        elif isinstance(match, Destination):
            self.destination, self.destination_mask = match.network.packed, match.network.packed_mask
            self.inverted |= _NOT_DESTINATION if match.negated else 0
        elif isinstance(match, Transport):
            self.protocol = _PROTOCOLS[match.protocol]
            self.flags |= self.layout.protocol_flag
            self.inverted |= _NOT_PROTOCOL if match.negated else 0
        elif isinstance(match, (SourcePort, DestinationPort)):
            self.port_match[type(match).__name__] = match
        elif type(match) in _ENCODE_MATCH:
            self.others.append(_ENCODE_MATCH[type(match)](match))
        else:
            raise Unsupported(f"cannot write the match {match}")

    def _interface(self, direction: int, name: str) -> None:
        """Fill in an interface and its mask: all ones over the name and its NUL, or over a prefix."""
        raw = name.encode()
        wildcard = raw.endswith(b"+")
        compared = len(raw) - 1 if wildcard else len(raw) + 1
        self.interfaces[direction] = raw.ljust(_INTERFACE_SIZE, b"\0")
        self.interface_masks[direction] = (b"\xff" * compared).ljust(_INTERFACE_SIZE, b"\0")

    def extensions(self) -> list[bytes]:
        """Return the match extensions; ports first, as iptables has them next to -p."""
        return (
            [_ports_match(self.protocol, self.port_match), *self.others] if self.port_match else self.others
        )

    def head(self) -> bytes:
        """Return the entry's fixed part, offsets and counters still empty."""
        fixed = b"".join(
            (
                self.source,
                self.destination,
                self.source_mask,
                self.destination_mask,
                *self.interfaces,
                *self.interface_masks,
                struct.pack(self.layout.head, self.protocol, self.flags, self.inverted),
            )
        )
        return fixed.ljust(self.layout.size, b"\0")


def _ports_match(protocol: int, matches: Mapping[str, SourcePort | DestinationPort]) -> bytes:
    """Return struct xt_tcp or xt_udp: source and destination range, (flags of tcp,) inversions."""
    every = PortRange(0, 65535)
    source, destination = matches.get("SourcePort"), matches.get("DestinationPort")
    ranges = [match.ports if match else every for match in (source, destination)]
    numbers = [number for ports in ranges for number in (ports.first, ports.last)]
    inverted = (source is not None and source.negated) | (
        (destination is not None and destination.negated) << 1
    )
    if protocol == _PROTOCOLS["tcp"]:
        return _extension("tcp", 0, struct.pack("=4H4B", *numbers, 0, 0, 0, inverted))
    if protocol == _PROTOCOLS["udp"]:
        return _extension("udp", 0, struct.pack("=4HBx", *numbers, inverted))
    raise Unsupported("a port match needs -p tcp or -p udp")


def _owner(uid: int, gid: int, which: int, negated: bool) -> bytes:
    """Return struct xt_owner_match_info: UID and GID ranges, which are looked at, which inverted."""
    data = struct.pack("=4I2B", uid, uid, gid, gid, which, which if negated else 0)
    return _extension("owner", 1, data)


def _multiport(match: DestinationPorts) -> bytes:
    """Return struct xt_multiport_v1: flags, count, ports[15], pflags[15], invert."""
    numbers: list[int] = []
    is_range_start: list[int] = []
    for ports in match.ports:
        numbers.append(ports.first)
        is_range_start.append(int(ports.first != ports.last))
        if ports.first != ports.last:
            numbers.append(ports.last)
            is_range_start.append(0)
    if len(numbers) > 15:
        raise Unsupported("multiport takes 15 ports, a range counting two")
    padding = [0] * (15 - len(numbers))
    data = struct.pack(
        "=BB15H15BB",
        _MULTIPORT_DESTINATION,
        len(numbers),
        *numbers,
        *padding,
        *is_range_start,
        *padding,
        match.negated,
    )
    return _extension("multiport", 1, data)


def _conntrack(match: ConntrackState) -> bytes:
    """Return struct xt_conntrack_mtinfo3 in which only the state is looked at."""
    state = sum(_STATE_BITS[name] for name in match.states)
    inverted = _CONNTRACK_STATE if match.negated else 0
    flags = struct.pack("=4H", _CONNTRACK_STATE, inverted, state, 0)
    return _extension("conntrack", 3, (bytes(146) + flags).ljust(164, b"\0"))


_ENCODE_MATCH: Mapping[type, Callable[[Any], bytes]] = {
    UidOwner: lambda m: _owner(m.uid, 0, _OWNER_UID, m.negated),
    GidOwner: lambda m: _owner(0, m.gid, _OWNER_GID, m.negated),
    DestinationPorts: _multiport,
    Mark: lambda m: _extension("mark", 1, struct.pack("=IIB", m.value, m.mask, m.negated)),
    ConnectionMark: lambda m: _extension("connmark", 1, struct.pack("=IIB", m.value, m.mask, m.negated)),
    ConntrackState: _conntrack,
    Comment: lambda m: _extension("comment", 0, m.text.encode()[:255].ljust(256, b"\0")),
}


def _encode_target(target: Target, family: Family) -> bytes:
    if isinstance(target, (Verdict, Jump)):
        # libiptc turns the name into the verdict, or the offset of the chain, when it commits.
        return _extension(target.name if isinstance(target, Verdict) else target.chain, 0, bytes(4))
    if isinstance(target, Redirect):
        return _redirect(target.port, family)
    if isinstance(target, SetMark):
        return _extension("MARK", 2, struct.pack("=II", target.value, target.mask))
    if isinstance(target, SaveMark):
        return _connmark(_CONNMARK_SAVE)
    if isinstance(target, RestoreMark):
        return _connmark(_CONNMARK_RESTORE)
    if isinstance(target, TProxy):
        # struct xt_tproxy_target_info_v1: mark mask, mark value, local address (none), port
        data = struct.pack("=II16x", _FULL_MASK, target.mark) + struct.pack(">H2x", target.port)
        return _extension("TPROXY", 1, data)
    if isinstance(target, ConntrackZone):
        # struct xt_ct_target_info_v1: flags, zone, events, helper, timeout, the kernel's pointer
        return _extension("CT", 2, struct.pack("=HH", 0, target.zone).ljust(72, b"\0"))
    raise Unsupported(f"cannot write the target {target}")


def _redirect(port: int, family: Family) -> bytes:
    ports = struct.pack(">HH", port, port)
    if family == "ipv4":  # struct nf_nat_ipv4_multi_range_compat with one range
        return _extension("REDIRECT", 0, struct.pack("=II8x", 1, _RANGE_HAS_PORTS) + ports)
    return _extension("REDIRECT", 0, struct.pack("=I32x", _RANGE_HAS_PORTS) + ports)  # nf_nat_range


def _connmark(mode: int) -> bytes:
    """Return struct xt_connmark_tginfo2: ctmark, ctmask, nfmask, two for shifting, mode."""
    return _extension("CONNMARK", 2, struct.pack("=III2xB", 0, _FULL_MASK, _FULL_MASK, mode))


# --- reading --------------------------------------------------------------------------------


def decode(entry: bytes, target_name: str, family: Family, chains: frozenset[str]) -> Rule:
    """Return the rule that an entry means.

    `target_name` is what libiptc calls the target: a verdict, a chain (one of `chains`), an
    extension or nothing. A part that this tool never writes makes all matches one ForeignMatch
    (comments apart), and the target a ForeignTarget.
    """
    layout = _LAYOUTS[family]
    target_at, _ = struct.unpack_from("=HH", entry, layout.offsets_at)
    counters = Counters(*struct.unpack_from("=QQ", entry, layout.counters_at))
    extensions = _split(entry[layout.size : target_at])
    target = _decode_target(entry[target_at:], target_name, layout, entry, chains)
    try:
        matches = (*_decode_head(entry, layout), *_decode_extensions(extensions))
    except Unsupported:
        matches = _foreign(entry, layout, extensions)
    return Rule(matches, target, counters=counters)


def _split(data: bytes) -> list[tuple[str, int, bytes]]:
    """Split match extensions into name, revision and data."""
    found = []
    while data:
        size, name, revision = _HEADER.unpack_from(data)
        found.append((_text(name), revision, data[_HEADER.size : size]))
        data = data[size:]
    return found


def _text(field: bytes) -> str:
    """Return a C string; the kernel leaves what it likes behind the NUL."""
    return field.split(b"\0")[0].decode(errors="replace")


def _decode_head(entry: bytes, layout: _Layout) -> list[Match]:
    size = layout.address_size
    source, destination, source_mask, destination_mask = (entry[i * size : (i + 1) * size] for i in range(4))
    protocol, flags, inverted = struct.unpack_from(layout.head, entry, layout.head_at)
    if flags & ~(layout.goto_flag | layout.protocol_flag):
        raise Unsupported("flags")
    at = 4 * size
    names = entry[at : at + 2 * _INTERFACE_SIZE]
    masks = entry[at + 2 * _INTERFACE_SIZE : at + 4 * _INTERFACE_SIZE]
    matches: list[Match] = []
    if any(source_mask):
        matches.append(Source(_network(source, source_mask, layout), bool(inverted & _NOT_SOURCE)))
    if any(destination_mask):
        network = _network(destination, destination_mask, layout)
        matches.append(Destination(network, bool(inverted & _NOT_DESTINATION)))
    for kind, flag, start in ((InInterface, _NOT_IN, 0), (OutInterface, _NOT_OUT, _INTERFACE_SIZE)):
        name = _interface_name(names[start:][:_INTERFACE_SIZE], masks[start:][:_INTERFACE_SIZE])
        if name:
            matches.append(kind(name, bool(inverted & flag)))
    if protocol:
        words: dict[int, Any] = {number: name for name, number in _PROTOCOLS.items()}
        if protocol not in words:
            raise Unsupported("protocol")
        matches.append(Transport(words[protocol], bool(inverted & _NOT_PROTOCOL)))
    return matches


def _network(address: bytes, mask: bytes, layout: _Layout) -> Network:
    bits = f"{int.from_bytes(mask, 'big'):0{8 * len(mask)}b}"
    prefix = bits.find("0") if "0" in bits else len(bits)
    if "1" in bits[prefix:]:
        raise Unsupported("a mask with gaps")
    return Network(layout.version, int.from_bytes(address, "big"), prefix)


def _interface_name(name: bytes, mask: bytes) -> str:
    """Return a name from name and mask: without the NUL in the mask it is a wildcard."""
    if not any(mask):
        return ""
    text = name.split(b"\0")[0]
    compared = len(mask.rstrip(b"\0"))
    exact = compared > len(text) or len(text) == _INTERFACE_SIZE
    return text.decode(errors="replace") if exact else text[:compared].decode(errors="replace") + "+"


def _decode_extensions(extensions: list[tuple[str, int, bytes]]) -> list[Match]:
    matches: list[Match] = []
    for name, revision, data in extensions:
        reader = _DECODE_MATCH.get((name, revision))
        if reader is None:
            raise Unsupported(name)
        matches += reader(data)
    return matches


def _read_ports(data: bytes, inverted: int) -> list[Match]:
    low_source, high_source, low, high = struct.unpack_from("=4H", data)
    matches: list[Match] = []
    if (low_source, high_source) != (0, 65535) or inverted & 1:
        matches.append(SourcePort(PortRange(low_source, high_source), bool(inverted & 1)))
    if (low, high) != (0, 65535) or inverted & 2:
        matches.append(DestinationPort(PortRange(low, high), bool(inverted & 2)))
    return matches


def _read_tcp(data: bytes) -> list[Match]:
    option, mask, compared, inverted = struct.unpack_from("=4B", data, 8)
    if option or mask or compared or inverted & ~3:
        raise Unsupported("tcp flags or options")
    return _read_ports(data, inverted)


def _read_udp(data: bytes) -> list[Match]:
    return _read_ports(data, data[8])


def _read_owner(data: bytes) -> list[Match]:
    uid, uid_last, gid, gid_last, which, inverted = struct.unpack_from("=4I2B", data)
    if which == _OWNER_UID and uid == uid_last:
        return [UidOwner(uid, bool(inverted & which))]
    if which == _OWNER_GID and gid == gid_last:
        return [GidOwner(gid, bool(inverted & which))]
    raise Unsupported("owner")


def _read_multiport(data: bytes) -> list[Match]:
    kind, count = data[0], data[1]
    numbers = struct.unpack_from("=15H", data, 2)[:count]
    is_range_start = data[32 : 32 + count]
    if kind != _MULTIPORT_DESTINATION:
        raise Unsupported("multiport")
    ports, at = [], 0
    while at < count:
        width = 2 if is_range_start[at] else 1
        ports.append(PortRange(numbers[at], numbers[at + width - 1]))
        at += width
    return [DestinationPorts(tuple(ports), bool(data[47]))]


def _read_conntrack(data: bytes) -> list[Match]:
    flags, inverted, state, _status = struct.unpack_from("=4H", data, 146)
    names = frozenset(name for name, bit in _STATE_BITS.items() if state & bit)
    if flags != _CONNTRACK_STATE or sum(_STATE_BITS[name] for name in names) != state:
        raise Unsupported("conntrack")
    return [ConntrackState(names, bool(inverted & _CONNTRACK_STATE))]


def _read_comment(data: bytes) -> list[Match]:
    return [Comment(_text(data))]


def _read_marks(kind: type[Mark] | type[ConnectionMark]) -> Callable[[bytes], list[Match]]:
    def read(data: bytes) -> list[Match]:
        value, mask, negated = struct.unpack_from("=IIB", data)
        return [kind(value, mask, bool(negated))]

    return read


_DECODE_MATCH: Mapping[tuple[str, int], Callable[[bytes], list[Match]]] = {
    ("tcp", 0): _read_tcp,
    ("udp", 0): _read_udp,
    ("owner", 1): _read_owner,
    ("multiport", 1): _read_multiport,
    ("mark", 1): _read_marks(Mark),
    ("connmark", 1): _read_marks(ConnectionMark),
    ("conntrack", 3): _read_conntrack,
    ("comment", 0): _read_comment,
}


def _decode_target(target: bytes, name: str, layout: _Layout, entry: bytes, chains: frozenset[str]) -> Target:
    size, _, revision = _HEADER.unpack_from(target)
    data = target[_HEADER.size : size]
    if name in chains:
        _protocol, flags, _inverted = struct.unpack_from(layout.head, entry, layout.head_at)
        return Jump(name, bool(flags & layout.goto_flag))
    if name in _VERDICTS:
        return _VERDICTS[name]
    reader = _DECODE_TARGET.get((name, revision))
    found = reader(data, layout) if reader else None
    return found if found is not None else ForeignTarget(("-j", name) if name else ())


def _read_redirect(data: bytes, layout: _Layout) -> Target | None:
    if layout.version == 4:
        size, flags = struct.unpack_from("=II", data)
        first, last = struct.unpack_from(">HH", data, 16)
        plain = size == 1 and flags == _RANGE_HAS_PORTS
    else:
        (flags,) = struct.unpack_from("=I", data)
        first, last = struct.unpack_from(">HH", data, 36)
        plain = flags == _RANGE_HAS_PORTS
    return Redirect(first) if plain and first == last else None


def _read_connmark(data: bytes, _layout: _Layout) -> Target | None:
    *masks, shift_direction, shift_bits, mode = struct.unpack_from("=III3B", data)
    if masks != [0, _FULL_MASK, _FULL_MASK] or shift_direction or shift_bits:
        return None
    return {_CONNMARK_SAVE: SaveMark(), _CONNMARK_RESTORE: RestoreMark()}.get(mode)


def _read_tproxy(data: bytes, _layout: _Layout) -> Target | None:
    mask, value = struct.unpack_from("=II", data)
    (port,) = struct.unpack_from(">H", data, 24)
    return TProxy(port, value) if mask == _FULL_MASK and not any(data[8:24]) else None


def _read_ct(data: bytes, _layout: _Layout) -> Target | None:
    flags, zone = struct.unpack_from("=HH", data)
    return ConntrackZone(zone) if not flags and not any(data[4:60]) else None


_DECODE_TARGET: Mapping[tuple[str, int], Callable[[bytes, _Layout], Target | None]] = {
    ("REDIRECT", 0): _read_redirect,
    ("MARK", 2): lambda data, _: SetMark(*struct.unpack_from("=II", data)),
    ("CONNMARK", 2): _read_connmark,
    ("TPROXY", 1): _read_tproxy,
    ("CT", 2): _read_ct,
}


def _foreign(entry: bytes, layout: _Layout, extensions: list[tuple[str, int, bytes]]) -> tuple[Match, ...]:
    """Return matches that equal only those of the same entry: bytes as words, comments apart."""
    comments = [match for name, _, data in extensions if name == "comment" for match in _read_comment(data)]
    others = [f"{name}={data.hex()}" for name, _, data in extensions if name != "comment"]
    return (ForeignMatch((entry[: layout.offsets_at].hex(), *others)), *comments)
