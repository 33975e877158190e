"""sets: the values of a match as a set of nf_tables, and its elements as ranges again.

A set of single values stands in the rule (it has no name of its own), one of intervals has a name: see
rules/nftables/model.set_name. An interval is two elements: where it begins, and where the next gap does.
"""

from __future__ import annotations

import struct

from ....rules.nftables.model import Addresses, Owners, set_of
from ....startup.record import Record
from ..messages import pack_attribute, parse_attributes
from . import expressions as nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    from ....rules.nftables.model import Listing, Ranges

TABLE, NAME, FLAGS, KEY_TYPE, KEY_LENGTH, DESCRIPTION, ID, USERDATA = 1, 2, 3, 4, 5, 9, 10, 13
ANONYMOUS, CONSTANT, INTERVAL = 1, 2, 4
NESTED = 0x8000
#: The name of a set that the kernel is to choose one for.
UNNAMED = "__set%d"
_SIZE = 1  # NFTA_SET_DESC_SIZE
_ELEMENTS, _ELEMENTS_SET, _ELEMENTS_ID = 3, 2, 4
_KEY, _ELEMENT_FLAGS, _ELEMENT_USERDATA = 1, 3, 6
_END = 1  # NFT_SET_ELEM_INTERVAL_END
#: An attribute has 16 bits for its length.
_LONGEST = 0xFFFF - 64


class KeyType(Record):
    """The type of a set's members: nft's number for it, their bytes, and whether they are the kernel's."""

    number: int
    size: int
    is_host: bool = False


#: By nft's names. The numbers are nft's own (enum datatypes in its datatype.h).
KEY_TYPES: Mapping[str, KeyType] = {
    "ipv4_addr": KeyType(7, 4),
    "ipv6_addr": KeyType(8, 16),
    "inet_service": KeyType(13, 2),
    "uid": KeyType(24, 4, is_host=True),
    "gid": KeyType(25, 4, is_host=True),
}

# What nft notes beside a set so that it can print it (NFTNL_UDATA_SET_*): the byte order of the members,
# and what they are compared with: an expression of nft's own kinds, its protocol and field.
_BYTE_ORDER, _TYPE_OF = 0, 3
_OF_HOST, _OF_NETWORK = 1, 2
_EXPR_PAYLOAD, _EXPR_META = 7, 9
_PROTOCOLS = {"ipv4": 12, "ipv6": 13, "tcp": 8, "udp": 6}
_ADDRESS_FIELDS = {"ipv4": {"source": 11, "destination": 12}, "ipv6": {"source": 8, "destination": 9}}
_PORT_FIELDS = {"source": 1, "destination": 2}


def named(match: Listing, table: bytes, name: str, identity: int) -> tuple[bytes, list[bytes]]:
    """Return the attributes of a set of intervals, and those of each message with elements of it."""
    kind, ranges = set_of(match)
    key = KEY_TYPES[kind]
    head = _head(table, name, INTERVAL, key, identity)
    return head + _userdata(_order(key)), _contents(table, name, identity, _intervals(key, ranges))


def unnamed(match: Listing, table: bytes, identity: int) -> tuple[bytes, list[bytes]]:
    """Return the same for a set of single values that stands in a rule."""
    kind, ranges = set_of(match)
    key = KEY_TYPES[kind]
    head = _head(table, UNNAMED, ANONYMOUS | CONSTANT, key, identity)
    size = pack_attribute(DESCRIPTION | NESTED, pack_attribute(_SIZE, nft.u32(len(ranges))))
    userdata = _order(key) + _note(_TYPE_OF, _compared(match))
    return head + size + _userdata(userdata), _contents(table, UNNAMED, identity, _singles(key, ranges))


def _head(table: bytes, name: str, flags: int, key: KeyType, identity: int) -> bytes:
    numbers = {FLAGS: flags, KEY_TYPE: key.number, KEY_LENGTH: key.size, ID: identity}
    packed = [pack_attribute(kind, nft.u32(number)) for kind, number in numbers.items()]
    return table + pack_attribute(NAME, name.encode() + b"\0") + b"".join(packed)


def _userdata(notes: bytes) -> bytes:
    return pack_attribute(USERDATA, notes)


def _note(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value))) + value


def _order(key: KeyType) -> bytes:
    return _note(_BYTE_ORDER, nft.host(_OF_HOST if key.is_host else _OF_NETWORK))


def _compared(match: Listing) -> bytes:
    if isinstance(match, Owners):
        key = nft.META_SKUID if match.kind == "user" else nft.META_SKGID
        return _note(0, nft.host(_EXPR_META)) + _note(1, _note(0, nft.host(key)))
    if isinstance(match, Addresses):
        protocol, field = _PROTOCOLS[match.family], _ADDRESS_FIELDS[match.family][match.direction]
    else:
        protocol, field = _PROTOCOLS[match.protocol], _PORT_FIELDS[match.direction]
    place = _note(0, nft.host(protocol)) + _note(1, nft.host(field))
    return _note(0, nft.host(_EXPR_PAYLOAD)) + _note(1, place)


# --- elements ---------------------------------------------------------------------------------
#
# Lists are handled as bytes, since they may have twenty thousand members: an element is a head with the
# lengths, which all elements of a set share, the value, and what follows it.

_HEADER = struct.Struct("=HH")  # struct nlattr
_BEGINS_GAP = pack_attribute(_ELEMENT_FLAGS, nft.u32(_END))
#: NFTNL_UDATA_SET_ELEM_FLAGS, SET_ELEM_F_INTERVAL_OPEN: no gap follows.
_OPEN = pack_attribute(_ELEMENT_USERDATA, _note(1, nft.host(1)))


