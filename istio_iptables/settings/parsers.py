"""parsers: turn the text of a setting into a typed value, or into a message that says what is wrong.

A parser takes the text and the names of users and groups that the machine knows. It returns the value, or
raises BadValue with one message for each bad part. Parsers are strict: they accept only digits, addresses
and names, so no text of a user can become another argument of a rule or another line of a script.
"""

from __future__ import annotations

from ..rules.istio import TPROXY_ROUTE_TABLE
from ..rules.model import FULL_MASK, NO_ID, Cidr, PortRange
from ..startup.c_modules import socket
from .config import ALL, Everything
from .texts import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeVar

    T = TypeVar("T")

    class Names(Protocol):
        """Users and groups that the machine knows."""

        def user_id(self, name: str) -> int | None:
            """Return the UID of a user, None if there is none of that name."""

        def group_id(self, name: str) -> int | None:
            """Return the GID of a group, None if there is none of that name."""


_LARGEST_ID = NO_ID - 1
LARGEST_PORT = 65535
#: IFNAMSIZ is 16 with the closing NUL (linux/if.h).
_LONGEST_INTERFACE_NAME = 15


#: As many members a list may have. A rule set of so many is no use to a kernel.
MOST_MEMBERS = 200_000


class BadValue(ValueError):
    """A value that cannot be used. `problems` has one message for each bad part."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _is_number(text: str) -> bool:
    """Tell whether text consists of decimal digits only (int() accepts much more)."""
    return text.isascii() and text.isdigit()


#: More digits than any valid number has; the rest of a text is not read.
_ENOUGH_DIGITS = 11


def _as_number(text: str, smallest: int, largest: int) -> int | None:
    """Return the value of decimal digits, None if it is not in the range."""
    if not _is_number(text):
        return None
    number = int(text.lstrip("0")[:_ENOUGH_DIGITS] or "0")
    return number if smallest <= number <= largest else None


def members(text: str) -> tuple[str, ...]:
    """Split a comma-separated list. White space around members and empty members are dropped."""
    return tuple(member.strip() for member in text.split(",") if member.strip())


def _each(texts: Sequence[str], parse: Callable[[str], T], no_wildcard: str = "") -> tuple[T, ...]:
    """Parse every member, and report all bad ones together. `no_wildcard` says why `*` is not allowed."""
    if len(texts) > MOST_MEMBERS:
        raise BadValue(f"a list of {len(texts)} members is too long: at most {MOST_MEMBERS} are taken")
    parsed: list[T] = []
    problems: list[str] = []
    for text in texts:
        try:
            if text == "*" and no_wildcard:
                raise BadValue(f"'*' cannot be used here: {no_wildcard}")
            parsed.append(parse(text))
        except BadValue as bad:
            problems.extend(bad.problems)
    if problems:
        raise BadValue(*problems)
    return tuple(parsed)


# --- booleans, words, times -----------------------------------------------------------------

#: What counts as true, and what counts as false.
TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def boolean(text: str, _: Names) -> bool:
    """Parse a boolean as Go's strconv.ParseBool does."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise BadValue(f"{quoted(text)} is not a boolean: use true or false (also 1, t, T, TRUE, 0, f, F, FALSE)")


def anything(text: str, _: Names) -> str:
    """Accept any text."""
    return text


def image(text: str, _: Names) -> str:
    """Accept the name of a container's image: any text that is not blank."""
    if not text.strip():
        raise BadValue(
            f"{quoted(text)} is not an image: use a name such as registry.example.com/istio-iptables:0.1.0"
        )
    return text


def texts(text: str, _: Names) -> tuple[str, ...]:
    """Parse a list of any texts."""
    return members(text)


def one_of(*choices: str, empty: str | None = None, capitals: bool = False) -> Callable[[str, Names], str]:
    """Make a parser that accepts some words. `empty` is the value of the empty string, if it is allowed.

    `capitals`: the words are in capitals, and may be given in any case.
    """

    def parse(text: str, _: Names) -> str:
        if text == "" and empty is not None:
            return empty
        if capitals and text.upper() in choices:
            return text.upper()
        if text not in choices:
            raise BadValue(f"{quoted(text)} is not one of {', '.join(words)}")
        return text

    words = tuple(choice for choice in choices if choice)
    setattr(parse, "choices", words)  # noqa: B010  # for completion: Setting.values
    return parse


_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def duration(text: str, _: Names) -> float:
    """Parse a Go duration (time.ParseDuration) that is more than zero, into seconds."""
    # Without `re`: every run parses the default, and start-up must not pay for that import.
    nanoseconds, rest = 0.0, text.removeprefix("+")
    if rest.startswith("-"):
        raise BadValue(f"{quoted(text)} is out of range: the duration must be more than zero")
    while True:
        after = rest.lstrip("0123456789.")
        number = rest[: len(rest) - len(after)]
        unit = next((unit for unit in _NANOSECONDS if after.startswith(unit)), "")
        if not unit or not number.strip(".") or number.count(".") > 1:
            raise BadValue(
                f"{quoted(text)} is not a duration: use numbers with units, such as 5s, 500ms or 1m30s"
            )
        nanoseconds += float(number) * _NANOSECONDS[unit]
        rest = after[len(unit) :]
        if not rest:
            break
    seconds = nanoseconds / 10**9
    if not 0 < seconds < 2**63 / 10**9:
        raise BadValue(
            f"{quoted(text)} is out of range: use more than zero and less than 292 years (the limits of Go)"
        )
    return seconds


