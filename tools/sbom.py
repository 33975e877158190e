#!/usr/bin/env python3
"""Prints what the image and an installation from the lock files contain, as CycloneDX 1.6 in JSON (an SBOM).

It is read from requirements/libiptc.txt, which names every package with its version and its hashes. Packages
of the system (iptables, nftables) are not in it: they come from the machine or from the image's base.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from version import version

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ROOT / "requirements/libiptc.txt"
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


def bill(locked: str, number: str) -> dict[str, Any]:
    """Return the whole document for a version of this package."""
    identity = f"pkg:pypi/istio-iptables@{number}"
    about = {"type": "application", "bom-ref": identity, "name": "istio-iptables", "version": number}
    licences = [{"license": {"id": "Apache-2.0"}}]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**about, "purl": identity, "licenses": licences}},
        "components": components(locked),
    }


if __name__ == "__main__":
    print(json.dumps(bill(LOCKED.read_text(), version()), indent=2))
