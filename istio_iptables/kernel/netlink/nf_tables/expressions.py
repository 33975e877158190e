"""expressions: what a rule of nf_tables consists of: small instructions that load, compare and act.

An expression here is its name and the values of its attributes by their numbers. A value that nests
attributes is those, packed. Numbers are big endian; data is in the order that the packet or the kernel has.
"""

from __future__ import annotations

import struct
import sys

from ..messages import pack_attribute, parse_attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypeAlias

    Expression: TypeAlias = tuple[str, dict[int, bytes]]

#: The kernel's byte order, which marks, users, groups and states have.
HOST: Literal["little", "big"] = sys.byteorder

_NESTED = 0x8000  # NLA_F_NESTED
_LIST_ELEM, _EXPR_NAME, _EXPR_DATA = 1, 1, 2
_VALUE, _VERDICT, _VERDICT_CODE, _VERDICT_CHAIN = 1, 2, 1, 2
_U32 = struct.Struct(">I")

# Attributes of the expressions
META_DREG, META_KEY, META_SREG = 1, 2, 3
CT_DREG, CT_KEY, CT_SREG = 1, 2, 4
PAYLOAD_DREG, PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LENGTH = 1, 2, 3, 4
CMP_SREG, CMP_OP, CMP_DATA = 1, 2, 3
RANGE_SREG, RANGE_OP, RANGE_FROM, RANGE_TO = 1, 2, 3, 4
BITWISE_SREG, BITWISE_DREG, BITWISE_LENGTH, BITWISE_MASK, BITWISE_XOR, BITWISE_OP = 1, 2, 3, 4, 5, 6
BYTEORDER_SREG, BYTEORDER_DREG, BYTEORDER_OP, BYTEORDER_LENGTH, BYTEORDER_SIZE = 1, 2, 3, 4, 5
LOOKUP_SET, LOOKUP_SREG, LOOKUP_SET_ID, LOOKUP_FLAGS = 1, 2, 4, 5
IMMEDIATE_DREG, IMMEDIATE_DATA = 1, 2
COUNTER_BYTES, COUNTER_PACKETS = 1, 2
REDIR_PROTO_MIN, REDIR_PROTO_MAX, REDIR_FLAGS = 1, 2, 3
TPROXY_FAMILY, TPROXY_PORT = 1, 3

#: enum nft_meta_keys, nft_ct_keys, nft_payload_bases, nft_cmp_ops, nft_range_ops
META_MARK, META_IIFNAME, META_OIFNAME, META_SKUID, META_SKGID = 3, 6, 7, 10, 11
META_NFPROTO, META_L4PROTO = 15, 16
CT_STATE, CT_MARK, CT_ZONE = 0, 3, 17
NETWORK, TRANSPORT = 1, 2
EQ, NEQ, LTE, GTE = 0, 1, 3, 5
_HTON = 1  # NFT_BYTEORDER_HTON
INVERTED = 1  # NFT_LOOKUP_F_INV
_SPECIFIED = 2  # NF_NAT_RANGE_PROTO_SPECIFIED
#: Codes of verdicts (netfilter.h, nf_tables.h).
DROP, ACCEPT, JUMP, GOTO, RETURN = 0, 1, -3, -4, -5


def u32(number: int) -> bytes:
    """Return a number as attributes have it."""
    return _U32.pack(number)


def number_of(value: bytes) -> int:
    """Return the number that an attribute has."""
    return int.from_bytes(value, "big")


def host(number: int, size: int = 4) -> bytes:
    """Return a number in the byte order of the kernel."""
    return number.to_bytes(size, HOST)


_ONE, _ZERO = u32(1), u32(0)  # the only register that is used, NFT_REG_1; and that of the verdict


def data(value: bytes) -> bytes:
    """Return a value as the attributes nest it."""
    return pack_attribute(_VALUE, value)


def value_of(nested: bytes) -> bytes:
    """Return the value in nested data. Raises KeyError if it is a verdict."""
    return parse_attributes(nested)[_VALUE]


def meta(key: int) -> Expression:
    """Load something about the packet."""
    return "meta", {META_DREG: _ONE, META_KEY: u32(key)}


def conntrack(key: int) -> Expression:
    """Load something about the connection."""
    return "ct", {CT_DREG: _ONE, CT_KEY: u32(key)}


def payload(base: int, offset: int, length: int) -> Expression:
    """Load bytes of a header of the packet."""
    attributes = {PAYLOAD_BASE: base, PAYLOAD_OFFSET: offset, PAYLOAD_LENGTH: length}
    return "payload", {PAYLOAD_DREG: _ONE, **{key: u32(value) for key, value in attributes.items()}}


def compare(operation: int, value: bytes) -> Expression:
    """Go on if what was loaded compares so with a value."""
    return "cmp", {CMP_SREG: _ONE, CMP_OP: u32(operation), CMP_DATA: data(value)}


def outside(first: bytes, last: bytes) -> Expression:
    """Go on if what was loaded is not in a range."""
    ends = {RANGE_FROM: data(first), RANGE_TO: data(last)}
    return "range", {RANGE_SREG: _ONE, RANGE_OP: u32(NEQ), **ends}