def _key_head(size: int, flags: int = 0) -> bytes:
    return _HEADER.pack(8 + size + -size % 4, _KEY | flags) + _HEADER.pack(4 + size, 1)


def _singles(key: KeyType, ranges: Ranges) -> list[bytes]:
    head, padding = _key_head(key.size, NESTED), bytes(-key.size % 4)
    order: Literal["little", "big"] = nft.HOST if key.is_host else "big"
    return [head + first.to_bytes(key.size, order) + padding for first, _ in ranges]


def _intervals(key: KeyType, ranges: Ranges) -> list[bytes]:
    """Return the elements of intervals, in order; before the first one is a gap."""
    size, head, padding = key.size, _key_head(key.size, NESTED), bytes(-key.size % 4)
    gap = padding + _BEGINS_GAP
    found = [] if ranges[0][0] == 0 else [head + bytes(size) + gap]
    *most, (first, last) = ranges
    for begin, end in most:
        found += (head + begin.to_bytes(size, "big") + padding, head + (end + 1).to_bytes(size, "big") + gap)
    found.append(head + first.to_bytes(size, "big") + padding)
    if (last + 1) >> 8 * size:
        found[-1] += _OPEN
    else:
        found.append(head + (last + 1).to_bytes(size, "big") + gap)
    return found


def _contents(table: bytes, name: str, identity: int, members: list[bytes]) -> list[bytes]:
    """Return the attributes of the messages that fill a set: more than one if the list is long."""
    head = table + pack_attribute(_ELEMENTS_SET, name.encode() + b"\0")
    head += pack_attribute(_ELEMENTS_ID, nft.u32(identity))
    a_message = _LONGEST // (max(map(len, members)) + 4)
    return [
        head + pack_attribute(_ELEMENTS | NESTED, _numbered(members[first : first + a_message]))
        for first in range(0, len(members), a_message)
    ]


def _numbered(members: list[bytes]) -> bytes:
    return b"".join(
        [_HEADER.pack(len(member) + 4, number | NESTED) + member for number, member in enumerate(members, 1)]
    )


def ranges_of(payloads: Iterable[bytes], key: KeyType, *, interval: bool) -> Ranges | None:
    """Return what a set has, from the messages that list its elements; None if there is something else.

    The kernel lists elements in its own order.
    """
    packed = b"".join([parse_attributes(payload[4:]).get(_ELEMENTS, b"") for payload in payloads])
    if not interval:
        order: Literal["little", "big"] = nft.HOST if key.is_host else "big"
        found = _ends(packed, key.size, order)
        if found is None or any(is_gap for _, is_gap in found):
            return None
        return tuple([(value, value) for value, _ in sorted(found)])
    most = (1 << 8 * key.size) - 1
    regular = _regular(packed, key.size)
    if regular:
        return regular
    ends = _ends(packed, key.size, "big")
    return None if ends is None else _paired(ends, most)


def _ends(packed: bytes, size: int, order: Literal["little", "big"]) -> list[tuple[int, bool]] | None:
    """Return the values of elements, and whether a gap begins there; None if there is any other element."""
    head, padded = _key_head(size), 8 + size + -size % 4
    found = []
    for element in nft.elements(packed):
        rest = element[padded:]
        if element[:8] != head or rest not in (b"", _BEGINS_GAP, _OPEN):
            return None
        found.append((int.from_bytes(element[8 : 8 + size], order), rest == _BEGINS_GAP))
    return found


def _paired(values: list[tuple[int, bool]], most: int) -> Ranges | None:
    """Return intervals from where they begin and where gaps do; None if that does not alternate."""
    found: list[tuple[int, int]] = []
    begun: int | None = None
    for value, is_gap in sorted(values):
        if is_gap and begun is not None:
            found.append((begun, value - 1))
        elif begun is not None or (is_gap and (found or value)):
            return None
        begun = None if is_gap else value
    return (*found, (begun, most)) if begun is not None else tuple(found)


def _regular(packed: bytes, size: int) -> Ranges | None:
    """Return the intervals of a list in the usual order, the last one first; None if it has another one.

    That is a gap and the interval before it, over and over. It does no more than `_ends` and `_paired`, but
    in a fraction of the time.
    """
    head, padding = _key_head(size), -size % 4
    begin = _HEADER.pack(4 + 8 + size + padding, 1) + head
    gap = _HEADER.pack(4 + 8 + size + padding + len(_BEGINS_GAP), 1) + head
    pairs = struct.Struct(f"{len(gap)}s{size}s{padding + len(_BEGINS_GAP)}s{len(begin)}s{size}s{padding}s")
    rest = len(packed) % pairs.size
    if len(packed) < pairs.size or rest not in (0, pairs.size - len(begin) - size - padding):
        return None  # it ends with the gap before the first interval, or that begins at 0
    all_pairs = pairs.iter_unpack(packed[: len(packed) - rest])
    gaps, ends, tails, begins, firsts, paddings = zip(*all_pairs, strict=True)
    first_gap = gap + bytes(size + padding) + _BEGINS_GAP
    if {*gaps} != {gap} or {*begins} != {begin} or packed[len(packed) - rest :] not in (b"", first_gap):
        return None
    if {*tails} != {bytes(padding) + _BEGINS_GAP} or {*paddings} != {bytes(padding)}:
        return None
    found = [
        (int.from_bytes(first), int.from_bytes(end) - 1) for first, end in zip(firsts, ends, strict=True)
    ]
    found.reverse()
    last = -2
    for begun, ended in found:
        if not last + 1 < begun <= ended:
            return None
        last = ended
    return tuple(found)


def order_note(kind: str) -> bytes:
    """Return what nft notes beside a set with a name: the byte order of its members."""
    return _order(KEY_TYPES[kind])
