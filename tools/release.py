#!/usr/bin/env python3
"""Prepares a release: writes its number into CHANGELOG.md and `__version__`. `make release` runs this.

It changes files alone; --next prints what to do then. Nothing is changed if the number is not that of a new
release.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from version import LINE

ROOT = Path(__file__).resolve().parents[1]
_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_UNRELEASED = "## Unreleased\n"
_NEXT = """Read the difference, then

    git commit -a -m "Release {0}" && git tag -s v{0} -m "Release {0}" && git push origin main v{0}
"""


class Refused(Exception):
    """The release cannot be prepared; the text says why, and what to do."""


def prepare(number: str, root: Path, today: str) -> None:
    """Write a number into the two files that have it.

    Raises Refused if it is no number of a version, has been released, or nothing is unreleased.
    """
    wanted = _parts(number)
    if wanted is None:
        raise Refused(f"VERSION is {number!r}: give a number such as 1.2.3")
    changelog, module = root / "CHANGELOG.md", root / "istio_iptables/__init__.py"
    changes = changelog.read_text()
    for earlier in (*_tags(root), *re.findall(r"^## (\S+)", changes, re.MULTILINE)):
        parts = _parts(earlier.removeprefix("v"))
        if parts is not None and parts >= wanted:
            raise Refused(f"VERSION is {number}, and there is {earlier}: give a higher number")
    if _UNRELEASED not in changes:
        raise Refused('CHANGELOG.md has no section "Unreleased": write what is new into one')
    changelog.write_text(changes.replace(_UNRELEASED, f"## {number}, {today}\n", 1))
    module.write_text(LINE.sub(f'__version__ = "{number}"', module.read_text(), count=1))


def _parts(number: str) -> tuple[int, ...] | None:
    found = _NUMBER.fullmatch(number)
    return tuple(map(int, found.groups())) if found else None


def _tags(root: Path) -> list[str]:
    command = ("git", "-C", str(root), "-c", f"safe.directory={root}", "tag", "--list", "v*")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def main(arguments: list[str]) -> int:
    """Prepare the release of the number that is the only argument, or tell what comes after that."""
    try:
        if arguments[:1] == ["--next"]:
            print(_NEXT.format(arguments[1]), end="")
        else:
            prepare(arguments[0] if arguments else "", ROOT, datetime.now(UTC).date().isoformat())
    except Refused as refused:
        print(f"release: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
