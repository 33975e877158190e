#!/usr/bin/env python3
"""Prints the version of what is built from here; setup.py and tools/image.py ask it too.

It is, whichever there is first:

    ISTIO_IPTABLES_VERSION  a variable, for a build without git, such as the image's
    the tag                 v1.2.3 is version 1.2.3; four commits later it is 1.2.4.dev4
    __version__             of istio_iptables/__init__.py: in an sdist that of its build, in git the next one
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: The line that a build changes in what it makes, so that to know the version costs a start nothing.
LINE = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_DESCRIBED = re.compile(r"v(\d+)\.(\d+)\.(\d+)-(\d+)-g[0-9a-f]+")


def version(root: Path = ROOT) -> str:
    """Return the version (PEP 440)."""
    return os.environ.get("ISTIO_IPTABLES_VERSION") or _of_tag(root) or _written(root)


def _of_tag(root: Path) -> str:
    """Return what the newest tag below the commit tells, or nothing where there is none."""
    if not (root / ".git").exists():  # the repository of another project, if any
        return ""
    # The clone may belong to another user than this one, who is root for instance.
    git = ("git", "-C", str(root), "-c", f"safe.directory={root}")
    command = (*git, "describe", "--tags", "--long", "--match", "v[0-9]*")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    found = _DESCRIBED.fullmatch(done.stdout.strip())
    if not found:
        return ""
    major, minor, patch, commits = found.groups()
    if commits == "0":
        return f"{major}.{minor}.{patch}"
    # Without the commit, as `+g1a2b3c`: the version is a tag of images, too, and these have no `+`.
    return f"{major}.{minor}.{int(patch) + 1}.dev{commits}"


def _written(root: Path) -> str:
    (found,) = LINE.findall((root / "istio_iptables/__init__.py").read_text())
    return str(found)


if __name__ == "__main__":
    print(version())
