"""encode: a typed rule as an entry."""

from __future__ import annotations

import struct

from ....rules import model
from ....rules.model import PortRange, Rule
from .layout import (
    CONNMARK_RESTORE,
    CONNMARK_SAVE,
    CONNTRACK_STATE,
    INTERFACE_SIZE,
    LAYOUTS,
    MULTIPORT_DESTINATION,
    NOT_DESTINATION,
    NOT_IN,
    NOT_OUT,
    NOT_PROTOCOL,
    NOT_SOURCE,
    OWNER_GID,
    OWNER_UID,
    RANGE_HAS_PORTS,
    STATE_BITS,
    Layout,
    Unsupported,
    extension,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ....rules.model import Cidr, Family, Match, Target


def encode(rule: Rule, family: Family) -> bytes:
    """Return the entry for a rule. Raises Unsupported for parts that this tool never writes.

    The target of a jump is named, not resolved: libiptc looks the chain up when it is added. A rule that
    was read with parts that this tool never writes is written as it was read.
    """
    return Encoder(family).encode(rule)


class Encoder:
    """Encodes rules one after the other.

    The part that a rule has in common with the previous one is not encoded again: the rules of a list differ
    in an address, which is the beginning of an entry, and a list may have twenty thousand members.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._layout = LAYOUTS[family]
        self._any = bytes(self._layout.address_size)
        self._masks: dict[int, bytes] = {}
        self._shape: list[object] = []
        self._rest = b""

    def encode(self, rule: Rule) -> bytes:
        """Return the entry for a rule: see `encode`."""
        if rule.raw:
            return _as_read(rule, self._layout)
        source = source_mask = destination = destination_mask = self._any
        shape: list[object] = [rule.target, rule.counters]
        for match in rule.matches:
            if type(match) is model.Destination:
                destination, destination_mask = self._packed(match.cidr)
                shape += (model.Destination, match.negated)
            elif type(match) is model.Source:
                source, source_mask = self._packed(match.cidr)
                shape += (model.Source, match.negated)
            else:
                shape.append(match)
        if shape != self._shape:
            self._rest = _without_addresses(rule, self._family)
            self._shape = shape
        return b"".join((source, destination, source_mask, destination_mask, self._rest))

    def _packed(self, cidr: Cidr) -> tuple[bytes, bytes]:
        """Return the address and the mask of a CIDR in network byte order."""
        mask = self._masks.get(cidr.prefix)
        if mask is None:
            mask = self._masks[cidr.prefix] = cidr.packed_mask
        return cidr.address.to_bytes(self._layout.address_size, "big"), mask


def _without_addresses(rule: Rule, family: Family) -> bytes:
    """Return the entry for a rule without its addresses, which come first."""
    layout = LAYOUTS[family]
    entry = _Entry(layout)
    for match in rule.matches:
        entry.add(match)
    extensions = b"".join(entry.extensions())
    target = _encode_target(rule.target, family)
    if isinstance(rule.target, model.Jump) and rule.target.goto:
        entry.flags |= layout.goto_flag
    target_at = layout.size + len(extensions)
    head = bytearray(4 * layout.address_size) + entry.head()
    head += bytes(layout.size - len(head))
    struct.pack_into("=HH", head, layout.offsets_at, target_at, target_at + len(target))
    struct.pack_into("=QQ", head, layout.counters_at, rule.counters.packets, rule.counters.bytes)
    return bytes(head[4 * layout.address_size :]) + extensions + target


def _as_read(rule: Rule, layout: Layout) -> bytes:
    """Return the entry that a rule was read from. The kernel's has offsets where libiptc requires a name."""
    target_at, _ = struct.unpack_from("=HH", rule.raw, layout.offsets_at)
    if isinstance(rule.target, (model.Verdict, model.Jump)):
        return rule.raw[:target_at] + _encode_target(rule.target, "ipv4")
    return rule.raw


class _Entry:
    """The parts of an entry, except its addresses, that matches fill in before they are packed."""

    def __init__(self, layout: Layout) -> None:
        no_interface = bytes(INTERFACE_SIZE)
        self.layout = layout
        self.interfaces = [no_interface, no_interface]  # in, out
        self.interface_masks = [no_interface, no_interface]
        self.protocol = self.flags = self.inverted = 0
        self.port_match: dict[str, model.SourcePort | model.DestinationPort] = {}
        self.others: list[bytes] = []

    def add(self, match: Match) -> None:
        """Fill in one match."""
        if isinstance(match, model.InInterface):
            self._interface(0, match.name)
            self.inverted |= NOT_IN if match.negated else 0
        elif isinstance(match, model.OutInterface):
            self._interface(1, match.name)
            self.inverted |= NOT_OUT if match.negated else 0
        elif isinstance(match, model.Source):
            self.inverted |= NOT_SOURCE if match.negated else 0
        elif isinstance(match, model.Destination):
            self.inverted |= NOT_DESTINATION if match.negated else 0
        elif isinstance(match, model.Transport):
            self.protocol = model.PROTOCOL_NUMBERS[match.protocol]
            self.flags |= self.layout.protocol_flag
            self.inverted |= NOT_PROTOCOL if match.negated else 0
        elif isinstance(match, (model.SourcePort, model.DestinationPort)):
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
        self.interfaces[direction] = raw.ljust(INTERFACE_SIZE, b"\0")
        self.interface_masks[direction] = (b"\xff" * compared).ljust(INTERFACE_SIZE, b"\0")

    def extensions(self) -> list[bytes]:
        """Return the match extensions; ports first, as iptables places them next to -p."""
        return (
            [_ports_match(self.protocol, self.port_match), *self.others] if self.port_match else self.others
        )

    def head(self) -> bytes:
        """Return the part of the entry between the addresses and the offsets."""
        numbers = struct.pack(self.layout.head, self.protocol, self.flags, self.inverted)
        return b"".join((*self.interfaces, *self.interface_masks, numbers))


def _ports_match(protocol: int, matches: Mapping[str, model.SourcePort | model.DestinationPort]) -> bytes:
    """Return struct xt_tcp or xt_udp: source and destination range, (flags of tcp,) inversions."""
    every = PortRange(0, 65535)
    source, destination = matches.get("SourcePort"), matches.get("DestinationPort")
    ranges = [match.ports if match else every for match in (source, destination)]
    numbers = [number for ports in ranges for number in (ports.first, ports.last)]
    inverted = (source is not None and source.negated) | (
        (destination is not None and destination.negated) << 1
    )
    if protocol == model.PROTOCOL_NUMBERS["tcp"]:
        return extension("tcp", 0, struct.pack("=4H4B", *numbers, 0, 0, 0, inverted))
    if protocol == model.PROTOCOL_NUMBERS["udp"]:
        return extension("udp", 0, struct.pack("=4HBx", *numbers, inverted))
    raise Unsupported("a port match needs -p tcp or -p udp")


def _owner(uid: int, gid: int, which: int, negated: bool) -> bytes:
    """Return struct xt_owner_match_info: UID and GID ranges, which of them count, which are inverted."""
    data = struct.pack("=4I2B", uid, uid, gid, gid, which, which if negated else 0)
    return extension("owner", 1, data)


def _multiport(match: model.DestinationPorts) -> bytes:
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
        MULTIPORT_DESTINATION,
        len(numbers),
        *numbers,
        *padding,
        *is_range_start,
        *padding,
        match.negated,
    )
    return extension("multiport", 1, data)


