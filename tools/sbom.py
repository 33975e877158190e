#!/usr/bin/env python3
"""Prints what an installation from the lock files contains, as CycloneDX 1.6 in JSON (an SBOM).

    tools/sbom.py                                 all of requirements/runtime.txt
    tools/sbom.py --installed FOLDER              those of them whose metadata is in FOLDER (site-packages)
    tools/sbom.py --locked FILE ...               another lock file

A lock file names every package with its version and its hashes. Packages of the system (iptables, nftables)
are not in it: they come from the machine or from the image's base, whose own tools list them (dpkg-query).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from version import version

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ROOT / "requirements/runtime.txt"
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(locked: str) -> list[dict[str, Any]]:
    """Return a component for each package of a lock file that `pip-compile --generate-hashes` has written."""
    found: list[dict[str, Any]] = []
    for line in locked.splitlines():
        if package := _PACKAGE.match(line):
            name, number = package.groups()
            identity = f"pkg:pypi/{name}@{number}"
            found.append(
                {"type": "library", "bom-ref": identity, "name": name, "version": number, "purl": identity}
            )
        # A hash for each file that the index has of this version; one of them is installed.
        if one := _HASH.search(line):
            files = found[-1].setdefault("externalReferences", [])
            hashes = [{"alg": "SHA-256", "content": one[1]}]
            url = f"https://pypi.org/project/{found[-1]['name']}/{found[-1]['version']}/"
            files.append({"type": "distribution", "url": url, "hashes": hashes})
    return found


def bill(parts: list[dict[str, Any]], number: str) -> dict[str, Any]:
    """Return the whole document for a version of this package, with these components."""
    identity = f"pkg:pypi/istio-iptables@{number}"
    about = {"type": "application", "bom-ref": identity, "name": "istio-iptables", "version": number}
    licences = [{"license": {"id": "Apache-2.0"}}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**about, "purl": identity, "licenses": licences}},
        "components": parts,
    }


def installed(parts: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return the components that are installed in a folder.

    Raises LookupError if a package there is not among the components: then it was not checked by its hash.
    """
    known = {(part["name"], part["version"]): part for part in parts}
    found, strange = [], []
    for path in sorted(folder.glob("*.dist-info")):
        name, _, number = path.name.removesuffix(".dist-info").rpartition("-")
        name = re.sub(r"[-_.]+", "-", name).lower()  # https://packaging.python.org: normalized names
        if (name, number) in known:
            found.append(known[name, number])
        elif name != "istio-iptables":
            strange.append(f"{name}=={number}")
    if strange:
        raise LookupError(f"{folder} has what the lock file has not: {', '.join(strange)}")
    return found


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description="Prints an SBOM (CycloneDX 1.6).")
    parser.add_argument("--locked", type=Path, default=LOCKED, help="lock file")
    parser.add_argument("--installed", type=Path, help="only what is installed in this folder")
    given = parser.parse_args()
    parts = components(given.locked.read_text())
    try:
        parts = installed(parts, given.installed) if given.installed else parts
    except LookupError as error:
        sys.exit(f"sbom: {error}")
    print(json.dumps(bill(parts, version()), indent=2))


if __name__ == "__main__":
    main()
