"""What a system made on this machine takes from it: Debian's packages, and how to reach package sources.

The tools that build images and bare systems share this. Paths of this machine mean nothing in such a system,
so what apt and pip are told here is written again for a place there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)


class CannotBuild(Exception):
    """Something that it takes is not there, and what: nothing is wrong with the project."""


def ask(*command: str) -> str | None:
    """Return what a command prints, or None if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def setting(name: str, default: str = "") -> str:
    """Return a variable of the environment; empty is as good as absent."""
    return os.environ.get(name) or default


def debootstrap(suite: str, folder: str | os.PathLike[str], packages: str) -> None:
    """Install Debian's smallest system, and packages (names with commas between), in a folder.

    They come from the variable MIRROR, else from where apt has those of that release, else from where
    debootstrap takes them. Raises CannotBuild.
    """
    subprocess.run([ROOT / "tools/system-packages", "image-base"], check=False)
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    system_path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    for command in (*as_root, "debootstrap"):
        if not shutil.which(command, path=system_path):
            raise CannotBuild(f"to make a base takes {command}, which is not installed")
    system = list(filter(None, (suite, os.fspath(folder), setting("MIRROR") or mirror_of(suite))))
    done = subprocess.run(
        [*as_root, "debootstrap", "--variant=minbase", f"--include={packages}", *system],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": system_path},
    )
    if done.returncode != 0:
        raise CannotBuild(f"debootstrap failed: {done.stdout.strip().splitlines()[-1:]}")


def mirror_of(suite: str) -> str:
    """Return where apt finds a release of Debian on this machine, nothing if it knows none."""
    wanted = ("Created-By: Packages", "Origin: Debian", f"Codename: {suite}")
    return "".join((ask("apt-get", "indextargets", "--format=$(REPO_URI)", *wanted) or "").split()[:1])


def authorities() -> str:
    """Return the file of the authorities that this machine trusts, nothing if there is none."""
    return next((path for path in (setting("SSL_CERT_FILE"), *AUTHORITIES) if Path(path).is_file()), "")


def apt_settings(authorities: str) -> str:
    """Return how apt reaches its sources here, as apt.conf(5) has it; empty where there is no apt.

    `authorities` is where the system has its file of them, if it has one.
    """
    known = (ask("apt-config", "dump") or "").splitlines()
    wanted = re.compile(r"Acquire::(http|https|Check-Valid-Until|Check-Date|Retries|ForceIPv)")
    needs_files_of_here = re.compile(r"Acquire::https?::(.*CaInfo|.*Proxy-Auto)", re.IGNORECASE)
    lines = [line for line in known if wanted.match(line) and not needs_files_of_here.match(line)]
    if authorities:
        lines.append(f'Acquire::https::CAInfo "{authorities}";')
    return "".join(f"{line}\n" for line in lines)


def pip_settings(authorities: str) -> str:
    """Return how pip reaches its index here, as its configuration file has it.

    An index in a folder is left out. `authorities` is where the system has its file of them, if it has one.
    """
    names = "index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout"
    known = (ask(sys.executable, "-m", "pip", "config", "list") or "").splitlines()
    found: dict[str, str] = {}
    for line in sorted(known, reverse=True):  # so `:env:`, which wins, comes last
        if match := re.fullmatch(rf"(?:global|:env:)\.({names})='(.*)'", line):
            values = [word for word in match[2].split() if not word.startswith(("file:", "/"))]
            found |= {match[1]: " ".join(values)} if values else {}
    if authorities:
        found["cert"] = authorities
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in found.items())
