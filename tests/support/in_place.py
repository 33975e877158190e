"""in_place: a shell script in place of a program, for one command."""

from __future__ import annotations

import shutil
from pathlib import Path


def in_place_of(program: str, folder: Path, script: str) -> tuple[str, ...]:
    """Return how to begin a command for which a program is a shell script, to which the real one is $REAL.

    It is mounted over the program: the system's own folders come before those of PATH. Where one program has
    many names, all of them are the script: `"$REAL" "$(basename "$0")"` goes on.
    """
    folder.mkdir()
    installed = Path(str(shutil.which(program))).resolve()
    shutil.copy(installed, folder / "real")
    (folder / "program").write_text(f"#!/bin/bash\nREAL={folder}/real\n{script}\n")
    (folder / "program").chmod(0o755)
    mount = f'mount --bind {folder}/program {installed} && exec "$@"'
    return ("unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh")
