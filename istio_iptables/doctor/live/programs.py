"""programs: which programs and libraries are there, and of which version. They are not given any rules."""

from __future__ import annotations

import os

from ...errors import KernelError
from ...kernel.iptables_command import IptablesCommand
from ...kernel.nft_command import NftCommand
from ...kernel.process import run, which
from ...kernel.xtables.libiptc import Libiptc
from ...rules.model import IPV4
from ..checks.programs import Commands, Extensions, Library, Nft, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...change.actions import Location
    from ...rules.model import Family

#: The first iptables that reads XTABLES_LOCKFILE.
_READS_LOCKFILE = (1, 8, 6)


def commands(location: Location, families: Sequence[Family]) -> Commands:
    """Return the commands of the variant of iptables whose rules are in a location."""
    variant = IptablesCommand(location)
    try:
        for family in families:
            for action in ("restore", "save"):
                variant.command(family, action)
        command = variant.command(IPV4, "restore")
    except KernelError as error:
        return Commands(missing=error)
    version = run((*command, "--version")).output.strip()
    return Commands(version, takes_the_lock=_takes_the_lock(command[0], version))


def _takes_the_lock(path: str, version: str) -> bool:
    """Tell whether a program has a lock file of its own: its version is old, and it has not got the name."""
    if not version_of(version) or version_of(version) >= _READS_LOCKFILE:
        return False
    with open(os.path.realpath(path), "rb") as file:
        return b"XTABLES_LOCKFILE" not in file.read()


def library(families: Sequence[Family], *, chosen: bool) -> Library:
    """Return whether libiptc can be loaded, for the families if it is `chosen` for the rules."""
    backend = Libiptc()
    try:
        for family in families if chosen else ():
            backend.load(family)
    except KernelError as error:
        return Library(error=error)
    return Library(missing=backend.missing())


def extensions() -> Extensions:
    """Return where iptables looks for its extensions (iptables(8), XTABLES_LIBDIR), and what is there.

    The folder that a program was built with cannot be asked for: those of the distributions are looked into.
    """
    given = os.environ.get("XTABLES_LIBDIR")
    folders = given.split(":") if given else [path for path in _usual_folders() if os.path.isdir(path)]
    files = [name for folder in folders for name in _files(folder)]
    return Extensions(tuple(folders), frozenset(files))


def _usual_folders() -> list[str]:
    architectures = [name for name in _files("/usr/lib") if "-linux-" in name]
    bases = (*(f"/usr/lib/{name}" for name in architectures), "/usr/lib", "/usr/lib64", "/usr/local/lib")
    return [f"{base}/xtables" for base in bases]


def _files(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def nft(to_read: Sequence[str]) -> Nft:
    """Return the command nft; `to_read` are tables in place that only it can read."""
    if not which("nft"):
        return Nft(installed=False, to_read=tuple(to_read))
    try:
        return Nft(NftCommand().version(), to_read=tuple(to_read))
    except KernelError as error:
        return Nft(problem=error, to_read=tuple(to_read))
