"""Everyone: the package and its Python where every user may read them.

A clone is often below a home directory that only its owner may enter (0700), and so may Python be. A process
with another user, or root without CAP_DAC_OVERRIDE, cannot run the tool from there. In a mount namespace of
its own the same files have another path, and the permissions of the directories above them do not count.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence

from tests.support.netns import ROOT

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
