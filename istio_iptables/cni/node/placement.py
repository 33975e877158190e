"""placement: the plugin's entry in a node's configuration, put there in one of three ways, and looked for.

chained: behind the last plugin of the list that the runtime uses, in its file. dropin: in a file of its own
in the folder of that network, which libcni 1.3 and later append to the list. own-file: in a copy of that
list, whose name comes before it. Whichever it is, the entry is nowhere else then.
"""

from __future__ import annotations

import json
import os

from ...errors import KernelError
from ...startup.record import Record
from ..names import PLUGIN
from . import files
from .folder import LIST, SINGLE, Found
from .listing import holds, is_network_name, made_from, why_not, with_entry, without_entry
from .removal import DROP_IN, OWN_FILES, aside, spots, take_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ...settings.node_commands import Placement
    from .folder import Folder
    from .listing import Entry

#: Another program that goes on writing is outrun after a few of these.
_MOST_TRIES = 1000


class Place(Record):
    """A file that the entry belongs into, as it is and as it should be.

    `before` is None if there is no such file; a new one gets the mode of the file `like`. If a `.conf`
    becomes this list, `single` is its path and `single_text` what it held.
    """

    path: str
    before: str | None
    after: str
    like: str = ""
    single: str = ""
    single_text: str = ""


def primary(folder: Folder) -> Found:
    """Return the configuration that a runtime uses: the first valid one. Copies of our own do not count.

    Raises KernelError if there is none, or if the plugin cannot work in it.
    """
    passed_over: list[str] = []
    for found in _others(folder):
        if found.listing is None:
            passed_over.append(f"{found.name}: {found.why}")
            continue
        problem = why_not(found.listing)
        if problem:
            raise KernelError(
                f"{folder.file(found.name)} cannot take the plugin: {problem}",
                "correct that file, or have the installer of the network do it",
            )
        return found
    more = f" ({'; '.join(passed_over)})" if passed_over else ""
    raise KernelError(
        f"{folder.path} has no valid network configuration{more}",
        "install the cluster's network first, or name its folder with --conf-dir",
    )


def _others(folder: Folder) -> Iterator[Found]:
    for name in folder.names(LIST, SINGLE):
        if name not in OWN_FILES and (found := folder.load(name)):
            yield found


# --- where it belongs ---------------------------------------------------------------------------


def _chained(folder: Folder, entry: Entry) -> Place:
    first = primary(folder)
    assert first.listing
    path = folder.file(first.name)
    if not first.is_single:
        return Place(path, first.text, with_entry(first.listing, entry))
    there = folder.load(_list_of(first.name))
    if there and (there.listing is None or made_from(there.listing) is None):
        raise KernelError(
            f"{path} has to become {there.name}, and there is another file of that name",
            "remove the one that is not used, or use --mode own-file",
        )
    before = there.text if there else None
    return Place(
        folder.file(_list_of(first.name)),
        before,
        with_entry(first.listing, entry),
        like=path,
        single=path,
        single_text=first.text,
    )


def _list_of(name: str) -> str:
    return f"{name.removesuffix(SINGLE)}{LIST}"


def _drop_in(folder: Folder, entry: Entry) -> Place:
    first = primary(folder)
    assert first.listing
    path, network = folder.file(first.name), first.listing.network
    if first.is_single or made_from(first.listing) is not None:
        raise KernelError(
            f"{path} is a single plugin, and only lists have drop-ins",
            "use --mode chained or --mode own-file",
        )
    if first.listing.only_inlined:
        raise KernelError(
            f"{path} says loadOnlyInlinedPlugins, so the runtime reads no drop-ins",
            "use --mode chained or --mode own-file",
        )
    if not is_network_name(network):
        raise KernelError(
            f"{path}: its network's name {network!r} cannot be that of a folder",
            "use --mode chained or --mode own-file",
        )
    drop_in = os.path.join(folder.path, network, DROP_IN)
    return Place(drop_in, files.read(drop_in), f"{json.dumps(entry, indent=2)}\n", like=path)


def _own_file(folder: Folder, entry: Entry) -> Place:
    first = primary(folder)
    assert first.listing
    for name in OWN_FILES:
        if os.fsencode(name) < os.fsencode(first.name):
            path = folder.file(name)
            text = with_entry(first.listing, entry)
            return Place(path, files.read(path), text, like=folder.file(first.name))
    raise KernelError(
        f"no own file can come before {folder.file(first.name)} in the order of names",
        "rename that file, or use --mode chained",
    )


_PLACES: Mapping[Placement, Callable[[Folder, Entry], Place]] = {
    "chained": _chained,
    "dropin": _drop_in,
    "own-file": _own_file,
}


# --- put it there -----------------------------------------------------------------------------


def put(folder: Folder, mode: Placement, entry: Entry) -> list[str]:
    """Put the entry in place, and nowhere else. Return what was done, nothing if all was as it should be.

    Raises KernelError if that cannot be; then the runtime's configuration is as before.
    """
    with files.locked(folder.path):
        for _ in range(_MOST_TRIES):
            place = _PLACES[mode](folder, entry)
            if place.before == place.after and not place.single:
                return take_out(folder, keep=place.path)
            if _write(folder, place, entry):
                return [f"{place.path}: {PLUGIN} is in it", *take_out(folder, keep=place.path)]
    raise KernelError(
        f"{folder.path}: another program changes the files all the time",
        "find out which one, and stop it",
    )


def _write(folder: Folder, place: Place, entry: Entry) -> bool:
    """Write the file; False if another program was quicker."""
    if place.before is None:
        os.makedirs(os.path.dirname(place.path), mode=0o755, exist_ok=True)
        files.create(place.path, place.after, place.like)
    elif not files.replace(place.path, place.before, place.after):
        return False
    if place.single:
        return _set_aside(place)
    return True


def _set_aside(place: Place) -> bool:
    """Give the `.conf` a name that no runtime reads: `cni uninstall` gives it back.

    False if it was changed meanwhile: then it comes back at once, for the list to be made of it again.
    """
    kept = aside(place.single)
    try:
        os.rename(place.single, kept)
    except FileNotFoundError:
        return False
    if files.read(kept) == place.single_text:
        return True
    if not os.path.lexists(place.single):
        os.rename(kept, place.single)
    return False


# --- is it there? -----------------------------------------------------------------------------


def problems(folder: Folder, mode: Placement, entry: Entry) -> list[str]:
    """Return what is not as `put` leaves it, nothing if all is well.

    The entry need not be the last one: other programs put theirs behind it, and two that both want to be the
    last would go on for ever. Raises KernelError where `put` does.
    """
    place = _PLACES[mode](folder, entry)
    found: list[str] = []
    if not _is_in_place(folder, place, mode, entry):
        missing = place.before is None or PLUGIN not in place.before
        found.append(f"{place.path}: {PLUGIN} is {'not in it' if missing else 'not in it as it should be'}")
    found += [f"{path}: {PLUGIN} is in it too" for path in spots(folder) if path != place.path]
    return found


def _is_in_place(folder: Folder, place: Place, mode: Placement, entry: Entry) -> bool:
    if place.single or place.before is None:
        return False
    if place.before == place.after:
        return True
    there = folder.load(os.path.basename(place.path)) if mode != "dropin" else None
    if there is None or there.listing is None or not holds(there.listing, entry):
        return False
    return mode == "chained" or without_entry(there.listing) == _plain(folder)


def _plain(folder: Folder) -> str:
    """Return the text of the list that own-file copies, without our entry."""
    listing = primary(folder).listing
    assert listing
    return without_entry(listing)
