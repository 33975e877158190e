"""decode: an entry as a typed rule. What this tool never writes stays bytes."""

from __future__ import annotations

import struct

from ....rules import model
from ....rules.model import Cidr, Counters, PortRange, Rule
from .layout import (
    CONNMARK_RESTORE,
    CONNMARK_SAVE,
    CONNTRACK_STATE,
    HEADER,
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
    VERDICTS,
    Layout,
    Unsupported,
    not_a_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ....rules.model import Family, Match, Target


def decode(entry: bytes, target_name: str, family: Family, chains: frozenset[str]) -> Rule:
    """Return the rule that an entry means.

    `target_name` is what libiptc calls the target: a verdict, a chain (one of `chains`), an
    extension or nothing. A part that this tool never writes makes all matches one ForeignMatch
    (comments apart), or the target a ForeignTarget, and the rule keeps the entry's bytes.
    Raises OSError for what is no entry of Linux.
    """
    return Decoder(family, chains).decode(entry, target_name)


class Decoder:
    """Decodes the entries of one table, which has these chains.

    Entries that differ only in addresses and counters, as those of a list do, are decoded once.
    """

    def __init__(self, family: Family, chains: frozenset[str]) -> None:
        self._layout = LAYOUTS[family]
        self._chains = chains
        self._known: dict[tuple[bytes, bytes, str], _Rest] = {}

    def decode(self, entry: bytes, target_name: str) -> Rule:
        """Return the rule that an entry means: see `decode`."""
        layout = self._layout
        between = entry[4 * layout.address_size : layout.counters_at]
        key = (between, entry[layout.size :], target_name)
        rest = self._known.get(key)
        if rest is None:
            rest = self._known[key] = _rest(entry, target_name, layout, self._chains)
        counters = Counters(*_COUNTERS.unpack_from(entry, layout.counters_at))
        matches, is_foreign = rest.matches, rest.is_foreign
        if not rest.has_foreign_matches:
            try:
                matches = (*_addresses(entry, rest.inverted, layout), *matches)
            except Unsupported:
                matches, is_foreign = rest.foreign_matches, True
        return Rule(matches, rest.target, "", None, counters, entry if is_foreign else b"")


class _Rest:
    """What an entry means apart from its addresses and counters."""

    def __init__(self, target: Target, inverted: int, foreign_matches: tuple[Match, ...]) -> None:
        self.target = target
        self.inverted = inverted
        self.foreign_matches = foreign_matches
        self.matches = foreign_matches
        self.has_foreign_matches = True

    @property
    def is_foreign(self) -> bool:
        """True if a rule has to keep the entry's bytes."""
        return self.has_foreign_matches or isinstance(self.target, model.ForeignTarget)


def _rest(entry: bytes, target_name: str, layout: Layout, chains: frozenset[str]) -> _Rest:
    target_at, _ = struct.unpack_from("=HH", entry, layout.offsets_at)
    _, _, inverted = struct.unpack_from(layout.head, entry, layout.head_at)
    extensions = _split(entry[layout.size : target_at])
    target = _decode_target(entry[target_at:], target_name, layout, entry, chains)
    rest = _Rest(target, inverted, _foreign(extensions))
    try:
        rest.matches = (*_decode_head(entry, layout), *_decode_extensions(extensions))
        rest.has_foreign_matches = False
    except Unsupported:
        pass
    return rest


def _addresses(entry: bytes, inverted: int, layout: Layout) -> list[Match]:
    size = layout.address_size
    matches: list[Match] = []
    source_mask, destination_mask = entry[2 * size : 3 * size], entry[3 * size : 4 * size]
    if any(source_mask):
        matches.append(model.Source(_cidr(entry[:size], source_mask, layout), bool(inverted & NOT_SOURCE)))
    if any(destination_mask):
        cidr = _cidr(entry[size : 2 * size], destination_mask, layout)
        matches.append(model.Destination(cidr, bool(inverted & NOT_DESTINATION)))
    return matches


_COUNTERS = struct.Struct("=QQ")


def _split(data: bytes) -> list[tuple[str, int, bytes]]:
    """Split match extensions into name, revision and data. Raises OSError if their sizes cannot be."""
    found = []
    while data:
        if len(data) < HEADER.size:
            raise not_a_table()
        size, name, revision = HEADER.unpack_from(data)
        if not HEADER.size <= size <= len(data):
            raise not_a_table()
        found.append((_text(name), revision, data[HEADER.size : size]))
        data = data[size:]
    return found


def _text(field: bytes) -> str:
    """Return a C string; there may be anything after the NUL."""
    return field.split(b"\0")[0].decode(errors="replace")


def _decode_head(entry: bytes, layout: Layout) -> list[Match]:
    protocol, flags, inverted = struct.unpack_from(layout.head, entry, layout.head_at)
    if flags & ~(layout.goto_flag | layout.protocol_flag):
        raise Unsupported("flags")
    at = 4 * layout.address_size
    names = entry[at : at + 2 * INTERFACE_SIZE]
    masks = entry[at + 2 * INTERFACE_SIZE : at + 4 * INTERFACE_SIZE]
    matches: list[Match] = []
    for kind, flag, start in ((model.InInterface, NOT_IN, 0), (model.OutInterface, NOT_OUT, INTERFACE_SIZE)):
        name = _interface_name(names[start:][:INTERFACE_SIZE], masks[start:][:INTERFACE_SIZE])
        if name:
            matches.append(kind(name, bool(inverted & flag)))
    if protocol:
        protocols: dict[int, Any] = {number: name for name, number in model.PROTOCOL_NUMBERS.items()}
        if protocol not in protocols:
            raise Unsupported("protocol")
        matches.append(model.Transport(protocols[protocol], bool(inverted & NOT_PROTOCOL)))
    return matches


def _cidr(address: bytes, mask: bytes, layout: Layout) -> Cidr:
    bits = 8 * len(mask)
    ones = int.from_bytes(mask, "big")
    host_bits = ((1 << bits) - 1) ^ ones
    if host_bits & (host_bits + 1):
        raise Unsupported("a mask with gaps")
    return Cidr(layout.version, int.from_bytes(address, "big"), bits - host_bits.bit_length())


def _interface_name(name: bytes, mask: bytes) -> str:
    """Return a name from name and mask: if the mask does not cover the NUL it is a wildcard."""
    if not any(mask):
        return ""
    text = name.split(b"\0")[0]
    compared = len(mask.rstrip(b"\0"))
    exact = compared > len(text) or len(text) == INTERFACE_SIZE
    return text.decode(errors="replace") if exact else text[:compared].decode(errors="replace") + "+"


def _decode_extensions(extensions: list[tuple[str, int, bytes]]) -> list[Match]:
    matches: list[Match] = []
    for name, revision, data in extensions:
        reader = _DECODE_MATCH.get((name, revision))
        if reader is None:
            raise Unsupported(name)
        try:
            matches += reader(data)
        except (struct.error, IndexError) as error:
            raise Unsupported(f"the size of {name}") from error
    return matches


def _read_ports(data: bytes, inverted: int) -> list[Match]:
    low_source, high_source, low, high = struct.unpack_from("=4H", data)
    matches: list[Match] = []
    if (low_source, high_source) != (0, 65535) or inverted & 1:
        matches.append(model.SourcePort(PortRange(low_source, high_source), bool(inverted & 1)))
    if (low, high) != (0, 65535) or inverted & 2:
        matches.append(model.DestinationPort(PortRange(low, high), bool(inverted & 2)))
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
    if which == OWNER_UID and uid == uid_last:
        return [model.UidOwner(uid, bool(inverted & which))]
    if which == OWNER_GID and gid == gid_last:
        return [model.GidOwner(gid, bool(inverted & which))]
    raise Unsupported("owner")


def _read_multiport(data: bytes) -> list[Match]:
    kind, count = data[0], data[1]
    numbers = struct.unpack_from("=15H", data, 2)[:count]
    is_range_start = data[32 : 32 + count]
    if kind != MULTIPORT_DESTINATION:
        raise Unsupported("multiport")
    ports, at = [], 0
    while at < count:
        width = 2 if is_range_start[at] else 1
        ports.append(PortRange(numbers[at], numbers[at + width - 1]))
        at += width
    return [model.DestinationPorts(tuple(ports), bool(data[47]))]


def _read_conntrack(data: bytes) -> list[Match]:
    flags, inverted, state, _status = struct.unpack_from("=4H", data, 146)
    names = frozenset(name for name, bit in STATE_BITS.items() if state & bit)
    if flags != CONNTRACK_STATE or sum(STATE_BITS[name] for name in names) != state:
        raise Unsupported("conntrack")
    return [model.ConntrackState(names, bool(inverted & CONNTRACK_STATE))]


def _read_comment(data: bytes) -> list[Match]:
    return [model.Comment(_text(data))]


def _read_marks(kind: type[model.Mark] | type[model.ConnectionMark]) -> Callable[[bytes], list[Match]]:
    def read(data: bytes) -> list[Match]:
        value, mask, negated = struct.unpack_from("=IIB", data)
        return [kind(value, mask, bool(negated))]

    return read


_DECODE_MATCH: Mapping[tuple[str, int], Callable[[bytes], list[Match]]] = {
    ("tcp", 0): _read_tcp,
    ("udp", 0): _read_udp,
    ("owner", 1): _read_owner,
    ("multiport", 1): _read_multiport,
    ("mark", 1): _read_marks(model.Mark),
    ("connmark", 1): _read_marks(model.ConnectionMark),
    ("conntrack", 3): _read_conntrack,
    ("comment", 0): _read_comment,
}


def _decode_target(target: bytes, name: str, layout: Layout, entry: bytes, chains: frozenset[str]) -> Target:
    size, _, revision = HEADER.unpack_from(target)
    data = target[HEADER.size : size]
    if name in chains:
        _protocol, flags, _inverted = struct.unpack_from(layout.head, entry, layout.head_at)
        return model.Jump(name, bool(flags & layout.goto_flag))
    if name in VERDICTS:
        return VERDICTS[name]
    reader = _DECODE_TARGET.get((name, revision))
    try:
        found = reader(data, layout) if reader else None
    except struct.error:  # of another size than this extension has in Linux
        found = None
    return found if found is not None else model.ForeignTarget(("-j", name) if name else ())


def _read_redirect(data: bytes, layout: Layout) -> Target | None:
    if layout.version == 4:
        size, flags = struct.unpack_from("=II", data)
        first, last = struct.unpack_from(">HH", data, 16)
        plain = size == 1 and flags == RANGE_HAS_PORTS
    else:
        (flags,) = struct.unpack_from("=I", data)
        first, last = struct.unpack_from(">HH", data, 36)
        plain = flags == RANGE_HAS_PORTS
    return model.Redirect(first) if plain and first == last else None


def _read_connmark(data: bytes, _layout: Layout) -> Target | None:
    *masks, shift_direction, shift_bits, mode = struct.unpack_from("=III3B", data)
    if masks != [0, model.FULL_MASK, model.FULL_MASK] or shift_direction or shift_bits:
        return None
    return {CONNMARK_SAVE: model.SaveMark(), CONNMARK_RESTORE: model.RestoreMark()}.get(mode)


def _read_tproxy(data: bytes, _layout: Layout) -> Target | None:
    mask, value = struct.unpack_from("=II", data)
    (port,) = struct.unpack_from(">H", data, 24)
    return model.TProxy(port, value) if mask == model.FULL_MASK and not any(data[8:24]) else None


def _read_ct(data: bytes, _layout: Layout) -> Target | None:
    flags, zone = struct.unpack_from("=HH", data)
    return model.ConntrackZone(zone) if not flags and not any(data[4:60]) else None


_DECODE_TARGET: Mapping[tuple[str, int], Callable[[bytes, Layout], Target | None]] = {
    ("REDIRECT", 0): _read_redirect,
    ("MARK", 2): lambda data, _: model.SetMark(*struct.unpack_from("=II", data)),
    ("CONNMARK", 2): _read_connmark,
    ("TPROXY", 1): _read_tproxy,
    ("CT", 2): _read_ct,
}


def _foreign(extensions: list[tuple[str, int, bytes]]) -> tuple[Match, ...]:
    """Return the names of the extensions as arguments for people, and comments, which tell an owned rule."""
    comments = [match for name, _, data in extensions if name == "comment" for match in _read_comment(data)]
    names = [arg for name, _, _ in extensions if name != "comment" for arg in ("-m", name, "...")]
    return (model.ForeignMatch(tuple(names)), *comments)
