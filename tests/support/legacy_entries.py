"""legacy_entries: a table of legacy iptables, read from the kernel by getsockopt(2)."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import dataclass

from ..support.scratch import Family

_libc = ctypes.CDLL(None, use_errno=True)
_GET_INFO, _GET_ENTRIES = 64, 65


@dataclass(frozen=True)
class Entry:
    """struct ipt_entry or ip6t_entry: addresses and interfaces, numbers, and the rest as bytes."""

    texts: tuple[bytes, ...]
    protocol: int
    flags: int
    inverted: int
    extensions: bytes

    @property
    def destination(self) -> tuple[bytes, bytes]:
        """Address and mask."""
        return self.texts[1], self.texts[3]

    @property
    def incoming(self) -> tuple[bytes, bytes]:
        """Interface and mask."""
        return self.texts[4], self.texts[6]

    @property
    def outgoing(self) -> tuple[bytes, bytes]:
        """Interface and mask."""
        return self.texts[5], self.texts[7]


def entries(family: Family, table: str) -> list[Entry]:
    """Return the entries of a legacy table of the namespace that this process is in, from the kernel."""
    kind, level, width = (2, 0, 4) if family == "ipv4" else (10, 41, 16)
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        info = _ask(raw, level, _GET_INFO, table.encode().ljust(32, b"\0").ljust(84, b"\0"))
        (size,) = struct.unpack_from("=I", info, 80)
        head = table.encode().ljust(32, b"\0") + struct.pack("=I4x", size)
        blob = _ask(raw, level, _GET_ENTRIES, head + bytes(size))[40:]
    found, at = [], 0
    fixed = 112 if family == "ipv4" else 168
    while at < size:
        entry = blob[at:]
        addresses = [entry[i * width : (i + 1) * width] for i in range(4)]
        interfaces = [entry[4 * width + i * 16 : 4 * width + (i + 1) * 16] for i in range(4)]
        if family == "ipv4":
            protocol, flags, inverted = struct.unpack_from("=HBB", entry, 80)
            _, length = struct.unpack_from("=HH", entry, 88)
        else:
            protocol, flags, inverted = struct.unpack_from("=HxBB", entry, 128)
            _, length = struct.unpack_from("=HH", entry, 140)
        texts = (*addresses, *interfaces)
        found.append(Entry(texts, protocol, flags, inverted, entry[fixed:length]))
        at += length
    return found


def _ask(raw: socket.socket, level: int, option: int, request: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint32(len(request))
    done = _libc.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length))
    assert done == 0, os.strerror(ctypes.get_errno())
    return buffer.raw
