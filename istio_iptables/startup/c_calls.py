"""c_calls: functions of C libraries, called without the module ctypes, whose import takes two milliseconds.

Its half that is written in C, `_ctypes`, does all that is needed here. ctypes takes the same names from it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeAlias

    class _Simple:
        """A C type of one value."""

        @classmethod
        def from_buffer(cls, buffer: bytearray) -> _Simple:
            """Return a value that is in a buffer."""

    class _Function:
        """A C function; `argtypes` are the types of its arguments."""

        argtypes: Sequence[type[_Simple]]

        def __init__(self, address: int) -> None: ...

        def __call__(self, *arguments: object) -> Any:
            """Call it."""

    #: The type of a function's result, and those of its arguments.
    Signature: TypeAlias = "tuple[type[Int | Address], Sequence[type[_Simple]]]"

    FUNCFLAG_CDECL = FUNCFLAG_USE_ERRNO = 0
    addressof: Callable[[_Simple], int]
    dlopen: Callable[[str | None, int], int]
    dlsym: Callable[[int, str], int]
    get_errno: Callable[[], int]
else:
    from _ctypes import (
        FUNCFLAG_CDECL,
        FUNCFLAG_USE_ERRNO,
        addressof,
        dlopen,
        dlsym,
        get_errno,
    )
    from _ctypes import CFuncPtr as _Function
    from _ctypes import _SimpleCData as _Simple

__all__ = ["Address", "Bytes", "Int", "UnsignedInt", "address", "functions", "get_errno"]


class Int(_Simple):
    """int."""

    _type_ = "i"


class UnsignedInt(_Simple):
    """unsigned int."""

    _type_ = "I"


class Bytes(_Simple):
    """const char *, of a bytes object; what is there may be anything, also NUL."""

    _type_ = "z"


class Address(_Simple):
    """void *, as an integer; NULL is None."""

    _type_ = "P"


class _Byte(_Simple):
    _type_ = "c"


class _ReturnsInt(_Function):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = Int


class _ReturnsAddress(_Function):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = Address


def functions(library: str | None, wanted: Mapping[str, Signature]) -> dict[str, Callable[..., Any]]:
    """Return functions of a library by name, given their signatures.

    `library` is a soname, or None for the C library. After a call `get_errno` returns its errno. Raises
    OSError if the library cannot be loaded, or has no such function.
    """
    handle = dlopen(library, os.RTLD_NOW)
    found: dict[str, Callable[..., Any]] = {}
    for name, (result, arguments) in wanted.items():
        function = (_ReturnsInt if result is Int else _ReturnsAddress)(dlsym(handle, name))
        function.argtypes = tuple(arguments)
        found[name] = function
    return found


def address(buffer: bytearray) -> int:
    """Return where the bytes of a buffer are, as long as it is neither resized nor gone."""
    return addressof(_Byte.from_buffer(buffer))
