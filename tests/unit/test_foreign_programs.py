"""tools/foreign-programs: what it fetches where some of it is installed, or was fetched before."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.command import ROOT

#: The packages of a machine that has all of them but firewalld, which needs one more.
_APT_GET = r"""#!/bin/sh
case "$*" in
-s*) echo 'Inst firewalld (1.3.3-1 Debian:12 [all])'; echo 'Inst libnm0 (1.42.4-1 Debian:12 [amd64])' ;;
*download*) shift 2; printf '%s\n' "$@" >>"$ASKED" ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with an apt-get that notes what it is asked to download, and brings nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("apt-get", _APT_GET), ("apt-cache", "#!/bin/sh\n"), ("dpkg-deb", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def fetched(programs: Path, directory: Path) -> list[str]:
    """Run it, and return the packages that it asks for."""
    asked = programs / "asked"
    asked.write_text("")
    subprocess.run(
        [ROOT / "tools/foreign-programs", directory],
        env={"PATH": f"{programs}:{os.defpath}", "ASKED": str(asked)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return asked.read_text().split()


def test_a_program_that_is_installed_is_fetched_and_what_it_needs_is_not(
    programs: Path, tmp_path: Path
) -> None:
    """The tests look for the programs where they are unpacked."""
    found = fetched(programs, tmp_path / "there")
    assert {"containernetworking-plugins", "podman", "runc", "firewalld", "libnm0"} <= set(found)
    assert len(found) == len(set(found))
    assert "conmon" not in found


def test_what_is_there_is_fetched_again_only_by_another_version_of_the_script(
    programs: Path, tmp_path: Path
) -> None:
    assert fetched(programs, tmp_path / "there")
    assert fetched(programs, tmp_path / "there") == []
    (tmp_path / "there/complete").write_text("containerd podman\n")
    assert fetched(programs, tmp_path / "there")
