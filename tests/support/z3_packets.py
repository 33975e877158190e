"""z3_packets: packets of one kind for Z3: the fields with which they set out, as bit-vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import z3

from istio_iptables.rules import model
from istio_iptables.rules.model import IPV4, NO_ID

Direction = Literal["out", "in"]
Phase = Literal["first", "expected", "later", "error", "invalid"]
Term = Any

#: All addresses but those that stand for none, or for all; what the kernel makes of these has other tests.
HOSTS = {"ipv4": (1 << 24, 0xFFFFFFFE), "ipv6": (1, (1 << 128) - 1)}
NAME_BITS = 8 * 16  #: of the name of an interface (IFNAMSIZ)


class Kind(NamedTuple):
    """Packets that a socket sends (`out`) or that come in: a connection's first, a later one or none's.

    The `expected` one is the first of a connection that belongs to another one, whose mark it has. An `error`
    of ICMP is about a connection that there is.
    """

    family: model.Family
    direction: Direction
    phase: Phase


class Sent(NamedTuple):
    """A packet as it sets out, as terms of Z3. `name` is the interface that it comes in by."""

    protocol: Term
    source: Term
    destination: Term
    source_port: Term
    destination_port: Term
    uid: Term
    gid: Term
    mark: Term
    connection_mark: Term
    name: Term


def _widths(family: model.Family) -> Sent:
    bits = 32 if family == IPV4 else 128
    return Sent(8, bits, bits, 16, 16, 32, 32, 32, 32, NAME_BITS)


def any_packet(kind: Kind) -> Sent:
    """Return packets of which nothing is known but the kind."""
    sent = Sent(*(z3.BitVec(name, width) for name, width in _widths(kind.family)._asdict().items()))
    if kind.direction == "in":
        sent = sent._replace(uid=constant(NO_ID, 32), gid=constant(NO_ID, 32))
    else:
        sent = sent._replace(name=constant(0, NAME_BITS))
    if kind.phase in ("first", "invalid"):
        return sent._replace(connection_mark=constant(0, 32))
    return sent


def number(value: int | str) -> int:
    """Return a value as a number; that of a name is its bytes, with zeros behind."""
    return value if isinstance(value, int) else int.from_bytes(_name(value), "big")


def _name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").ljust(NAME_BITS // 8, b"\0")


def constant(value: int, width: int) -> Term:
    """Return a number as a term."""
    return z3.BitVecVal(value, width)


def possible(sent: Sent, kind: Kind, interfaces: Iterable[str]) -> Term:
    """A socket has a user and a group; what comes in comes by one of the interfaces.

    Addresses of HOSTS are looked at alone.
    """
    first, last = HOSTS[kind.family]
    hosts = [z3.And(z3.UGE(each, first), z3.ULE(each, last)) for each in (sent.source, sent.destination)]
    icmp = 1 if kind.family == IPV4 else 58
    if kind.phase == "error":
        hosts.append(sent.protocol == icmp)
    elif kind.phase == "expected":
        hosts.append(sent.protocol != icmp)
    if kind.direction == "out":
        return z3.And(*hosts, (sent.uid == NO_ID) == (sent.gid == NO_ID))
    return z3.And(*hosts, z3.Or(*(sent.name == number(each) for each in interfaces)))


def packet_of(found: z3.ModelRef, sent: Sent, kind: Kind) -> dict[str, int | str]:
    """Return the packet that a solver has found, by field."""
    values: dict[str, int | str] = {
        name: found.eval(term, model_completion=True).as_long() for name, term in sent._asdict().items()
    }
    name = values.pop("name")
    assert isinstance(name, int)
    if kind.direction == "in":
        text = name.to_bytes(NAME_BITS // 8, "big").rstrip(b"\0")
        values["name"] = text.decode("utf-8", "surrogateescape")
    return values


def replaced(term: Term, sent: Sent, kind: Kind, packet: Mapping[str, int | str]) -> Term:
    """Return a term with the values of one packet; those that are missing are 0."""
    values = [
        (field, constant(number(packet.get(name, 0)), width))
        for (name, field), width in zip(sent._asdict().items(), _widths(kind.family), strict=True)
        if not z3.is_bv_value(field)
    ]
    return z3.substitute(term, *values)
