"""folder: the configurations in a node's folder, in the order in which a container runtime reads them."""

from __future__ import annotations

import os
import time

from ...startup.record import Record
from . import files
from .listing import Invalid, Listing, as_list, read_list

#: What a runtime reads. (containerd reads *.json too, as a single plugin.)
LIST, SINGLE = ".conflist", ".conf"
#: A file that was changed so recently may be half written: it is read again before it counts as invalid.
_SETTLED_AFTER = 2.0
_PAUSE = 0.05


class Found(Record):
    """A configuration: its name, its text, and the list that it is or becomes; `why` it is passed over."""

    name: str
    text: str
    listing: Listing | None
    why: str = ""

    @property
    def is_single(self) -> bool:
        """True for a `.conf`."""
        return self.name.endswith(SINGLE)


class Folder:
    """A folder of configurations, such as /etc/cni/net.d."""

    def __init__(self, path: str) -> None:
        self.path = path

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.path, name)

    def names(self, *endings: str) -> list[str]:
        """Return the names of the files with such an ending, in the order in which a runtime reads them."""
        found = [entry.name for entry in os.scandir(self.path) if entry.name.endswith(endings)]
        return sorted((name for name in found if not _is_folder(self.file(name))), key=os.fsencode)

    def found(self) -> list[Found]:
        """Return all configurations in their order, also those that a runtime passes over."""
        return [found for name in self.names(LIST, SINGLE) if (found := self.load(name))]

    def load(self, name: str) -> Found | None:
        """Return a configuration, None if there is no file of that name (or a link that leads nowhere)."""
        path, deadline = self.file(name), 0.0
        while True:
            try:
                text = files.read(path)
            except OSError as error:  # a link to a folder, a file that may not be read
                return Found(name, "", None, error.strerror or str(error))
            if text is None:
                return None
            try:
                return Found(name, text, read_list(as_list(text) if name.endswith(SINGLE) else text))
            except Invalid as error:
                now = time.monotonic()
                deadline = deadline or now + _SETTLED_AFTER
                if now >= deadline or not _is_recent(path):
                    return Found(name, text, None, str(error))
            time.sleep(_PAUSE)

    def subfolders(self) -> list[str]:
        """Return the names of the folders in it: of networks, for plugins of their own (libcni 1.3)."""
        return sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_recent(path: str) -> bool:
    """Tell whether a file has been written within the last seconds: the writer may not be done."""
    try:
        return -_SETTLED_AFTER < time.time() - os.stat(path).st_mtime < _SETTLED_AFTER
    except FileNotFoundError:
        return False