#: From the most verbose to none.
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal", "none")
DEFAULT_LOG_LEVEL = "info"
#: The levels as a sentence lists them.
ANY_LOG_LEVEL = f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}"
#: The scope of a level that is given without one.
LOG_SCOPE = "default"


def log_levels(text: str, _: Names) -> tuple[tuple[str, str], ...]:
    """Parse `[scope:]level[,...]` into pairs of scope and level."""

    def parse(member: str) -> tuple[str, str]:
        scope, _colon, level = member.rpartition(":")
        if level not in LOG_LEVELS:
            raise BadValue(
                f"{quoted(member)} is not a log level: use [scope:]level, the level being {ANY_LOG_LEVEL}"
            )
        return scope or LOG_SCOPE, level

    return _each(members(text), parse)


setattr(log_levels, "choices", LOG_LEVELS)  # noqa: B010  # for completion, as those of one_of


# --- numbers --------------------------------------------------------------------------------


def _number(text: str, what: str, smallest: int, largest: int) -> int:
    number = _as_number(text, smallest, largest)
    if number is None:
        raise BadValue(f"{quoted(text)} is not {what}: use a number from {smallest} to {largest}")
    return number


def port(text: str, _: Names) -> int:
    """Parse one port, 1 to 65535."""
    return _number(text, "a port", 1, LARGEST_PORT)


def mark(text: str, _: Names) -> int:
    """Parse a packet mark, decimal or 0x... 0 is not allowed, since unmarked packets have it."""
    digits = text
    if text[:2] in ("0x", "0X") and text[2:] and all(c in "0123456789abcdefABCDEF" for c in text[2:]):
        digits = str(int(text[2:].lstrip("0")[:9] or "0", 16))
    number = _as_number(digits, 1, FULL_MASK)
    if number is None:
        raise BadValue(f"{quoted(text)} is not a mark: use a number from 1 to {FULL_MASK}")
    return number


def route_table(text: str, _: Names) -> int:
    """Parse a routing table's number; 253 to 255 are the kernel's own (linux/rtnetlink.h)."""
    number = _number(text, "a routing table", 1, FULL_MASK)
    if 253 <= number <= 255:
        raise BadValue(
            f"{quoted(text)} is one of the kernel's own routing tables: use another, such "
            f"as {TPROXY_ROUTE_TABLE}"
        )
    return number


# --- ports and interfaces -------------------------------------------------------------------


def _port_range(text: str) -> PortRange:
    first, separator, last = text.replace(":", "-", 1).partition("-")
    try:
        low = _number(first, "a port", 1, LARGEST_PORT)
        high = _number(last, "a port", 1, LARGEST_PORT) if separator else low
    except BadValue:
        raise BadValue(
            f"{quoted(text)} is not a port: use a number from 1 to {LARGEST_PORT} or a "
            "range such as 8000-8100"
        ) from None
    if low > high:
        raise BadValue(f"{quoted(text)} is an empty range of ports: write the smaller port first")
    return PortRange(low, high)


def ports(text: str, _: Names) -> tuple[PortRange, ...]:
    """Parse a list of ports and ranges (`8000-8100` or `8000:8100`)."""
    return _each(members(text), _port_range, "list the ports")


def ports_or_all(text: str, _: Names) -> Everything | tuple[PortRange, ...]:
    """Parse a list of ports and ranges, or `*`."""
    if members(text) == ("*",):
        return ALL
    return _each(members(text), _port_range, "it cannot be mixed with ports")


def _interface(text: str) -> str:
    if text in (".", ".."):
        raise BadValue(f"{quoted(text)} is not an interface: no name is '.' or '..'")
    if not text.isprintable() or any(c in "/:" or c.isspace() for c in text):
        raise BadValue(
            f"{quoted(text)} is not an interface: a name has no '/', ':', white space or "
            "unprintable character"
        )
    if len(text.encode()) > _LONGEST_INTERFACE_NAME:
        raise BadValue(
            f"{quoted(text)} is not an interface: a name has at most {_LONGEST_INTERFACE_NAME} bytes"
        )
    if text[0] in "-!":
        raise BadValue(
            f"{quoted(text)} is not an interface: iptables takes a name that begins with "
            f"{quoted(text[0])} for an option"
        )
    return text


def interfaces(text: str, _: Names) -> tuple[str, ...]:
    """Parse a list of interface names; a trailing `+` is a wildcard (iptables(8), -i)."""
    return _each(members(text), _interface, "the wildcard of interface names is a trailing '+'")


# --- CIDRs ----------------------------------------------------------------------------------


