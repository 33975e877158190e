"""The size of the container image: what a node keeps on its disk, and what it fetches for that."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from typing import Any, BinaryIO

from .place import Bench


def take(bench: Bench, name: str) -> dict[str, Any] | None:
    """Return the image's layers, the lowest first; None if there is no engine or no such image."""
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            with tempfile.TemporaryFile(dir=bench.folder) as saved:
                done = subprocess.run((engine, "save", name), stdout=saved, stderr=subprocess.DEVNULL)
                if done.returncode == 0:
                    saved.seek(0)
                    return {"layers": layers(saved)}
    return None


def layers(saved: BinaryIO) -> list[dict[str, int]]:
    """Return the bytes of each layer of a saved image: as it is, and compressed as registries keep it."""
    found = []
    with tarfile.open(fileobj=saved) as archive:
        (manifest,) = json.loads(_read(archive, "manifest.json"))
        for layer in manifest["Layers"]:
            content = _read(archive, layer)
            found.append({"unpacked": len(content), "compressed": len(zlib.compress(content, 6))})
    return found


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file of the saved image")
    return member.read()
