"""read_tables: read legacy tables from the kernel itself, by getsockopt(2).

The result is the same as that of libiptc, chain by chain and byte by byte. Loading libiptc takes longer than
the rest of a run, so a run that has nothing to write does not load it. Layouts and numbers are those of
linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h and linux/netfilter/x_tables.h.
"""

from __future__ import annotations

import errno
import os
import struct

from ...rules.model import ADDRESS_FAMILIES
from ...startup.c_calls import Address, Int, address, functions, get_errno
from ...startup.c_modules import socket
from .entries.layout import HEADER, LAYOUTS, not_a_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeAlias

    from ...rules.model import Family, TableName

    #: A chain's name, and each of its rules: the entry's bytes and what libiptc calls its target.
    Chain: TypeAlias = tuple[str, list[tuple[bytes, str]]]

#: The level of the options of a socket: SOL_IP, SOL_IPV6.
_LEVELS = {"ipv4": 0, "ipv6": 41}
_RAW, _IPPROTO_RAW = 3, 255
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IP6T_SO_GET_INFO and so on

_GETSOCKOPT = {"getsockopt": (Int, [Int, Int, Int, Address, Address])}
#: struct ipt_getinfo: name, hooks in use, first entry and last entry of each hook, number and size of entries
_INFO = struct.Struct("=32sI5I5III")
#: struct ipt_get_entries: name, size; then the entries, which begin at a multiple of eight
_ENTRIES = struct.Struct("=32sI4x")
#: target_offset and next_offset of an entry
_OFFSETS = struct.Struct("=HH")
#: The verdict of a standard target; it is the shortest target that there is.
_VERDICT = struct.Struct("=i")
_LEAST_TARGET = HEADER.size + _VERDICT.size
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
#: Standard verdicts: minus the netfilter verdict minus one, and RETURN. Zero and above are offsets of jumps.
_VERDICTS = {-1: b"DROP", -2: b"ACCEPT", -4: b"QUEUE", -5: b"RETURN"}
_ATTEMPTS = 20


def exists(family: Family, name: TableName) -> bool:
    """Tell whether the kernel has a table, and make the table if so. Raises OSError."""
    with _Socket(family) as kernel:
        try:
            kernel.info(name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
                return False
            raise
    return True


def read(family: Family, name: TableName) -> list[Chain]:
    """Return a table's chains, built-in ones first, the others by name. Makes the table. Raises OSError."""
    with _Socket(family) as kernel:
        for _ in range(_ATTEMPTS):
            info = kernel.info(name)
            try:
                entries = kernel.entries(name, info[-1])
            except OSError as error:
                if error.errno != errno.EAGAIN:  # the size has changed
                    raise
            else:
                if kernel.info(name) == info:  # else the chains may have moved
                    return chains_of(entries, info, family)
    raise OSError(errno.EAGAIN, "the table keeps changing")


class _Socket:
    """A raw socket, whose options read the tables."""

    def __init__(self, family: Family) -> None:
        self._getsockopt = functions(None, _GETSOCKOPT)["getsockopt"]
        self._level = _LEVELS[family]
        self._socket = socket.socket(ADDRESS_FAMILIES[family], _RAW, _IPPROTO_RAW)

    def __enter__(self) -> _Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def info(self, name: str) -> tuple[int, ...]:
        """Return struct ipt_getinfo without the name."""
        return _INFO.unpack(self._ask(_GET_INFO, name.encode().ljust(_INFO.size, b"\0")))[1:]

    def entries(self, name: str, size: int) -> bytes:
        """Return all entries, one after the other."""
        return self._ask(_GET_ENTRIES, _ENTRIES.pack(name.encode(), size) + bytes(size))[_ENTRIES.size :]

    def _ask(self, option: int, request: bytes) -> bytes:
        """Let the kernel read a structure and overwrite it. (Python's own getsockopt cannot pass one in.)"""
        buffer = bytearray(request)
        length = bytearray(struct.pack("=I", len(request)))
        at, length_at = address(buffer), address(length)
        if self._getsockopt(self._socket.fileno(), self._level, option, at, length_at) != 0:
            number = get_errno()
            raise OSError(number, os.strerror(number))
        return bytes(buffer)


def chains_of(blob: bytes, info: tuple[int, ...], family: Family) -> list[Chain]:
    """Split a table into chains. `info` is struct ipt_getinfo without the name.

    Raises OSError if these are not entries as Linux has them.

    A user-defined chain begins with an entry that is no rule but holds its name; a built-in chain begins at
    the entry point of its hook. The last entry of every chain is its policy and no rule either. The last
    entry of the table belongs to no chain.
    """
    in_use, hooks = info[0], info[1:6]
    entered_at = {hooks[number]: name.encode() for number, name in enumerate(_HOOKS) if in_use >> number & 1}
    builtin: list[tuple[bytes, list[_Entry]]] = []
    others: list[tuple[bytes, list[_Entry]]] = []
    starts: dict[int, bytes] = {}
    rules: list[_Entry] | None = None
    for entry in list(_entries(blob, family))[:-1]:
        if entry.target == b"ERROR":
            others.append((_text(entry.payload), []))
            starts[entry.at + len(entry.data)] = others[-1][0]
            rules = others[-1][1]
            continue
        if entry.at in entered_at:
            builtin.append((entered_at[entry.at], []))
            starts[entry.at] = builtin[-1][0]
            rules = builtin[-1][1]
        if rules is None:
            raise not_a_table()
        rules.append(entry)
    others.sort(key=lambda chain: chain[0])  # libiptc sorts them even if another program did not
    return [
        (_decoded(name), [(rule.data, _decoded(rule.target_name(starts))) for rule in rules[:-1]])
        for name, rules in (*builtin, *others)
    ]


class _Entry:
    """An entry, where it is in the table, and its target: the extension's name and what follows it."""

    __slots__ = ("at", "data", "payload", "target")

    def __init__(self, at: int, data: bytes, target_at: int) -> None:
        self.at = at
        self.data = data
        _, name, _ = HEADER.unpack_from(data, target_at)
        self.target = _text(name)
        self.payload = data[target_at + HEADER.size :]

    def target_name(self, starts: Mapping[int, bytes]) -> bytes:
        """Return what libiptc calls the target: an extension, a verdict, a chain, or nothing.

        `starts` are the chains by the offset of their first rule.
        """
        if self.target:
            return self.target
        (verdict,) = _VERDICT.unpack_from(self.payload)
        if verdict < 0:
            return _VERDICTS.get(verdict, b"")
        if verdict == self.at + len(self.data):  # to the next rule: the rule only counts
            return b""
        start = max((start for start in starts if start <= verdict), default=None)
        if start is None:
            raise not_a_table()
        return starts[start]


def _entries(blob: bytes, family: Family) -> Iterator[_Entry]:
    """Yield the entries. The kernel has checked all of it (translate_table), if it is one of Linux."""
    at, layout, end = 0, LAYOUTS[family], len(blob)
    while at < end:
        if end - at < layout.size:
            raise not_a_table()
        target_at, size = _OFFSETS.unpack_from(blob, at + layout.offsets_at)
        if not layout.size <= target_at <= size - _LEAST_TARGET or at + size > end:
            raise not_a_table()
        yield _Entry(at, blob[at : at + size], target_at)
        at += size


def _text(field: bytes) -> bytes:
    """Return a C string."""
    return field.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    return name.decode(errors="replace")
