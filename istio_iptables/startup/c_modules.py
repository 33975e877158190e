"""lean: what Python's own modules socket, signal and hashlib do in C, without what they add to it in Python.

What they add, enumerations and sockets that are files, takes five to seven milliseconds to import (enum,
functools, collections, selectors ...), a quarter of what a whole run may take, and is of no use to a program
that sends a few netlink messages and blocks three signals. The C halves, `_socket` and `_signal`, have the
same functions under the same names, but numbers are plain integers, and a socket is no context manager.
`_blake2` has a digest without the OpenSSL that hashlib brings in. They are private to the standard library:
where they are missing the public modules do as well.
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
