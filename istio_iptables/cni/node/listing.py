"""listing: the text of a CNI configuration, with the plugin's entry and without it.

A `.conflist` has a chain of plugins (`plugins`), a `.conf` is a single plugin. Nothing is written anew but
the entry itself: it goes behind the last plugin, with the blanks that stand before that one, and when it is
taken out the text is as it was. A text is valid by the rules of libcni, with which runtimes load it
(github.com/containernetworking/cni, libcni/conf.go).
"""

from __future__ import annotations

import json

from ...startup.record import Record
from ..names import PLUGIN, VERSIONS
from .positions import NotJson, Part, document, elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeAlias

    Entry: TypeAlias = Mapping[str, object]

#: What a runtime calls a network name (libcni's ValidateNetworkName).
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Invalid(ValueError):
    """A configuration that a runtime passes over, and why."""


class Listing(Record):
    """A configuration that is a list: its text, what was read of it, and the places of its plugins."""

    text: str
    members: Mapping[str, Part]
    plugins: tuple[Part, ...]

    @property
    def ours(self) -> tuple[int, ...]:
        """The places of the plugin's entries in the chain."""
        return tuple(number for number, part in enumerate(self.plugins) if _type(part.value) == PLUGIN)

    @property
    def network(self) -> str:
        """The name of the network."""
        return str(self.members["name"].value)

    @property
    def version(self) -> str:
        """Its cniVersion, empty if it has none."""
        part = self.members.get("cniVersion")
        return part.value if part else ""

    @property
    def only_inlined(self) -> bool:
        """True if a runtime reads no plugins of it from other files (loadOnlyInlinedPlugins)."""
        part = self.members.get("loadOnlyInlinedPlugins")
        return part is not None and part.value in (True, "true", "TRUE", "True", "1", "t", "T")


def read_list(text: str) -> Listing:
    """Read the text of a `.conflist`. Raises Invalid where libcni would not load it."""
    members = _document(text)
    if not isinstance(_value(members, "name"), str):
        raise Invalid("it has no name")
    if not isinstance(_value(members, "cniVersion", ""), str):
        raise Invalid("its cniVersion is not a text")
    array = members.get("plugins")
    if array is None or not isinstance(array.value, list):
        raise Invalid("it has no list of plugins")
    if not array.value:
        raise Invalid("its list of plugins is empty")
    for number, plugin in enumerate(array.value, 1):
        if not isinstance(plugin, dict) or not _type(plugin):
            raise Invalid(f"its plugin {number} has no type")
    return Listing(text, members, elements(text, array))


def read_single(text: str) -> Mapping[str, Part]:
    """Read the text of a `.conf`. Raises Invalid where libcni would not load it."""
    members = _document(text)
    plugin = {key: part.value for key, part in members.items()}
    if not _type(plugin):
        raise Invalid("it has no type")
    for key in ("name", "cniVersion"):
        if not isinstance(plugin.get(key, ""), str):
            raise Invalid(f"its {key} is not a text")
    return members


def as_list(text: str) -> str:
    """Return the list that is made of a `.conf`: its text is the one plugin, as it is. Raises Invalid.

    The plugin keeps its own name and cniVersion; a runtime replaces both by those of the list.
    """
    return f"{_head(read_single(text))}{text}{_TAIL}"


def made_from(listing: Listing) -> str | None:
    """Return the text of the `.conf` that `as_list` made this list of, None if it was not made by it."""
    text, head = without_entry(listing), _head(listing.members)
    if not (text.startswith(head) and text.endswith(_TAIL)):
        return None
    inner = text[len(head) : -len(_TAIL)]
    try:
        return inner if as_list(inner) == text else None
    except Invalid:
        return None


_TAIL = "]}\n"


def _head(members: Mapping[str, Part]) -> str:
    values = {key: members[key].value for key in ("cniVersion", "name") if key in members}
    return f'{json.dumps({"name": "", **values})[:-1]}, "plugins": ['


# --- the entry ------------------------------------------------------------------------------


def with_entry(listing: Listing, entry: Entry) -> str:
    """Return the text of a list with the entry as its last plugin, and no other entry of ours."""
    if listing.ours == (len(listing.plugins) - 1,) and listing.plugins[-1].value == entry:
        return listing.text
    text = without_entry(listing)
    last = read_list(text).plugins[-1]
    before = len(text[: last.start].rstrip(" \t\r\n"))
    return f"{text[: last.end]},{text[before : last.start]}{json.dumps(entry)}{text[last.end :]}"


def without_entry(listing: Listing) -> str:
    """Return the text of a list without the plugin's entries. A list of nothing else stays as it is.

    What separates an entry from its neighbour goes with it.
    """
    ours, plugins = listing.ours, listing.plugins
    if len(ours) == len(plugins):
        return listing.text
    text = listing.text
    for number in reversed(ours):
        others_before = [index for index in range(number) if index not in ours]
        if others_before:
            start, end = plugins[number - 1].end, plugins[number].end
        else:
            start, end = plugins[number].start, plugins[number + 1].start
        text = text[:start] + text[end:]
    return text


def holds(listing: Listing, entry: Entry) -> bool:
    """Tell whether the entry is in a list as it should be: once, equal, and behind another plugin."""
    ours = listing.ours
    return len(ours) == 1 and ours[0] > 0 and listing.plugins[ours[0]].value == entry


def why_not(listing: Listing) -> str:
    """Return why the plugin cannot work in this chain, or nothing if it can."""
    if len(listing.ours) == len(listing.plugins):
        return f"it has no plugin but {PLUGIN}, so pods would get no network"
    if listing.version not in VERSIONS:
        spoken = ", ".join(VERSIONS)
        return f"its cniVersion is {listing.version!r}, and {PLUGIN} can be called with {spoken}"
    return ""


def is_network_name(name: str) -> bool:
    """Tell whether a runtime takes a name for that of a network; then it is a file's name, too."""
    return bool(name) and name[0] not in "_.-" and _NAME_CHARACTERS.issuperset(name)


def _document(text: str) -> Mapping[str, Part]:
    try:
        return document(text)
    except NotJson as error:
        raise Invalid(str(error)) from error


def _value(members: Mapping[str, Part], key: str, default: object = None) -> object:
    return members[key].value if key in members else default


def _type(plugin: Mapping[str, Any]) -> str:
    """Return the type of a plugin; Go finds the key in any case, and the last one counts."""
    found: Sequence[object] = [value for key, value in plugin.items() if key.lower() == "type"]
    return found[-1] if found and isinstance(found[-1], str) else ""
