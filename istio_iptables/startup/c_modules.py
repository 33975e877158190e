"""c_modules: the parts of socket, signal and hashlib that are written in C, without those written in Python.

The Python parts (enumerations, sockets as files) import enum, functools, collections, selectors and more. A
program that sends a few netlink messages and blocks three signals does not need them; startup/__init__.py
has the cost. The C modules `_socket` and `_signal` have the same functions under the same names, but
constants are plain integers, and a socket is not a context manager. `_blake2` has a digest without OpenSSL,
which hashlib imports. These modules are private to the standard library, so the public ones are used where
they are missing.

Each is loaded when it is first imported from here: two are shared libraries, which few runs need.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from hashlib import blake2b

__all__ = ["blake2b", "signal", "socket"]

#: The module written in C, the public one, and what is taken from it; nothing: the module itself.
_WHERE = {
    "blake2b": ("_blake2", "hashlib", "blake2b"),
    "signal": ("_signal", "signal", ""),
    "socket": ("_socket", "socket", ""),
}


def __getattr__(name: str) -> object:
    """Load what is imported from here for the first time (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    in_c, public, attribute = _WHERE[name]
    try:
        module = __import__(in_c)
    except ImportError:
        module = __import__(public)
    globals()[name] = found = getattr(module, attribute) if attribute else module
    return found
