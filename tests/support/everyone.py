"""Everyone: the package and its Python where every user may read them.

A clone is often below a home directory that only its owner may enter (0700), and so may Python be. A process
with another user, or root without CAP_DAC_OVERRIDE, cannot run the tool from there. In a mount namespace of
its own the same files have another path (`command`), or that directory is another one, which shows them where
they were (`user`), and the permissions of the directories above them do not count.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.netns import ROOT
from tests.support.scratch import SETPRIV

#: Run in the new mount namespace, before the command itself; a test may append to it.
_SHOW = """
set -e
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/istio_iptables /mnt/python /mnt/packages
mount --bind "$1" /mnt/istio_iptables
mount --rbind "$2" /mnt/python
mount --bind "$3" /mnt/packages
shift 3
"""
_SOURCES = (str(ROOT / "istio_iptables"), sys.base_prefix, sysconfig.get_path("platlib"))
PYTHON = f"/mnt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
#: For a process that is to have the package alone, without those that it needs at times.
PACKAGE_ALONE: Mapping[str, str] = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": "/mnt",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/mnt/python/lib",
}
ENVIRONMENT: Mapping[str, str] = {**PACKAGE_ALONE, "PYTHONPATH": "/mnt:/mnt/packages"}


def command(limits: Sequence[str], *arguments: str, script: str = "") -> list[str]:
    """Return a command that runs the tool with `limits` (a setpriv command), after a piece of shell."""
    shell = ["unshare", "--mount", "sh", "-c", f'{_SHOW}{script}\nexec "$@"', "sh", *_SOURCES]
    return [*shell, *limits, "--", PYTHON, "-m", "istio_iptables", *arguments]


#: By their paths, so that they can be used where PATH is empty.
_UNSHARE, _SH = shutil.which("unshare") or "", shutil.which("sh") or ""


def user(number: int, *limits: str) -> list[str]:
    """Return the prefix of a command that is to run as a user and group of this ID, with more for setpriv."""
    return [*_REACHING, SETPRIV, f"--reuid={number}", f"--regid={number}", "--clear-groups", *limits]


def _reaching(needed: Sequence[Path]) -> list[str]:
    """Return the prefix of a command for which every user may enter the folders above some others."""
    closed = {next(_closed(path), None) for path in needed} - {None}
    if not closed:
        return []
    steps = ["umask 022", "mount -t tmpfs none /mnt"]
    for number, path in enumerate(needed):
        steps.append(f"mkdir /mnt/{number} && mount --rbind {shlex.quote(str(path))} /mnt/{number}")
    steps += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(path))}" for path in closed]
    for number, path in enumerate(needed):
        if next(_closed(path), None):
            there = shlex.quote(str(path))
            steps.append(f"mkdir -p {there} && mount --rbind /mnt/{number} {there}")
    script = f'(PATH={os.defpath}:/usr/sbin:/sbin; {" && ".join(steps)} && umount -l /mnt) && exec "$@"'
    return [_UNSHARE, "--mount", _SH, "-c", script, "sh"]


def _closed(path: Path) -> Iterator[Path]:
    """Yield the folders above a path, from the root on, that not every user may enter."""
    return (folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001)


def _outermost(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not any(other in path.parents for other in paths)]


_REACHING = _reaching(_outermost([*{ROOT, Path(sys.prefix), Path(sys.base_prefix)}]))