class WrittenCidr(Cidr):
    """A CIDR that also tells whether the address, as the user wrote it, is a loopback address."""

    names_loopback: bool = False

    def as_cidr(self) -> Cidr:
        """Return it as a plain Cidr."""
        return Cidr(self.version, self.address, self.prefix)


#: Prefix lengths as they are mostly written.
_LENGTHS = {str(number): number for number in range(129)}


def _cidr_parts(text: str) -> tuple[int, int, int, int]:
    """Return the IP version, the address as an integer, the prefix length, and the number of host bits."""
    address, slash, prefix = text.partition("/")
    version = 6 if ":" in address else 4
    family, bits = (socket.AF_INET6, 128) if version == 6 else (socket.AF_INET, 32)
    length = _LENGTHS.get(prefix) if slash else bits
    if length is None or length > bits:
        length = _as_number(prefix, 0, bits)
    try:
        # inet_pton(3) accepts only complete addresses: no octal numbers, no zone
        packed = socket.inet_pton(family, address)
    except (OSError, ValueError):
        length = None
    if length is None:
        raise BadValue(
            f"{quoted(text)} is not a CIDR: use an address or a CIDR such as 10.0.0.0/8 or fd00::/8"
        )
    return version, int.from_bytes(packed, "big"), length, bits - length


def _cidr(text: str) -> Cidr:
    version, address, prefix, host_bits = _cidr_parts(text)
    return Cidr(version, address >> host_bits << host_bits, prefix)


def _written_cidr(text: str) -> WrittenCidr:
    version, address, _, _ = _cidr_parts(text)
    cidr = _cidr(text)
    is_loopback = address >> 24 == 127 if version == 4 else address == 1
    return WrittenCidr(version, cidr.address, cidr.prefix, is_loopback)


def cidrs(text: str, _: Names) -> tuple[Cidr, ...]:
    """Parse a list of CIDRs. An address without a prefix is a host route; host bits are cleared."""
    why = "to exclude every destination, capture none instead"
    return _each(members(text), _cidr, why)


def cidrs_or_all(text: str, _: Names) -> Everything | tuple[WrittenCidr, ...]:
    """Parse a list of CIDRs, or `*`."""
    if members(text) == ("*",):
        return ALL
    return _each(members(text), _written_cidr, "it cannot be mixed with CIDRs")


def ipv4_loopback(text: str, _: Names) -> Cidr:
    """Parse an IPv4 CIDR within 127.0.0.0/8."""
    if text == "127.0.0.1/32":
        return Cidr(4, 0x7F000001, 32)
    cidr = _cidr(text)
    if cidr.version != 4 or cidr.address >> 24 != 127 or cidr.prefix < 8:
        raise BadValue(f"{quoted(text)} is not within the IPv4 loopback network 127.0.0.0/8")
    return cidr


def host_cidr(address: str) -> Cidr | None:
    """Return the host route of an address (a zone as in fe80::1%eth0 is left out), None if it is none."""
    try:
        cidr = _cidr(address.partition("%")[0])
    except BadValue:
        return None
    return cidr if cidr.prefix == cidr.bits else None


# --- users and groups -----------------------------------------------------------------------


def _identity(text: str, lookup: Callable[[str], int | None], kind: str) -> int:
    if _is_number(text):
        return _number(text, f"a {kind} ID", 0, _LARGEST_ID)
    number = lookup(text)
    if number is None:
        raise BadValue(
            f"there is no {kind} {quoted(text)} on this machine: use a name that exists here, or a number"
        )
    return number


def users(text: str, names: Names) -> tuple[int, ...]:
    """Parse a list of users, by name or UID."""
    return _each(members(text), lambda member: _identity(member, names.user_id, "user"))


def groups(text: str, names: Names, no_wildcard: str = "") -> tuple[int, ...]:
    """Parse a list of groups, by name or GID."""
    return _each(members(text), lambda member: _identity(member, names.group_id, "group"), no_wildcard)


#: Istio's limit. It keeps rules from having hundreds of matches.
MOST_OWNER_GROUPS = 64


def captured_groups(text: str, names: Names) -> Everything | tuple[int, ...]:
    """Parse a list of groups, or `*`. Not more than MOST_OWNER_GROUPS."""
    if members(text) == ("*",):
        return ALL
    return _not_too_many(groups(text, names, "it cannot be mixed with groups"))


def excluded_groups(text: str, names: Names) -> tuple[int, ...]:
    """Parse a list of groups. Not more than MOST_OWNER_GROUPS."""
    return _not_too_many(groups(text, names, "to leave every group alone, capture none"))


def _not_too_many(parsed: tuple[int, ...]) -> tuple[int, ...]:
    if len(parsed) > MOST_OWNER_GROUPS:
        raise BadValue(f"{len(parsed)} groups are too many: at most {MOST_OWNER_GROUPS} can be listed")
    return parsed


#: The parsers of lists, for which the empty text is a value: no members.
LISTS: frozenset[object] = frozenset(
    {
        texts,
        log_levels,
        ports,
        ports_or_all,
        interfaces,
        cidrs,
        cidrs_or_all,
        users,
        groups,
        captured_groups,
        excluded_groups,
    }
)
