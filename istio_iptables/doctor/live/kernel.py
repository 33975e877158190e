"""kernel: what tells of the parts that this kernel has, read from files; no module is loaded for it."""

from __future__ import annotations

import os

from ...kernel.netlink import nftables
from ...kernel.proc import has_legacy
from ...rules.model import FAMILIES
from ..features import NF_TABLES, Evidence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...rules.model import Family

_LISTED: Mapping[Family, str] = {"ipv4": "/proc/self/net/ip_tables_", "ipv6": "/proc/self/net/ip6_tables_"}
_WHAT = ("names", "matches", "targets")


def evidence() -> Evidence:
    """Return all that tells of the kernel's parts."""
    release = os.uname().release
    options, options_from = _options(release)
    return Evidence(
        release,
        {
            (family, what): frozenset(lines)
            for family in FAMILIES
            for what in _WHAT
            if (lines := _lines(f"{_LISTED[family]}{what}")) is not None
        },
        _loaded(),
        options,
        _installed(release),
        options_from,
    )


def interface() -> dict[Family, bool]:
    """Tell by family whether ip_tables is loaded."""
    return {family: has_legacy(family) for family in FAMILIES}


def nftables_answer(found: Evidence) -> bool | None:
    """Tell whether the kernel has nf_tables, None if it is a module that asking would load.

    Raises OSError if this process may not ask.
    """
    presence = found.presence(NF_TABLES)
    if presence in ("installed", "absent"):
        return None if presence == "installed" else False
    return nftables.exist()


def _lines(path: str) -> list[str] | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return None


def _loaded() -> frozenset[str] | None:
    """Return the names of the modules that are loaded (proc_modules(5))."""
    lines = _lines("/proc/modules")
    return None if lines is None else frozenset(line.split()[0] for line in lines if line)


def _options(release: str) -> tuple[dict[str, str] | None, str]:
    """Return the kernel's configuration by option, without CONFIG_: only what is y or m; and its file."""
    for path, lines in (
        ("/proc/config.gz", _zipped_lines("/proc/config.gz")),
        (f"/boot/config-{release}", _lines(f"/boot/config-{release}")),
    ):
        if lines:
            set_to = (line[len("CONFIG_") :].partition("=") for line in lines if line.startswith("CONFIG_"))
            return {name: value for name, _, value in set_to if value in ("y", "m")}, path
    return None, ""


def _zipped_lines(path: str) -> list[str]:
    import zlib

    try:
        with open(path, "rb") as file:
            return zlib.decompress(file.read(), wbits=31).decode("ascii", "replace").splitlines()
    except (OSError, zlib.error):
        return []


def _installed(release: str) -> dict[str, bool] | None:
    """Return the modules that are installed for this kernel, with True for those that are built in."""
    folder = f"/lib/modules/{release}"
    built_in, files = _lines(f"{folder}/modules.builtin"), _lines(f"{folder}/modules.dep")
    if files is None:
        return None
    paths = [(line.partition(":")[0], False) for line in files] + [(line, True) for line in built_in or ()]
    return {path.rpartition("/")[2].partition(".")[0].replace("-", "_"): there for path, there in paths}
