"""packet_parsers: turn the text of options that describe a packet into typed values, as parsers.py does."""

from __future__ import annotations

from ..rules.model import FULL_MASK, NO_ID, Cidr
from ..startup.record import Record
from .parsers import LARGEST_PORT, BadValue, host_cidr, interfaces, members
from .texts import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .parsers import Names


class Endpoint(Record):
    """An address and a port, each None or 0 if it was not given."""

    address: Cidr | None = None
    port: int = 0


def _number(text: str, what: str, largest: int, smallest: int = 0) -> int:
    try:
        number = int(text, 16 if text[:2] in ("0x", "0X") else 10) if text.isascii() else -1
    except ValueError:
        number = -1
    if not smallest <= number <= largest or text[:1] in "+-" or "_" in text or text != text.strip():
        raise BadValue(f"{quoted(text)} is not {what}: use a number from {smallest} to {largest}")
    return number


def endpoint(text: str, _: Names) -> Endpoint:
    """Parse `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `:PORT`; the empty text is not given.

    An IPv6 address with a port stands in brackets.
    """
    if not text:
        return Endpoint()
    address, port = text, ""
    if text.startswith("["):
        address, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise BadValue(f"{quoted(text)} is not an address and port: write [ADDRESS]:PORT")
        port = rest[1:] if rest else ""
        if rest == ":":
            raise BadValue(f"{quoted(text)} has no port after the colon")
    elif text.count(":") == 1:
        address, _colon, port = text.partition(":")
        if not port:
            raise BadValue(f"{quoted(text)} has no port after the colon")
    cidr = host_cidr(address) if address else None
    if address and cidr is None:
        raise BadValue(
            f"{quoted(text)} is not an address: use 10.0.0.1:80, [fd00::1]:80, or an address without a port"
        )
    return Endpoint(cidr, _number(port, "a port", LARGEST_PORT, 1) if port else 0)


def interface(text: str, names: Names) -> str:
    """Parse the name of an interface, of one and no pattern; the empty text is none."""
    found = interfaces(text, names)
    if len(found) > 1 or text.endswith("+"):
        raise BadValue(f"{quoted(text)} is not the name of one interface: use a name such as eth0")
    return found[0] if found else ""


def _identity(kind: str) -> Callable[[str, Names], int | None]:
    def parse(text: str, names: Names) -> int | None:
        if not text:
            return None
        if text == "none":
            return NO_ID
        if text.isascii() and text.isdigit():
            return _number(text, f"a {kind} ID", NO_ID - 1)
        found = names.user_id(text) if kind == "user" else names.group_id(text)
        if found is None:
            raise BadValue(
                f"there is no {kind} {quoted(text)} on this machine: use a name that exists "
                "here, a number, or "
                "`none` for a packet that belongs to no socket"
            )
        return found

    return parse


user = _identity("user")
group = _identity("group")


def user_and_group(text: str, names: Names) -> tuple[int, int] | None:
    """Parse `USER` or `USER:GROUP`, names or numbers; the group of a user alone has the same number."""
    if not text:
        return None
    whose, colon, of_group = text.partition(":")
    uid = user(whose, names)
    gid = group(of_group, names) if colon else uid
    if uid in (None, NO_ID) or gid in (None, NO_ID):
        raise BadValue(f"{quoted(text)} is not a user, or a user and a group: use 1337, 1337:1337, or names")
    return uid, gid


def protocol(text: str, _: Names) -> int | None:
    """Parse a protocol over IP, a name of protocols(5) or a number; the empty text is none."""
    if not text:
        return None
    from ..interpreter.protocols import PROTOCOLS

    if text.lower() in PROTOCOLS:
        return PROTOCOLS[text.lower()]
    return _number(text, "a protocol such as tcp, udp or icmp", 255)


def mark(text: str, _: Names) -> int:
    """Parse a packet mark, decimal or 0x..., 0 for none."""
    return _number(text, "a mark", FULL_MASK)


def count(text: str, _: Names) -> int:
    """Parse a number of packets, 0 for any."""
    return _number(text, "a number of packets", 1_000_000)


def zone(text: str, _: Names) -> int:
    """Parse a conntrack zone, 0 for the default one (16 bits)."""
    return _number(text, "a conntrack zone", 0xFFFF)


def own_addresses(text: str, _: Names) -> tuple[Cidr, ...]:
    """Parse a list of a pod's own addresses."""
    found, problems = [], []
    for member in members(text):
        cidr = host_cidr(member)
        if cidr is None:
            problems.append(f"{quoted(member)} is not an address")
        else:
            found.append(cidr)
    if problems:
        raise BadValue(*problems)
    return tuple(found)


def verdict(text: str, _: Names) -> str:
    """Parse a verdict, such as `redirected 15001`, or its code alone; the empty text is none."""
    if not text:
        return ""
    from ..interpreter.verdict import CODES

    words = (
        text.replace(":", " ", 1).split() if text.startswith(("redirected:", "tproxied:")) else text.split()
    )
    if (
        not words
        or words[0] not in CODES
        or len(words) > 2
        or not all(_fits(words[0], to) for to in words[1:])
    ):
        raise BadValue(
            f"{quoted(text)} is not a verdict: use one of {', '.join(CODES)}, with its port or address"
        )
    return " ".join(words)


def _fits(code: str, to: str) -> bool:
    """Tell whether a verdict of this code may have this port or address."""
    try:
        if code in ("redirected", "tproxied"):
            return str(_number(to, "a port", LARGEST_PORT, 1)) == to
        return code == "translated" and endpoint(to, None).address is not None  # type: ignore[arg-type]  # asks no names
    except BadValue:
        return False