def mask(value: bytes) -> Expression:
    """Keep some bits of what was loaded."""
    done = {BITWISE_MASK: data(value), BITWISE_XOR: data(bytes(len(value)))}
    return "bitwise", {BITWISE_SREG: _ONE, BITWISE_DREG: _ONE, BITWISE_LENGTH: u32(len(value)), **done}


def big_endian() -> Expression:
    """Turn the 32 bits that were loaded from the kernel's byte order into that of networks."""
    done = {BYTEORDER_OP: u32(_HTON), BYTEORDER_LENGTH: u32(4), BYTEORDER_SIZE: u32(4)}
    return "byteorder", {BYTEORDER_SREG: _ONE, BYTEORDER_DREG: _ONE, **done}


def lookup(name: str, identity: int, *, negated: bool) -> Expression:
    """Go on if what was loaded is in a set; `identity`: its number in the transaction, 0 if it is there."""
    found = {LOOKUP_SET: name.encode() + b"\0", LOOKUP_SREG: _ONE}
    found |= {LOOKUP_SET_ID: u32(identity)} if identity else {}
    return "lookup", found | ({LOOKUP_FLAGS: u32(INVERTED)} if negated else {})


def counter(packets: int, octets: int) -> Expression:
    """Count."""
    if not packets:
        return "counter", {}
    return "counter", {COUNTER_BYTES: octets.to_bytes(8, "big"), COUNTER_PACKETS: packets.to_bytes(8, "big")}


def immediate(value: bytes) -> Expression:
    """Load a value."""
    return "immediate", {IMMEDIATE_DREG: _ONE, IMMEDIATE_DATA: data(value)}


def verdict(code: int, chain: str = "") -> Expression:
    """Decide, or go on in a chain."""
    inner = pack_attribute(_VERDICT_CODE, struct.pack(">i", code))
    inner += pack_attribute(_VERDICT_CHAIN, chain.encode() + b"\0") if chain else b""
    # Not marked as nested: the kernel does not ask for it, and lists it so.
    return "immediate", {IMMEDIATE_DREG: _ZERO, IMMEDIATE_DATA: pack_attribute(_VERDICT, inner)}


def verdict_of(nested: bytes) -> tuple[int, str]:
    """Return code and chain of the verdict in nested data. Raises KeyError if there is none."""
    found = parse_attributes(parse_attributes(nested)[_VERDICT])
    (code,) = struct.unpack(">i", found[_VERDICT_CODE])
    return code, found.get(_VERDICT_CHAIN, b"").rstrip(b"\0").decode()


def set_meta(key: int) -> Expression:
    """Give the packet what was loaded."""
    return "meta", {META_KEY: u32(key), META_SREG: _ONE}


def set_conntrack(key: int) -> Expression:
    """Give the connection what was loaded."""
    return "ct", {CT_KEY: u32(key), CT_SREG: _ONE}


def redirect() -> Expression:
    """Send the packet to the local port that was loaded."""
    return "redir", {REDIR_PROTO_MIN: _ONE, REDIR_FLAGS: u32(_SPECIFIED)}


def tproxy(family: int) -> Expression:
    """Hand the packet to the socket on the local port that was loaded."""
    return "tproxy", {TPROXY_FAMILY: u32(family), TPROXY_PORT: _ONE}


#: The attributes that nest others: they are marked as such.
_NESTING = {
    ("cmp", CMP_DATA),
    ("range", RANGE_FROM),
    ("range", RANGE_TO),
    ("bitwise", BITWISE_MASK),
    ("bitwise", BITWISE_XOR),
    ("immediate", IMMEDIATE_DATA),
}
#: What the kernel adds to an expression that has not got it, as it is then.
_ADDED = {
    ("lookup", LOOKUP_FLAGS): _ZERO,
    ("bitwise", BITWISE_OP): _ZERO,
    ("redir", REDIR_PROTO_MAX): _ONE,  # the same register
}


def pack(expressions: Iterable[Expression]) -> bytes:
    """Return expressions as the list that an attribute of a rule nests."""
    return b"".join([_packed(name, attributes) for name, attributes in expressions])


def _packed(name: str, attributes: dict[int, bytes]) -> bytes:
    inner = b"".join(
        [
            pack_attribute(key | _NESTED if (name, key) in _NESTING else key, value)
            for key, value in attributes.items()
        ]
    )
    whole = pack_attribute(_EXPR_NAME, name.encode() + b"\0") + pack_attribute(_EXPR_DATA | _NESTED, inner)
    return pack_attribute(_LIST_ELEM | _NESTED, whole)


def unpack(packed: bytes, known: dict[bytes, Expression]) -> list[Expression]:
    """Return the expressions of a list; `known` keeps those of other rules: many are the same."""
    found = []
    for element in elements(packed):
        if element not in known:
            parts = parse_attributes(element)
            name = parts[_EXPR_NAME].rstrip(b"\0").decode()
            attributes = parse_attributes(parts.get(_EXPR_DATA, b""))
            known[element] = (
                name,
                {key: value for key, value in attributes.items() if _ADDED.get((name, key)) != value},
            )
        found.append(known[element])
    return found


def elements(packed: bytes) -> list[bytes]:
    """Return the values of a list of attributes, which all have the same number."""
    found = []
    at = 0
    while at < len(packed):
        length = int.from_bytes(packed[at : at + 2], HOST)
        found.append(packed[at + 4 : at + length])
        at += length + -length % 4
    return found
