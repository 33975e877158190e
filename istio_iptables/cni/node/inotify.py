"""inotify: wait until something changes in folders, by inotify(7) through the C library.

Only the standard library's own way is missing; what is needed are three calls. An event only says that it is
time to look again: a watch that is set before a look misses nothing, whatever the events say.
"""

from __future__ import annotations

import ctypes
import os
import select

#: IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF,
#: and IN_ONLYDIR (linux/inotify.h).
_EVENTS = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800 | 0x01000000
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_BUFFER = 1 << 16


class Watch:
    """A watch of folders. Those that are missing are passed over until `add` is called again."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._file = self._library.inotify_init1(_FLAGS)
        if self._file < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)} (sysctl fs.inotify.max_user_instances)")

    def add(self, folder: str) -> None:
        """Watch a folder. Adding it again changes nothing, unless it is another one by now."""
        self._library.inotify_add_watch(self._file, os.fsencode(folder), _EVENTS)

    def wait(self, seconds: float, also: int = -1) -> None:
        """Return when something has changed, when the file `also` can be read, or after so many seconds."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        if also >= 0:
            poll.register(also, select.POLLIN)
        poll.poll(seconds * 1000)
        try:
            while os.read(self._file, _BUFFER):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """End the watch."""
        os.close(self._file)
