"""elf: what a program needs to run: its dynamic linker, and the libraries that this one would load."""

from __future__ import annotations

import os
import struct

from ...errors import KernelError
from ...kernel.process import run

_PT_INTERP = 3
#: Offsets in the header of a 64-bit file, and in one of its program headers (elf(5)).
_HEADER, _PROGRAM_HEADER = struct.Struct("<32xQ14xHH"), struct.Struct("<I4xQ16xQ")

#: Where the header says where the table of sections is, and how many there are and which one has their names.
_SECTION_TABLE, _SECTION_COUNT = 40, 60


def linker(program: str) -> str:
    """Return the path of a program's dynamic linker (PT_INTERP). Raises KernelError if it has none."""
    with open(program, "rb") as file:
        head = file.read(64)
        if head[:6] == b"\x7fELF\x02\x01":
            start, size, count = _HEADER.unpack_from(head)
            for number in range(count):
                file.seek(start + number * size)
                kind, offset, length = _PROGRAM_HEADER.unpack(file.read(_PROGRAM_HEADER.size))
                if kind == _PT_INTERP:
                    file.seek(offset)
                    return os.fsdecode(file.read(length).rstrip(b"\0"))
    raise KernelError(
        f"{program} cannot be copied to the node: it is no 64-bit program with a dynamic linker",
        "use the image that `make image` builds",
    )


def libraries(program: str, by: str) -> dict[str, str]:
    """Return the libraries of a program or library, and theirs, by the names that they are loaded by.

    `by` is the dynamic linker that finds them, as it would do it here.
    """
    found: dict[str, str] = {}
    for line in run((by, "--list", program)).output.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        path = rest.rpartition(" (")[0]
        if arrow and path.startswith("/"):
            found[name] = path
        elif arrow:
            raise KernelError(
                f"{program} cannot be copied to the node: its library {name} is missing",
                "reinstall the package of that program",
            )
    return found


def loadable(path: str) -> bytes:
    """Return what of a program or library is loaded: it runs without what only debuggers read.

    That is all up to the end of its last segment, without the table of sections.
    """
    with open(path, "rb") as file:
        data = bytearray(file.read())
    if data[:6] != b"\x7fELF\x02\x01":
        return bytes(data)
    start, size, count = _HEADER.unpack_from(data)
    end = start + size * count
    for number in range(count):
        _, offset, length = _PROGRAM_HEADER.unpack_from(data, start + number * size)
        end = max(end, offset + length)
    data[_SECTION_TABLE : _SECTION_TABLE + 8] = bytes(8)
    data[_SECTION_COUNT : _SECTION_COUNT + 4] = bytes(4)
    return bytes(data[:end])
