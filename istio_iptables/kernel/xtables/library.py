"""library: libiptc, the C library by which iptables itself reads and writes legacy tables.

It comes with the package iptables, as libip4tc for IPv4 and libip6tc for IPv6. Only the functions that write
are used (libiptc/libiptc.h). They take rules as the kernel's own structures and parse nothing; libxtables,
which does, and which ends the process where it finds a mistake, is not loaded.
"""

from __future__ import annotations

import errno
import os

from ...startup.c_calls import Address, Bytes, Int, UnsignedInt, functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ...rules.model import Family
    from ...startup.c_calls import Signature

#: Sonames since iptables 1.8, and what the names of functions begin with.
_SONAMES: Mapping[Family, tuple[str, str]] = {
    "ipv4": ("libip4tc.so.2", "iptc_"),
    "ipv6": ("libip6tc.so.2", "ip6tc_"),
}
#: The results and arguments of the functions; the last argument is what `init` returned.
_FUNCTIONS: Mapping[str, Signature] = {
    "init": (Address, [Bytes]),
    "free": (Int, [Address]),
    "create_chain": (Int, [Bytes, Address]),
    "delete_chain": (Int, [Bytes, Address]),
    "flush_entries": (Int, [Bytes, Address]),
    "append_entry": (Int, [Bytes, Bytes, Address]),
    "insert_entry": (Int, [Bytes, Bytes, UnsignedInt, Address]),
    "delete_num_entry": (Int, [Bytes, UnsignedInt, Address]),
    "commit": (Int, [Address]),
}


class LibiptcMissing(ImportError):
    """The library of a family cannot be loaded."""


def load(family: Family) -> Mapping[str, Callable[..., Any]]:
    """Return the functions of libiptc for a family, without `iptc_`.

    Raises LibiptcMissing, or OSError if there are not enough files or memory to load it.
    """
    soname, prefix = _SONAMES[family]
    try:
        found = functions(soname, {f"{prefix}{name}": types for name, types in _FUNCTIONS.items()})
    except OSError as error:
        _require_enough(error)
        raise LibiptcMissing(str(error)) from error
    return {name: found[f"{prefix}{name}"] for name in _FUNCTIONS}


def _require_enough(error: OSError) -> None:
    """Raise OSError if the reason is that something has run out; dlopen(3) tells that in words alone."""
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        if error.errno == number or os.strerror(number) in str(error):
            raise OSError(number, os.strerror(number)) from error
