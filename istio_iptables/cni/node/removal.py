"""removal: where the plugin's entry is in a node's configuration, and how it is taken out again."""

from __future__ import annotations

import os
from contextlib import suppress

from ..names import PLUGIN
from . import files
from .folder import LIST, SINGLE
from .listing import made_from, without_entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .folder import Folder, Found

#: The copies of mode own-file; the first one that comes before the list is used.
OWN_FILES = ("00-istio-iptables.conflist", "!istio-iptables.conflist")
#: The file of mode dropin, in the network's folder; plugins there run in the order of names.
DROP_IN = "99-istio-iptables.conf"
_MOST_TRIES = 1000


def aside(path: str) -> str:
    """Return the name under which a `.conf` is kept that has become a list; no runtime reads it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.istio-iptables")


def spots(folder: Folder) -> Iterator[str]:
    """Yield the paths of all files that the plugin's entry is in, drop-ins too."""
    for name in folder.names(LIST):
        found = folder.load(name)
        if found and (name in OWN_FILES or (found.listing and found.listing.ours)):
            yield folder.file(name)
    yield from _drop_ins(folder)


def _drop_ins(folder: Folder) -> Iterator[str]:
    for network in folder.subfolders():
        path = os.path.join(folder.path, network, DROP_IN)
        if os.path.lexists(path):
            yield path


def uninstall(folder: Folder) -> list[str]:
    """Take the entry out everywhere: the files are as they were before. Return what was done."""
    with files.locked(folder.path):
        return take_out(folder)


def take_out(folder: Folder, keep: str = "") -> list[str]:
    """Take the entry out of all files but `keep`. The folder's lock has to be held."""
    done: list[str] = []
    for path in [path for path in spots(folder) if path != keep]:
        name = os.path.basename(path)
        if name in OWN_FILES:
            os.unlink(path)
            done.append(f"{path}: removed")
        elif name == DROP_IN:
            os.unlink(path)
            with suppress(OSError):  # others have files in it
                os.rmdir(os.path.dirname(path))
            done.append(f"{path}: removed")
        else:
            done.append(_out_of_list(folder, name))
    return done


def _out_of_list(folder: Folder, name: str) -> str:
    path = folder.file(name)
    for _ in range(_MOST_TRIES):
        found = folder.load(name)
        if found is None or found.listing is None or not found.listing.ours:
            break
        if made_from(found.listing) is not None:
            if _give_back(folder, found):
                return f"{path}: it is {_single_of(name)} again"
            continue
        without = without_entry(found.listing)
        if without == found.text:
            return f"{path}: left as it is, since {PLUGIN} is the only plugin in it: remove the file"
        if files.replace(path, found.text, without):
            break
    _forget(folder.file(_single_of(name)))
    return f"{path}: {PLUGIN} is out of it"


def _single_of(name: str) -> str:
    return f"{name.removesuffix(LIST)}{SINGLE}"


def _give_back(folder: Folder, found: Found) -> bool:
    """Have the `.conf` again that a list was made from. False if another program was quicker.

    It comes before the list in the order of names, so that at each moment one of them is used.
    """
    assert found.listing
    path, single = folder.file(found.name), folder.file(_single_of(found.name))
    text = made_from(found.listing)
    assert text is not None
    if not os.path.lexists(single):
        if files.read(aside(single)) == text:
            os.rename(aside(single), single)  # with its link, owner and times
        else:
            files.create(single, text, like=path)
    _forget(single)
    return files.remove(path, found.text)


def _forget(single: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(aside(single))