def _conntrack(match: model.ConntrackState) -> bytes:
    """Return struct xt_conntrack_mtinfo3 in which only the state counts."""
    state = sum(STATE_BITS[name] for name in match.states)
    inverted = CONNTRACK_STATE if match.negated else 0
    flags = struct.pack("=4H", CONNTRACK_STATE, inverted, state, 0)
    return extension("conntrack", 3, (bytes(146) + flags).ljust(164, b"\0"))


_ENCODE_MATCH: Mapping[type, Callable[[Any], bytes]] = {
    model.UidOwner: lambda m: _owner(m.uid, 0, OWNER_UID, m.negated),
    model.GidOwner: lambda m: _owner(0, m.gid, OWNER_GID, m.negated),
    model.DestinationPorts: _multiport,
    model.Mark: lambda m: extension("mark", 1, struct.pack("=IIB", m.value, m.mask, m.negated)),
    model.ConnectionMark: lambda m: extension("connmark", 1, struct.pack("=IIB", m.value, m.mask, m.negated)),
    model.ConntrackState: _conntrack,
    model.Comment: lambda m: extension("comment", 0, m.text.encode()[:255].ljust(256, b"\0")),
}


def _encode_target(target: Target, family: Family) -> bytes:
    if isinstance(target, (model.Verdict, model.Jump)):
        # libiptc turns the name into the verdict, or the offset of the chain, when it commits.
        return extension(target.name if isinstance(target, model.Verdict) else target.chain, 0, bytes(4))
    if isinstance(target, model.Redirect):
        return _redirect(target.port, family)
    if isinstance(target, model.SetMark):
        return extension("MARK", 2, struct.pack("=II", target.value, target.mask))
    if isinstance(target, model.SaveMark):
        return _connmark(CONNMARK_SAVE)
    if isinstance(target, model.RestoreMark):
        return _connmark(CONNMARK_RESTORE)
    if isinstance(target, model.TProxy):
        # struct xt_tproxy_target_info_v1: mark mask, mark value, local address (none), port
        data = struct.pack("=II16x", model.FULL_MASK, target.mark) + struct.pack(">H2x", target.port)
        return extension("TPROXY", 1, data)
    if isinstance(target, model.ConntrackZone):
        # struct xt_ct_target_info_v1: flags, zone, events, helper, timeout, the kernel's pointer
        return extension("CT", 2, struct.pack("=HH", 0, target.zone).ljust(72, b"\0"))
    raise Unsupported(f"cannot write the target {target}")


def _redirect(port: int, family: Family) -> bytes:
    ports = struct.pack(">HH", port, port)
    if family == "ipv4":  # struct nf_nat_ipv4_multi_range_compat with one range
        return extension("REDIRECT", 0, struct.pack("=II8x", 1, RANGE_HAS_PORTS) + ports)
    return extension("REDIRECT", 0, struct.pack("=I32x", RANGE_HAS_PORTS) + ports)  # nf_nat_range


def _connmark(mode: int) -> bytes:
    """Return struct xt_connmark_tginfo2: ctmark, ctmask, nfmask, two for shifting, mode."""
    return extension("CONNMARK", 2, struct.pack("=III2xB", 0, model.FULL_MASK, model.FULL_MASK, mode))
