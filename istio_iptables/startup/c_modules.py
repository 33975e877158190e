"""c_modules: the parts of socket, signal and hashlib that are written in C, without those written in Python.

The Python parts (enumerations, sockets as files) import enum, functools, collections, selectors and more. A
program that sends a few netlink messages and blocks three signals does not need them; startup/__init__.py
has the cost. The C modules `_socket` and `_signal` have the same functions under the same names, but
constants are plain integers, and a socket is not a context manager. `_blake2` has a digest without OpenSSL,
which hashlib imports. These modules are private to the standard library, so the public ones are used where
they are missing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from hashlib import blake2b
else:
    try:
        import _signal as signal
        import _socket as socket
    except ImportError:
        import signal
        import socket
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

__all__ = ["blake2b", "signal", "socket"]
